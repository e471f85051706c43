"""The spike: a place on the axis of norms where far too many rows have the same length.

A scan statistic (the likelihood ratio of Kulldorff's scan, in one dimension): slide windows of
many widths over the sorted norms, compare the count in each with what its neighbourhood leads one
to expect, and keep the window that a smooth density explains worst. No label, no token and no
threshold on the norm enters.

Voids: empty gaps round a cluster, found from sorted distances alone.

Let r_1 <= r_2 <= ... be the distances of all rows to a point. If rows were spread about the point
with a density that follows a power of the distance, in D effective dimensions, then the numbers
k ln(r_{k+1} / r_k) would be independent exponentials of mean 1/D (Rényi's representation of order
statistics, Acta Math. Hung. 4, 1953). D >= 1, so exp(-k ln(r_{k+1} / r_k)) bounds the probability
of so wide a gap at rank k by chance: the *surprise* k ln(r_{k+1} / r_k), in nats, compares gaps at
all ranks on one scale. No label, no radius and no bin width enters.

The dead cluster: found without labels, and bounded by every rule the sources used.

Each rule answers "which rows belong to the dead cluster?" differently, so every count of members or
singletons carries its rule's name. All rules start from the matrix's *anchor*: the row of its most
populous black hole or, where no two rows are identical, the row in the middle of the spike that the
norms show. None looks at a token.

The survey of many matrices: census, void and spike of each, on one line.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.sparse import csgraph
from scipy.spatial.distance import cdist

from lib import show
from lib.analysis import census
from lib.analysis.census import Census
from lib.analysis.qwen3 import MODEL, PHANTOMS_FROM
from lib.extraction import catalogue, specimens
from lib.extraction.catalogue import Description, SpecimenError, Trained
from lib.extraction.specimens import Specimen

SPIKE_REACH = 10.0  # the neighbourhood extends so many widths to either side of the window


class Spike(NamedTuple):
    """A window on the axis of norms.

    low, high   the smallest and largest norm in it, in the units of the matrix
    rows        rows in it
    background  rows that the density of its neighbourhood would put there
    surprise    log likelihood ratio, in nats, of "a spike" against "the neighbourhood goes on"
    """

    low: float
    high: float
    rows: int
    background: float
    surprise: float

    @property
    def width(self) -> float:
        """From the smallest to the largest norm."""
        return self.high - self.low

    @property
    def centre(self) -> float:
        """Halfway between the smallest and the largest norm."""
        return (self.low + self.high) / 2

    def holds(self, norms: np.ndarray) -> np.ndarray:
        """(n,) norms -> (n,) bool: whether each lies in the window, ends included."""
        return (norms >= self.low) & (norms <= self.high)


def find_spike(norms: np.ndarray, widths: np.ndarray | None = None) -> Spike:
    """(n,) norms -> the window with the largest scan statistic over all `widths`."""
    widths = spike_widths(norms) if widths is None else widths
    return max(scan_spikes(norms, widths), key=lambda window: window.surprise)


def spike_widths(norms: np.ndarray, count: int = 19) -> np.ndarray:
    """(count,) window widths: geometric, from 1e-5 to 1e-2 standard deviations of the norms.

    Wider windows would find the curve of the bulk itself. Raises ValueError if nothing can be
    scanned: fewer than 16 norms, or none that differ.
    """
    norms = np.asarray(norms, dtype=np.float64)
    if norms.size < 16 or norms.std() == 0:
        raise ValueError("a spike needs at least 16 norms, and some that differ")
    return norms.std() * np.geomspace(1e-5, 1e-2, count)


def scan_spikes(norms: np.ndarray, widths: np.ndarray) -> list[Spike]:
    """(n,) norms, (w,) widths -> for each width the most surprising window of that width."""
    ordered = np.sort(np.asarray(norms, dtype=np.float64))
    return [_scan_one(ordered, float(width)) for width in widths]


def _scan_one(ordered: np.ndarray, width: float) -> Spike:
    """The most surprising window that starts at a row, its ends drawn in to the rows it holds."""
    first = np.arange(len(ordered))
    last = np.searchsorted(ordered, ordered + width, side="right")
    rows = last - first
    lowest = np.searchsorted(ordered, ordered - SPIKE_REACH * width, side="left")
    highest = np.searchsorted(ordered, ordered + (1 + SPIKE_REACH) * width, side="right")
    around = highest - lowest - rows
    background = (around + 1) / (
        2 * SPIKE_REACH
    )  # one row more: an empty neighbourhood proves little
    surprise = np.where(
        rows > background, rows * np.log(rows / background) - (rows - background), 0.0
    )
    at = int(surprise.argmax())
    return Spike(
        low=float(ordered[at]),
        high=float(ordered[last[at] - 1]),
        rows=int(rows[at]),
        background=float(background[at]),
        surprise=float(surprise[at]),
    )


class Void(NamedTuple):
    """An empty shell: `rows` lie at distance `inner` or less, none between `inner` and `outer`."""

    rows: int
    inner: float
    outer: float

    @property
    def ratio(self) -> float:
        return self.outer / self.inner

    @property
    def surprise(self) -> float:
        """Nats against chance: k ln(outer/inner)."""
        return self.rows * float(np.log(self.ratio))

    @property
    def middle(self) -> float:
        """The radius halfway across."""
        return (self.inner + self.outer) / 2


def voids(distances: np.ndarray, *, most: int = 5, fraction: float = 0.5) -> list[Void]:
    """The `most` most surprising voids of (n,) distances, the widest first.

    Only gaps that enclose at most `fraction` of the rows count: the thinning rim of the whole
    vocabulary is no void. Gaps that begin at distance zero have no ratio and are left out.
    Raises ValueError on distances that are negative or not finite.
    """
    ordered = _ordered(distances)
    last = int(len(ordered) * fraction)
    inner, outer = ordered[:last], ordered[1 : last + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(inner > 0, np.arange(1, last + 1) * np.log(outer / inner), 0.0)
    ranks = np.argsort(-surprise, kind="stable")[:most]
    return [_void(ordered, int(k) + 1) for k in ranks if surprise[k] > 0]


def significant_void(distances: np.ndarray, *, chance: float = 1e-6) -> Void | None:
    """The most surprising void of (n,) distances, or None if one like it may arise by chance.

    `chance` is the probability of a false alarm over all n ranks, D = 1 being assumed (the
    cautious end).
    """
    found = voids(distances, most=1)
    threshold = np.log(len(distances) / chance)
    return found[0] if found and found[0].surprise > threshold else None


def widest_void(distances: np.ndarray, *, nearest: int = 10_000) -> Void:
    """The sources' "conspicuous void": the widest gap, in distance, among the `nearest` rows.

    It depends on `nearest` and favours large radii: where distances are larger so are gaps.
    """
    ordered = _ordered(distances)[:nearest]
    return _void(ordered, int(np.diff(ordered).argmax()) + 1)


def _ordered(distances: np.ndarray) -> np.ndarray:
    ordered = np.sort(np.asarray(distances, dtype=np.float64))
    if len(ordered) < 3 or not np.isfinite(ordered).all() or ordered[0] < 0:
        raise ValueError("a void needs at least 3 distances, finite and not negative")
    return ordered


def _void(ordered: np.ndarray, rows: int) -> Void:
    return Void(rows, float(ordered[rows - 1]), float(ordered[rows]))


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
    void: Void
    distances: np.ndarray
    centre: str  # what the distances are measured from, in words


def dead_ball(specimen: Specimen, census: Census) -> DeadBall | None:
    """The cluster within the most surprising void round the anchor; None if chance explains it.

    The anchor is that of `anchor`; an extract brings its own reference point.
    """
    distances, centre = anchor_distances(specimen, census)
    void = significant_void(distances)
    if void is None:
        return None
    return DeadBall(np.flatnonzero(distances <= void.inner), void, distances, centre)


def anchor_distances(specimen: Specimen, census: Census) -> tuple[np.ndarray, str]:
    """((rows,) float64 L2 distances, what they are from)."""
    if not specimen.is_full:
        return specimen.array("dist").astype(np.float64), str(specimen.facts["arrays"]["dist"])
    row = anchor(specimen, census)
    return _distances(specimen, specimen.values([row])[0]), f"row {row}"


def anchor(specimen: Specimen, census: Census) -> int:
    """The row that every rule on a whole matrix starts from."""
    if census.holes:
        return int(census.first_ids[0])
    norms = specimen.norms
    ids = np.flatnonzero(find_spike(norms).holds(norms))
    values = specimen.values(ids).astype(np.float64)
    off = np.linalg.norm(values - np.median(values, axis=0), axis=1)
    return int(ids[off.argmin()])


def memberships(specimen: Specimen, census: Census) -> Iterator[Membership]:
    """Every rule in turn on a whole matrix; on an extract the rules that its numbers allow."""
    distances, _ = anchor_distances(specimen, census)
    in_holes = np.flatnonzero(np.isin(census.group, census.first_ids))
    widest = widest_void(distances, nearest=min(NEAREST, len(distances)))
    ball = significant_void(distances)
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
    void = widest_void(distances, nearest=min(NEAREST, len(distances)))
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


@dataclass(frozen=True)
class Cluster:
    """A dead cluster in a whole bf16 matrix."""

    specimen: Specimen
    census: Census

    @cached_property
    def distances(self) -> np.ndarray:
        """(rows,) float64 L2 distances to the anchor, a row of the most populous hole."""
        return anchor_distances(self.specimen, self.census)[0]

    def members(self, rule: Rule) -> np.ndarray:
        """(n,) int64 ids of the cluster under one of the rules EXPONENTS, CORE, KISSING, GRAPH or
        WIDEST_GAP, ascending. Raises ValueError for another rule, or a graph that is too large."""
        if rule is Rule.EXPONENTS:
            return np.flatnonzero(exponent_gaps(self.specimen, self.anchor) == 0)
        if rule is Rule.CORE:
            return np.flatnonzero(self.distances < CORE_RADIUS)
        if rule is Rule.WIDEST_GAP:
            holes = np.flatnonzero(np.isin(self.census.group, self.census.first_ids))
            return void_rule(self.specimen, self.census, holes).ids
        if rule not in (Rule.KISSING, Rule.GRAPH):
            raise ValueError(f"{rule} is not offered here; see memberships")
        find = kissing if rule is Rule.KISSING else graph
        joined = find(self.specimen, self.census, self.distances)
        if joined is None:
            raise ValueError(f"{self.specimen.id}: the component under {rule} is too large to draw")
        return joined

    @property
    def anchor(self) -> int:
        """Id of the row that the distances are from."""
        return anchor(self.specimen, self.census)

    def rows(self, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
        """((n, dim) uint16 distinct rows, most populous first, (n,) tokens on each)."""
        first, tokens = np.unique(self.census.group[self.members(rule)], return_counts=True)
        order = np.argsort(-tokens, kind="stable")
        return np.ascontiguousarray(self.specimen.bits[first[order]]), tokens[order]

    @cached_property
    def holes(self) -> tuple[np.ndarray, np.ndarray]:
        """The black holes of the cluster, as `rows`: those no farther than the void."""
        ids = self.census.first_ids
        void = significant_void(self.distances)
        near = ids[self.distances[ids] <= (np.inf if void is None else void.inner)]
        counts = np.bincount(self.census.group, minlength=self.census.rows)
        return np.ascontiguousarray(self.specimen.bits[near]), counts[near]

    def sample(self, size: int, *, rng: np.random.Generator) -> np.ndarray:
        """(size, dim) float32: rows drawn from those outside the void, ids ascending."""
        void = significant_void(self.distances)
        outside = np.flatnonzero(self.distances > (0 if void is None else void.inner))
        drawn = rng.choice(outside, min(size, len(outside)), replace=False)
        return self.specimen.values(np.sort(drawn))

    def phantoms(self) -> list[int]:
        """Rows without a token in each black hole, most populous hole first."""
        return [int((ids >= PHANTOMS_FROM).sum()) for _, ids in self.census.every_hole()]


def find_cluster(id: str = MODEL) -> Cluster | None:
    """The cluster of specimen `id` if its whole bf16 matrix is at hand, else None; says which."""
    try:
        specimen = specimens.open(id)
    except catalogue.SpecimenError as error:
        print(f"without the whole matrix: {error}")
        return None
    if not specimen.is_full or specimen.precision != "BF16":
        print(f"without a whole bfloat16 matrix of {id}: {specimen.source}")
        return None
    print(f"read {specimen.source}")
    return Cluster(specimen, census.duplicates(specimen.bits))


SURVEY_HEADERS = ("matrix", "rows", "width", "bits", "black holes", "rows in them", "largest",
           "rows in the void", "surprise", "spike")  # fmt: skip

SURVEY_ALIGN = "lrrlrrrrrr"


@dataclass(frozen=True)
class Surveyed:
    """What the instruments say of one matrix. `census` is None where no row is whole."""

    specimen: Specimen
    census: Census | None
    ball: DeadBall | None  # None: no void beyond chance
    spike: Spike

    def cells(self) -> list[str]:
        """One line of the table, under HEADERS; quantised counts in brackets."""
        s, exact = self.specimen, self.specimen.precision in ("BF16", "F16", "F32")
        counts = ["–"] * 3
        if self.census is not None:
            largest = int(self.census.populations[0]) if self.census.holes else 0
            counts = [show.number(n) for n in (self.census.holes, self.census.hole_rows, largest)]
            counts = counts if exact else [f"({n})" for n in counts]
        void = ["none", "–"]
        if self.ball is not None:
            void = [show.number(len(self.ball.ids)), show.number(round(self.ball.void.surprise))]
        return [s.description.model, show.number(s.rows), show.number(s.dim), s.precision, *counts,
                *void, show.number(round(self.spike.surprise))]  # fmt: skip


def at_hand() -> list[Specimen]:
    """Every specimen of the catalogue of which every row's length and place is on this machine.

    Of the matrices that this book trains, those that were trained at the scale in force.
    """
    found = [specimens.open(d.id) for d in catalogue.CATALOGUE if _is_here(d)]
    return [s for s in found if s.is_full or "dist" in s.arrays]  # some extracts hold a few rows


def survey(specimen: Specimen) -> Surveyed:
    """Point all instruments at one matrix."""
    counted = None
    if specimen.is_full or "row_group" in specimen.arrays:
        counted = census.of(specimen)
    start = counted or Census(np.arange(specimen.rows))  # no two rows are known to be equal
    ball = dead_ball(specimen, start)
    return Surveyed(specimen, counted, ball, find_spike(specimen.norms))


def to_train() -> list[Description]:
    """The specimens that this book trains and has not trained here, at the scale in force."""
    return [d for d in catalogue.CATALOGUE if is_trained(d) and not _is_here(d)]


def is_trained(description: Description) -> bool:
    """Whether a chapter of this book trains the specimen."""
    return any(isinstance(source, Trained) for source in description.sources)


def _is_here(description: Description) -> bool:
    return specimens.here(description) != "no"
