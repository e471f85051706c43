"""What the generator chapters of the dynamics part make beyond the first film.

As lib.training.experiments: a generator and its analysers call the same functions with the same
settings, so they cannot disagree about which artefact is meant.
"""

from collections.abc import Mapping
from typing import Any

from lib.dynamics import arms, gauge
from lib.training import experiments, films
from lib.training.config import EAGER_BF16, FLANNEL, FLOAT32, FP32_MASTER, GATSBY, GOLDILOCKS, Run

Settings = Mapping[str, Any]


# ----------------------------------------------------------------------------- Gatsby
def gatsby_world(s: Settings) -> dict[str, Any]:
    """128 ASCII characters and one novel."""
    return {"name": "gatsby", "characters": s["novel_characters"], "text": s["novel"]}


def gatsby_run(s: Settings, **changes: Any) -> Run:
    """All rows start as one point N(0, point_std), with or without noise."""
    sizes = {
        "seq": s["gatsby_seq"],
        "batch": s["gatsby_batch"],
        "steps": s["gatsby_steps"],
        "init_std": s["point_std"],
        "seed": s["seed"],
    }
    return GATSBY.replace(**{**sizes, **changes})


def gatsby_film(s: Settings) -> dict[str, Any]:
    """The evaporation of the primordial hole, every step."""
    run = gatsby_run(s, init="point")
    return {"world": gatsby_world(s), "run": run.as_dict(), "record": ["W"]}


def gatsby_ends(s: Settings, init: str) -> dict[str, Any]:
    """First and last rows of several seeds with noise added in float32, or cast to bf16 first."""
    runs = [
        gatsby_run(s, init=init, init_noise=s["noise"], seed=s["seed"] + i)
        for i in range(s["gatsby_seeds"])
    ]
    return {"world": gatsby_world(s), "runs": [run.as_dict() for run in runs]}


# ----------------------------------------------------------------------------- Flannel
def flannel_world(s: Settings) -> dict[str, Any]:
    """The world of dynamics/01-train."""
    return experiments.train_world(s)


def flannel_run(s: Settings, **changes: Any) -> Run:
    """A Flannel run at the arms' sizes."""
    sizes = {"seq": s["seq"], "batch": s["batch"], "steps": s["arm_steps"], "seed": s["seed"]}
    return FLANNEL.replace(vocab=s["vocab"], **{**sizes, **changes})


def flannel_arms(s: Settings) -> dict[str, dict[str, Any]]:
    """Label -> arm: the base, seeds, sigmas, untied, a larger batch, and causes taken away."""
    base = flannel_run(s)
    wanted: dict[str, dict[str, Any]] = {"base": {"run": base}}
    for i in range(1, s["seeds"]):
        wanted[f"seed {base.seed + i}"] = {"run": base.replace(seed=base.seed + i)}
    for sigma in s["sigmas"]:
        wanted[f"sigma {sigma:g}"] = {"run": base.replace(init_std=sigma)}
    wanted["untied W"] = {"run": base.replace(tied=False)}
    wanted["untied E"] = {"run": base.replace(tied=False), "matrix": "E"}
    wanted["batch x 4"] = {"run": base.replace(batch=4 * base.batch)}
    wanted["float32"] = {"run": base.replace(**FLOAT32)}
    for name in arms.INTERVENTIONS:
        wanted[name] = {"run": base, "intervene": name}
    wanted["common, float32"] = {"run": base.replace(**FLOAT32), "intervene": "common"}
    return wanted


# ----------------------------------------------------------------------------- Supernova
def nova_world(s: Settings) -> dict[str, Any]:
    """The world of goldilocks/01-design, whose texts are not as long as Flannel's."""
    sizes = dict.fromkeys(("tokenizer_characters", "characters"), s["nova_characters"])
    return experiments.goldilocks_world({**s, **sizes})


