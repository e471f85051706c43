"""From a specimen to its chart: principal axes, every row's place on them, the dead ball.

A whole matrix is measured here once and kept as an artefact; an extract brings what was measured
of it, or rows enough to estimate the axes from. Chapters ask for a `Chart` and need not know which.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import artifacts
from lib.analysis import census, clusters, geometry
from lib.extraction import specimens
from lib.extraction.catalogue import SpecimenError
from lib.extraction.specimens import Specimen

AXES = 10  # principal axes kept


@dataclass(frozen=True)
class Chart:
    """The places of `n` rows of W (all, or those at hand) and of its tight cluster."""

    ids: np.ndarray  # (n,) int64 row ids, ascending
    projection: np.ndarray  # (n, 3) float64, uncentred rows on principal axes 1..3
    dead: np.ndarray  # (n,) bool: rows of the tight cluster
    distances: np.ndarray  # (rows,) float64, every row of W to the middle of the cluster
    centre: np.ndarray  # (dim,) float64 centroid of the cluster
    mean: np.ndarray  # (dim,) float64 centroid of all rows
    variances: np.ndarray  # (k,) float64 along the first principal axes, descending
    trace: float  # variance along all axes together
    cluster: str  # how the cluster was found, in words
    how: str  # where the axes come from, in words

    @property
    def shares(self) -> np.ndarray:
        """(k,) fraction of the whole variance along each of the first axes."""
        return self.variances / self.trace


def chart(specimen: Specimen) -> Chart:
    """The chart of a specimen: from its artefact or extract if it has one, else measured."""
    if not specimen.is_full:
        return _from_extract(specimen)
    file = getattr(specimen.matrix, "filename", None)
    if file is None:  # a matrix that lives in memory: small, and no file to tie an artefact to
        return _from_tensors(measure(specimen), specimen)
    kept = artifacts.cached(Whole(specimen.id, str(file)), "discovery/03-sky")
    return _from_tensors(kept.tensors, specimen)


def measure(specimen: Specimen) -> dict[str, np.ndarray]:
    """Arrays of the chart of a whole matrix. Five passes, about 0.2 GB beyond the memory map."""
    dead_ids, distances, by_void = _cluster(specimen)
    rows = _readable(specimen)
    mean = geometry.centroid(rows)
    found = geometry.principal_axes(geometry.covariance(rows, mean), min(AXES, specimen.dim))
    return {
        "dead_ids": dead_ids.astype(np.int64),
        "by_void": np.array([by_void]),
        "distances": distances,
        "centre": geometry.centroid(np.asarray(rows[dead_ids])),
        "mean": mean,
        "projection": geometry.project(rows, found.axes[:, :3]),
        "variances": found.variances,
        "trace": np.array([found.trace]),
    }


@dataclass(frozen=True)
class Whole(artifacts.Recipe):
    """The chart of a specimen whose whole matrix lies in a file: see `measure`."""

    specimen: str
    file: str

    name = "chart"

    def make(self) -> dict[str, np.ndarray]:
        """Measure it."""
        return measure(specimens.open(self.specimen))

    def inputs(self) -> list[Path]:
        """The matrix."""
        return [Path(self.file)]

    def parameters(self) -> dict[str, str]:
        """The specimen; its file is known by its digest."""
        return {"specimen": self.specimen}


def _from_tensors(tensors: dict[str, np.ndarray], specimen: Specimen) -> Chart:
    ids = np.arange(specimen.rows)
    return Chart(
        ids=ids,
        projection=tensors["projection"],
        dead=np.isin(ids, tensors["dead_ids"]),
        distances=tensors["distances"],
        centre=tensors["centre"],
        mean=tensors["mean"],
        variances=tensors["variances"],
        trace=float(tensors["trace"][0]),
        cluster="the rows inside the most surprising void"
        if tensors["by_void"][0]
        else "the rows of the spike in the norms",
        how=f"the covariance of all {specimen.rows:,} rows",
    )


def _from_extract(specimen: Specimen) -> Chart:
    """What an extract allows: its own projections of every row, or axes estimated from its rows."""
    dead_rows = specimen.dead_rows.astype(np.float64)
    shared = {"centre": dead_rows.mean(axis=0), "distances": specimen.array("dist").astype(float)}
    if "projection" in specimen.arrays:
        ids = np.arange(specimen.rows)
        return Chart(
            ids=ids,
            projection=specimen.array("projection").astype(np.float64),
            dead=np.isin(ids, specimen.dead_ids),
            mean=specimen.array("mean").astype(np.float64),
            variances=np.array(specimen.facts["eigenvalues_first10"]),
            trace=float(specimen.facts["trace"]),
            cluster="the rows that the extract lists as its dead ball",
            how=f"the covariance of all {specimen.rows:,} rows, as the extract records it",
            **shared,
        )
    rows, ids, weights = rows_at_hand(specimen)
    order = np.argsort(ids)
    rows, ids, weights = rows[order], ids[order], weights[order]
    mean = weights @ rows / weights.sum()
    cov = ((rows - mean).T * weights) @ (rows - mean) / weights.sum()
    found = geometry.principal_axes(cov, AXES)
    return Chart(
        ids=ids,
        projection=rows @ found.axes[:, :3],
        dead=np.isin(ids, specimen.dead_ids),
        mean=mean,
        variances=found.variances,
        trace=found.trace,
        cluster="the rows that the extract lists as its core",
        how=f"the covariance estimated from the {len(rows):,} rows at hand",
        **shared,
    )


def rows_at_hand(specimen: Specimen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An extract's rows (n, dim) float64, their ids (n,), and weights (n,) that sum to all rows.

    The extract holds the whole cluster and a random sample of the rest, so a row of the sample
    stands for many. Raises SpecimenError if the specimen has no extract.
    """
    others = ~np.isin(specimen.live_ids, specimen.dead_ids)  # a sample may have met the cluster
    dead, live = specimen.dead_rows, specimen.live_rows[others]
    stands_for = (specimen.rows - len(dead)) / len(live)
    weights = np.concatenate([np.ones(len(dead)), np.full(len(live), stands_for)])
    rows = np.concatenate([dead, live]).astype(np.float64)
    ids = np.concatenate([specimen.dead_ids, specimen.live_ids[others]]).astype(np.int64)
    return rows, ids, weights


