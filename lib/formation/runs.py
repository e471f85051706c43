"""Small models whose dead rows are watched while they coalesce.

The vocabulary has `live` tokens learned from English text and, above them, rows that no text ever
uses: dead by construction, like the rows without a token at the end of Qwen's matrix. A run keeps
snapshots of the dead rows in the finest arithmetic it knows, so every later question (spread,
holes, populations, lattice steps) is asked of the same record.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lib import artifacts, lattice
from lib.formation.response import Tangent
from lib.tokens import bpe, corpus
from lib.training import loop, model, optim
from lib.training.config import Rounding, Run

# The common ground of all runs; an arm changes a few fields of it. Float32 everywhere: the law is
# about the update rule, and the arms that ask about arithmetic say so.
GROUND = {
    "dim": 48,
    "layers": 1,
    "heads": 2,
    "ff": 96,
    "seq": 32,
    "batch": 8,
    "lr": 1e-3,
    "weight_decay": 3.0,
    "beta2": 0.95,
    "param_dtype": "float32",
    "grad_dtype": "float32",
    "state_dtype": "float32",
}


@lru_cache(maxsize=4)
def stream(
    live: int,
    characters: int,
    rare: int = 0,
    copies: tuple[int, ...] = (1,),
    seed: int = 42,
) -> np.ndarray:
    """English text as ids below `live`: (tokens,) int64.

    With `rare` > 0, ids `live` .. `live + rare - 1` replace tokens at random places, nearly dead
    tokens: the first of equal shares of them at copies[0] places each, the next at copies[1], ...
    """
    text = corpus.english(characters)
    tokenizer = bpe.train(text, live, level="character")
    ids = np.asarray(bpe.encode(tokenizer, text)).astype(np.int64)
    if rare:
        rng = np.random.default_rng(seed)
        each = np.repeat(copies, -(-rare // len(copies)))[:rare]
        places = rng.choice(len(ids) - 1, each.sum(), replace=False)
        ids[places] = np.repeat(np.arange(live, live + rare), each)
    ids.flags.writeable = False
    return ids


def meetings(run: Run, ids: np.ndarray, wanted: slice, until: int = 0) -> np.ndarray:
    """How often each id of `wanted` was a target or an input at each step: (steps + 1, n, 2) int64.

    Batches are drawn anew from the run's seed, so nothing has to be recorded while it trains.
    `until` > 0: after that step the text had none of them.
    """
    met = np.zeros((run.steps + 1, wanted.stop - wanted.start, 2), dtype=np.int64)
    for step in range(1, (until or run.steps) + 1):
        inputs, targets = (part.numpy().ravel() for part in loop.batch(ids, run, step))
        for kind, seen in enumerate((targets, inputs)):
            hits = seen[(seen >= wanted.start) & (seen < wanted.stop)] - wanted.start
            np.add.at(met[step, :, kind], hits, 1)
    return met


def last_seen(met: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When each id was last read or wanted, (n,) int64 steps (0: never), and how often it was a
    target, (n,). `met` as from `meetings`; tied rows move as inputs too.
    """
    seen = met.sum(axis=2) > 0
    steps = np.where(seen.any(axis=0), len(met) - 1 - seen[::-1].argmax(axis=0), 0)
    return steps, met[:, :, 0].sum(axis=0)


