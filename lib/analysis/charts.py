"""From a specimen to its chart: principal axes, every row's place on them, the dead ball.

A whole matrix is measured here once and kept as an artefact; an extract brings what was measured
of it, or rows enough to estimate the axes from. Chapters ask for a `Chart` and need not know which.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import artifacts
from lib.analysis import clusters, geometry
from lib.analysis.clusters import Rule
from lib.extraction import specimens
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
        found = measure(specimen)
    else:
        found = artifacts.cached(Measured(specimen.id, str(file)), "discovery/03-sky").tensors
    ids = np.arange(specimen.rows)
    by_void, by_spike = "inside the most surprising void", "of the spike in the norms"
    return Chart(
        ids=ids,
        projection=found["projection"],
        dead=np.isin(ids, found["dead_ids"]),
        distances=found["distances"],
        centre=found["centre"],
        mean=found["mean"],
        variances=found["variances"],
        trace=float(found["trace"][0]),
        cluster=f"the rows {by_void if found['by_void'][0] else by_spike}",
        how=f"the covariance of all {specimen.rows:,} rows",
    )


def measure(specimen: Specimen) -> dict[str, np.ndarray]:
    """Arrays of the chart of a whole matrix. Five passes, about 0.2 GB beyond the memory map.

    Without a void that chance does not explain, the cluster is the spike in the norms.
    """
    cluster = clusters.of(specimen)
    if cluster.void:
        dead_ids, distances = cluster.members(Rule.VOID), cluster.distances
    else:
        dead_ids = np.flatnonzero(cluster.spike.holds(specimen.norms))
        middle = np.median(specimen.values(dead_ids).astype(np.float64), axis=0)
        distances = geometry.distances(specimen, middle)
    mean = geometry.centroid(specimen)
    cov = geometry.covariance(specimen, mean)
    axes, variances = geometry.principal_axes(cov, min(AXES, specimen.dim))
    return {
        "dead_ids": dead_ids.astype(np.int64),
        "by_void": np.array([cluster.void is not None]),
        "distances": distances,
        "centre": geometry.centroid(specimen.values(dead_ids)),
        "mean": mean,
        "projection": geometry.project(specimen, axes[:, :3]),
        "variances": variances,
        "trace": np.array([np.trace(cov)]),
    }


@dataclass(frozen=True)
class Measured(artifacts.Recipe):
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
        """The rows `chosen`, (n,) bool or (m,) int, weights kept."""
        return Sample(self.rows[chosen], self.ids[chosen], self.dead[chosen], self.weights[chosen])


def sample(specimen: Specimen, chart: Chart, most: int, *, seed: int) -> Sample:
    """The cluster and at most `most` other rows: those at hand, or drawn from the whole matrix."""
    if specimen.is_full:
        ids = np.concatenate([chart.ids[chart.dead], chart.ids[~chart.dead]])
        dead = int(chart.dead.sum())
    else:
        at_hand = _at_hand(specimen)
        ids, dead = at_hand.ids, int(at_hand.dead.sum())
    others = np.arange(dead, len(ids))
    drawn = np.random.default_rng(seed).choice(others, min(most, len(others)), replace=False)
    chosen = np.concatenate([np.arange(dead), np.sort(drawn)])
    rows = specimen.values(ids[chosen]) if specimen.is_full else at_hand.rows[chosen]
    return _weighted(specimen, rows, ids[chosen], dead)


def _at_hand(specimen: Specimen) -> Sample:
    """An extract's rows: the whole cluster, and a random sample of the rest."""
    rows = np.concatenate([specimen.dead_rows, specimen.live_rows])
    ids = np.concatenate([specimen.dead_ids, specimen.live_ids])
    return _weighted(specimen, rows, ids, len(specimen.dead_ids))


def _weighted(specimen: Specimen, rows: np.ndarray, ids: np.ndarray, dead: int) -> Sample:
    """The first `dead` rows stand for themselves, the others for all that are not dead."""
    is_dead = np.arange(len(ids)) < dead
    stands_for = (specimen.rows - dead) / (len(ids) - dead)
    weights = np.where(is_dead, 1.0, stands_for)
    return Sample(rows.astype(np.float64), ids.astype(np.int64), is_dead, weights)


def _from_extract(specimen: Specimen) -> Chart:
    """What an extract allows: its own projections of every row, or axes estimated from its rows."""
    if "projection" in specimen.arrays:
        ids, projection = np.arange(specimen.rows), specimen.array("projection").astype(np.float64)
        mean, trace = specimen.array("mean").astype(np.float64), float(specimen.facts["trace"])
        variances = np.array(specimen.facts["eigenvalues_first10"])
        cluster = "dead ball"
        how = f"of all {specimen.rows:,} rows, as the extract records it"
    else:
        at_hand = _at_hand(specimen)
        at_hand = at_hand.part(np.argsort(at_hand.ids))
        ids, mean, cov = at_hand.ids, at_hand.mean, at_hand.covariance()
        axes, variances = geometry.principal_axes(cov, AXES)
        projection, trace = at_hand.rows @ axes[:, :3], float(np.trace(cov))
        cluster = "core"
        how = f"estimated from the {len(ids):,} rows at hand"
    return Chart(
        ids=ids,
        projection=projection,
        dead=np.isin(ids, specimen.dead_ids),
        distances=specimen.array("dist").astype(np.float64),
        centre=specimen.dead_rows.astype(np.float64).mean(axis=0),
        mean=mean,
        variances=variances,
        trace=trace,
        cluster=f"the rows that the extract lists as its {cluster}",
        how=f"the covariance {how}",
    )
