"""What needs no simulation: expected occupied cells, holes, tokens, pairs, largest, varying.

With independent dimensions the probability of a cell of the lattice is a product over the active
dimensions. N rows in cells of probability p are a multinomial, so
E[distinct rows] = sum 1 - (1 - p)^N, E[holes] = that - sum N p (1 - p)^(N - 1),
E[identical pairs] = N (N - 1) / 2 * product over dimensions of sum p^2. The sums run over all
cells above `floor`; the mass below it enters as a bound on the error, not as a guess.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from lib.formation.cells import Cells, borders, marginal
from lib.formation.snowball import Distribution

MOST_CELLS = 4_000_000


@dataclass(frozen=True)
class Expected:
    """An expectation and a bound on what the cells below the floor can change."""

    value: float
    error: float


def product_cells(table: Cells, *, floor: float = 1e-9) -> tuple[np.ndarray, float]:
    """Probabilities (C,) of all cells above `floor`, descending, and the mass of the others.

    Raises ValueError where they are too many, or a dimension reaches too many cells: simulate.
    """
    p = np.ones(1)
    for k in range(len(table)):
        if table.wild[k]:
            raise ValueError("a dimension reaches too many cells for a closed form: simulate")
        p = np.outer(p, table.probability[k]).ravel()
        p = p[p > floor]
        if len(p) > MOST_CELLS:
            raise ValueError("too many cells for a closed form: raise the floor, or simulate")
    return np.sort(p)[::-1], max(0.0, 1.0 - p.sum())


def expected_unique(table: Cells, rows: int, *, floor: float = 1e-9) -> Expected:
    """Expected number of distinct rows."""
    p, rest = product_cells(table, floor=floor)
    value = -np.expm1(rows * np.log1p(-np.minimum(p, 1 - 1e-16))).sum()
    # a cell below the floor adds at most rows * p, and at least that less (rows * p)^2 / 2
    return Expected(float(value + rows * rest), rows * rest * min(1.0, rows * floor / 2))


def expected_holes(table: Cells, rows: int, *, floor: float = 1e-9) -> Expected:
    """Expected number of distinct rows with a population of at least two."""
    p, rest = product_cells(table, floor=floor)
    empty = rows * np.log1p(-np.minimum(p, 1 - 1e-16))
    alone = rows * p * np.exp(empty - np.log1p(-np.minimum(p, 1 - 1e-16)))
    return Expected(float((-np.expm1(empty) - alone).sum()), rows * rows * rest * floor / 2)


def expected_tokens(table: Cells, rows: int, *, floor: float = 1e-9) -> Expected:
    """Expected number of rows that share their cell with another."""
    p, rest = product_cells(table, floor=floor)
    shared = -np.expm1((rows - 1) * np.log1p(-np.minimum(p, 1 - 1e-16)))
    return Expected(float(rows * (p * shared).sum()), rows * rows * rest * floor)


def expected_varying(table: Cells, rows: int) -> float:
    """Expected number of dimensions in which not all rows agree; exact for every distribution.

    Rows are independent even where dimensions are not. Wild dimensions count as varying.
    """
    tabled = table.probability[~table.wild]
    return float((1 - (tabled**rows).sum(axis=1)).sum() + table.wild.sum())


def expected_pairs(
    centre: np.ndarray, table: Cells, rows: int, *, scale: float, distribution: Distribution
) -> float:
    """Expected number of identical pairs of rows, wild dimensions included."""
    below = marginal(distribution, float(np.float32(scale)), centre.size)
    log_same = 0.0
    for k in range(len(table)):
        p = table.probability[k]
        if table.wild[k]:
            edge = borders(table.low[k] + np.arange(table.count[k] - 1))
            edge = edge - float(centre[table.dim[k]])
            p = np.diff(np.concatenate([[0.0], below(edge), [1.0]]))
        log_same += np.log((p**2).sum())
    return float(np.exp(np.log(rows * (rows - 1) / 2) + log_same))


def expected_largest(table: Cells, rows: int, *, floor: float = 1e-9, top: int = 300) -> float:
    """Expected population of the largest group, by Levin's (1981) representation.

    P(max <= m) = P(W = N) / P(Poisson(N) = N) * product of P(Poisson(N p) <= m), W the sum of the
    Poissons cut off at m. P(W = N) is taken as normal; only the `top` likeliest cells can bind.
    Where one cell is far ahead of all others the answer is its own expectation.
    """
    p, _ = product_cells(table, floor=floor)
    mean = rows * p[:top]
    if len(mean) == 1:
        return float(mean[0])
    gap = (mean[0] - mean[1]) / np.sqrt(mean[0] + mean[1])
    if gap > 7:  # no other cell can overtake the likeliest: a plain binomial
        return float(mean[0])
    free = rows - mean.sum()
    width = 9 * np.sqrt(mean[0]) + 12
    m = np.arange(max(0, int(mean[0] - width)), int(mean[0] + width) + 1)
    log_cdf = stats.poisson.logcdf(m[:, None], mean)
    # moments of a Poisson cut off at m: E[X] = mean * F(m-1) / F(m), E[X(X-1)] likewise
    ratio1 = np.exp(stats.poisson.logcdf(m[:, None] - 1, mean) - log_cdf)
    ratio2 = np.exp(stats.poisson.logcdf(m[:, None] - 2, mean) - log_cdf)
    first, second = mean * ratio1, mean**2 * ratio2
    centre = first.sum(axis=1) + free
    spread = np.sqrt((second + first - first**2).sum(axis=1) + free)
    log_at_n = stats.norm.logpdf(rows, centre, spread)
    log_norm = rows * np.log(rows) - rows - special.gammaln(rows + 1)
    below = np.exp(np.minimum(log_at_n - log_norm + log_cdf.sum(axis=1), 0))
    below = np.maximum.accumulate(below)
    return float(m[0] + (1 - below).sum())
