"""A token's life in four phases, by the last exit from each: there is no way back.

Early: L2 > sqrt(D). Midlife: Linf > 1 step. Late: Linf <= 1. Fimbulwinter: L1 = 0 for the rest of
the run. A token leaves a phase at the *last* step at which its condition holds.

Stragglers: who they are, and which of their components is still moving.

What stops a token: replaying Adam from a film, and a ledger of bits that sums.

A component moves if Adam's update u is at least half the distance to the next lattice point. How
far it is from stopping, in bits, is log2(2 |u| / ULP), and it is the sum of four entries:

    room      log2(2 lr / ULP)             the learning rate against the lattice
    gradient  log2(|m*| / sqrt(v*))        what exact moments make of the gradients so far
    ratchet   log2(sqrt(v*) / sqrt(v))     a second moment that bf16 does not let decay
    momentum  log2(|m| / |m*|)             a first moment rounded to bf16

m and v are the recorded bf16 moments (bias-corrected), m* and v* the moments of the same gradients
in float64. A component is stopped by the first entry that takes the running sum below zero.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from lib import lattice
from lib.analysis.motion import Moves
from lib.training import films, optim
from lib.training.config import Run


class Phase(enum.IntEnum):
    """The phases in order of life."""

    EARLY = 0
    MIDLIFE = 1
    LATE = 2
    FIMBULWINTER = 3

    @property
    def word(self) -> str:
        """For texts and legends."""
        return self.name.capitalize()


@dataclass(frozen=True)
class Lives:
    """Last step (counted from 1; 0: never) at which each condition held; all (rows,) int64."""

    early: np.ndarray  # L2 > sqrt(D)
    midlife: np.ndarray  # Linf > 1
    motion: np.ndarray  # L1 > 0
    steps: int  # length of the run

    def phase(self, step: int) -> np.ndarray:
        """Phase of every row during `step` (1..steps): (rows,) int of Phase."""
        return (step > self.early).astype(int) + (step > self.midlife) + (step > self.motion)

    def strata(self) -> np.ndarray:
        """Share of rows in each phase at each step: (steps, 4) float64, rows sum to 1."""
        at = np.arange(1, self.steps + 1)[:, None]
        left = [np.sort(exits) for exits in (self.early, self.midlife, self.motion)]
        passed = [np.searchsorted(exits, at[:, 0], side="left") for exits in left]
        rows = len(self.motion)
        bounds = np.stack([np.full(self.steps, rows), *passed, np.zeros(self.steps)], 1) / rows
        return bounds[:, :-1] - bounds[:, 1:]

    def stragglers(self, window: int) -> np.ndarray:
        """Indices of rows that moved within the last `window` steps of the run."""
        return np.flatnonzero(self.motion > self.steps - window)


def lives(moves: Moves) -> Lives:
    """Last exits of every row. Needs every step: sampled frames would miss the late moves."""
    return Lives(
        early=_last(moves.l2 > np.sqrt(moves.dim)),
        midlife=_last(moves.linf > 1),
        motion=_last(moves.l1 > 0),
        steps=len(moves.l1),
    )


def _last(condition: np.ndarray) -> np.ndarray:
    """Number of the last true row, counted from 1; 0 where there is none."""
    backwards = condition[::-1]
    return np.where(condition.any(0), len(condition) - backwards.argmax(0), 0)


def sampled(moved: np.ndarray, every: int) -> np.ndarray:
    """Last step (rows,) in which a row is *seen* to move if only every `every`-th step is read.

    moved (steps, rows) bool. It is the last step itself only for `every` = 1.
    """
    return _last(moved[every - 1 :: every]) * every


def still(moves: Moves) -> np.ndarray:
    """Share of rows that do not move at each step: instantaneous freezing, (steps,)."""
    return (moves.l1 == 0).mean(1)


def frozen(lives: Lives) -> np.ndarray:
    """Share of rows that will not move again from each step on: permanent freezing, (steps,).

    The end of the run is not the end of time: what is about to move again counts as frozen.
    """
    return lives.strata()[:, Phase.FIMBULWINTER]


@dataclass(frozen=True)
class Association:
    """How the last motion of a token goes with one of its traits."""

    trait: str
    rho: float  # Spearman's rank correlation
    low: float  # bootstrap interval over the tokens, 95 %
    high: float
    count: int  # tokens


def associations(
    motion: np.ndarray,
    traits: Mapping[str, np.ndarray],
    *,
    draws: int = 1000,
    rng: np.random.Generator,
) -> list[Association]:
    """Rank correlation of `motion` (tokens,) last steps with each trait (tokens,), with intervals.

    A trait that is the same for all tokens has no rank correlation and comes out as NaN.
    """
    picks = rng.integers(0, len(motion), (draws, len(motion)))
    late = stats.rankdata(motion[picks], axis=1)
    found = []
    for name, values in traits.items():
        values = np.asarray(values, np.float64)
        if np.ptp(values) == 0 or np.ptp(motion) == 0:
            found.append(Association(name, np.nan, np.nan, np.nan, len(motion)))
            continue
        drawn = _correlation(late, stats.rankdata(values[picks], axis=1))
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        rho = stats.spearmanr(motion, values).statistic
        found.append(Association(name, float(rho), float(low), float(high), len(motion)))
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis; NaN where one side is constant."""
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


