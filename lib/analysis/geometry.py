"""The geometry of a matrix: lengths, distances, centroids, principal axes.

Every function takes rows as `(n, dim)`: uint16 is read as bfloat16 bits, floating types as they
are (float16, float32, float64). Rows may be a memory map; they are read in blocks, so that the
extra memory stays near `block_bytes` whatever the size of the matrix.

Distances between rows, exact where it matters: near zero.

The usual fast way, |a - b|^2 = |a|^2 + |b|^2 - 2 a.b by matrix product, subtracts numbers that are
almost equal when a is almost b. In float32 the rounding left over is about 2^-24 |a|^2, so every
true distance below roughly 2^-12 |a| drowns. Here the product only *screens*, under an error bound
that holds in the worst case, and what may be near is measured again from float64 differences.

The causal metric: lengths and angles that do not depend on how the logits are written down.

A model's probabilities stay the same when hidden states are mapped by any invertible A and rows by
the inverse transpose: Euclidean lengths of rows do not. Park et al. (2024) single out the inner
product <a, b> = a^T Cov(W)^-1 b, under which directions that vary independently over the vocabulary
are orthogonal. It is used here as a lens: the same rows, another ruler.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist
from scipy.special import gamma

from lib import lattice, progress

BLOCK_BYTES = 64 * 2**20  # float64 bytes of one block of rows


class GeometryError(ValueError):
    """The rows given have a shape, a type or values that geometry cannot be done on."""


class PrincipalAxes(NamedTuple):
    """Axes of largest variance: `axes` (dim, k) columns, `variances` (k,), `trace`; float64."""

    axes: np.ndarray
    variances: np.ndarray
    trace: float


def as_floats(rows: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """(n, dim) uint16 bfloat16 bits or floats -> (n, dim) `dtype`, exactly for float32 and float64.

    Raises GeometryError for other types and for rows that are not finite.
    """
    if rows.dtype == np.uint16:
        rows = lattice.value(np.ascontiguousarray(rows))
    elif not np.issubdtype(rows.dtype, np.floating):
        raise GeometryError(f"rows must be bfloat16 bits (uint16) or floats, not {rows.dtype}")
    floats = rows.astype(dtype, copy=False)
    if not np.isfinite(floats).all():
        raise GeometryError("the rows hold NaN or infinity; such a matrix has no geometry")
    return floats


def blocks(
    rows: np.ndarray, *, dtype: type = np.float64, block_bytes: int = BLOCK_BYTES, label: str = ""
) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of `rows` (n, dim) with their values as `dtype`, block by block, in order.

    A progress bar named `label` shows if there are more than two blocks. Raises GeometryError if
    `rows` is not a matrix.
    """
    if rows.ndim != 2:
        raise GeometryError(f"rows must be a matrix (n, dim), not of shape {rows.shape}")
    step = max(1, block_bytes // (8 * rows.shape[1]))
    starts = range(0, len(rows), step)
    for start in progress.bar(starts, desc=label) if label and len(starts) > 2 else starts:
        part = slice(start, min(start + step, len(rows)))
        yield part, as_floats(rows[part], dtype)


def norms(rows: np.ndarray) -> np.ndarray:
    """(n, dim) -> (n,) float64 L2 norms, summed in float64. Units: those of the matrix."""
    out = np.empty(len(rows))
    for part, values in blocks(rows, label="norms"):
        out[part] = np.sqrt(np.einsum("ij,ij->i", values, values))
    return out


def distances(rows: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(n, dim), (dim,) -> (n,) float64 L2 distances to `point`, by float64 differences.

    Differences first, squares after: no cancellation, so a distance of one lattice step is exact
    to float64's last digits. Raises GeometryError if the widths disagree.
    """
    point = _point(point, rows.shape[1])
    out = np.empty(len(rows))
    for part, values in blocks(rows, label="distances"):
        offset = values - point
        out[part] = np.sqrt(np.einsum("ij,ij->i", offset, offset))
    return out


def centroid(rows: np.ndarray) -> np.ndarray:
    """(n, dim) -> (dim,) float64 mean row."""
    if not len(rows):
        raise GeometryError("no rows, so no centroid")
    total = np.zeros(rows.shape[1])
    for _, values in blocks(rows, label="centroid"):
        total += values.sum(axis=0)
    return total / len(rows)


def covariance(rows: np.ndarray, centre: np.ndarray | None = None) -> np.ndarray:
    """(n, dim) -> (dim, dim) float64 population covariance about `centre` (default: the centroid).

    Blocks are centred in float64, multiplied in float32 and added in float64: centring first
    keeps the products small, so float32 costs about 1e-6 of a variance (tested), at half the time.
    """
    centre = centroid(rows) if centre is None else _point(centre, rows.shape[1])
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for _, values in blocks(rows, label="covariance"):
        offset = (values - centre).astype(np.float32)
        total += offset.T @ offset
    return total / len(rows)


def principal_axes(cov: np.ndarray, count: int) -> PrincipalAxes:
    """(dim, dim) covariance -> its `count` axes of largest variance, descending, signs fixed."""
    dim = len(cov)
    if not 1 <= count <= dim:
        raise GeometryError(f"a covariance of {dim} dimensions has no {count} axes")
    variances, axes = linalg.eigh(cov, subset_by_index=(dim - count, dim - 1))
    return PrincipalAxes(fix_signs(axes[:, ::-1]), variances[::-1].copy(), float(np.trace(cov)))


def fix_signs(axes: np.ndarray) -> np.ndarray:
    """(dim, k) axes as columns -> the same, each with its largest-magnitude loading positive.

    An eigenvector's sign is arbitrary and differs between machines; a map needs one north.
    """
    loudest = np.abs(axes).argmax(axis=0)
    signs = np.sign(axes[loudest, np.arange(axes.shape[1])])
    return axes * np.where(signs == 0, 1.0, signs)


def project(rows: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(n, dim), (dim, k) -> (n, k) float64 coordinates of the *uncentred* rows on the axes."""
    out = np.empty((len(rows), axes.shape[1]))
    for part, values in blocks(rows, label="projection"):
        out[part] = values @ axes
    return out


def _point(point: np.ndarray, dim: int) -> np.ndarray:
    """A float64 copy of `point`, checked to be (dim,)."""
    point = np.asarray(point, dtype=np.float64)
    if point.shape != (dim,):
        raise GeometryError(f"the point has shape {point.shape}, the rows have {dim} components")
    return point


UNIT = 2.0**-24  # unit round-off of float32
QUERIES = 256  # queries screened together
ROWS = 4096  # rows screened together


class Neighbours(NamedTuple):
    """The k nearest rows of each query, nearest first."""

    ids: np.ndarray  # (q, k) int64 row numbers
    distances: np.ndarray  # (q, k) float64
    measured: int  # pairs that were measured again, of all that were screened


def random_pairs(rows: int, count: int, *, rng: np.random.Generator) -> np.ndarray:
    """(count, 2) int64 pairs i != j of row numbers, uniform, drawn with replacement."""
    if rows < 2:
        raise GeometryError(f"{rows} rows make no pair")
    first = rng.integers(rows, size=count)
    second = rng.integers(rows - 1, size=count)
    return np.stack([first, second + (second >= first)], axis=1)


def pair_distances(rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(n, dim), (m, 2) -> (m,) float64 L2 distances, from float64 differences."""
    return _over_pairs(rows, pairs, lambda a, b: np.sqrt(np.einsum("ij,ij->i", a - b, a - b)))


def pair_cosines(rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(n, dim), (m, 2) -> (m,) float64 cosines of the angles at the origin.

    Raises GeometryError if a row is zero: it has no direction.
    """

    def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        lengths = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        if not lengths.all():
            raise GeometryError("a row is zero and has no direction")
        return np.clip(np.einsum("ij,ij->i", a, b) / lengths, -1, 1)

    return _over_pairs(rows, pairs, cosine)


def _over_pairs(rows: np.ndarray, pairs: np.ndarray, measure) -> np.ndarray:
    out = np.empty(len(pairs))
    for start in range(0, len(pairs), ROWS):
        part = pairs[start : start + ROWS]
        out[start : start + ROWS] = measure(
            as_floats(np.asarray(rows[part[:, 0]])), as_floats(np.asarray(rows[part[:, 1]]))
        )
    return out


def gaussian_rows(rows: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """(n, dim) -> (n, dim) float64 control: independent Gaussian numbers, same mean square."""
    power = np.mean(as_floats(rows) ** 2)
    return rng.normal(scale=np.sqrt(power), size=rows.shape)


def shuffled_rows(rows: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """(n, dim) -> (n, dim) float64 control: every column shuffled on its own.

    Each dimension keeps its values, so also the common part of all rows; what is lost is which
    values belong to one row.
    """
    return rng.permuted(as_floats(rows), axis=0)


def exact_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, dim), (m, dim) -> (n, m) float64 distances, all pairs from float64 differences."""
    return cdist(as_floats(a), as_floats(b))


def nearest(
    queries: np.ndarray, rows: np.ndarray, k: int, *, skip: np.ndarray | None = None
) -> Neighbours:
    """The k nearest `rows` (n, dim) of every query (q, dim), exactly.

    skip: (q,) row number that each query must not find (itself), -1 for none. Queries that are
    close together should stand together: each batch is screened from its own middle, which makes
    the error bound small. Memory: some 50 MB beyond the arrays, and k numbers a query.
    Raises GeometryError if there are not k rows to find.
    """
    if not 1 <= k <= len(rows) - (skip is not None):
        raise GeometryError(f"{len(rows)} rows cannot give {k} neighbours")
    skip = np.full(len(queries), -1) if skip is None else np.asarray(skip)
    ids = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k))
    measured = 0
    starts = range(0, len(queries), QUERIES)
    for start in progress.bar(starts, desc="neighbours") if len(starts) > 4 else starts:
        part = slice(start, start + QUERIES)
        batch = as_floats(np.asarray(queries[part]))
        found = _screen(batch, rows, k, skip[part])
        for i, candidates in enumerate(found):
            true = cdist(batch[i : i + 1], as_floats(np.asarray(rows[candidates])))[0]
            order = np.lexsort((candidates, true))[:k]
            ids[start + i], distances[start + i] = candidates[order], true[order]
            measured += len(candidates)
    return Neighbours(ids, distances, measured)


def _screen(batch: np.ndarray, rows: np.ndarray, k: int, skip: np.ndarray) -> list[np.ndarray]:
    """For each query of the batch the rows that may be among its k nearest, ascending."""
    middle = batch.mean(axis=0)
    a = batch - middle
    a32, a2 = a.astype(np.float32), np.einsum("ij,ij->i", a, a)
    bound = np.full((len(batch), k), np.inf)  # the k smallest upper bounds so far, squared
    kept: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in batch]
    for start in range(0, len(rows), ROWS):
        b = as_floats(np.asarray(rows[start : start + ROWS])) - middle
        b2 = np.einsum("ij,ij->i", b, b)
        squared = np.multiply(a32 @ b.astype(np.float32).T, -2.0, dtype=np.float64)
        squared += a2[:, None]
        squared += b2
        slack = error_bound(a2, b2, batch.shape[1])
        own = skip - start
        mine = np.flatnonzero((own >= 0) & (own < len(b)))
        squared[mine, own[mine]] = np.inf
        few = np.partition(squared + slack, min(k, len(b)) - 1, axis=1)[:, :k]
        bound = np.partition(np.concatenate([bound, few], axis=1), k - 1, axis=1)[:, :k]
        lower = np.subtract(squared, slack, out=squared)
        query, row = np.nonzero(lower <= bound.max(axis=1)[:, None])
        ends = np.searchsorted(query, np.arange(len(batch) + 1))
        for i in range(len(batch)):
            hits = row[ends[i] : ends[i + 1]]
            if len(hits):
                kept[i].append((hits + start, lower[i, hits]))
    limit = bound.max(axis=1)
    return [_close_enough(pieces, limit[i]) for i, pieces in enumerate(kept)]


def _close_enough(pieces: list[tuple[np.ndarray, np.ndarray]], limit: float) -> np.ndarray:
    ids = np.concatenate([piece[0] for piece in pieces])
    lower = np.concatenate([piece[1] for piece in pieces])
    return ids[np.isfinite(lower) & (lower <= limit)]


def error_bound(a2: np.ndarray, b2: np.ndarray, dim: int) -> np.ndarray:
    """(q, n) largest error of |a|^2 + |b|^2 - 2 a.b with a and b cast to float32 for the product.

    a2 (q,) and b2 (n,) are the squared lengths, exact to float64. Worst case over any order of
    summation: each of the dim products carries two casts and a rounding, each partial sum another,
    (dim + 3) unit round-offs of |a||b| in all (Higham, 2002, section 3.1), twice for the factor 2;
    last, some digits of float64 for the squares.
    """
    of_product = 2 * (dim + 4) * UNIT * (1 + 1e-3)
    of_squares = 4 * dim * 2.0**-53
    slack = np.multiply.outer(of_product * np.sqrt(a2), np.sqrt(b2))
    slack += (of_squares * a2)[:, None]
    slack += of_squares * b2
    return slack


def counts_within(
    distances: np.ndarray, radii: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """(n,) or (q, n) distances, (m,) increasing radii -> (m,) float64: rows within each radius.

    With several points (q, n) the mean over the points. weights: (n,) how many rows each of the n
    stands for, default one.
    """
    distances = np.atleast_2d(distances)
    weights = np.broadcast_to(1.0 if weights is None else weights, distances.shape)
    bins = np.searchsorted(radii, distances, side="left")
    counts = np.bincount(bins.ravel(), weights.ravel(), minlength=len(radii) + 1)
    return np.cumsum(counts)[:-1] / len(distances)


def shell_density(distances: np.ndarray, edges: np.ndarray, dim: int = 3) -> np.ndarray:
    """(n,) distances, (m + 1,) increasing radii -> (m,) rows per unit volume of each shell.

    dim: of the space in which the distances were measured. The unit ball of 3 dimensions has
    volume 4 pi / 3; in many dimensions volumes leave float64's range, so dim is at most 16.
    """
    if not 1 <= dim <= 16:
        raise GeometryError(f"shell volumes in {dim} dimensions are no useful numbers; use counts")
    counts, _ = np.histogram(distances, edges)
    ball = np.pi ** (dim / 2) / gamma(dim / 2 + 1)
    return counts / (ball * np.diff(np.asarray(edges, dtype=np.float64) ** dim))


def before_rounding(distance: np.ndarray, step: float, dim: int) -> np.ndarray:
    """Distances of rounded rows -> estimated L2 distances of the rows before they were rounded.

    Both rows are rounded to the same multiples of `step` in each of `dim` dimensions. A component
    that differs by n + f steps comes out n or n + 1 steps apart, the latter with probability f, so
    its mean square is n^2 + (2n + 1) f steps squared: linear, not quadratic, below one step. The
    differences are taken as Gaussian, alike in every dimension; the mean over them is inverted on
    a table from 1e-9 to 1e3 steps. Zero stays zero, and with a step of zero all distances stay.
    """
    if step == 0:
        return np.asarray(distance, dtype=np.float64)
    spreads = np.geomspace(1e-9, 1e3, 1201)  # of one component's difference, in steps
    nodes = np.linspace(0, 6, 2401)  # standard deviations
    weights = np.exp(-(nodes**2) / 2)
    apart = spreads[:, None] * nodes
    whole = np.floor(apart)
    square = whole**2 + (2 * whole + 1) * (apart - whole)
    rounded = step * np.sqrt(dim * (square @ weights) / weights.sum())
    true = step * np.sqrt(dim) * spreads
    distance = np.asarray(distance, dtype=np.float64)
    found = np.exp(
        np.interp(np.log(np.maximum(distance, rounded[0])), np.log(rounded), np.log(true))
    )
    return np.where(distance > 0, found, 0.0)


@dataclass(frozen=True)
class CausalMetric:
    """<a, b> = (L a) . (L b) with L = (Cov + ridge * mean variance * I)^(-1/2)."""

    mean: np.ndarray  # (dim,) float64
    lens: np.ndarray  # (dim, dim) float64, symmetric
    condition: float  # largest over smallest variance that was inverted

    def coordinates(self, rows: np.ndarray, *, centred: bool = True) -> np.ndarray:
        """(n, dim) -> (n, dim) float64 rows as the metric sees them: plain geometry from here on.

        centred: measured from the mean row (distances do not care, lengths and angles do).
        """
        values = as_floats(rows)
        return (values - self.mean if centred else values) @ self.lens


def causal_metric(cov: np.ndarray, mean: np.ndarray, *, ridge: float) -> CausalMetric:
    """The causal metric of a (dim, dim) covariance, regularised.

    ridge: added to every variance, as a fraction of the mean variance. A covariance estimated from
    fewer rows than a few times dim has variances that are far too small; their inverses would
    rule the metric. Raises GeometryError if a variance is not positive even so.
    """
    if ridge < 0:
        raise GeometryError(f"a ridge is not negative: {ridge}")
    variances, axes = linalg.eigh(cov)
    variances = variances + ridge * np.trace(cov) / len(cov)
    if variances[0] <= 1e-14 * variances[-1]:
        raise GeometryError("the covariance cannot be inverted; give a larger ridge")
    lens = (axes / np.sqrt(variances)) @ axes.T
    return CausalMetric(np.asarray(mean, float), lens, float(variances[-1] / variances[0]))
