"""The shape of a dead cluster: how wide in each dimension, how dense at each radius.

Extents and diversity are counted on the lattice, in steps; radii are lengths.
"""

import enum
from dataclasses import dataclass

import numpy as np

from lib import lattice
from lib.survey import flips, graph


@dataclass(frozen=True)
class Box:
    """The bounding box of a set of rows, in lattice steps."""

    extent: np.ndarray  # (dim,) int64: largest minus smallest ordinal
    diversity: np.ndarray  # (dim,) int64: distinct values
    mantissa_only: np.ndarray  # (dim,) bool: sign and exponent are common to all rows

    @property
    def constant(self) -> int:
        """Dimensions in which all rows agree."""
        return int((self.extent == 0).sum())

    @property
    def log10_cells(self) -> float:
        """log10 of the number of lattice points in the box."""
        return float(np.log10(self.extent + 1.0).sum())


def box(bits: np.ndarray, *, mantissa_bits: int = lattice.MANTISSA_BITS) -> Box:
    """The bounding box of `bits` (n, dim) uint16; `mantissa_bits` is 7 for bf16, 10 for float16."""
    ordinals = lattice.ordinal(bits)
    ordered = np.sort(ordinals, axis=0)
    head = np.asarray(bits) >> mantissa_bits
    return Box(
        (ordered[-1] - ordered[0]).astype(np.int64),
        (np.diff(ordered, axis=0) != 0).sum(axis=0) + 1,
        (head == head[0]).all(axis=0),
    )


class Zone(enum.Enum):
    """Where a row stands relative to a dead cluster's void."""

    CORE = "core"  # the dense middle, inside the first decade of radii that empties
    HALO = "halo"  # inside the void, outside the core
    OORT = "Oort cloud"  # the first rows beyond the void
    FIELD = "field"  # everybody else

    def __str__(self) -> str:
        return self.value


def zones(
    distances: np.ndarray, *, core: float, inner: float, outer: float, oort: float
) -> np.ndarray:
    """(rows,) distances -> (rows,) Zone: up to `core`, up to `inner` (the void's inner edge), up to
    `oort` beyond the void's `outer` edge, and the rest. Radii must ascend (ValueError)."""
    if not 0 < core <= inner < outer <= oort:
        raise ValueError(f"radii must ascend, got {core}, {inner}, {outer}, {oort}")
    named = np.full(distances.shape, Zone.FIELD, dtype=object)
    named[distances <= oort] = Zone.OORT
    named[distances <= inner] = Zone.HALO
    named[distances <= core] = Zone.CORE
    return named


def profile(distances: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((k,) rows in each shell, (k,) rows per unit of ln r): density against radius.

    A volume density would fall by hundreds of decades a factor of two in high dimensions; rows per
    e-fold of radius show the same gaps on a scale one can draw.
    """
    rows, _ = np.histogram(distances, edges)
    return rows, rows / np.diff(np.log(edges))


@dataclass(frozen=True)
class Portrait:
    """A set of rows as every instrument of this part sees it."""

    rows: int
    populations: np.ndarray  # (distinct,) rows on each distinct row, descending
    box: Box
    graphs: dict[graph.Rule, graph.Graph]  # on the distinct rows; empty if there are too many
    independent: np.ndarray  # (trials,) distinct rows after shuffling every dimension on its own
    dependent_pairs: float  # share of pairs of varying dimensions with p < 0.05; NaN without pairs

    @property
    def distinct(self) -> int:
        """Distinct rows."""
        return len(self.populations)

    @property
    def holes(self) -> int:
        """Black holes: distinct rows with at least two copies."""
        return int((self.populations > 1).sum())

    @property
    def varying(self) -> int:
        """Dimensions in which not all rows agree."""
        return int((self.box.extent > 0).sum())

    @property
    def surprise(self) -> float:
        """Distinct rows less those of independent dimensions, in standard deviations of the latter;
        NaN where shuffling changes nothing."""
        spread = self.independent.std()
        return float((self.distinct - self.independent.mean()) / spread) if spread else np.nan


def portrait(
    bits: np.ndarray, *, rng: np.random.Generator, trials: int, largest: int = 1_000
) -> Portrait:
    """The portrait of bf16 rows `bits` (n, dim) uint16, copies included.

    Graphs are built, and dimensions shuffled `trials` times, only for at most `largest` distinct
    rows: a cloud that the lattice resolves entirely has nothing to say to either.
    """
    distinct, count = np.unique(bits, axis=0, return_counts=True)
    order = np.argsort(-count, kind="stable")
    distinct, count = distinct[order], count[order]
    found = box(distinct)
    graphs, independent, dependent = {}, np.empty(0), np.nan
    if len(distinct) <= largest:
        graphs = graph.every(distinct, populations=count)
        varying = np.flatnonzero(found.extent)
        if len(varying):
            states = flips.states(lattice.ordinal(distinct[:, varying]))
            independent = flips.product(states, count, rng=rng, trials=trials).distinct
        if len(varying) > 1:
            dependent = np.mean([p.p < 0.05 for p in flips.pairs(states, count)])
    return Portrait(len(bits), count, found, graphs, independent, float(dependent))


def expected_varying(rows: np.ndarray) -> tuple[float, float]:
    """How many dimensions of float32 `rows` (n, dim) should vary on the bf16 lattice: mean and
    standard deviation, if where a lattice wall stands is chance in every dimension.

    A dimension varies with probability min(1, range / step), the step being that of its median.
    """
    step = lattice.ulp(lattice.round_nearest(np.median(rows, axis=0).astype(np.float32)))
    chance = np.minimum(1, np.ptp(rows.astype(np.float64), axis=0) / step)
    return float(chance.sum()), float(np.sqrt((chance * (1 - chance)).sum()))
