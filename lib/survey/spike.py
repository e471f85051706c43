"""The spike: a place on the axis of norms where far too many rows have the same length.

A scan statistic (the likelihood ratio of Kulldorff's scan, in one dimension): slide windows of
many widths over the sorted norms, compare the count in each with what its neighbourhood leads one
to expect, and keep the window that a smooth density explains worst. No label, no token and no
threshold on the norm enters.
"""

from typing import NamedTuple

import numpy as np

REACH = 10.0  # the neighbourhood extends so many widths to either side of the window


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


def find(norms: np.ndarray, widths: np.ndarray | None = None) -> Spike:
    """(n,) norms -> the window with the largest scan statistic over all `widths`."""
    widths = ladder(norms) if widths is None else widths
    return max(scan(norms, widths), key=lambda window: window.surprise)


def ladder(norms: np.ndarray, count: int = 19) -> np.ndarray:
    """(count,) window widths: geometric, from 1e-5 to 1e-2 standard deviations of the norms.

    Wider windows would find the curve of the bulk itself. Raises ValueError if nothing can be
    scanned: fewer than 16 norms, or none that differ.
    """
    norms = np.asarray(norms, dtype=np.float64)
    if norms.size < 16 or norms.std() == 0:
        raise ValueError("a spike needs at least 16 norms, and some that differ")
    return norms.std() * np.geomspace(1e-5, 1e-2, count)


def scan(norms: np.ndarray, widths: np.ndarray) -> list[Spike]:
    """(n,) norms, (w,) widths -> for each width the most surprising window of that width."""
    ordered = np.sort(np.asarray(norms, dtype=np.float64))
    return [_scan_one(ordered, float(width)) for width in widths]


def _scan_one(ordered: np.ndarray, width: float) -> Spike:
    """The most surprising window that starts at a row, its ends drawn in to the rows it holds."""
    first = np.arange(len(ordered))
    last = np.searchsorted(ordered, ordered + width, side="right")
    rows = last - first
    lowest = np.searchsorted(ordered, ordered - REACH * width, side="left")
    highest = np.searchsorted(ordered, ordered + (1 + REACH) * width, side="right")
    around = highest - lowest - rows
    background = (around + 1) / (2 * REACH)  # one row more: an empty neighbourhood proves little
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
