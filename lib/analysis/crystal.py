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

from lib import lattice
from lib.analysis import graph
from lib.analysis.census import Demographics

MOST = 1_000  # distinct rows of which a portrait shows graphs and shuffles


def half_precision(bits: np.ndarray) -> np.ndarray:
    """float16 patterns (uint16, any shape) -> the nearest bf16 patterns, uint16."""
    return lattice.round_nearest(bits.view(np.float16).astype(np.float32))


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


def counted(tables: Iterable[np.ndarray]) -> Counts:
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
    return counted(rng.permuted(rows, axis=0) for _ in range(trials))


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
    graphs, independent, dependent = {}, counted([]), np.nan
    if len(distinct) <= MOST:
        graphs = graph.every(distinct, populations=count)
        if extent.any():
            table = states(ordinals[:, extent > 0])
            independent = product(table, count, rng=rng, trials=trials)
            tests = pairs(table, count)
            dependent = np.mean([p.p < 0.05 for p in tests]) if tests else np.nan
    return Portrait(count, extent, graphs, independent, dependent)
