"""Crystals: which dimensions of a cloud vary on the lattice, and whether its flips are independent.

Each dimension in which rows differ has a few states. If every row had chosen its own, dimension by
dimension, the states' frequencies alone would give the number of distinct rows, their populations
and every two-way table; the tests here say how far they do.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.sparse import coo_array
from scipy.special import xlogy

from lib import lattice
from lib.analysis import graph
from lib.analysis.census import Demographics

MOST = 1_000  # distinct rows of which a portrait shows graphs and shuffles


def half_precision(bits: np.ndarray) -> np.ndarray:
    """float16 patterns (uint16, any shape) -> the nearest bf16 patterns, uint16."""
    return lattice.round_nearest(bits.view(np.float16).astype(np.float32))


class SpreadFit(NamedTuple):
    """One width R of a cloud, common to all dimensions, fitted to which dimensions vary."""

    width: float  # length R
    low: float  # 95 % likelihood interval of R
    high: float
    classes: np.ndarray  # (k, 4): step length, dimensions, observed varying, expected varying
    p_value: float  # share of simulated counts that deviate at least as much


def fit_spread(
    step: np.ndarray, varies: np.ndarray, *, rng: np.random.Generator, trials: int
) -> SpreadFit:
    """Fit P(dimension varies) = min(1, R / step) to `step` (dims,) lengths, `varies` (dims,) bool.

    R is the maximum-likelihood width; the interval is where the log likelihood is within 1.92 of
    its maximum; the p-value comes from `trials` simulated sets of counts, with R fitted to each.
    Raises ValueError if no dimension varies, or all do: then R is not bounded.
    """
    if not varies.any() or varies.all():
        raise ValueError("the width can be fitted only if some dimensions vary and some do not")
    lengths, at = np.unique(step, return_inverse=True)
    total = np.bincount(at).astype(float)
    observed = np.bincount(at, weights=varies)
    log_grid = np.linspace(np.log(lengths[0]) - 12, np.log(lengths[-1]) + 1, 4_000)
    chance = np.clip(np.exp(log_grid)[:, None] / lengths, 1e-300, 1 - 1e-3)  # (grid, k)

    def likelihood(counts: np.ndarray) -> np.ndarray:
        """(..., k) counts -> (..., grid) their log likelihood for every R."""
        return counts @ np.log(chance).T + (total - counts) @ np.log1p(-chance).T

    of_observed = likelihood(observed)
    best = of_observed.argmax()
    inside = np.flatnonzero(of_observed > of_observed[best] - 1.92)
    draws = rng.binomial(total.astype(int), chance[best], (trials, len(total)))
    null = _deviance(draws, total, chance[likelihood(draws).argmax(axis=1)])
    as_far = np.sum(null >= _deviance(observed, total, chance[best]))
    return SpreadFit(
        *np.exp(log_grid[[best, inside[0], inside[-1]]]).tolist(),
        np.column_stack([lengths, total, observed, total * chance[best]]),
        float((as_far + 1) / (trials + 1)),
    )


def _deviance(observed: np.ndarray, total: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Twice the log likelihood ratio of binomial counts (..., k) against `chance`: (...)."""
    missed, expected = total - observed, total * chance
    terms = xlogy(observed, observed / expected) + xlogy(missed, missed / (total - expected))
    return 2 * terms.sum(axis=-1)


def states(ordinals: np.ndarray) -> np.ndarray:
    """(vectors, dims) lattice coordinates -> (vectors, dims) int: 0, 1, 2, ... in each column."""
    return np.column_stack([np.unique(column, return_inverse=True)[1] for column in ordinals.T])


class Counts(NamedTuple):
    """What trials of a null model give; compare holes with holes, all rows with all rows."""

    distinct: np.ndarray  # (trials,) int64: distinct rows, single ones included
    holes: np.ndarray  # (trials,) int64: those of at least two rows
    largest: np.ndarray  # (trials, 4) int64: largest populations, descending

    @property
    def single(self) -> np.ndarray:
        """(trials,) int64 rows that are like no other."""
        return self.distinct - self.holes

    def surprise(self, holes: int) -> float:
        """`holes` less those of the trials, in their standard deviations; NaN if these are 0."""
        spread = self.holes.std() if len(self.holes) else 0.0
        return float((holes - self.holes.mean()) / spread) if spread else np.nan


def _counted(tables: Iterable[np.ndarray]) -> Counts:
    """Counts of one (rows, dims) table of states after the other."""
    populations = [np.sort(np.unique(t, axis=0, return_counts=True)[1])[::-1] for t in tables]
    largest = np.zeros((len(populations), 4), dtype=np.int64)
    for row, found in zip(largest, populations, strict=True):
        row[: len(found)] = found[:4]
    distinct = np.array([len(found) for found in populations], dtype=np.int64)
    holes = np.array([np.sum(found > 1) for found in populations], dtype=np.int64)
    return Counts(distinct, holes, largest)


