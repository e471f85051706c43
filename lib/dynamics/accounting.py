"""What stops a token: replaying Adam from a film, and a ledger of bits that sums.

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib import lattice
from lib.training import movie, optim
from lib.training.config import Run


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
    for start in range(0, wanted[-1] + 1, movie.KEY):
        span = range(max(start, 1), min(start + movie.KEY, wanted[-1] + 1))
        if not span:
            continue
        grads = lattice.value(movie.read(path, "W.grad", list(span), rows))
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
    before, after = movie.read(path, "W", [step - 1, step], rows)
    m = lattice.value(movie.read(path, "W.exp_avg", step, rows)).astype(np.float64)
    v = lattice.value(movie.read(path, "W.exp_avg_sq", step, rows)).astype(np.float64)
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
            *(movie.read(path, n, [step - 1, step], rows) for n in names), strict=True
        )
        given = [_tensor(x) for x in before]
        grad = _tensor(movie.read(path, "W.grad", step, rows))
        c = optim.coefficients(run, step)
        made = optim.adamw_reference(given[0], grad, given[1], given[2], c, update=run.update)
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
    """A frame of a movie as the optimiser sees it: uint16 patterns are bfloat16."""
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
