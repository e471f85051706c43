"""The snowball, exactly and fast: the same distribution as `snowball`, without drawing the rows.

Two ideas. First, deleting i.i.d. rows uniformly leaves i.i.d. rows, so Monument Valley with n
survivors is direct sampling of n rows: 151,936 rows need never exist. Second, where dimensions are
independent, a group of n identical rows splits in the next dimension into a multinomial, so counts
are drawn instead of rows, and a row that is already alone needs no further draw at all.

Per dimension the cheapest of three exact ways to split is taken: binomials per group (few groups,
many rows), the rare leavers found by geometric jumps (nearly nobody moves), or a draw per row (many
cells). Rows that are alone are set aside; whether they vary in later dimensions is settled by the
probability that they all stay where the others are.

Ball and shell are drawn row by row: their dimensions are tied together by the length of the noise.
A point on the unit sphere in D dimensions is g / |g|. Only the K active coordinates of g are drawn;
the squares of the others add up to an independent chi-squared with D - K degrees of freedom, one
number a row. So the cost is that of the active dimensions, and the distribution is exact.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from lib import lattice
from lib.analysis import snowball
from lib.analysis.snowball import Cells, Distribution, borders, check, marginal

COST_BINOMIAL, COST_LEAVER, COST_ROW = 70.0, 120.0, 110.0  # measured, nanoseconds; only relative


@dataclass(frozen=True)
class Groups:
    """Groups of identical rows over a block of trials."""

    trial: np.ndarray  # (G,) int64
    count: np.ndarray  # (G,) int64, rows in the group
    alone: np.ndarray  # (trials,) int64: further groups of one row, whose cells were not drawn
    varying: np.ndarray  # (trials,) int64; -1 if not asked for
    cells: np.ndarray | None  # (G, K) int32 ordinals in the active dimensions, if kept


def split_block(
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
    """Groups of `trials` trials of `rows` rows each; see `exact.simulate`."""
    trial = np.arange(trials)
    count = np.full(trials, rows, np.int64)
    alone = np.zeros(trials, np.int64)
    moved = np.zeros(trials, np.int64)
    cells = np.zeros((trials, len(table)), np.int32) if keep else None
    for k in range(len(table)):
        if not keep:
            trial, count, alone = _set_aside(trial, count, alone)
            if not len(trial):
                if varying:
                    moved += _still_varying(
                        centre, table, k, scale, rows, trials, distribution, rng
                    )
                break
        if table.wild[k]:
            parent, cell, n = _by_row(
                count, lambda m, k=k: _draw(centre[table.dim[k]], scale, m, distribution, rng)
            )
        else:
            parent, cell, n = _by_table(count, table.probability[k], rng)
            cell = cell + table.low[k]
        if varying:
            moved += _varies(centre, table, k, scale, trial[parent], cell, alone, distribution, rng)
        trial, count = trial[parent], n
        if keep:
            cells = cells[parent]
            cells[:, k] = cell
    if not varying:
        moved -= 1
    return Groups(trial, count, alone, moved, cells)


def _set_aside(trial, count, alone):
    """Groups without those of one row, which are counted in `alone`."""
    single = count == 1
    if single.any():
        alone = alone + np.bincount(trial[single], minlength=len(alone))
        trial, count = trial[~single], count[~single]
    return trial, count, alone


# ------------------------------------------------------------- three ways to split, all exact
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
    return _by_row(
        count, lambda m: cell[np.searchsorted(edges, rng.random(m), side="right")].astype(np.int64)
    )


def _by_row(count, draw):
    """A draw per row, then the rows of one group in one cell are one new group."""
    owner = np.repeat(np.arange(len(count)), count)
    cell = draw(len(owner)).astype(np.int64)
    pair, n = np.unique((owner << 32) + (cell + (1 << 31)), return_counts=True)
    return pair >> 32, (pair & 0xFFFFFFFF) - (1 << 31), n


def _draw(c, scale, size, distribution, rng):
    """(size,) int32 ordinals of bfloat16(c + noise) in one dimension, as the reference makes it."""
    if distribution is Distribution.GAUSSIAN:
        x = rng.standard_normal(size, dtype=np.float32) * np.float32(scale)
    else:
        x = rng.standard_exponential(size, dtype=np.float32) * np.float32(scale)
        x = np.where(rng.random(size) < 0.5, x, -x)
    return lattice.ordinal(lattice.round_nearest(x + c))


# ------------------------------------------------------------- does a dimension vary?
WITNESSES = 16  # a wild dimension's likeliest cell holds a few per cent: 16 rows never agree in it


def _varies(centre, table, k, scale, trial, cell, alone, distribution, rng):
    """(trials,) int64: 1 where rows disagree in dimension k, the rows set aside included."""
    trials = len(alone)
    low = np.full(trials, np.iinfo(np.int64).max)
    high = np.full(trials, np.iinfo(np.int64).min)
    np.minimum.at(low, trial, cell)
    np.maximum.at(high, trial, cell)
    varies = low < high
    seen = low == high  # all drawn rows agree: do the rows set aside agree with them?
    ask = np.flatnonzero(seen & (alone > 0))
    stay = _cell_probability(centre, table, k, low[ask], scale, distribution)
    varies[ask] = rng.random(len(ask)) >= stay ** alone[ask]
    none = np.flatnonzero(low > high)  # every row is set aside
    if len(none):
        varies[none] = _one_dimension(centre, table, k, scale, alone[none], distribution, rng)
    return varies.astype(np.int64)


def _one_dimension(centre, table, k, scale, rows, distribution, rng):
    """(len(rows),) bool: whether `rows` undrawn rows of a trial disagree in dimension k."""
    if not table.wild[k]:
        agree = (table.probability[k][None, :] ** rows[:, None]).sum(axis=1)
        return rng.random(len(rows)) >= agree
    few = np.minimum(rows, WITNESSES)
    drawn = _draw(centre[table.dim[k]], scale, int(few.sum()), distribution, rng)
    first = np.concatenate([[0], np.cumsum(few)[:-1]])
    return np.minimum.reduceat(drawn, first) < np.maximum.reduceat(drawn, first)


def _still_varying(centre, table, k, scale, rows, trials, distribution, rng):
    """(trials,) int64: varying dimensions from k on, when no row has been drawn in them."""
    count = np.zeros(trials, np.int64)
    tabled = np.arange(k, len(table))[~table.wild[k:]]
    agree = (table.probability[tabled] ** rows).sum(axis=1)
    for p in agree:  # dimension by dimension: (trials, K) numbers at once would be large
        count += 1 if p < 1e-18 else rng.random(trials) >= p
    every = np.full(trials, rows)
    for j in np.arange(k, len(table))[table.wild[k:]]:
        if rows >= WITNESSES:
            count += 1
        else:
            count += _one_dimension(centre, table, j, scale, every, distribution, rng)
    return count


def _cell_probability(centre, table, k, ordinal, scale, distribution):
    """Probability of the cells `ordinal` (int64 array) in dimension k."""
    if not len(ordinal):
        return np.zeros(0)
    if not table.wild[k]:
        return table.probability[k][ordinal - table.low[k]]
    below = marginal(distribution, float(np.float32(scale)), centre.size)
    c = float(centre[table.dim[k]])
    return below(borders(ordinal) - c) - below(borders(ordinal - 1) - c)


WIDTH = 64  # dimensions drawn at a time


class HashCollision(RuntimeError):
    """Two different rows got the same 64-bit hash: use another seed."""


def spherical_block(
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


BLOCK_ROWS = 1 << 21  # rows of one block of trials: a seed and a piece of work of its own
BLOCK_NUMBERS = 1 << 20  # numbers of one block where every row is drawn: fits the caches


@dataclass(frozen=True)
class Trials:
    """Demographics of many trials; arrays (trials,) int64 unless said otherwise."""

    unique: np.ndarray  # distinct rows
    holes: np.ndarray  # distinct rows with a population of at least 2
    tokens: np.ndarray  # rows in holes
    largest: np.ndarray  # population of the largest group
    varying: np.ndarray  # dimensions in which not all rows agree; -1 if not asked for
    populations: tuple[np.ndarray, ...] = field(repr=False)  # per trial, descending; () if not kept
    cells: tuple[np.ndarray, ...] = field(repr=False)  # per trial (unique, K) int32 ordinals, or ()
    dims: np.ndarray = field(repr=False)  # (K,) int64: the dimensions that `cells` speaks of

    @property
    def singletons(self) -> np.ndarray:
        """Rows alone in their cell."""
        return self.unique - self.holes

    def __len__(self) -> int:
        return len(self.unique)


def simulate(
    centre: np.ndarray,
    *,
    scale: float,
    rows: int,
    trials: int,
    distribution: Distribution | str = Distribution.GAUSSIAN,
    seed: int = 42,
    varying: bool = True,
    populations: bool = False,
    cells: bool = False,
    workers: int = 2,
    table: Cells | None = None,
) -> Trials:
    """Demographics of `trials` snowballs of `rows` rows round (D,) float32 `centre`.

    `scale` is sigma (Gaussian), the radius (ball, shell) or b (Laplace). The result depends on the
    seed, not on `workers`. `table` replaces the cell probabilities (the tests plant an error).
    With cells=True every group's coordinates are kept. Raises ValueError on a bad setting.
    """
    distribution = Distribution(distribution)
    centre = check(centre, scale, rows)
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    table = table or snowball.cells(centre, scale=scale, distribution=distribution)
    block = max(1, min(trials, BLOCK_ROWS // rows, 1000))
    if cells or not distribution.independent:
        block = max(1, min(block, BLOCK_NUMBERS // (rows * max(1, len(table)))))
    sizes = [block] * (trials // block) + [trials % block] * (trials % block > 0)
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    engine = split_block if distribution.independent else spherical_block

    def work(size: int, child: np.random.SeedSequence) -> Trials:
        groups = engine(
            centre,
            table,
            scale=scale,
            rows=rows,
            trials=size,
            distribution=distribution,
            varying=varying,
            keep=cells,
            rng=np.random.Generator(np.random.SFC64(child)),
        )
        return _demographics(groups, size, table, populations, cells)

    if workers > 1 and len(sizes) > 1:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(work, sizes, seeds))
    else:
        parts = [work(size, child) for size, child in zip(sizes, seeds, strict=True)]
    return join(parts)


def join(parts: list[Trials]) -> Trials:
    """All trials of `parts`, in order."""
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("unique", "holes", "tokens", "largest", "varying")
    }
    lists = {
        name: tuple(item for part in parts for item in getattr(part, name))
        for name in ("populations", "cells")
    }
    return replace(parts[0], **arrays, **lists)


def _demographics(groups, trials: int, table: Cells, populations: bool, cells: bool) -> Trials:
    """Trials of splitting.Groups."""
    trial, count = groups.trial, groups.count
    shared = count > 1
    largest = np.minimum(groups.alone, 1)
    np.maximum.at(largest, trial, count)
    holes = np.bincount(trial[shared], minlength=trials)
    alone = groups.alone + np.bincount(trial[~shared], minlength=trials)
    tokens = np.bincount(trial[shared], weights=count[shared], minlength=trials).astype(np.int64)
    by_trial, ordinals = (), ()
    if populations or cells:
        order = np.lexsort((-count, trial))
        ends = np.cumsum(np.bincount(trial, minlength=trials))[:-1]
        if populations:
            by_trial = tuple(
                np.concatenate([part, np.ones(lone, np.int64)])
                for part, lone in zip(np.split(count[order], ends), groups.alone, strict=True)
            )
        if cells:
            ordinals = tuple(np.split(groups.cells[order], ends))
    return Trials(
        holes + alone, holes, tokens, largest, groups.varying, by_trial, ordinals, table.dim
    )
