"""Graphs on distinct rows: who is adjacent to whom, under every rule that the sources used.

"Do the rows touch?" has as many answers as there are meanings of touching. Each rule has a name,
and whatever a chapter says about edges, degrees or components carries it. A few thousand rows are
compared pair by pair; lattice neighbours are found in a matrix of any size, and exactly.
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

PRINTED = 5.96e-5  # the sources' epsilon, a length (seed 001, appendix A); a step there is 2^-14


class Adjacency(enum.Enum):
    """When two distinct rows are adjacent: name of the rule, metric, largest distance."""

    EPSILON = "L∞ ≤ ε", "chebyshev", PRINTED  # length
    KISSING = "L∞ ≤ 2ε (kissing)", "chebyshev", 2 * PRINTED  # length: cells of half-width ε touch
    ONE_DIMENSION = "one dimension differs", "hamming", 1  # dimensions
    ONE_STEP = "one dimension differs, by one step", "cityblock", 1  # steps, over all dimensions
    NEIGHBOUR = "L∞ ≤ 1 step", "chebyshev", 1  # steps, in every dimension
    L2 = "L2 linkage", "euclidean", GRAPH_EDGE  # length

    def __init__(self, label: str, metric: str, threshold: float):
        self.label, self.metric, self.threshold = label, metric, threshold

    def __str__(self) -> str:
        return self.label

    @property
    def on_lattice(self) -> bool:
        """Whether the rule counts on the lattice rather than measuring lengths."""
        return self in (Adjacency.ONE_DIMENSION, Adjacency.ONE_STEP, Adjacency.NEIGHBOUR)


@dataclass(frozen=True)
class Graph:
    """An undirected graph on distinct rows, under `rule`."""

    rule: Adjacency
    edges: np.ndarray  # (edges, 2) int64, left < right, sorted
    populations: np.ndarray  # (nodes,) int64: tokens that share each row

    @property
    def nodes(self) -> int:
        """Distinct rows."""
        return len(self.populations)

    @cached_property
    def labels(self) -> np.ndarray:
        """(nodes,) int64: component of each node, numbered from the one with most tokens."""
        return _components(self.edges, self.populations)

    @property
    def components(self) -> int:
        """Connected components, isolated nodes included."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def degree(self) -> np.ndarray:
        """(nodes,) int64."""
        return np.bincount(self.edges.ravel(), minlength=self.nodes)

    @property
    def isolated(self) -> int:
        """Nodes without an edge."""
        return int((self.degree == 0).sum())

    @property
    def density(self) -> float:
        """Share of all pairs of nodes that are adjacent; 1 for a single node."""
        pairs = self.nodes * (self.nodes - 1) // 2
        return len(self.edges) / pairs if pairs else 1.0

    @property
    def is_complete(self) -> bool:
        """Whether every two nodes are adjacent."""
        return self.density == 1

    @property
    def tokens(self) -> int:
        """Tokens on the rows of the component that has most."""
        return int(self.populations[self.labels == 0].sum())

    def networkx(self) -> nx.Graph:
        """The same graph for layouts and whatever else networkx knows."""
        graph = nx.empty_graph(self.nodes)
        graph.add_edges_from(self.edges.tolist())
        return graph


def _components(edges: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(nodes,) int64: component of each node, numbered from the one with most `weight` (nodes,)."""
    joined = coo_array((np.ones(len(edges), dtype=bool), edges.T), shape=(len(weight),) * 2)
    _, label = csgraph.connected_components(joined, directed=False)
    order = np.argsort(-np.bincount(label, weights=weight), kind="stable")
    return order.argsort()[label]


def distances(bits: np.ndarray, rule: Adjacency, *, precision: str = "BF16") -> np.ndarray:
    """(n, D) uint16 patterns -> (n, n) float64 distances in the rule's own metric and unit.

    `precision` is BF16 or F16; steps are steps of that lattice. Hamming distances are counts.
    Raises ValueError for more rows than a pairwise table is sensible for.
    """
    if len(bits) > GRAPH_LIMIT:
        raise ValueError(f"{len(bits):,} rows make too large a table; use graph.search")
    bits = np.ascontiguousarray(bits)
    points = lattice.ordinal(bits) if rule.on_lattice else to_float32(bits, precision)
    table = cdist(points.astype(np.float64), points.astype(np.float64), rule.metric)
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
    limit = rule.threshold if threshold is None else threshold
    near = np.triu(distances(bits, rule, precision=precision) <= limit, k=1)
    count = np.ones(len(bits), dtype=np.int64) if populations is None else populations
    return Graph(rule, np.argwhere(near), count)


def every(bits: np.ndarray, **options) -> dict[Adjacency, Graph]:
    """The graph under every rule, in their order; options as for `build`."""
    return {rule: build(bits, rule, **options) for rule in Adjacency}


# ---------------------------------------------------------------- neighbours in a whole matrix
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
        return _components(at, np.ones(len(self.touched)))

    @property
    def members(self) -> list[np.ndarray]:
        """Row ids of each component with at least two distinct rows, ascending; largest first."""
        order = np.argsort(self.labels, kind="stable")
        return np.split(self.touched[order], np.cumsum(np.bincount(self.labels))[:-1])[: len(order)]

    @property
    def components(self) -> int:
        """Connected components with at least two distinct rows."""
        return int(self.labels.max(initial=-1)) + 1

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

    `bits` may be a memory map, of bfloat16 or float16 patterns; it is not copied. `known` spares
    the census if it is at hand. Raises SpecimenError if `bits` is no such matrix or a row that
    could be a neighbour holds NaN or infinity, ValueError if `steps` is negative.

    *Filter*: the few dimensions that tell rows apart best are cut into cells much wider than
    `steps`, and each row is filed under its own cell and, where it lies within `steps` of a wall,
    under the cell beyond. *Bucket*: the filed keys are sorted; rows that share none are nobody's
    neighbours (keys are hashed: a collision costs a comparison, never a pair). *Verify*: within a
    bucket all pairs are compared. One that is too large is cut again in its own best dimensions;
    only a crowd so dense that no dimension splits it takes a time that grows as its square.
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
    return NeighbourGraph(edges, found)


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
