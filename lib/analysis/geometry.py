"""The geometry of a matrix: distances, centroids, principal axes, nearest rows.

Rows are a `Specimen`'s whole matrix or an array `(n, dim)`: uint16 is read as bfloat16 bits,
floating types as they are. They are read in blocks, so that the extra memory stays near BLOCK_BYTES
whatever the size of the matrix. Distances come from float64 differences: the usual fast way, by
matrix product, is wrong near zero.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist

from lib import lattice, progress
from lib.extraction.specimens import Specimen

BLOCK_BYTES = 64 * 2**20  # float64 bytes of one block of rows
UNIT = 2.0**-24  # unit round-off of float32
QUERIES = 256  # queries screened together
ROWS = 4096  # rows screened together


class GeometryError(ValueError):
    """The rows given have a shape, a type or values that geometry cannot be done on."""


def as_floats(rows: np.ndarray) -> np.ndarray:
    """(n, dim) uint16 bfloat16 bits or floats -> (n, dim) float64, exactly.

    Raises GeometryError for other types and for rows that are not finite.
    """
    if rows.dtype == np.uint16:
        rows = lattice.value(np.ascontiguousarray(rows))
    elif not np.issubdtype(rows.dtype, np.floating):
        raise GeometryError(f"rows must be bfloat16 bits (uint16) or floats, not {rows.dtype}")
    floats = rows.astype(np.float64, copy=False)
    if not np.isfinite(floats).all():
        raise GeometryError("the rows hold NaN or infinity; such a matrix has no geometry")
    return floats


def blocks(rows: np.ndarray | Specimen, label: str) -> Iterator[np.ndarray]:
    """The values of `rows` (n, dim) as float64, block by block, in order.

    A progress bar named `label` shows if there are more than two blocks. Raises GeometryError if
    `rows` is not a matrix.
    """
    if isinstance(rows, Specimen):
        shape, read = (rows.rows, rows.dim), rows.values
    else:
        shape, read = rows.shape, rows.__getitem__
    if len(shape) != 2:
        raise GeometryError(f"rows must be a matrix (n, dim), not of shape {shape}")
    step = max(1, BLOCK_BYTES // (8 * shape[1]))
    starts = range(0, shape[0], step)
    for start in progress.bar(starts, desc=label) if len(starts) > 2 else starts:
        yield as_floats(read(slice(start, min(start + step, shape[0]))))


def distances(rows: np.ndarray | Specimen, point: np.ndarray) -> np.ndarray:
    """(n, dim), (dim,) -> (n,) float64 L2 distances to `point`, by float64 differences.

    Differences first, squares after: no cancellation, so a distance of one lattice step is exact
    to float64's last digits. Raises GeometryError if the widths disagree.
    """
    found, point = [], np.asarray(point, dtype=np.float64)
    for values in blocks(rows, "distances"):
        if point.shape != values.shape[1:]:
            raise GeometryError(f"a point of shape {point.shape} among rows {values.shape}")
        offset = values - point
        found.append(np.sqrt(np.einsum("ij,ij->i", offset, offset)))
    return np.concatenate(found)


def centroid(rows: np.ndarray | Specimen) -> np.ndarray:
    """(n, dim) -> (dim,) float64 mean row."""
    total, count = 0.0, 0
    for values in blocks(rows, "centroid"):
        total, count = total + values.sum(axis=0), count + len(values)
    return total / count


def covariance(rows: np.ndarray | Specimen, centre: np.ndarray) -> np.ndarray:
    """(n, dim) -> (dim, dim) float64 population covariance about `centre` (dim,), the centroid.

    Blocks are centred in float64, multiplied in float32 and added in float64: centring first
    keeps the products small, so float32 costs about 1e-6 of a variance (tested), at half the time.
    """
    total, count = np.zeros((len(centre), len(centre))), 0
    for values in blocks(rows, "covariance"):
        count += len(values)
        offset = (values - centre).astype(np.float32)
        total += offset.T @ offset
    return total / count


def principal_axes(cov: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(dim, dim) covariance -> its `count` axes (dim, count) as columns, and the variances (count,)
    along them, descending; float64.

    An eigenvector's sign is arbitrary and differs between machines; a map needs one north. So each
    axis has its largest-magnitude loading positive.
    """
    dim = len(cov)
    variances, axes = linalg.eigh(cov, subset_by_index=(dim - count, dim - 1))
    axes = axes[:, ::-1]
    loudest = axes[np.abs(axes).argmax(axis=0), np.arange(count)]
    return axes * np.sign(loudest), variances[::-1].copy()


