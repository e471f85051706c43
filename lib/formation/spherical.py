"""Ball and shell, row by row: their dimensions are tied together by the length of the noise.

A point on the unit sphere in D dimensions is g / |g|. Only the K active coordinates of g are
drawn; the squares of the others add up to an independent chi-squared with D - K degrees of freedom,
one number a row. So the cost is that of the active dimensions, and the distribution is exact.
"""

import numpy as np

from lib import lattice
from lib.formation.cells import Cells
from lib.formation.snowball import Distribution
from lib.formation.splitting import Groups

WIDTH = 64  # dimensions drawn at a time


class HashCollision(RuntimeError):
    """Two different rows got the same 64-bit hash: use another seed."""


def block(
    centre: np.ndarray,
    table: Cells,
    *,
    scale: float,
    rows: int,
    trials: int,
    distribution: Distribution,
    varying: bool,
    keep: bool,
    rng: np.random.Generator,
) -> Groups:
    """Groups of `trials` trials of `rows` rows; rows are identified by a 64-bit hash, verified."""
    size = centre.size
    trial = np.repeat(np.arange(trials), rows)
    radius = np.full(len(trial), float(np.float32(scale)))
    if distribution is Distribution.BALL:
        radius *= rng.random(len(trial)) ** (1.0 / size)
    rest = np.ones(len(trial))  # squared length left for the coordinates not yet drawn
    hashes = trial.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    alone = np.zeros(trials, np.int64)
    moved = np.zeros(trials, np.int64)
    kept = []
    everyone = varying or keep
    for start in range(0, len(table), WIDTH):
        dims = table.dim[start : start + WIDTH]
        g = rng.standard_normal((len(trial), len(dims)))
        mine = np.einsum("ij,ij->i", g, g)
        free = size - start - len(dims)
        others = rng.chisquare(free, len(trial)) if free else 0.0
        g *= (radius * np.sqrt(rest / (mine + others)))[:, None]
        rest *= others / (mine + others)
        ordinal = lattice.ordinal(lattice.round_nearest(g.astype(np.float32) + centre[dims]))
        keys = rng.integers(0, 1 << 64, len(dims), np.uint64) | np.uint64(1)
        step = (ordinal - table.low[start : start + WIDTH]).astype(np.uint64)
        hashes = _mix(hashes + step @ keys)
        if varying:
            cube = ordinal.reshape(trials, rows, -1)
            moved += (cube != cube[:, :1]).any(axis=1).sum(axis=1)
        if keep:
            kept.append(ordinal)
        order, starts, count = _group(hashes)
        inside = np.delete(np.arange(len(order)), starts)  # rows with the hash of the one before
        if (ordinal[order[inside]] != ordinal[order[inside - 1]]).any():
            raise HashCollision("two different rows have the same hash; use another seed")
        if not everyone:
            single = order[starts[count == 1]]
            alone += np.bincount(trial[single], minlength=trials)
            stays = np.ones(len(trial), bool)
            stays[single] = False
            trial, radius, rest, hashes = trial[stays], radius[stays], rest[stays], hashes[stays]
            if not len(trial):
                break
    order, starts, count = _group(hashes)
    first = order[starts]
    cells = None
    if keep:
        cells = np.concatenate([o[first] for o in kept] or [np.zeros((len(first), 0))], axis=1)
    if not varying:
        moved -= 1
    return Groups(trial[first], count, alone, moved, cells)


def _group(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in order of their hash, where in that order each group starts, and its size."""
    order = np.argsort(hashes)
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(order)])
    return order, starts, np.diff(np.append(starts, len(order)))


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
