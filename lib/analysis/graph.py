"""Graphs on distinct rows: who is adjacent to whom, under every rule that the sources used.

"Do the rows touch?" has as many answers as there are meanings of touching. Each rule here has a
name, a threshold in a stated unit, and nothing else; whatever a chapter says about edges, degrees
or components carries the rule's name.

All pairs of rows that are neighbours on the lattice: L∞ <= k steps, exact, at full scale.

Comparing every row with every other would take rows² x dim operations, 10^13 for a large model.
Three steps avoid it, and lose no pair:

1. *Filter.* Identical rows are one vector (the census). A few dimensions of each vector, those
   that tell rows apart best, are cut into cells much wider than k steps. Two neighbours lie in the
   same cell or next to a common wall, so each vector is filed under its own cell and, where it lies
   within k steps of a wall, under the cell beyond as well.
2. *Bucket.* Sort the filed keys. Vectors that share none are nobody's neighbours. Keys are hashed:
   a collision costs a comparison, never a pair.
3. *Verify.* Within a bucket every pair is compared in all dimensions, the widest first.

A bucket that is too large is cut again in its own best dimensions. Vectors crowded so densely that
no dimension splits them are compared pair by pair; that is the worst case, rows² again.

Ordinals rise with the value in any sign-exponent-mantissa format, so float16 patterns may be given
as well as bfloat16 ones; steps are then float16 steps.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
from scipy.sparse import coo_array, csgraph
from scipy.spatial.distance import cdist

from lib import lattice
from lib.analysis import census
from lib.analysis.census import Census
from lib.analysis.clusters import GRAPH_EDGE, GRAPH_LIMIT
from lib.extraction.catalogue import SpecimenError
from lib.extraction.specimens import to_float32
from lib.progress import bar

PRINTED_EPSILON = (
    5.96e-5  # the sources' epsilon as printed (seed 001, appendix A); a step there is 2^-14
)


class Adjacency(enum.Enum):
    """When two distinct rows are adjacent."""

    EPSILON = "L∞ ≤ ε"
    KISSING = "L∞ ≤ 2ε (kissing)"
    ONE_DIMENSION = "one dimension differs"
    ONE_STEP = "one dimension differs, by one step"
    NEIGHBOUR = "L∞ ≤ 1 step"
    L2 = "L2 linkage"

    def __str__(self) -> str:
        return self.value

    @property
    def on_lattice(self) -> bool:
        """Whether the rule counts lattice steps rather than measuring lengths."""
        return self in (Adjacency.ONE_DIMENSION, Adjacency.ONE_STEP, Adjacency.NEIGHBOUR)


THRESHOLDS = {  # the largest distance of adjacent rows, in the unit given
    Adjacency.EPSILON: PRINTED_EPSILON,  # length
    Adjacency.KISSING: 2 * PRINTED_EPSILON,  # length: cells of half-width epsilon touch
    Adjacency.ONE_DIMENSION: 1,  # dimensions
    Adjacency.ONE_STEP: 1,  # steps, summed over dimensions (L1 = 1)
    Adjacency.NEIGHBOUR: 1,  # steps, in every dimension
    Adjacency.L2: GRAPH_EDGE,  # length
}

METRICS = {
    Adjacency.EPSILON: "chebyshev",
    Adjacency.KISSING: "chebyshev",
    Adjacency.ONE_DIMENSION: "hamming",
    Adjacency.ONE_STEP: "cityblock",
    Adjacency.NEIGHBOUR: "chebyshev",
    Adjacency.L2: "euclidean",
}


@dataclass(frozen=True)
class Graph:
    """An undirected graph on `nodes` distinct rows, under `rule`."""

    rule: Adjacency
    threshold: float
    nodes: int
    edges: np.ndarray  # (edges, 2) int64, left < right, sorted
    populations: np.ndarray  # (nodes,) int64: tokens that share each row

    @cached_property
    def labels(self) -> np.ndarray:
        """(nodes,) int64: component of each node, numbered from the one with most tokens."""
        pairs = (np.ones(len(self.edges), dtype=bool), (self.edges[:, 0], self.edges[:, 1]))
        _, label = csgraph.connected_components(coo_array(pairs, shape=(self.nodes,) * 2))
        order = np.argsort(-np.bincount(label, weights=self.populations), kind="stable")
        return order.argsort()[label]

    @property
    def components(self) -> int:
        """Connected components, isolated nodes included."""
        return int(self.labels.max()) + 1 if self.nodes else 0

    @property
    def degree(self) -> np.ndarray:
        """(nodes,) int64."""
        return np.bincount(self.edges.ravel(), minlength=self.nodes)

    @property
    def isolated(self) -> int:
        """Nodes without an edge."""
        return int((self.degree == 0).sum())

    @property
    def is_complete(self) -> bool:
        """Whether every two nodes are adjacent."""
        return len(self.edges) == self.nodes * (self.nodes - 1) // 2

    @property
    def density(self) -> float:
        """Share of all pairs of nodes that are adjacent; 0 for a single node."""
        return len(self.edges) / max(1, self.nodes * (self.nodes - 1) // 2)

    def tokens(self, component: int = 0) -> int:
        """Tokens on the rows of a component (0: the one with most)."""
        return int(self.populations[self.labels == component].sum())

    def networkx(self) -> nx.Graph:
        """The same graph for layouts and whatever else networkx knows; nodes carry `tokens`."""
        graph = nx.Graph()
        graph.add_nodes_from((i, {"tokens": int(n)}) for i, n in enumerate(self.populations))
        graph.add_edges_from(self.edges.tolist())
        return graph


def distances(bits: np.ndarray, rule: Adjacency, *, precision: str = "BF16") -> np.ndarray:
    """(n, D) uint16 patterns -> (n, n) float64 distances in the rule's own metric and unit.

    `precision` is BF16 or F16; steps are steps of that lattice. Hamming distances are counts.
    Raises ValueError for more rows than a pairwise table is sensible for.
    """
    if len(bits) > GRAPH_LIMIT:
        raise ValueError(f"{len(bits):,} rows make too large a table; use survey.neighbours")
    bits = np.ascontiguousarray(bits)
    points = lattice.ordinal(bits) if rule.on_lattice else to_float32(bits, precision)
    table = cdist(points.astype(np.float64), points.astype(np.float64), METRICS[rule])
    return np.rint(table * bits.shape[1]) if rule is Adjacency.ONE_DIMENSION else table


def build(
    bits: np.ndarray,
    rule: Adjacency,
    *,
    populations: np.ndarray | None = None,
    threshold: float | None = None,
    precision: str = "BF16",
) -> Graph:
    """The graph of distinct rows `bits` (n, D) uint16 under `rule`.

    `populations` (n,) says how many tokens share each row (default 1); `threshold` replaces the
    rule's own. Raises ValueError if rows repeat, because duplicates are not neighbours.
    """
    if len(np.unique(bits, axis=0)) < len(bits):
        raise ValueError("a graph stands on distinct rows: take one row of each black hole")
    limit = THRESHOLDS[rule] if threshold is None else threshold
    near = np.triu(distances(bits, rule, precision=precision) <= limit, k=1)
    count = np.ones(len(bits), dtype=np.int64) if populations is None else np.asarray(populations)
    return Graph(rule, limit, len(bits), np.argwhere(near), count)


def every(bits: np.ndarray, **options) -> dict[Adjacency, Graph]:
    """The graph under every rule, in the order of `Rule`; options as for `build`."""
    return {rule: build(bits, rule, **options) for rule in Adjacency}


WINDOW = 32  # dimensions looked at for the first cut: one cache line of a row
CUTS = 10  # dimensions that make a cell
WIDTH = 64  # lattice steps across a cell, at least; half a binade
SAMPLE = 2_048  # vectors from which the best dimensions are chosen
SMALL = 16  # vectors in a bucket that are compared without looking for a better cut
CROWD = 1_024  # vectors in a bucket above which it is cut again
PAIRS = 1 << 20  # pairs compared at a time
MULTIPLIERS = np.random.default_rng(42).integers(0, 1 << 63, CUTS, dtype=np.uint64) * 2 + 1


@dataclass(frozen=True)
class NeighbourGraph:
    """The neighbours of a matrix's distinct rows, each named by the id of its first copy."""

    steps: int  # two rows are neighbours if no dimension differs by more steps
    edges: np.ndarray  # (edges, 2) int64 row ids, left < right, sorted
    census: Census  # who is identical with whom

    @cached_property
    def touched(self) -> np.ndarray:
        """(n,) int64 ids of distinct rows that have a neighbour, ascending."""
        return np.unique(self.edges)

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) int64: component of each row of `touched`, numbered by number of rows in it."""
        at = np.searchsorted(self.touched, self.edges)
        graph = coo_array((np.ones(len(at), bool), (at[:, 0], at[:, 1])), (len(self.touched),) * 2)
        _, label = csgraph.connected_components(graph, directed=False)
        order = np.argsort(-np.bincount(label, minlength=1), kind="stable")
        return order.argsort()[label] if len(label) else label

    @property
    def members(self) -> list[np.ndarray]:
        """Row ids of each component with at least two distinct rows, ascending; largest first."""
        order = np.argsort(self.labels, kind="stable")
        return np.split(self.touched[order], np.cumsum(np.bincount(self.labels))[:-1])[: len(order)]

    @property
    def components(self) -> int:
        """Connected components with at least two distinct rows."""
        return int(self.labels.max()) + 1 if len(self.edges) else 0

    @property
    def components_with_isolated(self) -> int:
        """Components of the graph on all distinct rows; one without neighbours is one by itself."""
        return self.components + self.census.unique - len(self.touched)

    @cached_property
    def rows_with_neighbour(self) -> np.ndarray:
        """(n,) int64 ids of all rows, copies included, whose vector has a neighbour."""
        return np.flatnonzero(np.isin(self.census.group, self.touched))

    @property
    def share_without(self) -> float:
        """Share of all rows whose vector has no lattice neighbour (copies are no neighbours)."""
        return 1 - len(self.rows_with_neighbour) / self.census.rows

    @property
    def share_alone(self) -> float:
        """Share of all rows with neither a lattice neighbour nor an identical copy."""
        company = np.isin(self.census.group, self.census.first_ids)
        company[self.rows_with_neighbour] = True
        return 1 - company.mean()


def search(bits: np.ndarray, steps: int = 1, *, known: Census | None = None) -> NeighbourGraph:
    """All pairs of distinct rows of `bits` (N, D) uint16 with L∞ <= `steps` lattice steps, exactly.

    `bits` may be a memory map; it is not copied. `known` spares the census if it is at hand.
    Raises SpecimenError if `bits` is no such matrix or a row that could be a neighbour holds NaN
    or infinity, ValueError if `steps` is negative.
    """
    if not (isinstance(bits, np.ndarray) and bits.dtype == np.uint16 and bits.ndim == 2):
        raise SpecimenError("a neighbour search needs a matrix of 16-bit patterns, (N, D) uint16")
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    found = census.duplicates(bits) if known is None else known
    ids = np.flatnonzero(found.group == np.arange(found.rows))
    columns = np.arange(min(WINDOW, bits.shape[1]))
    edges = _unique(_search(bits, ids, columns, steps), len(bits))
    touched = np.unique(edges)
    for part in _parts(len(touched), max(1, PAIRS // bits.shape[1])):
        try:
            lattice.check_finite(bits[touched[part]])
        except ValueError as error:
            where = f"rows {touched[part][0]}..{touched[part][-1]}"
            raise SpecimenError(f"the matrix cannot be searched: {error} of {where}") from None
    return NeighbourGraph(steps, edges, found)


def separations(bits: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(edges,) int64: L∞ of each pair in steps (0: only the signs of zeros differ)."""
    out = np.zeros(len(edges), dtype=np.int64)
    for part in _parts(len(edges), max(1, PAIRS // bits.shape[1])):
        apart = lattice.steps(bits[edges[part, 0]], bits[edges[part, 1]])
        out[part] = np.abs(apart).max(axis=1)
    return out


def brute_force(bits: np.ndarray, steps: int = 1) -> np.ndarray:
    """(edges, 2): the same pairs by comparing every two distinct rows; for tests and benchmarks."""
    first = np.sort(np.unique(bits, axis=0, return_index=True)[1])
    ordinals = lattice.ordinal(np.ascontiguousarray(bits[first]))
    edges = []
    for i in range(len(first) - 1):
        near = np.flatnonzero((np.abs(ordinals[i + 1 :] - ordinals[i]) <= steps).all(axis=1))
        edges += [(first[i], first[i + 1 + j]) for j in near]
    return np.array(edges, dtype=np.int64).reshape(-1, 2)


# ---------------------------------------------------------------- filter and bucket
def _search(
    bits: np.ndarray, ids: np.ndarray, columns: np.ndarray, steps: int, *, last: bool = False
) -> np.ndarray:
    """Edges among the distinct rows `ids`, cut in the best of `columns`.

    `last`: the columns are the best of all, so a bucket that stays as large is not cut again.
    """
    if len(ids) <= SMALL:
        return _compare(bits, ids, steps)
    patterns = bits[np.ix_(ids, columns)] if len(ids) < len(bits) else bits[:, columns]
    window = lattice.ordinal(patterns)
    order, bounds = _buckets(window[:, _best(window, steps)], steps)
    size = np.diff(bounds, axis=1)[:, 0]
    edges = [_small(bits, ids[order], bounds[size <= SMALL], steps)]
    large = bounds[size > SMALL]
    for start, stop in _watched(large, 1_000):
        members = ids[np.unique(order[start:stop])]
        cut = len(members) > CROWD and not (last and len(members) > 0.9 * len(ids))
        edges.append((_cut_again if cut else _compare)(bits, members, steps))
    return np.concatenate(edges)


def _cut_again(bits: np.ndarray, ids: np.ndarray, steps: int) -> np.ndarray:
    """Edges of a crowded bucket: cut in the best of all dimensions, or compared pair by pair."""
    cells = lattice.ordinal(bits[ids[:: -(-len(ids) // SAMPLE)]]) >> _shift(steps)
    together = (cells == np.median(cells, axis=0).astype(np.int32)).mean(axis=0)
    columns = np.argsort(together, kind="stable")[:WINDOW]
    if together[columns[0]] > 0.9:  # no dimension divides it
        return _compare(bits, ids, steps)
    return _search(bits, ids, np.sort(columns), steps, last=True)


def _best(window: np.ndarray, steps: int) -> np.ndarray:
    """Columns of `window` (n, columns) in which two of its rows share a cell least often."""
    cells = window[:: max(1, len(window) // SAMPLE)] >> _shift(steps)
    sharing = [(np.unique(c, return_counts=True)[1] ** 2).sum() for c in cells.T]
    return np.sort(np.argsort(sharing, kind="stable")[:CUTS])


def _buckets(ordinals: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """((filed,) row numbers ordered by key, (buckets, 2) start and stop of each with two or more).

    Each row of `ordinals` (n, cuts) int32 is filed under its own cell and every cell that lies
    within `steps` of it; neighbours therefore meet in each other's own cells.
    """
    shift = _shift(steps)
    ordinals = ordinals + (1 << shift) // 2  # zero and powers of two lie amid a cell, not on a wall
    inside = ordinals & ((1 << shift) - 1)
    multipliers = MULTIPLIERS[: ordinals.shape[1]]
    key = ((ordinals >> shift).astype(np.uint64) * multipliers).sum(axis=1, dtype=np.uint64)
    row = np.arange(len(ordinals))
    for column, multiplier in enumerate(multipliers):
        at = inside[row, column]
        low, high = at < steps, at >= (1 << shift) - steps
        key = np.concatenate([key, key[low] - multiplier, key[high] + multiplier])
        row = np.concatenate([row, row[low], row[high]])
    order = np.argsort(key, kind="stable")
    edges = np.flatnonzero(np.diff(key[order])) + 1
    bounds = np.column_stack([np.append(0, edges), np.append(edges, len(order))])
    return row[order], bounds[np.diff(bounds, axis=1)[:, 0] > 1]


def _shift(steps: int) -> int:
    """log2 of the steps across a cell: at least WIDTH, and eight times `steps`."""
    return max(WIDTH - 1, 8 * steps - 1).bit_length()


# ---------------------------------------------------------------- verify
def _small(bits: np.ndarray, filed: np.ndarray, bounds: np.ndarray, steps: int) -> np.ndarray:
    """(edges, 2) from all buckets of few rows at once; `filed` holds row ids ordered by key."""
    pairs = [np.empty((0, 2), dtype=np.int64)]
    size = np.diff(bounds, axis=1)[:, 0]
    for n in np.unique(size):
        members = filed[bounds[size == n, :1] + np.arange(n)]  # (buckets, n)
        left, right = np.triu_indices(n, 1)
        pairs.append(np.column_stack([members[:, left].ravel(), members[:, right].ravel()]))
    pairs = _unique(np.sort(np.concatenate(pairs), axis=1), len(bits))
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    for columns in _growing(bits.shape[1], WINDOW):
        kept = []
        for part in _parts(len(pairs), max(1, PAIRS // (columns.stop - columns.start))):
            left, right = (bits[pairs[part, side], columns] for side in (0, 1))
            kept.append((np.abs(lattice.steps(left, right)) <= steps).all(axis=1))
        pairs = pairs[np.concatenate(kept)] if kept else pairs
    return pairs


def _compare(bits: np.ndarray, ids: np.ndarray, steps: int) -> np.ndarray:
    """(edges, 2): pairs of the rows `ids`, ascending, within `steps`; all pairs are compared."""
    ordinals = lattice.ordinal(bits[ids], "int16")
    extent = ordinals.max(axis=0).astype(np.int32) - ordinals.min(axis=0)
    columns = np.argsort(-extent, kind="stable")[: np.count_nonzero(extent > steps)]
    ordinals = ordinals[:, columns].astype(np.int32)  # in the others everybody is within reach
    rows = len(ids)
    height = max(1, PAIRS // rows)
    edges = [np.empty((0, 2), dtype=np.int64)]
    starts = range(0, rows, height)
    for start in _watched(starts, 50):
        left, right = np.triu_indices(min(height, rows - start), 1, rows - start)
        left, right = left + start, right + start
        for part in _growing(len(columns), 1):
            near = np.abs(ordinals[left, part] - ordinals[right, part]) <= steps
            left, right = left[near.all(axis=1)], right[near.all(axis=1)]
        edges.append(np.column_stack([ids[left], ids[right]]))
    return np.concatenate(edges)


def _unique(pairs: np.ndarray, rows: int) -> np.ndarray:
    """(n, 2) pairs of row ids, sorted, each once."""
    return np.column_stack(np.divmod(np.unique(pairs[:, 0] * rows + pairs[:, 1]), rows))


def _growing(length: int, first: int) -> Iterator[slice]:
    """Slices that cover `length`, each twice as long as the one before: most pairs fail early."""
    start, width = 0, first
    while start < length:
        yield slice(start, min(start + width, length))
        start, width = start + width, 2 * width


def _watched(work: Sequence, many: int) -> Iterable:
    """`work` with a progress bar if there is much of it."""
    return bar(work, desc="neighbours") if len(work) >= many else work


def _parts(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
