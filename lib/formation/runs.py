"""Small models whose dead rows are watched while they coalesce.

The vocabulary has `live` tokens learned from English text and, above them, rows that no text ever
uses: dead by construction, like the rows without a token at the end of Qwen's matrix. A run keeps
snapshots of the dead rows in the finest arithmetic it knows, so every later question (spread,
holes, populations, lattice steps) is asked of the same record.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lib import artifacts
from lib.formation.response import Tangent
from lib.tokens import bpe, corpus
from lib.training import loop, model, optim
from lib.training.config import Run

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


def stream(live: int, characters: int, rare: int = 0, copies: int = 1, seed: int = 42):
    """English text as ids below `live`: (tokens,) int64.

    With `rare` > 0, ids `live` .. `live + rare - 1` replace tokens at `copies` random places each:
    nearly dead tokens.
    """
    text = corpus.english(characters)
    tokenizer = bpe.train(text, live, level="character")
    ids = np.asarray(bpe.encode(tokenizer, text)).astype(np.int64)
    if rare:
        rng = np.random.default_rng(seed)
        places = rng.choice(len(ids) - 1, rare * copies, replace=False)
        ids[places] = np.repeat(np.arange(live, live + rare), copies)
    return ids


def make(
    *,
    live: int,
    dead: int,
    characters: int,
    snapshots: int,
    tangent_from: int = 0,
    rare: int = 0,
    copies: int = 1,
    start: str = "",
    **fields: Any,
) -> dict[str, np.ndarray]:
    """Train one run and return its record.

    `fields` override GROUND (see lib.training.config.Run); rows `live` .. `live + dead - 1` are
    watched. `tangent_from` > 0: from that step on the linear response of Adam predicts the spread.
    `start` is a folder-less name kept for provenance of two-stage runs, which hand their first
    state over in `continue_run`.

    Returns steps (S,) int64; rows (S, dead, dim) float32; exposure (S,) float64, the sum of
    -ln(1 - lr_s wd); live_norm, live_centroid (S, dim); losses (steps,) float32; contraction
    (steps, 2) float64, the share of the squared spread that decay and update took at each step;
    predicted (S,) float64, the tangent's spread (NaN before it starts).
    """
    run = Run(**{**GROUND, "vocab": live + dead, **fields})
    ids = stream(live, characters, rare, copies, run.seed)
    return record(run, ids, slice(live, live + dead), snapshots, tangent_from)


def record(
    run: Run,
    ids: np.ndarray,
    dead: slice,
    snapshots: int,
    tangent_from: int = 0,
    first: torch.Tensor | None = None,
) -> dict[str, np.ndarray]:
    """Train `run` on `ids` and watch rows `dead`; see `make` for what is returned.

    `first` (parameters,) float32 are initial parameters in place of the run's own.
    """
    keep = np.unique(np.linspace(0, run.steps, snapshots + 1).round().astype(int))
    rows, live_norm, live_centroid = [], [], []
    tangent = Tangent(run, dead, tangent_from) if tangent_from else None
    predicted = np.full(len(keep), np.nan)
    contraction = np.zeros((run.steps, 2))
    before = np.empty(0)

    def observe(moment: loop.Moment) -> None:
        nonlocal before
        if tangent is not None:
            tangent(moment)
        now = _finest_rows(moment, run, dead)
        if moment.step:
            decay = 1 - moment.lr * run.weight_decay
            contraction[moment.step - 1] = split_contraction(before, now, decay)
        before = now
        where = np.searchsorted(keep, moment.step)
        if where < len(keep) and keep[where] == moment.step:
            W = moment.params["W"].float()
            live = W[: dead.start]
            rows.append(now.astype(np.float32))
            live_norm.append(live.norm(dim=1).median().item())
            live_centroid.append(live.mean(0).numpy())
            if tangent is not None:
                predicted[where] = tangent.spread()

    resume = None if first is None else (optim.start(run, first), None)
    outcome = loop.train(run, ids, observers=[observe], resume=resume, label="coalescence")
    return {
        "steps": keep,
        "rows": np.stack(rows),
        "exposure": exposure(run)[keep],
        "live_norm": np.array(live_norm, dtype=np.float64),
        "live_centroid": np.stack(live_centroid),
        "losses": outcome.losses,
        "contraction": contraction,
        "predicted": predicted,
    }


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


def _finest_rows(moment: loop.Moment, run: Run, dead: slice) -> np.ndarray:
    finest = moment.state.param if moment.state.master is None else moment.state.master
    if moment.state.low is not None:
        finest = optim.finest(moment.state)
    return model.views(finest, run)["W"][dead].float().numpy().astype(np.float64)


RUN = artifacts.Recipe(
    name="coalescence-run",
    make=make,
    modules=("lib.training", "lib.tokens.bpe", "lib.tokens.corpus", "lib.formation.runs",
             "lib.formation.response", "lib.lattice"),
    chapter="coalescence/02-runs",
)  # fmt: skip


def parameters(common: Mapping[str, Any], arm: Mapping[str, Any]) -> dict[str, Any]:
    """The artefact parameters of one arm: what is common to all, then what the arm changes."""
    return {**common, **arm}