@dataclass(frozen=True)
class Binade:
    """Components of one size at the end of a run."""

    exponent: int  # |w| in [2^exponent, 2^(exponent + 1))
    count: int
    median: float  # median last step in which such a component moved
    moving: float  # share that moved within the window at the end of the run


def by_size(
    last: np.ndarray, component: np.ndarray, *, steps: int, window: int, least: int = 20
) -> list[Binade]:
    """Last motion of components by the binade of their final size, smallest first.

    last (rows, dim) uint16 patterns at the end; component (rows, dim) last steps, from 1. Binades
    with fewer than `least` components are left out.
    """
    exponents = lattice.fields(last).exponent.astype(np.int64) - 127
    found = []
    for exponent in np.unique(exponents):
        steps_of = component[exponents == exponent]
        if len(steps_of) >= least:
            moving = float((steps_of > steps - window).mean())
            found.append(Binade(int(exponent), len(steps_of), float(np.median(steps_of)), moving))
    return found


def shares(component: np.ndarray) -> dict[str, float]:
    """What the last motions (rows, dim) of components vary with; shares of the variance, sum 1.

    `dimension`: between dimensions, the same for all tokens; `token`: between tokens, the same in
    all dimensions; `rest`: what neither explains. Raises ValueError if all are alike.
    """
    x = np.asarray(component, np.float64)
    mean = x.mean()
    total = ((x - mean) ** 2).sum()
    if total == 0:
        raise ValueError("all components moved last in the same step: there is nothing to share")
    dimension = x.shape[0] * ((x.mean(0) - mean) ** 2).sum() / total
    token = x.shape[1] * ((x.mean(1) - mean) ** 2).sum() / total
    return {"dimension": dimension, "token": token, "rest": 1 - dimension - token}


class Cause(enum.IntEnum):
    """Why a component stands still in a step, or that it does not."""

    ROOM = 0  # the learning rate itself is below half a ULP
    GRADIENT = 1
    RATCHET = 2
    MOMENTUM = 3
    MOVES = 4

    @property
    def word(self) -> str:
        """For texts and legends."""
        return self.name.capitalize()


@dataclass(frozen=True)
class Ledger:
    """The accounts of some steps; each array (steps, rows, dim) float32, in bits."""

    steps: np.ndarray  # (steps,) numbers of the steps, from 1
    room: np.ndarray
    gradient: np.ndarray
    ratchet: np.ndarray
    momentum: np.ndarray
    total: np.ndarray  # log2(2 |u| / ULP) computed from u itself
    moved: np.ndarray  # bool: what the film shows

    def causes(self) -> np.ndarray:
        """Cause of every component: (steps, rows, dim) int8 of Cause."""
        running = np.zeros_like(self.room)
        cause = np.full(self.room.shape, Cause.MOVES, np.int8)
        for kind in (Cause.ROOM, Cause.GRADIENT, Cause.RATCHET, Cause.MOMENTUM):
            running = running + getattr(self, kind.name.lower())
            cause[(running < 0) & (cause == Cause.MOVES)] = kind
        return cause

    def shares(self) -> np.ndarray:
        """Share of components per step and cause: (steps, 5); rows sum to 1."""
        causes = self.causes().reshape(len(self.steps), -1)
        return np.stack([(causes == kind).mean(1) for kind in Cause], 1)


