"""The geometry of a matrix: lengths, distances, centroids, principal axes.

Every function takes rows as `(n, dim)`: uint16 is read as bfloat16 bits, floating types as they
are (float16, float32, float64). Rows may be a memory map; they are read in blocks, so that the
extra memory stays near `block_bytes` whatever the size of the matrix.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import linalg

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
