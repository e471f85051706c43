"""Distances between rows, exact where it matters: near zero.

The usual fast way, |a - b|^2 = |a|^2 + |b|^2 - 2 a.b by matrix product, subtracts numbers that are
almost equal when a is almost b. In float32 the rounding left over is about 2^-24 |a|^2, so every
true distance below roughly 2^-12 |a| drowns. Here the product only *screens*, under an error bound
that holds in the worst case, and what may be near is measured again from float64 differences.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import gamma

from lib import progress
from lib.survey.geometry import GeometryError, as_floats

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


def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
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
    a table from 1e-9 to 1e3 steps. Zero stays zero.
    """
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