def supernova(s: Settings, vocab: int) -> dict[str, Any]:
    """Goldilocks' first steps with N(0, 0.02) and N(0, 1) rows."""
    run = GOLDILOCKS.replace(
        vocab=vocab, seq=s["seq"], batch=s["nova_batch"], steps=s["nova_steps"], seed=s["seed"]
    )
    runs = [run, run.replace(init_std=1.0)]
    return {"world": nova_world(s), "runs": [r.as_dict() for r in runs]}


def unasked(dim: int) -> dict[str, float]:
    """Spreads of all but the rows, about as PyTorch draws them if nobody asks.

    Positions N(0, 1), as nn.Embedding; matrices with the standard deviation of nn.Linear at width
    `dim`, 1 / sqrt(3 dim), though normal and not uniform, and without its biases.
    """
    return {"positions_std": 1.0, "hidden_std": (3 * dim) ** -0.5}


def defaults(s: Settings, vocab: int) -> dict[str, Any]:
    """Step 1 of Goldilocks at its own batch, all but the rows unasked: rows small, rows N(0, 1)."""
    base = GOLDILOCKS.replace(vocab=vocab, steps=1, **unasked(GOLDILOCKS.dim))
    runs = [
        base.replace(init_std=std, seed=s["seed"] + i)
        for std in (base.init_std, 1.0)
        for i in range(s["default_seeds"])
    ]
    return {"world": nova_world(s), "runs": [r.as_dict() for r in runs]}


def stamp(s: Settings, vocab: int) -> dict[str, Any]:
    """The small start of `defaults` for as many steps as the supernova runs."""
    run = GOLDILOCKS.replace(
        vocab=vocab, steps=s["nova_steps"], seed=s["seed"], **unasked(GOLDILOCKS.dim)
    )
    return {"world": nova_world(s), "runs": [run.as_dict()]}


def widths(s: Settings, vocab: int) -> dict[str, Any]:
    """A few steps at growing width, for each learning rate: is live/dead a matter of width?"""
    runs = [
        _widened(s, vocab, dim, lr, s["seed"]).as_dict()
        for lr in s["width_lrs"]
        for dim in s["widths"]
    ]
    return {"world": nova_world(s), "runs": runs}


def widest(s: Settings, vocab: int) -> dict[str, Any]:
    """The widest of them at the last learning rate, from `wide_seeds` seeds."""
    runs = [
        _widened(s, vocab, s["widths"][-1], s["width_lrs"][-1], s["seed"] + i).as_dict()
        for i in range(s["wide_seeds"])
    ]
    return {"world": nova_world(s), "runs": runs}


def _widened(s: Settings, vocab: int, dim: int, lr: float, seed: int) -> Run:
    """Goldilocks, `dim` wide; all but the rows as PyTorch draws it, as the sources had it."""
    return GOLDILOCKS.replace(
        vocab=vocab, dim=dim, ff=2 * dim, layers=s["width_layers"], seq=s["width_seq"],
        batch=s["width_batch"], steps=s["width_steps"], lr=lr, seed=seed, **unasked(dim),
    )  # fmt: skip


def recipes(s: Settings) -> dict[str, Any]:
    """The everyday recipe and true eager bf16, from the same start."""
    run = flannel_run(s, steps=s["eager_steps"])
    runs = [run, run.replace(**EAGER_BF16), run.replace(**FLOAT32)]
    return {"world": flannel_world(s), "runs": [r.as_dict() for r in runs]}


# ----------------------------------------------------------------------------- Wordybird, Thimble
def wordybird(s: Settings) -> Run:
    """GPT-2's vocabulary on a Flannel body; the sources' batch was 32."""
    return FLANNEL.replace(
        vocab=s["wordy_vocab"], seq=s["wordy_seq"], batch=s["wordy_batch"], steps=s["wordy_steps"]
    )


def wordybird_speed(s: Settings) -> dict[str, Any]:
    """Its steps, timed."""
    return {"runs": [wordybird(s).as_dict()], "repeats": 2}