def project(rows: np.ndarray | Specimen, axes: np.ndarray) -> np.ndarray:
    """(n, dim), (dim, k) -> (n, k) float64 coordinates of the *uncentred* rows on the axes."""
    return np.concatenate([values @ axes for values in blocks(rows, "projection")])


class Neighbours(NamedTuple):
    """The k nearest rows of each query, nearest first."""

    ids: np.ndarray  # (q, k) int64 row numbers
    distances: np.ndarray  # (q, k) float64
    measured: int  # pairs that were measured again, of all that were screened


def nearest(
    queries: np.ndarray, rows: np.ndarray, k: int, *, skip: np.ndarray | None = None
) -> Neighbours:
    """The k nearest `rows` (n, dim) of every query (q, dim), exactly.

    The usual fast way, |a - b|^2 = |a|^2 + |b|^2 - 2 a.b by a float32 matrix product, subtracts
    numbers that are almost equal when a is almost b: every true distance below roughly 2^-12 |a|
    drowns. Here the product only *screens*, under an error bound that holds in the worst case, and
    what may be near is measured again from float64 differences.

    skip: (q,) row number that each query must not find (itself), -1 for none. Queries that are
    close together should stand together: each batch is screened from its own middle, which makes
    the error bound small. Memory: some 50 MB beyond the arrays, and k numbers a query.
    Raises GeometryError if there are not k rows to find.
    """
    if not 1 <= k <= len(rows) - (skip is not None):
        raise GeometryError(f"{len(rows)} rows cannot give {k} neighbours")
    skip = np.full(len(queries), -1) if skip is None else skip
    ids = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k))
    measured = 0
    starts = range(0, len(queries), QUERIES)
    for start in progress.bar(starts, desc="neighbours") if len(starts) > 4 else starts:
        part = slice(start, start + QUERIES)
        batch = as_floats(queries[part])
        for i, candidates in enumerate(_screen(batch, rows, k, skip[part]), start):
            true = cdist(batch[[i - start]], as_floats(rows[candidates]))[0]
            order = np.lexsort((candidates, true))[:k]
            ids[i], distances[i] = candidates[order], true[order]
            measured += len(candidates)
    return Neighbours(ids, distances, measured)


def _screen(batch: np.ndarray, rows: np.ndarray, k: int, skip: np.ndarray) -> list[np.ndarray]:
    """For each query of the batch the rows that may be among its k nearest, ascending."""
    middle = batch.mean(axis=0)
    a = batch - middle
    a32, a2 = a.astype(np.float32), np.einsum("ij,ij->i", a, a)
    bound = np.full((len(batch), k), np.inf)  # the k smallest upper bounds so far, squared
    kept = []  # (queries, rows, lower bounds) of the pairs that may be near, so far
    for start in range(0, len(rows), ROWS):
        b = as_floats(rows[start : start + ROWS]) - middle
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
        kept.append((query, row + start, lower[query, row]))
    query, row, lower = (np.concatenate(pieces) for pieces in zip(*kept, strict=True))
    near = lower <= bound.max(axis=1)[query]
    query, row = query[near], row[near]
    ends = np.cumsum(np.bincount(query, minlength=len(batch)))[:-1]
    return np.split(row[np.argsort(query, kind="stable")], ends)


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