def make(
    *,
    live: int,
    dead: int,
    characters: int,
    snapshots: int,
    tangent_from: int = 0,
    rare: int = 0,
    copies: Sequence[int] = (1,),
    until: int = 0,
    second: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, np.ndarray]:
    """Train one run and return its record.

    `fields` override GROUND (see lib.training.config.Run); rows `live` .. `live + dead - 1` are
    watched, of which the first `rare` occur in the text (see `stream`), up to step `until` if that
    is not 0 (which needs a constant learning rate). `tangent_from` > 0: from that step on the
    linear response of Adam predicts the spread. `second`: after the run all
    parameters are cast to bf16 and trained on with these fields changed and a fresh optimiser, as
    an instruct model follows a base model; its arrays carry the prefix "second.".

    Returns steps (S,) int64; rows (S, dead, dim) float32; exposure (S,) float64, the sum of
    -ln(1 - lr_s wd); live_norm (S,) the median; live_centroid (S, dim); losses (steps,) float32;
    contraction (steps, 2) float64, the shares of the squared spread that decay and update took;
    predicted (S,) float64, the tangent's spread (NaN before it starts); rounding_noise (steps,)
    float64, the power that stochastic rounding adds to the squared spread; push (S, dim) float64,
    Adam's mean update of the never seen rows before the learning rate; gradient and hidden (steps,)
    float64, rms per component of the last watched row's gradient and of the last hidden states.
    """
    run = Run(**{**GROUND, "vocab": live + dead, **fields})
    watched = slice(live, live + dead)
    ids = stream(live, characters, rare, tuple(copies), run.seed)
    after = stream(live, characters) if until else None
    arrays, state = record(run, ids, watched, snapshots, tangent_from, later=(until, after))
    if second is None:
        return arrays
    exported = optim.finest(state).bfloat16().float()
    run = run.replace(**second)
    again, _ = record(run, ids, watched, snapshots, first=exported)
    return arrays | {f"second.{name}": array for name, array in again.items()}


def record(
    run: Run,
    ids: np.ndarray,
    dead: slice,
    snapshots: int,
    tangent_from: int = 0,
    first: torch.Tensor | None = None,
    later: tuple[int, np.ndarray | None] = (0, None),
) -> tuple[dict[str, np.ndarray], optim.State]:
    """Train `run` on `ids`, watch rows `dead`; arrays as in `make`, and the last state.

    `first` (parameters,) float32 are initial parameters in place of the run's own. `later` = (step,
    ids): after that step the text is another one.
    """
    keep = np.unique(np.linspace(0, run.steps, snapshots + 1).round().astype(int))
    rows, live_norm, live_centroid = [], [], []
    tangent = Tangent(run, dead, tangent_from) if tangent_from else None
    predicted = np.full(len(keep), np.nan)
    contraction = np.zeros((run.steps, 2))
    noise, gradient, hidden = np.zeros((3, run.steps))
    push = []
    last = slice(dead.stop - 1, dead.stop)  # a row that no text uses, rare ones being the first
    moving = np.zeros(run.steps, dtype=np.int64)
    before = np.empty(0)

    def observe(moment: loop.Moment) -> None:
        nonlocal before  # the rows of the step before: the one thing an observer must remember
        if tangent is not None:
            tangent(moment)
        now = _finest_rows(moment.state, run, dead)
        if moment.step:
            decay = 1 - moment.lr * run.weight_decay
            contraction[moment.step - 1] = split_contraction(before, now, decay)
            moving[moment.step - 1] = _moved(moment, dead)
            gradient[moment.step - 1] = moment.grads["W"][last].float().square().mean().sqrt()
            hidden[moment.step - 1] = moment.h.square().mean().sqrt()
            if run.rounding == Rounding.STOCHASTIC:
                noise[moment.step - 1] = rounding_noise(moment, dead)
        before = now
        where = np.searchsorted(keep, moment.step)
        if where < len(keep) and keep[where] == moment.step:
            live = moment.params["W"][: dead.start].float()
            rows.append(now.astype(np.float32))
            live_norm.append(live.norm(dim=1).median().item())
            live_centroid.append(live.mean(0).numpy())
            push.append(_push(moment, dead))
            if tangent is not None:
                predicted[where] = tangent.spread()

    resume = None if first is None else (optim.start(run, first), None)
    until, after = later
    if after is not None:  # the same run in two pieces: the second goes on with the other text
        piece = loop.train(run.replace(steps=until), ids, observers=[observe], resume=resume)
        resume, ids = (piece.state, piece.losses), after
    outcome = loop.train(run, ids, observers=[observe], resume=resume, label="coalescence")
    arrays = {
        "steps": keep,
        "rows": np.stack(rows),
        "exposure": exposure(run)[keep],
        "live_norm": np.array(live_norm),
        "live_centroid": np.stack(live_centroid),
        "losses": outcome.losses,
        "contraction": contraction,
        "predicted": predicted,
        "rounding_noise": noise,
        "moving": moving,
        "push": np.stack(push),
        "gradient": gradient,
        "hidden": hidden,
    }
    return arrays, outcome.state


