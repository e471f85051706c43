"""The dead cluster: found without labels, and bounded by every rule the sources used.

Each rule answers "which rows belong to the dead cluster?" differently, so every count of members or
singletons carries its rule's name. All rules start from the matrix's *anchor*: the row of its most
populous black hole or, where no two rows are identical, the row in the middle of the spike that the
norms show. None looks at a token.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csgraph
from scipy.spatial.distance import cdist

from lib.specimens.errors import SpecimenError
from lib.specimens.specimen import Specimen
from lib.survey import spike, voids
from lib.survey.census import Census

EPSILON = 2.0**-14  # the ULP of components in [2^-7, 2^-6); the sources print it as 5.96e-5
KISSING = 2 * EPSILON  # largest difference of any component between kissing rows
GRAPH_EDGE = 0.002  # L2 length of the longest edge of the sources' adjacency graph
CORE_RADIUS = 5e-5  # L2 radius of the sources' core
NEAREST = 10_000  # rows among which the sources looked for the void
TOLERANCES = range(16)  # of the exponent ladder
GRAPH_LIMIT = 6_000  # distinct rows beyond which a pairwise graph is not drawn

EXPONENT_BITS = {"BF16": (7, 0xFF), "F16": (10, 0x1F), "F32": (23, 0xFF)}  # shift, mask


class Rule(enum.Enum):
    """The sources' ways to bound the cluster, and the book's own."""

    HOLES = "black holes"
    EXPONENTS = "exact exponents"
    LADDER = "exponents within a tolerance"
    BOX = "hyper-rectangle"
    CORE = "core"
    KISSING = "kissing"
    GRAPH = "L2 graph"
    WIDEST_GAP = "radius void"
    VOID = "most surprising void"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Membership:
    """Who belongs to the cluster under one rule."""

    rule: Rule
    setting: str  # the rule's numbers, in words
    ids: np.ndarray  # (n,) int64, ascending


@dataclass(frozen=True)
class DeadBall:
    """A tight cluster in an empty shell. `distances` is (rows,) float64, to `centre`'s row."""

    ids: np.ndarray
    void: voids.Void
    distances: np.ndarray
    centre: str  # what the distances are measured from, in words


def dead_ball(specimen: Specimen, census: Census) -> DeadBall | None:
    """The cluster within the most surprising void round the anchor; None if chance explains it.

    The anchor is that of `anchor`; an extract brings its own reference point.
    """
    distances, centre = anchor_distances(specimen, census)
    void = voids.significant(distances)
    if void is None:
        return None
    return DeadBall(np.flatnonzero(distances <= void.inner), void, distances, centre)


def anchor_distances(specimen: Specimen, census: Census) -> tuple[np.ndarray, str]:
    """((rows,) float64 L2 distances, what they are from)."""
    if not specimen.is_full:
        return specimen.distances.astype(np.float64), str(specimen.facts["arrays"]["dist"])
    row = anchor(specimen, census)
    return _distances(specimen, specimen.values([row])[0]), f"row {row}"


def anchor(specimen: Specimen, census: Census) -> int:
    """The row that every rule on a whole matrix starts from."""
    if census.holes:
        return int(census.first_ids[0])
    norms = specimen.norms
    ids = np.flatnonzero(spike.find(norms).holds(norms))
    values = specimen.values(ids).astype(np.float64)
    off = np.linalg.norm(values - np.median(values, axis=0), axis=1)
    return int(ids[off.argmin()])


def memberships(specimen: Specimen, census: Census) -> Iterator[Membership]:
    """Every rule in turn on a whole matrix; on an extract the rules that its numbers allow."""
    distances, _ = anchor_distances(specimen, census)
    in_holes = np.flatnonzero(np.isin(census.group, census.first_ids))
    widest = voids.widest(distances, nearest=min(NEAREST, len(distances)))
    ball = voids.significant(distances)
    radius = widest.inner if ball is None else max(widest.inner, ball.inner)
    holes = in_holes[distances[in_holes] <= radius]  # identical rows elsewhere are no members
    yield Membership(Rule.HOLES, "identical rows in the cluster", holes)
    if specimen.is_full:
        yield from _bitwise(specimen, census, distances)
        yield Membership(
            Rule.CORE, f"L2 < {CORE_RADIUS:g}", np.flatnonzero(distances < CORE_RADIUS)
        )
        yield Membership(Rule.KISSING, "L∞ ≤ 2 × 2⁻¹⁴", kissing(specimen, census, distances))
        joined = graph(specimen, census, distances)
        if joined is not None:
            yield Membership(Rule.GRAPH, f"edges ≤ {GRAPH_EDGE:g}", joined)
        yield void_rule(specimen, census, in_holes)
    else:
        near = np.flatnonzero(distances <= widest.inner)
        yield Membership(Rule.WIDEST_GAP, f"widest gap of {NEAREST:,}", near)
    if ball is not None:
        near = np.flatnonzero(distances <= ball.inner)
        yield Membership(Rule.VOID, "largest k ln(r'/r)", near)


