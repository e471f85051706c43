"""The snowball, exactly and fast: the same distribution as `snowball`, without drawing the rows.

Two ideas. First, deleting i.i.d. rows uniformly leaves i.i.d. rows, so Monument Valley with n
survivors is direct sampling of n rows: 151,936 rows need never exist. Second, where dimensions are
independent, a group of n identical rows splits in the next dimension into a multinomial, so counts
are drawn instead of rows, and a row that is already alone needs no further draw at all.

Ball and shell are drawn row by row, but only in the active dimensions.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib import lattice
from lib.analysis import snowball
from lib.analysis.snowball import Cells, Distribution

BLOCK_ROWS = 1 << 21  # rows of one block of trials: a seed and a piece of work of its own
BLOCK_NUMBERS = 1 << 20  # numbers of one block where every row is drawn: fits the caches


@dataclass(frozen=True)
class Trials:
    """Groups of identical rows in many trials, and the counts of each trial: (trials,) int64."""

    trial: np.ndarray  # (G,) int64: the trial of a group
    count: np.ndarray  # (G,) int64: its rows
    alone: np.ndarray  # further groups of one row, whose cells were not drawn
    varying: np.ndarray  # dimensions in which not all rows agree; -1 if not asked for
    ordinals: np.ndarray | None  # (G, K) int32: lattice coordinates of a group in `dims`, if kept
    dims: np.ndarray  # (K,) int64: the active dimensions

    def __len__(self) -> int:
        return len(self.alone)

    @cached_property
    def unique(self) -> np.ndarray:
        """Distinct rows."""
        return self.alone + np.bincount(self.trial, minlength=len(self))

    @cached_property
    def holes(self) -> np.ndarray:
        """Distinct rows with a population of at least two."""
        return np.bincount(self.trial[self.count > 1], minlength=len(self))

    @property
    def singletons(self) -> np.ndarray:
        """Rows alone in their cell."""
        return self.unique - self.holes

    @cached_property
    def tokens(self) -> np.ndarray:
        """Rows in holes."""
        rows = np.where(self.count > 1, self.count, 0)
        return np.bincount(self.trial, weights=rows, minlength=len(self)).astype(np.int64)

    @cached_property
    def largest(self) -> np.ndarray:
        """Population of the largest group."""
        largest = np.minimum(self.alone, 1)
        np.maximum.at(largest, self.trial, self.count)
        return largest

    @cached_property
    def populations(self) -> list[np.ndarray]:
        """Of each trial, (unique,) int64: rows of each group, descending."""
        drawn = zip(self._by_trial(self.count), self.alone, strict=True)
        return [np.concatenate([part, np.ones(alone, np.int64)]) for part, alone in drawn]

    @cached_property
    def cells(self) -> list[np.ndarray]:
        """Of each trial, (unique, K) int32: ordinals of each group in `dims`, if they were kept."""
        return self._by_trial(self.ordinals)

    def _by_trial(self, of_groups: np.ndarray) -> list[np.ndarray]:
        order = np.lexsort((-self.count, self.trial))
        ends = np.cumsum(np.bincount(self.trial, minlength=len(self)))[:-1]
        return np.split(of_groups[order], ends)


def simulate(
    centre: np.ndarray,
    *,
    scale: float,
    rows: int,
    trials: int,
    distribution: Distribution | str = Distribution.GAUSSIAN,
    seed: int = 42,
    varying: bool = True,
    cells: bool = False,
    workers: int = 2,
    table: Cells | None = None,
) -> Trials:
    """Groups and counts of `trials` snowballs of `rows` rows round (D,) float32 `centre`.

    `scale` is sigma (Gaussian), the radius (ball, shell) or b (Laplace). The result depends on the
    seed, not on `workers`. `table` replaces the cell probabilities (the tests plant an error).
    With cells=True every group's coordinates are kept. Raises ValueError on a bad setting.
    """
    distribution = Distribution(distribution)
    centre = snowball.check(centre, scale, rows)
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    table = table or snowball.cells(centre, scale=scale, distribution=distribution)
    below = snowball.marginal(distribution, float(np.float32(scale)), centre.size)
    ball = Snowball(centre, scale, rows, distribution, table, below, varying, cells)
    block = max(1, min(trials, BLOCK_ROWS // rows, 1000))
    if cells or not distribution.independent:
        block = max(1, min(block, BLOCK_NUMBERS // (rows * max(1, len(table)))))
    sizes = [block] * (trials // block) + [trials % block] * (trials % block > 0)
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    split = _split_groups if distribution.independent else _split_rows

    def work(size: int, child: np.random.SeedSequence) -> Trials:
        return split(ball, size, np.random.Generator(np.random.SFC64(child)))

    if workers > 1 and len(sizes) > 1:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(work, sizes, seeds))
    else:
        parts = [work(size, child) for size, child in zip(sizes, seeds, strict=True)]
    first = np.cumsum([0, *sizes[:-1]])
    return Trials(
        trial=np.concatenate([part.trial + at for part, at in zip(parts, first, strict=True)]),
        ordinals=np.concatenate([part.ordinals for part in parts]) if cells else None,
        dims=table.dim,
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("count", "alone", "varying")
        },
    )


@dataclass(frozen=True)
class Snowball:
    """What all blocks of a simulation have in common."""

    centre: np.ndarray  # (D,) float32
    scale: float
    rows: int
    distribution: Distribution
    table: Cells
    below: Callable  # snowball.marginal of the noise
    varying: bool  # whether to count the varying dimensions
    keep: bool  # whether to keep every group's coordinates

    def draw(self, k: int, size: int, rng: np.random.Generator) -> np.ndarray:
        """(size,) int32 ordinals of rows in dimension k, as the reference makes them."""
        if self.distribution is Distribution.GAUSSIAN:
            x = rng.standard_normal(size, dtype=np.float32) * np.float32(self.scale)
        else:
            x = rng.standard_exponential(size, dtype=np.float32) * np.float32(self.scale)
            x = np.where(rng.random(size) < 0.5, x, -x)
        return lattice.ordinal(lattice.round_nearest(x + self.centre[self.table.dim[k]]))

    def probability(self, k: int, ordinal: np.ndarray) -> np.ndarray:
        """Probability of each cell `ordinal` in dimension k: float64, same shape."""
        if not self.table.wild[k]:
            return self.table.probability[k][ordinal - self.table.low[k]]
        centre = float(self.centre[self.table.dim[k]])
        return snowball.cell_probability(ordinal, centre, self.below)


def _split_groups(ball: Snowball, trials: int, rng: np.random.Generator) -> Trials:
    """Trials of independent dimensions: groups split, dimension by dimension.

    Groups of one row are set aside; whether they vary in later dimensions is settled by the
    probability that they all stay where the others are.
    """
    table = ball.table
    trial, count = np.arange(trials), np.full(trials, ball.rows, np.int64)
    alone = np.zeros(trials, np.int64)
    varying = np.full(trials, 0 if ball.varying else -1)
    ordinals = np.zeros((trials, len(table)), np.int32) if ball.keep else None
    for k in range(len(table)):
        if not ball.keep:
            single = count == 1
            alone = alone + np.bincount(trial[single], minlength=trials)
            trial, count = trial[~single], count[~single]
            if not len(trial):
                if ball.varying:
                    varying += _still_varying(ball, k, trials, rng)
                break
        if table.wild[k]:
            parent, cell, count = _by_row(count, lambda m, k=k: ball.draw(k, m, rng))
        else:
            parent, cell, count = _by_table(count, table.probability[k], rng)
            cell = cell + table.low[k]
        trial = trial[parent]
        if ball.varying:
            varying += _varies(ball, k, trial, cell, alone, rng)
        if ball.keep:
            ordinals = ordinals[parent]
            ordinals[:, k] = cell
    return Trials(trial, count, alone, varying, ordinals, table.dim)


# ---------------------------------------------------------------- three ways to split, all exact
COST_BINOMIAL, COST_LEAVER, COST_ROW = 70.0, 120.0, 110.0  # measured, nanoseconds; only relative


def _by_table(count, probability, rng):
    """(parent, cell index, rows) of the groups that `count` splits into under `probability`."""
    cell = np.flatnonzero(probability)
    p = probability[cell]
    leave = 1 - p.max()
    total = count.sum()
    price = (
        len(count) * COST_BINOMIAL * (len(p) - 1),
        total * leave * COST_LEAVER,
        total * COST_ROW,
    )
    way = (_binomials, _leavers, _rows)[int(np.argmin(price))]
    order = np.argsort(p)
    return way(count, p[order], cell[order], rng)


def _binomials(count, p, cell, rng):
    """A binomial per group and cell, the likeliest cell last; for few groups of many rows."""
    rest = count
    parents, cells, counts = [], [], []
    tail = np.concatenate([np.cumsum(p[::-1])[::-1], [0.0]])
    for j in range(len(p)):
        last = j == len(p) - 1
        n = rest if last else rng.binomial(rest, min(1.0, p[j] / tail[j]))
        rest = rest - n
        hit = np.flatnonzero(n)
        parents.append(hit)
        cells.append(np.full(len(hit), cell[j]))
        counts.append(n[hit])
    return np.concatenate(parents), np.concatenate(cells), np.concatenate(counts)


def _leavers(count, p, cell, rng):
    """Only the rows that leave the likeliest cell, found by jumping from one to the next."""
    leave = p[:-1].sum()
    ends = np.cumsum(count)
    where = _bernoulli(int(ends[-1]), leave, rng)
    group = np.searchsorted(ends, where, side="right")
    pick = np.searchsorted(np.cumsum(p[:-1]), rng.random(len(where)) * leave, side="right")
    pick = np.minimum(pick, len(p) - 2)
    pair, n = np.unique(group * len(p) + pick, return_counts=True)
    stay = count - np.bincount(group, minlength=len(count))
    home = np.flatnonzero(stay)
    return (
        np.concatenate([home, pair // len(p)]),
        np.concatenate([np.full(len(home), cell[-1]), cell[pair % len(p)]]),
        np.concatenate([stay[home], n]),
    )


def _bernoulli(total: int, p: float, rng) -> np.ndarray:
    """Positions in range(total) of the successes of `total` Bernoulli(p) draws, ascending."""
    found, at = [], -1
    while at < total:
        n = int((total - at) * p + 5 * np.sqrt((total - at) * p) + 5)
        jumps = np.minimum(rng.geometric(p, n), total + 1) if p > 0 else np.full(1, total + 1)
        where = at + np.cumsum(jumps)
        found.append(where)
        at = int(where[-1])
    where = np.concatenate(found)
    return where[where < total]


def _rows(count, p, cell, rng):
    """A draw per row from the table; for many cells and small groups."""
    edges = np.cumsum(p)[:-1]
    return _by_row(count, lambda m: cell[np.searchsorted(edges, rng.random(m), side="right")])


def _by_row(count, draw):
    """A draw per row, then the rows of one group in one cell are one new group."""
    owner = np.repeat(np.arange(len(count)), count)
    cell = draw(len(owner)).astype(np.int64)
    pair, n = np.unique((owner << 32) + (cell + (1 << 31)), return_counts=True)
    return pair >> 32, (pair & 0xFFFFFFFF) - (1 << 31), n


# ---------------------------------------------------------------- does a dimension vary?
WITNESSES = 16  # a wild dimension's likeliest cell holds a few per cent: 16 rows never agree in it


def _varies(ball: Snowball, k: int, trial, cell, alone, rng) -> np.ndarray:
    """(trials,) bool: whether rows disagree in dimension k, the rows set aside included."""
    low = np.full(len(alone), np.iinfo(np.int64).max)
    high = np.full(len(alone), np.iinfo(np.int64).min)
    np.minimum.at(low, trial, cell)
    np.maximum.at(high, trial, cell)
    varies = low < high
    ask = np.flatnonzero((low == high) & (alone > 0))  # do those aside agree with those drawn?
    if len(ask):
        stay = ball.probability(k, low[ask])
        varies[ask] = rng.random(len(ask)) >= stay ** alone[ask]
    none = np.flatnonzero(low > high)  # every row is set aside
    if len(none):
        varies[none] = _undrawn_vary(ball, k, alone[none], rng)
    return varies


def _undrawn_vary(ball: Snowball, k: int, rows: np.ndarray, rng) -> np.ndarray:
    """(len(rows),) bool: whether `rows` undrawn rows of a trial disagree in dimension k."""
    if not ball.table.wild[k]:
        agree = (ball.table.probability[k][None, :] ** rows[:, None]).sum(axis=1)
        return rng.random(len(rows)) >= agree
    few = np.minimum(rows, WITNESSES)
    drawn = ball.draw(k, int(few.sum()), rng)
    first = np.concatenate([[0], np.cumsum(few)[:-1]])
    return np.minimum.reduceat(drawn, first) < np.maximum.reduceat(drawn, first)


def _still_varying(ball: Snowball, k: int, trials: int, rng) -> np.ndarray:
    """(trials,) int64: varying dimensions from k on, when no row has been drawn in them."""
    count = np.zeros(trials, np.int64)
    left, wild = np.arange(k, len(ball.table)), ball.table.wild[k:]
    agree = (ball.table.probability[left[~wild]] ** ball.rows).sum(axis=1)
    for p in agree:  # dimension by dimension: (trials, K) numbers at once would be large
        count += 1 if p < 1e-18 else rng.random(trials) >= p
    for j in left[wild]:
        every = np.full(trials, ball.rows)
        count += 1 if ball.rows >= WITNESSES else _undrawn_vary(ball, j, every, rng)
    return count


# ---------------------------------------------------------------- dimensions tied by a length
WIDTH = 64  # dimensions drawn at a time


def _split_rows(ball: Snowball, trials: int, rng: np.random.Generator) -> Trials:
    """Trials of balls and shells: every row drawn, identified by a 64-bit hash, verified.

    A point on the unit sphere in D dimensions is g / |g|. Only the K active coordinates of g are
    drawn; the squares of the others add up to an independent chi-squared with D - K degrees of
    freedom, one number a row. So the cost is that of the active dimensions, and the distribution is
    exact. Raises RuntimeError if two different rows share a hash.
    """
    size, table = ball.centre.size, ball.table
    trial = np.repeat(np.arange(trials), ball.rows)
    radius = np.full(len(trial), float(np.float32(ball.scale)))
    if ball.distribution is Distribution.BALL:
        radius *= rng.random(len(trial)) ** (1.0 / size)
    rest = np.ones(len(trial))  # squared length left for the coordinates not yet drawn
    hashes = trial.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    alone = np.zeros(trials, np.int64)
    varying = np.full(trials, 0 if ball.varying else -1)
    kept = [np.zeros((len(trial), 0), np.int32)]
    for start in range(0, len(table), WIDTH):
        dims = table.dim[start : start + WIDTH]
        g = rng.standard_normal((len(trial), len(dims)))
        mine = np.einsum("ij,ij->i", g, g)
        free = size - start - len(dims)
        others = rng.chisquare(free, len(trial)) if free else 0.0
        g *= (radius * np.sqrt(rest / (mine + others)))[:, None]
        rest *= others / (mine + others)
        ordinal = lattice.ordinal(lattice.round_nearest(g.astype(np.float32) + ball.centre[dims]))
        keys = rng.integers(0, 1 << 64, len(dims), np.uint64) | np.uint64(1)
        step = (ordinal - table.low[start : start + WIDTH]).astype(np.uint64)
        hashes = _mix(hashes + step @ keys)
        if ball.varying:
            cube = ordinal.reshape(trials, ball.rows, -1)
            varying += (cube != cube[:, :1]).any(axis=1).sum(axis=1)
        if ball.keep:
            kept.append(ordinal)
        order, starts, count = _group(hashes)
        inside = np.delete(np.arange(len(order)), starts)  # rows with the hash of the one before
        if (ordinal[order[inside]] != ordinal[order[inside - 1]]).any():
            raise RuntimeError("two different rows have the same hash; use another seed")
        if not (ball.varying or ball.keep):
            single = order[starts[count == 1]]
            alone += np.bincount(trial[single], minlength=trials)
            stays = np.ones(len(trial), bool)
            stays[single] = False
            trial, radius, rest, hashes = trial[stays], radius[stays], rest[stays], hashes[stays]
            if not len(trial):
                break
    order, starts, count = _group(hashes)
    first = order[starts]
    ordinals = np.concatenate([part[first] for part in kept], axis=1) if ball.keep else None
    return Trials(trial[first], count, alone, varying, ordinals, table.dim)


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