def ledger(path: Path, rows: np.ndarray, run: Run, steps: Sequence[int]) -> Ledger:
    """The accounts of `rows` at `steps`, from a film with W, W.grad, W.exp_avg, W.exp_avg_sq.

    Goes through all gradients up to the last of the steps, because exact moments remember them.
    """
    wanted, entries = sorted(steps), []
    m = np.zeros((len(rows), run.dim))
    v = np.zeros_like(m)
    for start in range(0, wanted[-1] + 1, films.KEY):
        span = range(max(start, 1), min(start + films.KEY, wanted[-1] + 1))
        if not span:
            continue
        grads = lattice.value(films.read(path, "W.grad", list(span), rows))
        for step, g in zip(span, grads, strict=True):
            m = run.beta1 * m + (1 - run.beta1) * g
            v = run.beta2 * v + (1 - run.beta2) * np.square(g, dtype=np.float64)
            if step in wanted:
                entries.append(_entry(path, rows, run, step, m, v))
    names = ("room", "gradient", "ratchet", "momentum", "total", "moved")
    stacked = {n: np.stack([e[n] for e in entries]) for n in names}
    return Ledger(steps=np.array(wanted), **stacked)


def _entry(
    path: Path, rows: np.ndarray, run: Run, step: int, m_free: np.ndarray, v_free: np.ndarray
) -> dict[str, np.ndarray]:
    before, after = films.read(path, "W", [step - 1, step], rows)
    m = lattice.value(films.read(path, "W.exp_avg", step, rows)).astype(np.float64)
    v = lattice.value(films.read(path, "W.exp_avg_sq", step, rows)).astype(np.float64)
    c = optim.coefficients(run, step)
    b1, b2 = c.step_size / c.lr, 1 / c.correction**2  # bias corrections
    half = 0.5 * lattice.ulp(before)
    tiny = 1e-300  # keeps logarithms of zero finite (and far below any threshold)

    def root(second: np.ndarray) -> np.ndarray:
        return np.sqrt(second * b2) + c.eps

    m, m_free = np.abs(m) + tiny, np.abs(m_free) + tiny
    u = c.lr * b1 * m / root(v)
    entries = {
        "room": np.log2(c.lr / half),
        "gradient": np.log2(m_free * b1 / root(v_free)),
        "ratchet": np.log2(root(v_free) / root(v)),
        "momentum": np.log2(m / m_free),
        "total": np.log2(u / half),
        "moved": before != after,
    }
    return {k: x if k == "moved" else x.astype(np.float32) for k, x in entries.items()}


# ----------------------------------------------------------------------------- replay
@dataclass(frozen=True)
class Replay:
    """Adam replayed from recorded states against what was filmed."""

    exact: float  # share of components whose predicted pattern is the filmed one
    moments: float  # the same for both moments
    error: float  # largest |predicted - filmed| weight, the prediction not rounded when stored
    half_ulp: float  # the same in units of half a ULP: at most 1 if only the last rounding counts


def replay(path: Path, rows: np.ndarray, run: Run, steps: Sequence[int]) -> Replay:
    """Predict W, m and v of each step from the frame before and the recorded gradient.

    The film is one on the bf16 lattice throughout, or float32 throughout.
    """
    exact, moments, worst, ulps = [], [], 0.0, 0.0
    for step in steps:
        names = ("W", "W.exp_avg", "W.exp_avg_sq")
        before, after = zip(
            *(films.read(path, n, [step - 1, step], rows) for n in names), strict=True
        )
        given = [_tensor(x) for x in before]
        grad = _tensor(films.read(path, "W.grad", step, rows))
        c = optim.coefficients(run, step)
        made = optim.adamw_reference(given[0], grad, given[1], given[2], run, step)
        same = [_patterns(x) == y for x, y in zip(made, after, strict=True)]
        exact.append(same[0].mean())
        moments.append((same[1] & same[2]).mean())
        w, m, v = (_value(x).astype(np.float64) for x in (before[0], after[1], after[2]))
        u = -c.step_size * m / (np.sqrt(v) / c.correction + c.eps)
        off = np.abs(w + u - _value(after[0]))
        worst = max(worst, float(off.max()))
        reach = 0.5 * np.maximum(_ulp(before[0]), _ulp(after[0]))
        ulps = max(ulps, float((off / reach).max()))
    return Replay(float(np.mean(exact)), float(np.mean(moments)), worst, ulps)


def _tensor(frame: np.ndarray) -> torch.Tensor:
    """A frame of a film as the optimiser sees it: uint16 patterns are bfloat16."""
    if frame.dtype == np.uint16:
        return torch.from_numpy(np.ascontiguousarray(frame).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(frame))


def _patterns(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def _value(frame: np.ndarray) -> np.ndarray:
    return lattice.value(frame) if frame.dtype == np.uint16 else frame


def _ulp(frame: np.ndarray) -> np.ndarray:
    return lattice.ulp(frame) if frame.dtype == np.uint16 else np.spacing(np.abs(frame))