def thimble_float(s: Settings) -> dict[str, Any]:
    """A film in float32 throughout, dead rows only, to replay Adam from."""
    run = flannel_run(s, steps=s["replay_steps"], **FLOAT32)
    record = ["W:few", "W.grad:few", "W.exp_avg:few", "W.exp_avg_sq:few"]
    return {"world": flannel_world(s), "run": run.as_dict(), "record": record}


# ----------------------------------------------------------------------------- Winters
FACTORS = {  # label -> (weights on the bf16 lattice, moments on it, beta2 that bf16 cannot apply)
    "bf16": (True, True, True),
    "float32 moments": (True, False, True),
    "fp32 master, bf16 moments": (False, True, True),
    "fp32 master": (False, False, True),
    "beta2 0.95": (True, True, False),
    "float32 moments, beta2 0.95": (True, False, False),
    "fp32 master, bf16 moments, beta2 0.95": (False, True, False),
    "fp32 master, beta2 0.95": (False, False, False),
}


def seeded(label: str, number: int) -> str:
    """Label of the same arm with the `number`-th seed; 0 is the base seed."""
    return label if number == 0 else f"{label}, seed + {number}"


def seeds_of(s: Settings, label: str) -> range:
    """Numbers of the seeds of an arm of FACTORS: several with the long memory, one without it."""
    return range(s["seeds"] if FACTORS[label][2] else 1)


def winter_base(s: Settings) -> Run:
    """The run that every winter is a change of: pure bf16, in a small world."""
    return FLANNEL.replace(
        vocab=s["vocab"], layers=s["layers"], seq=s["seq"], batch=s["batch"], steps=s["steps"],
        lr=s["lr"], seed=s["seed"],
    )  # fmt: skip


def long_winter(s: Settings) -> dict[str, dict[str, Any]]:
    """The base for `long` times as many steps."""
    return {"long": {"run": winter_base(s).replace(steps=s["long"] * s["steps"])}}


def winter_arms(s: Settings) -> dict[str, dict[str, Any]]:
    """Label -> arm: what decay, precision, learning rate, beta2 and the start do to freezing.

    The eight arms of FACTORS cross weights, moments and beta2.
    """
    base = winter_base(s)
    decay = {"weight_decay": s["weight_decay"]}
    changes: dict[str, dict[str, Any]] = {}
    for label, (coarse, rounded, slow) in FACTORS.items():
        arm = {
            "master": "none" if coarse else "fp32",
            "state_dtype": "bfloat16" if rounded else "float32",
            "beta2": 0.999 if slow else 0.95,
        }
        for number in seeds_of(s, label):
            changes[seeded(label, number)] = {**arm, "seed": s["seed"] + number}
    changes |= {
        "bf16, decay": decay,
        "fp32 master, decay": {**FP32_MASTER, **decay},
        "stochastic": {"rounding": "stochastic"},
        "lr / 3": {"lr": s["lr"] / 3},
        "lr x 3": {"lr": s["lr"] * 3},
        "N(0, 1)": {"init_std": 1.0},
    }
    return {label: {"run": base.replace(**change)} for label, change in changes.items()}


# ----------------------------------------------------------------------------- making or loading
def watched(
    chapter: str, world: Settings, wanted: Mapping[str, Settings], *, make: bool
) -> dict[str, dict[str, Any]]:
    """Arms by label (see arms.make): made if need be, or only loaded."""
    runs = [{**arm, "run": arm["run"].as_dict()} for arm in wanted.values()]
    made = films.each(arms.RECIPE, chapter, {"world": dict(world)}, runs, make=make)
    return {label: artefact.tensors for label, artefact in zip(wanted, made.artefacts, strict=True)}


def gauged(chapter: str, params: Settings, *, make: bool) -> films.Together:
    """Gauge readings of `runs`, (runs, steps): made if need be, or only loaded."""
    runs = [{"run": run} for run in params["runs"]]
    return films.each(gauge.RECIPE, chapter, {"world": params["world"]}, runs, make=make)
