"""The dead cluster of a matrix: found without labels, and bounded by every rule the sources used.

Two instruments find what a smooth cloud of rows does not have: a *spike*, a place on the axis of
norms where far too many rows have the same length, and a *void*, an empty shell in the distances to
one row. Neither looks at a token or has a threshold. Each rule of `Cluster` answers "which rows
belong to it?" differently, so every count of members or singletons carries its rule's name.
"""

import contextlib
import enum
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.sparse import csgraph
from scipy.spatial.distance import cdist

from lib.analysis import census, geometry
from lib.analysis.census import Census
from lib.analysis.qwen3 import MODEL
from lib.extraction import catalogue, specimens
from lib.extraction.catalogue import Description, SpecimenError, Trained
from lib.extraction.specimens import CHUNK, Specimen

SPIKE_REACH = 10.0  # the neighbourhood extends so many widths to either side of the window
CHANCE = 1e-6  # of a false alarm in a whole matrix, at which a void counts


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


def find_spike(norms: np.ndarray) -> Spike:
    """(n,) norms -> the window with the largest scan statistic over all widths."""
    return max(scan_spikes(norms, spike_widths(norms)), key=lambda window: window.surprise)


def spike_widths(norms: np.ndarray) -> np.ndarray:
    """(19,) window widths: geometric, from 1e-5 to 1e-2 standard deviations of the norms.

    Wider windows would find the curve of the bulk itself. Raises ValueError if nothing can be
    scanned: fewer than 16 norms, or none that differ.
    """
    norms = np.asarray(norms, dtype=np.float64)
    if norms.size < 16 or norms.std() == 0:
        raise ValueError("a spike needs at least 16 norms, and some that differ")
    return norms.std() * np.geomspace(1e-5, 1e-2, 19)


def scan_spikes(norms: np.ndarray, widths: np.ndarray) -> list[Spike]:
    """(n,) norms, (w,) widths -> for each width the most surprising window of that width.

    A scan statistic (the likelihood ratio of Kulldorff's scan, in one dimension): a window starts
    at every row, its count is compared with what its neighbourhood leads one to expect, and the
    window wins that a smooth density explains worst. Its ends are drawn in to the rows it holds.
    """
    ordered = np.sort(np.asarray(norms, dtype=np.float64))
    return [_scan(ordered, float(width)) for width in widths]


def _scan(ordered: np.ndarray, width: float) -> Spike:
    last = np.searchsorted(ordered, ordered + width, side="right")
    rows = last - np.arange(len(ordered))
    lowest = np.searchsorted(ordered, ordered - SPIKE_REACH * width, side="left")
    highest = np.searchsorted(ordered, ordered + (1 + SPIKE_REACH) * width, side="right")
    around = highest - lowest - rows + 1  # one row more: an empty neighbourhood proves little
    background = around / (2 * SPIKE_REACH)
    ratio = rows * np.log(rows / background) - (rows - background)
    surprise = np.where(rows > background, ratio, 0.0)
    at = int(surprise.argmax())
    low, high = float(ordered[at]), float(ordered[last[at] - 1])
    return Spike(low, high, int(rows[at]), float(background[at]), float(surprise[at]))


class Void(NamedTuple):
    """An empty shell: `rows` lie at distance `inner` or less, none between `inner` and `outer`.

    Let r_1 <= r_2 <= ... be the distances of all rows to a point. If rows were spread about it with
    a density that follows a power of the distance, in D effective dimensions, then the numbers
    k ln(r_{k+1} / r_k) would be independent exponentials of mean 1/D (Rényi's representation of
    order statistics, Acta Math. Hung. 4, 1953). D >= 1, so exp(-surprise) bounds the probability
    of so wide a gap at rank k by chance, on one scale for all ranks.
    """

    rows: int
    inner: float
    outer: float

    @property
    def ratio(self) -> float:
        """How many times as far away the next row is as the last one inside."""
        return self.outer / self.inner

    @property
    def surprise(self) -> float:
        """Nats against chance: k ln(outer/inner)."""
        return self.rows * float(np.log(self.ratio))

    @property
    def middle(self) -> float:
        """The radius halfway across."""
        return (self.inner + self.outer) / 2


