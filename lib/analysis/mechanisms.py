"""What makes correlated dimensions with two modes? Dead rows alone, one mechanism at a time.

The thirteen printed holes differ in twenty of 2,560 dimensions, in a few of them by several lattice
steps with nothing in between. Two thousand rows coalesce in float32; on top comes one mechanism
that displaces groups of rows. As all rows take the same step, a displacement is carried along
unchanged but for decay, so it is added once, with the size it has at the end; that is the one free
number of an arm, and it is scanned.
"""

import enum

import numpy as np
import torch

from lib import lattice
from lib.analysis import centres, coalescence


class Mechanism(enum.StrEnum):
    """What displaces rows."""

    NONE = "a cloud alone"
    TWO_CASTS = "one row in eight has another history"
    GATE = "Adam's eps gates a late gradient"
    AVERAGE = "mean of two checkpoints"
    SHARDS = "rounding by place in the matrix"
    SHARDS_TAIL = "rounding by place, over a small sqrt(v)"
    STOCHASTIC = "stochastic rounding at the cast"
    LATE = "groups last seen at different times"
    HEAT = "merged first, heated afterwards"
    HEAT_TAIL = "merged first, then heated over a small sqrt(v)"


def cloud(width: float, *, rows: int, steps: int, seed: int = 42) -> np.ndarray:
    """(rows, 2560) float32: dead rows alone after `steps` steps, now of standard deviation `width`.

    They start exp(Lambda) times as wide, take a common noisy step that holds them at a lattice
    point with the printed exponents (lib.analysis.centres), and decay, in float32.
    """
    rng = np.random.default_rng(seed)
    decay = 0.95
    centre = torch.from_numpy(centres.on_lattice(rng=rng))
    start = width / decay**steps * rng.standard_normal((rows, len(centre)), dtype=np.float32)
    start = centre + torch.from_numpy(start)
    _, kept = coalescence.coalesce(start, centre, decay, steps, jitter=0.01, snapshots=1, seed=seed)
    return kept[-1].numpy()


def displaced(rows: np.ndarray, mechanism: Mechanism, size: float, *, seed: int = 42) -> np.ndarray:
    """(N, D) uint16: rows (N, D) float32, displaced and cast to bfloat16.

    `size` is the rms displacement per dimension in units of W (the median one where it has heavy
    tails); STOCHASTIC, AVERAGE and NONE have none.
    """
    rng = np.random.default_rng(seed)
    if mechanism is Mechanism.STOCHASTIC:
        return lattice.round_stochastic(rows, rng=rng)
    if mechanism is Mechanism.AVERAGE:  # between the two the cloud moved by a few steps
        move = lattice.ulp(lattice.round_nearest(rows[0])) * rng.uniform(-4, 4, rows.shape[1])
        first = lattice.value(lattice.round_nearest(rows))
        second = lattice.value(lattice.round_nearest(rows + move.astype(np.float32)))
        return lattice.round_nearest((first + second) / np.float32(2))
    if mechanism is Mechanism.GATE:  # p_i h / (p_i |h| + eps), ln p_i scattered by one, h heavy
        h = rng.standard_t(2, rows.shape[1]).astype(np.float32)
        p = np.exp(rng.standard_normal((len(rows), 1), dtype=np.float32))
        return lattice.round_nearest(rows + np.float32(2 * size) * (p * h / (p * np.abs(h) + 1)))
    if mechanism in (Mechanism.HEAT, Mechanism.HEAT_TAIL):
        rows = lattice.value(lattice.round_nearest(rows))
    group, shift = groups(rows, mechanism, rng)
    return lattice.round_nearest(rows + (size * shift).astype(np.float32)[group])


def groups(
    rows: np.ndarray, mechanism: Mechanism, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Who moves together, (N,) int64, and whither, (G, D) float64 of size one."""
    n, dim = rows.shape
    if mechanism is Mechanism.NONE:
        return np.zeros(n, int), np.zeros((1, dim))
    if mechanism is Mechanism.TWO_CASTS:  # as many as there are phantom rows among the dead
        group = (rng.random(n) < 1 / 8).astype(int)
    elif mechanism in (Mechanism.SHARDS, Mechanism.SHARDS_TAIL):  # contiguous blocks of the matrix
        group = np.arange(n) * 4 // n
    elif mechanism is Mechanism.LATE:
        group = rng.integers(0, 4, n)
    else:  # rows that have merged move together for ever
        varying = np.flatnonzero((rows != rows[0]).any(axis=0))
        _, group = np.unique(rows[:, varying], axis=0, return_inverse=True)
        group = group.ravel()
    shift = rng.standard_normal((group.max() + 1, dim))
    if mechanism is Mechanism.LATE:  # along the way home, the centre's own direction
        centre = rows.mean(axis=0, dtype=np.float64)
        along = centre / np.sqrt((centre**2).mean())
        shift = -np.exp(-rng.uniform(0, 3, (len(shift), 1))) * along
    if mechanism in (Mechanism.SHARDS_TAIL, Mechanism.HEAT_TAIL):  # over a v of any magnitude
        shift = shift / np.abs(rng.standard_normal(dim))
    return group, shift
