"""Freezing: when a token moves for the last time, what stops it, and Adam replayed from a film."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lib import lattice
from lib.analysis.motion import Moves
from lib.training import films, optim
from lib.training.config import Run


def last(condition: np.ndarray) -> np.ndarray:
    """(steps, ...) bool -> (...) int64: last step, counted from 1, at which it held; 0: never."""
    return np.where(condition.any(0), len(condition) - condition[::-1].argmax(0), 0)


def last_exits(moves: Moves) -> dict[str, np.ndarray]:
    """The last step (rows,) at which each row was in a phase of its life, or in one before.

    early: L2 > sqrt(dim); midlife: Linf > 1 lattice step; motion: L1 > 0, after which nothing moves
    for the rest of the run. Needs every step: sampled frames would miss the late moves.
    """
    return {
        "early": last(moves.wide),
        "midlife": last(moves.linf > 1),
        "motion": last(moves.l1 > 0),
    }


class Cause(enum.IntEnum):
    """Why a component stands still in a step, or that it does not."""

    ROOM = 0  # the learning rate itself is below half a ULP
    GRADIENT = 1
    RATCHET = 2
    MOMENTUM = 3
    MOVES = 4


@dataclass(frozen=True)
class Ledger:
    """The accounts of some steps; each array (steps, rows, dim) float32, in bits.

    A component moves if Adam's update u is at least half the distance to the next lattice point.
    How far it is from stopping is log2(2 |u| / ULP), and it is the sum of four entries. m and v are
    the recorded bf16 moments (bias-corrected), m* and v* those of the same gradients in float64. A
    component is stopped by the first entry that takes the running sum below zero.
    """

    steps: np.ndarray  # (steps,) numbers of the steps, from 1
    room: np.ndarray  # log2(2 lr / ULP): the learning rate against the lattice
    gradient: np.ndarray  # log2(|m*| / sqrt(v*)): what exact moments make of the gradients so far
    ratchet: np.ndarray  # log2(sqrt(v*) / sqrt(v)): a second moment that bf16 does not let decay
    momentum: np.ndarray  # log2(|m| / |m*|): a first moment rounded to bf16
    total: np.ndarray  # log2(2 |u| / ULP) computed from u itself
    moved: np.ndarray  # bool: what the film shows

    def shares(self) -> np.ndarray:
        """Share of components per step and Cause: (steps, 5); rows sum to 1."""
        return np.stack([(self.causes() == kind).mean((1, 2)) for kind in Cause], 1)

    def causes(self) -> np.ndarray:
        """Cause of every component: (steps, rows, dim) int8 of Cause."""
        running = np.zeros_like(self.room)
        cause = np.full(self.room.shape, Cause.MOVES, np.int8)
        for kind in (Cause.ROOM, Cause.GRADIENT, Cause.RATCHET, Cause.MOMENTUM):
            running = running + getattr(self, kind.name.lower())
            cause[(running < 0) & (cause == Cause.MOVES)] = kind
        return cause


def ledger(path: Path, rows: np.ndarray, run: Run, steps: Sequence[int]) -> Ledger:
    """The accounts of `rows` at `steps`, from a film with W, W.grad, W.exp_avg, W.exp_avg_sq.

    Goes through all gradients up to the last of the steps, because exact moments remember them.
    """
    wanted, entries = sorted(steps), []
    m = np.zeros((len(rows), run.dim))
    v = np.zeros_like(m)
    for before, frames in films.pieces(path, rows, "W.grad", wanted[-1] + 1):
        for step, g in enumerate(lattice.value(frames[1:]), before + 1):
            m = run.beta1 * m + (1 - run.beta1) * g
            v = run.beta2 * v + (1 - run.beta2) * np.square(g, dtype=np.float64)
            if step in wanted:
                entries.append(_entry(path, rows, run, step, m, v))
    stacked = {name: np.stack([entry[name] for entry in entries]) for name in entries[0]}
    return Ledger(steps=np.array(wanted), **stacked)


def _entry(
    path: Path, rows: np.ndarray, run: Run, step: int, m_free: np.ndarray, v_free: np.ndarray
) -> dict[str, np.ndarray]:
    before, after = films.read(path, "W", [step - 1, step], rows)
    m = lattice.value(films.read(path, "W.exp_avg", step, rows)).astype(np.float64)
    v = lattice.value(films.read(path, "W.exp_avg_sq", step, rows)).astype(np.float64)
    c = optim.coefficients(run, step)
    b1, b2 = c.step_size / c.lr, 1 / c.correction**2  # bias corrections
    root, root_free = (np.sqrt(second * b2) + c.eps for second in (v, v_free))
    m, m_free = (np.abs(first) + 1e-300 for first in (m, m_free))  # logarithms of zero are finite
    half = 0.5 * lattice.ulp(before)
    entries = {
        "room": np.log2(c.lr / half),
        "gradient": np.log2(m_free * b1 / root_free),
        "ratchet": np.log2(root_free / root),
        "momentum": np.log2(m / m_free),
        "total": np.log2(c.lr * b1 * m / root / half),
    }
    entries = {name: bits.astype(np.float32) for name, bits in entries.items()}
    return entries | {"moved": before != after}


class Replay(NamedTuple):
    """Adam replayed from recorded states against what was filmed."""

    exact: float  # share of components whose predicted pattern is the filmed one
    moments: float  # the same for both moments
    error: float  # largest |predicted - filmed| weight, the prediction not rounded when stored
    half_ulp: float  # the same in units of half a ULP: at most 1 if only the last rounding counts


def replay(path: Path, rows: np.ndarray, run: Run, steps: Sequence[int]) -> Replay:
    """Predict W, m and v of each step from the frame before and the recorded gradient.

    The film is one on the bf16 lattice throughout, or float32 throughout.
    """
    names = ("W", "W.exp_avg", "W.exp_avg_sq")
    exact, moments, errors, ulps = [], [], [], []
    for step in steps:
        before, after = zip(
            *(films.read(path, name, [step - 1, step], rows) for name in names), strict=True
        )
        w, m, v, grad = map(_tensor, (*before, films.read(path, "W.grad", step, rows)))
        c = optim.coefficients(run, step)
        made = optim.adamw_reference(w, grad, m, v, run, step)
        same = [_frame(x) == filmed for x, filmed in zip(made, after, strict=True)]
        exact.append(same[0].mean())
        moments.append((same[1] & same[2]).mean())
        filmed, m, v = (_tensor(frame).double().numpy() for frame in after)
        u = -c.step_size * m / (np.sqrt(v) / c.correction + c.eps)
        off = np.abs(w.double().numpy() + u - filmed)
        errors.append(off.max())
        ulps.append((off / (0.5 * np.maximum(_ulp(before[0]), _ulp(after[0])))).max())
    return Replay(np.mean(exact), np.mean(moments), max(errors), max(ulps))


def _tensor(frame: np.ndarray) -> torch.Tensor:
    """A frame of a film as the optimiser sees it: uint16 patterns are bfloat16."""
    tensor = torch.from_numpy(np.ascontiguousarray(frame))
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor


def _frame(tensor: torch.Tensor) -> np.ndarray:
    return lattice.bits(tensor).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _ulp(frame: np.ndarray) -> np.ndarray:
    return lattice.ulp(frame) if frame.dtype == np.uint16 else np.spacing(np.abs(frame))
