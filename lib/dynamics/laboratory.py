"""What the generator chapters of the dynamics part make beyond the first film.

As lib.training.experiments: a generator and its analysers call the same functions with the same
settings, so they cannot disagree about which artefact is meant.
"""

from collections.abc import Mapping
from typing import Any

from lib import artifacts
from lib.dynamics import arms, gauge
from lib.training import experiments, films
from lib.training.config import EAGER_BF16, FLANNEL, FLOAT32, FP32_MASTER, GATSBY, GOLDILOCKS, Run

Settings = Mapping[str, Any]


# ----------------------------------------------------------------------------- Gatsby
def gatsby_world(s: Settings) -> dict[str, Any]:
    """128 ASCII characters and one novel."""
    return {"name": "gatsby", "characters": s["novel_characters"]}


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
def supernova(s: Settings, vocab: int) -> dict[str, Any]:
    """Goldilocks' first steps with N(0, 0.02) and N(0, 1) rows."""
    run = GOLDILOCKS.replace(
        vocab=vocab, seq=s["seq"], batch=s["nova_batch"], steps=s["nova_steps"], seed=s["seed"]
    )
    runs = [run, run.replace(init_std=1.0)]
    return {"world": experiments.goldilocks_world(s), "runs": [r.as_dict() for r in runs]}


def widths(s: Settings, vocab: int) -> dict[str, Any]:
    """One block of growing width, a few steps: is the live/dead ratio a matter of width?"""
    runs = [
        GOLDILOCKS.replace(
            vocab=vocab, dim=dim, ff=2 * dim, layers=1, seq=s["width_seq"], batch=s["width_batch"],
            steps=s["width_steps"], seed=s["seed"],
        )
        for dim in s["widths"]
    ]  # fmt: skip
    return {"world": experiments.goldilocks_world(s), "runs": [r.as_dict() for r in runs]}


def recipes(s: Settings) -> dict[str, Any]:
    """The everyday recipe and true eager bf16, from the same start."""
    run = flannel_run(s, steps=s["eager_steps"])
    runs = [run, run.replace(**EAGER_BF16), run.replace(**FLOAT32)]
    return {"world": flannel_world(s), "runs": [r.as_dict() for r in runs]}


# ----------------------------------------------------------------------------- Winters
def winter_arms(s: Settings) -> dict[str, dict[str, Any]]:
    """Label -> arm: what weight decay, precision, learning rate and beta2 do to freezing."""
    base = FLANNEL.replace(
        vocab=s["vocab"], layers=s["layers"], seq=s["seq"], batch=s["batch"], steps=s["steps"],
        lr=s["lr"], seed=s["seed"],
    )  # fmt: skip
    decay = {"weight_decay": s["weight_decay"]}
    changes: dict[str, dict[str, Any]] = {
        "bf16": {},
        "bf16, decay": decay,
        "fp32 master": FP32_MASTER,
        "fp32 master, decay": {**FP32_MASTER, **decay},
        "stochastic": {"rounding": "stochastic"},
        "lr / 3": {"lr": s["lr"] / 3},
        "lr x 3": {"lr": s["lr"] * 3},
        "beta2 0.95": {"beta2": 0.95},
        "float32 moments": {"state_dtype": "float32"},
    }
    return {label: {"run": base.replace(**change)} for label, change in changes.items()}


# ----------------------------------------------------------------------------- making or loading
def watched(
    chapter: str, world: Mapping[str, Any], wanted: Mapping[str, Mapping], *, make: bool
) -> dict[str, dict[str, Any]]:
    """Arms by label (see arms.make): made if need be, or only loaded."""
    runs = [{**arm, "run": arm["run"].as_dict()} for arm in wanted.values()]
    made = films.get(arms.RECIPE, chapter, {"world": dict(world), "runs": runs}, make=make)
    return arms.unpack(made.tensors, list(wanted))


def gauged(chapter: str, params: Settings, *, make: bool) -> artifacts.Artifact:
    """Gauge readings: made if need be, or only loaded."""
    return films.get(gauge.RECIPE, chapter, params, make=make)
