"""Splitting groups of identical rows, dimension by dimension: independent dimensions only.

A group of n rows that agree so far splits in the next dimension into a multinomial over its cells.
Per dimension the cheapest of three exact ways is taken: binomials per group (few groups, many
rows), the rare leavers found by geometric jumps (nearly nobody moves), or a draw per row (many
cells). Rows that are alone are set aside; whether they vary in later dimensions is settled by the
probability that they all stay where the others are.
"""

from dataclasses import dataclass

import numpy as np

from lib import lattice
from lib.formation.cells import Cells, borders, marginal
from lib.formation.snowball import Distribution

COST_BINOMIAL, COST_LEAVER, COST_ROW = 70.0, 120.0, 110.0  # measured, nanoseconds; only relative


@dataclass(frozen=True)
class Groups:
    """Groups of identical rows over a block of trials."""

    trial: np.ndarray  # (G,) int64
    count: np.ndarray  # (G,) int64, rows in the group
    alone: np.ndarray  # (trials,) int64: further groups of one row, whose cells were not drawn
    varying: np.ndarray  # (trials,) int64; -1 if not asked for
    cells: np.ndarray | None  # (G, K) int32 ordinals in the active dimensions, if kept


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