def rounding_steps(specimen: Specimen) -> np.ndarray:
    """(n, blocks) float64: the step to which each block of 32 components of the n rows of an
    extract's cluster was rounded, in the matrix's units; (1, 1) zeros where rows are as released.
    """
    if specimen.precision != "Q8_0" or "dead_scale" not in specimen.arrays:
        return np.zeros((1, 1))
    return specimen.array("dead_scale").view(np.float16).astype(np.float64)


@dataclass(frozen=True)
class Sample:
    """Rows to measure pair by pair: the whole cluster and a random draw of the others."""

    rows: np.ndarray  # (n, dim) float64, the cluster first
    ids: np.ndarray  # (n,) int64
    dead: np.ndarray  # (n,) bool
    weights: np.ndarray  # (n,) float64, rows of W that each stands for; they sum to all rows

    @property
    def mean(self) -> np.ndarray:
        """(dim,) float64 weighted mean row."""
        return self.weights @ self.rows / self.weights.sum()

    def covariance(self) -> np.ndarray:
        """(dim, dim) float64 weighted covariance about the weighted mean."""
        offset = self.rows - self.mean
        return (offset.T * self.weights) @ offset / self.weights.sum()

    def part(self, chosen: np.ndarray) -> "Sample":
        """The rows `chosen` (n,) bool, weights kept."""
        return Sample(self.rows[chosen], self.ids[chosen], self.dead[chosen], self.weights[chosen])


def sample(specimen: Specimen, chart: Chart, most: int, *, seed: int) -> Sample:
    """The cluster and at most `most` other rows: those at hand, or drawn from the whole matrix."""
    rng = np.random.default_rng(seed)
    if specimen.is_full:
        dead_ids, others = chart.ids[chart.dead], chart.ids[~chart.dead]
        drawn = np.sort(rng.choice(others, size=min(most, len(others)), replace=False))
        rows = np.concatenate([specimen.values(dead_ids), specimen.values(drawn)])
        rows, ids = rows.astype(np.float64), np.concatenate([dead_ids, drawn])
        stands_for = len(others) / len(drawn)
    else:
        rows, ids, weights = rows_at_hand(specimen)
        live = np.flatnonzero(weights > 1)
        drawn = np.sort(rng.choice(live, size=min(most, len(live)), replace=False))
        keep = np.concatenate([np.flatnonzero(weights == 1), drawn])
        rows, ids = rows[keep], ids[keep]
        stands_for = (specimen.rows - (weights == 1).sum()) / len(drawn)
    dead = np.arange(len(ids)) < len(ids) - len(drawn)
    return Sample(rows, ids, dead, np.where(dead, 1.0, stands_for))


def labels(specimen: Specimen, ids: np.ndarray) -> list[str]:
    """A name for each of the (n,) ids: the number, and the token's text where it is known."""
    if specimen.description.tokenizer is None:
        return [f"id {i}" for i in ids]
    return [f"id {i}: {specimen.tokens.shown(int(i))}" for i in ids]


def _cluster(specimen: Specimen) -> tuple[np.ndarray, np.ndarray, bool]:
    """Ids of the tight cluster, distances of all rows to its middle, whether a void bounds it.

    Without a void that chance does not explain, the cluster is the spike in the norms.
    """
    try:
        ball = clusters.dead_ball(specimen, census.of(specimen))
    except SpecimenError:
        ball = None
    if ball is not None:
        return ball.ids, ball.distances, True
    ids = np.flatnonzero(clusters.find_spike(specimen.norms).holds(specimen.norms))
    middle = np.median(specimen.values(ids).astype(np.float64), axis=0)
    return ids, geometry.distances(_readable(specimen), middle), False


def _readable(specimen: Specimen) -> np.ndarray:
    """The matrix as geometry reads it: bf16 bits or floats."""
    matrix = specimen.matrix
    return matrix.view(np.float16) if specimen.precision == "F16" else matrix