def voids(distances: np.ndarray, *, most: int = 5) -> list[Void]:
    """The `most` most surprising voids of (n,) distances, the most surprising first.

    Only gaps that enclose at most half of the rows count: the thinning rim of the whole vocabulary
    is no void. Gaps that begin at distance zero have no ratio and are left out. Raises ValueError
    on distances that are negative or not finite.
    """
    ordered = _ordered(distances)
    last = len(ordered) // 2
    inner, outer = ordered[:last], ordered[1 : last + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(inner > 0, np.arange(1, last + 1) * np.log(outer / inner), 0.0)
    ranks = np.argsort(-surprise, kind="stable")[:most]
    return [_void(ordered, int(k) + 1) for k in ranks if surprise[k] > 0]


def significant_void(distances: np.ndarray) -> Void | None:
    """The most surprising void of (n,) distances, or None if one like it may arise by CHANCE.

    That is the probability of a false alarm over all n ranks, D = 1 being assumed (the cautious
    end).
    """
    threshold = np.log(len(distances) / CHANCE)
    return next((void for void in voids(distances, most=1) if void.surprise > threshold), None)


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
GRAPH_LIMIT = 6_000  # distinct rows beyond which a pairwise graph is not drawn
EXPONENT_BITS = {"BF16": (7, 0xFF), "F16": (10, 0x1F), "F32": (23, 0xFF)}  # shift, mask


class Rule(enum.Enum):
    """The sources' ways to bound the cluster, and the book's own: a name, and its numbers."""

    HOLES = "black holes", "identical rows in the cluster"
    EXPONENTS = "exact exponents", "all exponents equal"
    BOX = "hyper-rectangle", "box of the exact exponents"
    CORE = "core", f"L2 < {CORE_RADIUS:g}"
    KISSING = "kissing", "L∞ ≤ 2 × 2⁻¹⁴"
    GRAPH = "L2 graph", f"edges ≤ {GRAPH_EDGE:g}"
    WIDEST_GAP = "radius void", "widest gap of 10,000"
    VOID = "most surprising void", "largest k ln(r'/r)"

    def __str__(self) -> str:
        return self.value[0]

    @property
    def setting(self) -> str:
        """The rule's numbers, in words."""
        return self.value[1]


OF_EXTRACTS = (Rule.HOLES, Rule.WIDEST_GAP, Rule.VOID)  # rules that need no row, only distances


@dataclass(frozen=True)
class Cluster:
    """The dead cluster of a matrix, or what the numbers of an extract say of it.

    All rules start from the `anchor`: the row of the most populous black hole or, where no two rows
    are identical, the row in the middle of the spike that the norms show. An extract brings its own
    reference point. `census` is None where it does not say which rows are identical.
    """

    specimen: Specimen
    census: Census | None

    @cached_property
    def spike(self) -> Spike:
        """The most surprising place on the axis of norms."""
        return find_spike(self.specimen.norms)

    @cached_property
    def anchor(self) -> int:
        """Id of the row of a whole matrix that every rule starts from."""
        if self.census.holes:
            return int(self.census.first_ids[0])
        ids = np.flatnonzero(self.spike.holds(self.specimen.norms))
        values = self.specimen.values(ids).astype(np.float64)
        off = np.linalg.norm(values - np.median(values, axis=0), axis=1)
        return int(ids[off.argmin()])

    @cached_property
    def distances(self) -> np.ndarray:
        """(rows,) float64 L2 distances to the anchor, or to the extract's reference point."""
        if not self.specimen.is_full:
            return self.specimen.array("dist").astype(np.float64)
        return geometry.distances(self.specimen, self.specimen.values([self.anchor])[0])

    @cached_property
    def void(self) -> Void | None:
        """The most surprising void round the anchor; None if chance explains it."""
        return significant_void(self.distances)

    @cached_property
    def widest(self) -> Void:
        """The sources' void, round the population-weighted mean of *all* black holes."""
        return widest_void(self._from_holes)

    @cached_property
    def exponent_gaps(self) -> np.ndarray:
        """(rows,) int16: the largest difference of exponent fields to the anchor's, over all
        components. Signs are not compared, as in the sources.

        Raises SpecimenError for dtypes without exponents.
        """
        specimen = self.specimen
        if specimen.precision not in EXPONENT_BITS:
            raise SpecimenError(
                f"{specimen.id}: {specimen.precision} rows have no exponents to compare"
            )
        shift, mask = EXPONENT_BITS[specimen.precision]
        gaps = np.empty(specimen.rows, dtype=np.int16)
        reference = ((specimen.bits[self.anchor] >> shift) & mask).astype(np.int16)
        for start in range(0, specimen.rows, CHUNK):
            part = slice(start, start + CHUNK)
            fields = ((specimen.bits[part] >> shift) & mask).astype(np.int16)
            gaps[part] = np.abs(fields - reference).max(axis=1)
        return gaps

    def members(self, rule: Rule) -> np.ndarray:
        """(n,) int64 ids of the cluster under a rule, ascending.

        Raises SpecimenError where the rule cannot be applied: to an extract, to rows without
        exponents, to a component that is too large, without a void beyond chance.
        """
        if not (self.specimen.is_full or rule in OF_EXTRACTS):
            raise SpecimenError(f"{self.specimen.id}: {rule} needs the whole matrix")
        match rule:
            case Rule.HOLES:
                return self._identical()
            case Rule.EXPONENTS:
                return np.flatnonzero(self.exponent_gaps == 0)
            case Rule.BOX:
                return self._box()
            case Rule.CORE:
                return np.flatnonzero(self.distances < CORE_RADIUS)
            case Rule.KISSING:  # no row farther than sqrt(D) L∞ kisses
                reach = KISSING * np.sqrt(self.specimen.dim)
                return self._component("chebyshev", KISSING, reach)
            case Rule.GRAPH:
                return self._component("euclidean", GRAPH_EDGE, GRAPH_EDGE)
            case Rule.WIDEST_GAP:
                return np.flatnonzero(self._from_holes <= self.widest.inner)
        if self.void is None:
            raise SpecimenError(f"{self.specimen.id}: no void round its anchor is beyond chance")
        return np.flatnonzero(self.distances <= self.void.inner)

    def memberships(self) -> dict[Rule, np.ndarray]:
        """The members under every rule that can be applied."""
        found = {}
        for rule in Rule:
            with contextlib.suppress(SpecimenError):
                found[rule] = self.members(rule)
        return found

    def rows(self, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
        """((n, dim) uint16 distinct rows, most populous first, (n,) tokens on each)."""
        first, tokens = np.unique(self.census.group[self.members(rule)], return_counts=True)
        order = np.argsort(-tokens, kind="stable")
        return np.ascontiguousarray(self.specimen.bits[first[order]]), tokens[order]

    @cached_property
    def _from_holes(self) -> np.ndarray:
        """(rows,) distances to the mean of all rows in black holes, if there are any at hand."""
        if not (self.specimen.is_full and self.census.holes):
            return self.distances
        in_holes = self.specimen.values(self.census.in_holes)
        return geometry.distances(self.specimen, in_holes.mean(axis=0, dtype=np.float64))

    def _identical(self) -> np.ndarray:
        """Rows in black holes within either void; identical rows elsewhere are no members."""
        if self.census is None:
            raise SpecimenError(f"{self.specimen.id}: which rows are identical is not known")
        edges = [void.inner for void in (widest_void(self.distances), self.void) if void]
        ids = self.census.in_holes
        return ids[self.distances[ids] <= max(edges)]

    def _box(self) -> np.ndarray:
        """Rows in the smallest box, parallel to the axes, of those with the anchor's exponents."""
        corners = self.specimen.values(self.members(Rule.EXPONENTS))
        low, high = corners.min(axis=0), corners.max(axis=0)
        middle = self.specimen.values([self.anchor])[0]
        farthest = np.linalg.norm(np.maximum(high - middle, middle - low).astype(np.float64))
        near = np.flatnonzero(self.distances <= farthest * (1 + 1e-9))  # others lie beyond a corner
        values = self.specimen.values(near)
        return near[((values >= low) & (values <= high)).all(axis=1)]

    def _component(self, metric: str, edge: float, reach: float) -> np.ndarray:
        """Ids of the anchor's component among rows joined by `metric` <= edge.

        Only rows within L2 `reach` of some member can join, so the pool grows outwards until it is
        closed. Raises SpecimenError if it is too large.
        """
        radius, group = reach, self.census.group
        while True:
            pool = np.flatnonzero(self.distances <= radius * (1 + 1e-9))
            first = np.unique(group[pool])
            if len(first) > GRAPH_LIMIT:
                raise SpecimenError(f"{self.specimen.id}: its component is too large to draw")
            values = self.specimen.values(first).astype(np.float64)
            touching = cdist(values, values, metric) <= edge
            _, label = csgraph.connected_components(touching, directed=False)
            joined = first[label == label[np.searchsorted(first, group[self.anchor])]]
            farthest = self.distances[joined].max()
            if farthest + reach <= radius or len(pool) == len(self.distances):
                return np.flatnonzero(np.isin(group, joined))
            radius = farthest + reach


def of(specimen: Specimen) -> Cluster:
    """The cluster of a specimen, with its census where it is known which rows are identical."""
    known = specimen.is_full or "row_group" in specimen.arrays
    return Cluster(specimen, census.of(specimen) if known else None)


def find_cluster(id: str = MODEL) -> Cluster | None:
    """The cluster of specimen `id` if its whole bf16 matrix is at hand, else None; says which."""
    try:
        specimen = specimens.open(id)
    except SpecimenError as error:
        print(f"without the whole matrix: {error}")
        return None
    if not specimen.is_full or specimen.precision != "BF16":
        print(f"without a whole bfloat16 matrix of {id}: {specimen.source}")
        return None
    print(f"read {specimen.source}")
    return of(specimen)


def at_hand() -> list[Specimen]:
    """Every specimen of the catalogue of which every row's length and place is on this machine.

    Of the matrices that this book trains, those that were trained at the scale in force.
    """
    found = [specimens.open(d.id) for d in catalogue.CATALOGUE if specimens.here(d) != "no"]
    return [s for s in found if s.is_full or "dist" in s.arrays]  # some extracts hold a few rows


def to_train() -> list[Description]:
    """The specimens that this book trains and has not trained here, at the scale in force."""
    lacking = [d for d in catalogue.CATALOGUE if specimens.here(d) == "no"]
    return [d for d in lacking if any(isinstance(source, Trained) for source in d.sources)]