def exponent_gaps(specimen: Specimen, row: int) -> np.ndarray:
    """(rows,) int16: the largest difference of exponent fields to row `row`, over all components.

    Signs are not compared, as in the sources. Raises SpecimenError for dtypes without exponents.
    """
    if specimen.precision not in EXPONENT_BITS:
        raise SpecimenError(
            f"{specimen.id}: {specimen.precision} rows have no exponents to compare"
        )
    shift, mask = EXPONENT_BITS[specimen.precision]
    bits = specimen.bits

    def exponents(rows: np.ndarray) -> np.ndarray:
        return ((rows >> shift) & mask).astype(np.int16)

    reference = exponents(np.asarray(bits[row]))
    gaps = np.empty(len(bits), dtype=np.int16)
    for part in _parts(len(bits)):
        gaps[part] = np.abs(exponents(np.asarray(bits[part])) - reference).max(axis=1)
    return gaps


def kissing(specimen: Specimen, census: Census, distances: np.ndarray) -> np.ndarray:
    """(n,) ids of the component of kissing rows (L∞ <= KISSING) that holds the anchor."""
    reach = KISSING * np.sqrt(specimen.dim)  # no row farther than this kisses: L2 <= sqrt(D) L∞
    return _component(specimen, census, distances, "chebyshev", KISSING, reach)


def graph(specimen: Specimen, census: Census, distances: np.ndarray) -> np.ndarray | None:
    """(n,) ids of the L2 graph's component that holds the anchor; None if it is too large."""
    return _component(specimen, census, distances, "euclidean", GRAPH_EDGE, GRAPH_EDGE)


def _bitwise(specimen: Specimen, census: Census, distances: np.ndarray) -> Iterator[Membership]:
    """The rules on bit patterns: exponents, their ladder, the box round the exact ones."""
    start = anchor(specimen, census)
    gaps = exponent_gaps(specimen, start)
    exact = np.flatnonzero(gaps == 0)
    yield Membership(Rule.EXPONENTS, "all exponents equal", exact)
    for tolerance in TOLERANCES[1:]:
        near = np.flatnonzero(gaps <= tolerance)
        yield Membership(Rule.LADDER, f"exponents within {tolerance}", near)
    # A lattice box inside a ball: only rows as close as its farthest corner can lie in it.
    corners = specimen.values(exact)
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle = specimen.values([start])[0]
    corner = np.linalg.norm(np.maximum(high - middle, middle - low).astype(np.float64))
    candidates = np.flatnonzero(distances <= corner * (1 + 1e-9))
    values = specimen.values(candidates)
    inside = ((values >= low) & (values <= high)).all(axis=1)
    yield Membership(Rule.BOX, "box of the exact exponents", candidates[inside])


def void_rule(specimen: Specimen, census: Census, in_holes: np.ndarray) -> Membership:
    """The sources' void, round the population-weighted mean of *all* holes (ids `in_holes`)."""
    rows = in_holes if len(in_holes) else [anchor(specimen, census)]
    centre = specimen.values(rows).mean(axis=0, dtype=np.float64)
    distances = _distances(specimen, centre)
    void = voids.widest(distances, nearest=min(NEAREST, len(distances)))
    setting = f"r < {void.middle:.4g}, widest gap of {NEAREST:,}"
    return Membership(Rule.WIDEST_GAP, setting, np.flatnonzero(distances < void.middle))


def _component(
    specimen: Specimen,
    census: Census,
    distances: np.ndarray,
    metric: str,
    edge: float,
    reach: float,
) -> np.ndarray | None:
    """Ids of the anchor's component among rows joined by `metric` <= edge; None if too large.

    Only rows within `reach` of some member can join, so the pool grows outwards until it is closed.
    """
    radius, start = reach, census.group[anchor(specimen, census)]
    while True:
        pool = np.flatnonzero(distances <= radius * (1 + 1e-9))
        first = np.unique(census.group[pool])
        if len(first) > GRAPH_LIMIT:
            return None
        values = specimen.values(first).astype(np.float64)
        touching = cdist(values, values, metric) <= edge
        _, label = csgraph.connected_components(touching, directed=False)
        joined = first[label == label[np.searchsorted(first, start)]]
        farthest = distances[joined].max()
        if farthest + reach <= radius or len(pool) == len(distances):
            return np.flatnonzero(np.isin(census.group, joined))
        radius = farthest + reach


def _distances(specimen: Specimen, point: np.ndarray) -> np.ndarray:
    """(rows,) float64 L2 distances to `point`: float64 differences first, no cancellation."""
    out = np.empty(specimen.rows)
    for part, values in specimen.chunks():
        offset = values.astype(np.float64) - point
        out[part] = np.sqrt(np.einsum("ij,ij->i", offset, offset))
    return out


def _parts(rows: int, size: int = 4_096) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