def product(
    table: np.ndarray, populations: np.ndarray, *, rng: np.random.Generator, trials: int
) -> Counts:
    """Counts of `trials` tables whose dimensions are independent.

    `table` (vectors, dims) int states, `populations` (vectors,) the rows of each. Every dimension
    is shuffled among the rows on its own, which keeps its frequencies exactly and breaks every
    relation between dimensions.
    """
    rows = np.repeat(table, populations, axis=0)
    return _counted(rng.permuted(rows, axis=0) for _ in range(trials))


class Pair(NamedTuple):
    """The two-way table of two dimensions, weighted by population."""

    left: int
    right: int
    p: float  # of independence, rows taken as independent
    cramer: float  # Cramér's V: 0 independent, 1 one determines the other
    combinations: int  # occupied cells of the table
    cells: int  # all cells


def pairs(table: np.ndarray, populations: np.ndarray) -> list[Pair]:
    """Chi-square test (no continuity correction) of every two dimensions of `table`."""
    found = []
    for left, right in combinations(range(table.shape[1]), 2):
        counts = coo_array((populations, (table[:, left], table[:, right]))).toarray()
        test = stats.chi2_contingency(counts, correction=False)
        cramer = np.sqrt(test.statistic / populations.sum() / (min(counts.shape) - 1))
        occupied = np.count_nonzero(counts)
        found.append(Pair(left, right, test.pvalue, cramer, occupied, counts.size))
    return found


def low_rank(
    table: np.ndarray, populations: np.ndarray, rank: int, *, rng: np.random.Generator, trials: int
) -> Counts:
    """Counts of `trials` continuous clouds of `rank` dimensions with the same walls."""
    return _counted(cut_cloud(table, populations, rank, rng=rng) for _ in range(trials))


def cut_cloud(
    table: np.ndarray, populations: np.ndarray, rank: int, *, rng: np.random.Generator
) -> np.ndarray:
    """(rows, dims) int states of a continuous cloud of `rank` dimensions, cut by walls.

    Rows are Gaussian in `rank` dimensions; every dimension of `table` is a random direction in
    that space, cut by walls that give each state the frequency it has in the table.
    """
    rows = np.repeat(table, populations, axis=0)
    shares = [np.cumsum(np.bincount(column) / len(rows))[:-1] for column in rows.T]
    directions = rng.normal(size=(rank, table.shape[1]))
    places = rng.normal(size=(len(rows), rank)) @ directions
    cells = [
        np.searchsorted(np.quantile(place, share), place)
        for place, share in zip(places.T, shares, strict=True)
    ]
    return np.column_stack(cells)


@dataclass(frozen=True)
class Portrait(Demographics):
    """A set of rows as every instrument of this part sees it."""

    graphs: dict[graph.Adjacency, graph.Graph]  # on the distinct rows; empty if more than MOST
    independent: Counts  # after shuffling every dimension on its own
    dependent_pairs: float  # share of pairs of varying dimensions with p < 0.05; NaN without pairs

    @property
    def surprise(self) -> float:
        """Distinct rows less those of independent dimensions, in standard deviations of the latter;
        NaN where shuffling changes nothing."""
        null = self.independent.distinct
        spread = null.std() if len(null) else 0.0
        return float((self.unique - null.mean()) / spread) if spread else np.nan


def portrait(bits: np.ndarray, *, rng: np.random.Generator, trials: int) -> Portrait:
    """The portrait of bf16 rows `bits` (n, dim) uint16, copies included.

    Graphs are built, and dimensions shuffled `trials` times, only for at most MOST distinct rows: a
    cloud that the lattice resolves entirely has nothing to say to either.
    """
    distinct, count = np.unique(bits, axis=0, return_counts=True)
    order = np.argsort(-count, kind="stable")
    distinct, count = distinct[order], count[order]
    ordinals = lattice.ordinal(distinct)
    extent = np.ptp(ordinals, axis=0).astype(np.int64)
    graphs, independent, dependent = {}, _counted([]), np.nan
    if len(distinct) <= MOST:
        graphs = graph.every(distinct, populations=count)
        if extent.any():
            table = states(ordinals[:, extent > 0])
            independent = product(table, count, rng=rng, trials=trials)
            tests = pairs(table, count)
            dependent = np.mean([p.p < 0.05 for p in tests]) if tests else np.nan
    return Portrait(count, extent, graphs, independent, dependent)
