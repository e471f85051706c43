"""Voids: empty gaps round a cluster, found from sorted distances alone.

Let r_1 <= r_2 <= ... be the distances of all rows to a point. If rows were spread about the point
with a density that follows a power of the distance, in D effective dimensions, then the numbers
k ln(r_{k+1} / r_k) would be independent exponentials of mean 1/D (Rényi's representation of order
statistics, Acta Math. Hung. 4, 1953). D >= 1, so exp(-k ln(r_{k+1} / r_k)) bounds the probability
of so wide a gap at rank k by chance: the *surprise* k ln(r_{k+1} / r_k), in nats, compares gaps at
all ranks on one scale. No label, no radius and no bin width enters.
"""

from typing import NamedTuple

import numpy as np


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


def significant(distances: np.ndarray, *, chance: float = 1e-6) -> Void | None:
    """The most surprising void of (n,) distances, or None if one like it may arise by chance.

    `chance` is the probability of a false alarm over all n ranks, D = 1 being assumed (the
    cautious end).
    """
    found = voids(distances, most=1)
    threshold = np.log(len(distances) / chance)
    return found[0] if found and found[0].surprise > threshold else None


def widest(distances: np.ndarray, *, nearest: int = 10_000) -> Void:
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
