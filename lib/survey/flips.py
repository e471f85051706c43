"""Are the holes made by independent flips? Tests on a table of vectors, dimensions and populations.

Each dimension in which the vectors differ has a few states. If every token chose its states
independently, dimension by dimension, the number of distinct vectors, their populations and every
two-way table would follow from the states' frequencies alone. The tests say how far they do.
"""

from dataclasses import dataclass
from itertools import combinations

import networkx as nx
import numpy as np
from scipy import stats


def states(ordinals: np.ndarray) -> np.ndarray:
    """(vectors, dims) lattice coordinates -> (vectors, dims) int: 0, 1, 2, ... in each column."""
    return np.column_stack([np.unique(column, return_inverse=True)[1] for column in ordinals.T])


@dataclass(frozen=True)
class Product:
    """What independent dimensions with the same frequencies would give, trial by trial."""

    distinct: np.ndarray  # (trials,) distinct vectors
    largest: np.ndarray  # (trials, 4) the largest populations, descending


def product(
    table: np.ndarray, populations: np.ndarray, *, rng: np.random.Generator, trials: int
) -> Product:
    """Shuffle every dimension of the expanded table (tokens, dims) on its own, `trials` times.

    `table` (vectors, dims) int states, `populations` (vectors,). Shuffling keeps each dimension's
    frequencies exactly and breaks every relation between dimensions.
    """
    tokens = np.repeat(table, populations, axis=0)
    base = tokens.max(axis=0) + 1
    weight = np.cumprod(np.append(1, base[:-1])).astype(np.int64)
    distinct, largest = np.empty(trials, dtype=np.int64), np.zeros((trials, 4), dtype=np.int64)
    for trial in range(trials):
        shuffled = rng.permuted(tokens, axis=0)
        counts = np.sort(np.unique(shuffled @ weight, return_counts=True)[1])[::-1]
        distinct[trial] = len(counts)
        largest[trial, : len(counts[:4])] = counts[:4]
    return Product(distinct, largest)


@dataclass(frozen=True)
class Pair:
    """The two-way table of two dimensions, weighted by population."""

    left: int
    right: int
    chi2: float
    p: float  # of independence, tokens taken as independent
    cramer: float  # Cramér's V: 0 independent, 1 one determines the other
    combinations: int  # occupied cells of the table
    cells: int  # all cells


def pairs(table: np.ndarray, populations: np.ndarray) -> list[Pair]:
    """Chi-square test (no continuity correction) of every two dimensions of `table`."""
    found = []
    for left, right in combinations(range(table.shape[1]), 2):
        counts = np.zeros((table[:, left].max() + 1, table[:, right].max() + 1))
        np.add.at(counts, (table[:, left], table[:, right]), populations)
        test = stats.chi2_contingency(counts, correction=False)
        cramer = np.sqrt(test.statistic / populations.sum() / (min(counts.shape) - 1))
        found.append(
            Pair(left, right, float(test.statistic), float(test.pvalue), float(cramer),
                 int((counts > 0).sum()), counts.size)
        )  # fmt: skip
    return found


def shattered(table: np.ndarray) -> int:
    """Most two-state dimensions that occur in all combinations of states (1, 2, 3, ...).

    Vectors cut from a cloud of k dimensions by one wall a dimension can show all 2^m combinations
    of m walls only if k >= m: so the cloud has at least this many dimensions.
    """
    binary = [d for d in range(table.shape[1]) if table[:, d].max() == 1]
    most = min(1, len(binary))
    for size in range(2, len(binary) + 1):
        if not any(
            len(np.unique(table[:, list(chosen)], axis=0)) == 2**size
            for chosen in combinations(binary, size)
        ):
            break
        most = size
    return most


def tree(table: np.ndarray) -> nx.Graph:
    """Minimum spanning tree of the vectors; an edge's `weight` counts dimensions that change."""
    apart = (table[:, None] != table[None]).sum(axis=-1)
    graph = nx.Graph()
    graph.add_weighted_edges_from(
        (i, j, int(apart[i, j])) for i, j in combinations(range(len(table)), 2)
    )
    return nx.minimum_spanning_tree(graph)


def consistency(table: np.ndarray) -> float:
    """Fewest changes that the states need, over changes in the spanning tree: 1 for a perfect tree.

    A dimension with s states must change at least s - 1 times on any tree. Values below 1 mean
    that dimensions flip repeatedly, as in a cloud and unlike a line of descent.
    """
    needed = int(table.max(axis=0).sum())
    return needed / sum(weight for *_, weight in tree(table).edges(data="weight"))


def consistency_null(table: np.ndarray, *, rng: np.random.Generator, trials: int) -> np.ndarray:
    """(trials,) consistency after each dimension's states are shuffled among the vectors.

    Shuffles in which two vectors coincide count like any other.
    """
    return np.array([consistency(rng.permuted(table, axis=0)) for _ in range(trials)])


def low_rank(
    table: np.ndarray, populations: np.ndarray, rank: int, *, rng: np.random.Generator, trials: int
) -> np.ndarray:
    """(trials,) distinct vectors of a continuous cloud of `rank` dimensions with the same walls.

    Tokens are Gaussian in `rank` dimensions; every dimension of `table` is a random direction in
    that space, cut by walls that give each state the frequency it has in the table.
    """
    tokens = np.repeat(table, populations, axis=0)
    shares = [np.cumsum(np.bincount(column) / len(tokens))[:-1] for column in tokens.T]
    distinct = np.empty(trials, dtype=np.int64)
    for trial in range(trials):
        directions = rng.normal(size=(rank, table.shape[1]))
        places = rng.normal(size=(len(tokens), rank)) @ directions
        cells = [
            np.searchsorted(np.quantile(place, share), place)
            for place, share in zip(places.T, shares, strict=True)
        ]
        distinct[trial] = len(np.unique(np.column_stack(cells), axis=0))
    return distinct
