"""Graphs on distinct rows: who is adjacent to whom, under every rule that the sources used.

"Do the rows touch?" has as many answers as there are meanings of touching. Each rule here has a
name, a threshold in a stated unit, and nothing else; whatever a chapter says about edges, degrees
or components carries the rule's name.
"""

import enum
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
from scipy.sparse import coo_array, csgraph
from scipy.spatial.distance import cdist

from lib import lattice
from lib.specimens.specimen import to_float32
from lib.survey.clusters import GRAPH_EDGE, GRAPH_LIMIT

EPSILON = 5.96e-5  # the sources' epsilon as printed (seed 001, appendix A); a step there is 2^-14


class Rule(enum.Enum):
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
        return self in (Rule.ONE_DIMENSION, Rule.ONE_STEP, Rule.NEIGHBOUR)


THRESHOLDS = {  # the largest distance of adjacent rows, in the unit given
    Rule.EPSILON: EPSILON,  # length
    Rule.KISSING: 2 * EPSILON,  # length: cells of half-width epsilon touch
    Rule.ONE_DIMENSION: 1,  # dimensions
    Rule.ONE_STEP: 1,  # steps, summed over dimensions (L1 = 1)
    Rule.NEIGHBOUR: 1,  # steps, in every dimension
    Rule.L2: GRAPH_EDGE,  # length
}
METRICS = {
    Rule.EPSILON: "chebyshev",
    Rule.KISSING: "chebyshev",
    Rule.ONE_DIMENSION: "hamming",
    Rule.ONE_STEP: "cityblock",
    Rule.NEIGHBOUR: "chebyshev",
    Rule.L2: "euclidean",
}


@dataclass(frozen=True)
class Graph:
    """An undirected graph on `nodes` distinct rows, under `rule`."""

    rule: Rule
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

    def tokens(self, component: int = 0) -> int:
        """Tokens on the rows of a component (0: the one with most)."""
        return int(self.populations[self.labels == component].sum())

    def networkx(self) -> nx.Graph:
        """The same graph for layouts and whatever else networkx knows; nodes carry `tokens`."""
        graph = nx.Graph()
        graph.add_nodes_from((i, {"tokens": int(n)}) for i, n in enumerate(self.populations))
        graph.add_edges_from(self.edges.tolist())
        return graph


def distances(bits: np.ndarray, rule: Rule, *, precision: str = "BF16") -> np.ndarray:
    """(n, D) uint16 patterns -> (n, n) float64 distances in the rule's own metric and unit.

    `precision` is BF16 or F16; steps are steps of that lattice. Hamming distances are counts.
    Raises ValueError for more rows than a pairwise table is sensible for.
    """
    if len(bits) > GRAPH_LIMIT:
        raise ValueError(f"{len(bits):,} rows make too large a table; use survey.neighbours")
    bits = np.ascontiguousarray(bits)
    points = lattice.ordinal(bits) if rule.on_lattice else to_float32(bits, precision)
    table = cdist(points.astype(np.float64), points.astype(np.float64), METRICS[rule])
    return np.rint(table * bits.shape[1]) if rule is Rule.ONE_DIMENSION else table


def build(
    bits: np.ndarray,
    rule: Rule,
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


def every(bits: np.ndarray, **options) -> dict[Rule, Graph]:
    """The graph under every rule, in the order of `Rule`; options as for `build`."""
    return {rule: build(bits, rule, **options) for rule in Rule}