def exposure(run: Run) -> np.ndarray:
    """Weight-decay exposure Lambda_t = -sum ln(1 - lr_s wd), (steps + 1,) float64; Lambda_0 = 0."""
    lr = np.array([optim.learning_rate(run, step) for step in range(1, run.steps + 1)])
    return np.concatenate([[0.0], np.cumsum(-np.log1p(-lr * run.weight_decay))])


def split_contraction(before: np.ndarray, after: np.ndarray, decay: float) -> np.ndarray:
    """What one step did to the squared spread: (2,) = shares taken by decay and by the update.

    With d the rows (N, D) less their centroid, d_after = decay * d + e defines the update's part
    e (rounding included); the squared spread changes by the factor decay^2 + 2 decay <d.e>/<d.d> +
    <e.e>/<d.d>. Returned are 1 - decay^2 and minus the rest, so both are positive when they shrink.
    """
    d = before - before.mean(0)
    e = (after - after.mean(0)) - decay * d
    power = (d * d).sum() or np.nan
    return np.array([1 - decay**2, -(2 * decay * (d * e).sum() + (e * e).sum()) / power])


def rounding_noise(moment: loop.Moment, dead: slice) -> float:
    """Mean power that stochastic rounding adds to a dead row in one step: sum_d ulp^2 f (1 - f).

    f is where between two lattice points the wanted value lies: an upward rounding has that
    probability, and the variance of such a coin is f (1 - f).
    """
    run, c = moment.run, optim.coefficients(moment.run, moment.step)
    before = moment.before["W"][dead].float()
    m, v = (moment_[dead].float() for moment_ in (moment.exp_avg["W"], moment.exp_avg_sq["W"]))
    wanted = before * (1 - moment.lr * run.weight_decay)
    wanted = wanted - c.step_size * m / (v.sqrt() / c.correction + c.eps)
    ulp = lattice.ulp(before.bfloat16())
    f = torch.frac(((wanted - before) / ulp).abs())
    return float((ulp**2 * f * (1 - f)).sum(1).mean())


def _push(moment: loop.Moment, dead: slice) -> np.ndarray:
    """Mean over watched rows of Adam's update without the learning rate, (dim,) float64."""
    if not moment.step:
        return np.zeros(moment.run.dim)
    c = optim.coefficients(moment.run, moment.step)
    m, v = (named["W"][dead].double() for named in (moment.exp_avg, moment.exp_avg_sq))
    update = m / (1 - c.beta1**moment.step) / (v.sqrt() / c.correction + c.eps)
    return update.median(0).values.numpy()


def _moved(moment: loop.Moment, dead: slice) -> int:
    """Watched rows whose bf16 view is another than before the step."""
    before, after = (named["W"][dead].bfloat16() for named in (moment.before, moment.params))
    return int((before != after).any(dim=1).sum())


def _finest_rows(state: optim.State, run: Run, dead: slice) -> np.ndarray:
    """The watched rows as finely as the run knows them: (dead, dim) float64."""
    finest = state.param if state.master is None else state.master
    finest = optim.finest(state) if state.low is not None else finest
    return model.views(finest, run)["W"][dead].double().numpy()


RUN = artifacts.Recipe(
    name="coalescence-run",
    make=make,
    modules=("lib.formation.runs",),
    chapter="coalescence/02-runs",
)
ARM = dataclasses.replace(RUN, name="coalescence-arm", chapter="coalescence/04-arms")
