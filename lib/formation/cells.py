"""Cells: into which lattice points noise can carry each dimension, and how often.

A row's bits in one dimension depend on one number x = float32(c + n). Its bf16 cell is an interval
whose borders are the midpoints m of neighbouring lattice values. A midpoint is itself a float32
number, so what float32 rounding does is shift each border by half a float32 ULP, h: the sum c + n
rounds to m or beyond from m - h on, and x = m goes to the neighbour with the even mantissa. Between
ordinals o and o + 1 the border for the exact sum is therefore m + h if o is even, else m - h.
What remains unmodelled is the rounding of sigma * z itself, a relative 2^-24 in z.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from lib import lattice
from lib.formation.snowball import Distribution, check

TABLE = 24  # a dimension with more reachable cells than this is drawn, not tabulated
GAUSSIAN_REACH = 8.4  # sigmas; beyond lies a probability of 5e-17
LAPLACE_REACH = 37.0  # b; 9e-17


@dataclass(frozen=True)
class Cells:
    """The dimensions that noise can move ("active"), most restless first.

    A dimension that can reach more than TABLE cells is `wild`: it has no row of probabilities.
    """

    dim: np.ndarray  # (K,) int64: index into the centre
    low: np.ndarray  # (K,) int32: ordinal of the lowest reachable cell
    count: np.ndarray  # (K,) int32: reachable cells
    probability: np.ndarray  # (K, J) float64: of cell low + j; rows sum to 1, zeros if wild
    peak: np.ndarray  # (K,) float64: probability of the likeliest cell (an estimate if wild)

    @property
    def wild(self) -> np.ndarray:
        """(K,) bool."""
        return self.count > TABLE

    def __len__(self) -> int:
        return len(self.dim)


def reach(distribution: Distribution, scale: float, dim: int) -> float:
    """How far noise can carry one dimension, but for a probability below 1e-15."""
    if distribution is Distribution.GAUSSIAN:
        return GAUSSIAN_REACH * scale
    if distribution is Distribution.LAPLACE:
        return LAPLACE_REACH * scale
    return scale * min(1.0, (GAUSSIAN_REACH + 0.6) / np.sqrt(dim))


def marginal(distribution: Distribution, scale: float, dim: int) -> Callable:
    """x -> P(noise in one dimension < x), float64, accurate in the lower tail.

    One coordinate t of a point on the unit sphere in D dimensions has (1 + t) / 2 distributed as
    Beta((D - 1) / 2, (D - 1) / 2); in the ball it is as on the sphere in D + 2 dimensions.
    """
    if distribution is Distribution.GAUSSIAN:
        return lambda x: special.ndtr(x / scale)
    if distribution is Distribution.LAPLACE:
        return lambda x: np.where(
            x < 0,
            0.5 * np.exp(np.minimum(x, 0) / scale),
            1 - 0.5 * np.exp(-np.maximum(x, 0) / scale),
        )
    half = (dim - 1) / 2 if distribution is Distribution.SHELL else (dim + 1) / 2
    return lambda x: special.betainc(half, half, np.clip((1 + x / scale) / 2, 0, 1))


def borders(ordinal: np.ndarray, *, float32_rounding: bool = True) -> np.ndarray:
    """Border between cells `ordinal` and `ordinal + 1`: float64, exact, same shape.

    With float32_rounding=False the bare midpoints, to show what ignoring it costs.
    """
    lower = lattice.value(lattice.from_ordinal(ordinal)).astype(np.float64)
    upper = lattice.value(lattice.from_ordinal(ordinal + 1)).astype(np.float64)
    middle = (lower + upper) / 2
    if not float32_rounding:
        return middle
    half = (upper - lower) * 2.0**-17  # float32 is 2^16 times as fine as bf16, and half of that
    return middle + np.where(np.asarray(ordinal) % 2 == 0, half, -half)


def table(
    centre: np.ndarray,
    *,
    scale: float,
    distribution: Distribution = Distribution.GAUSSIAN,
    float32_rounding: bool = True,
) -> Cells:
    """Active dimensions and cell probabilities of noise round (D,) float32 `centre`."""
    centre = check(centre, scale, 1)
    scale = float(np.float32(scale))  # as the float32 product sees it
    size = centre.size
    wide = np.float32(reach(distribution, scale, size))
    low = lattice.ordinal(lattice.round_nearest(np.nextafter(centre - wide, np.float32(-np.inf))))
    high = lattice.ordinal(lattice.round_nearest(np.nextafter(centre + wide, np.float32(np.inf))))
    count = high - low + 1
    below = marginal(distribution, scale, size)
    tabled = np.flatnonzero((count > 1) & (count <= TABLE))
    probability = _probabilities(
        centre[tabled], low[tabled], count[tabled], below, float32_rounding
    )
    moves = 1 - probability.max(axis=1, initial=0) > 1e-15
    tabled, probability = tabled[moves], probability[moves]
    wild = np.flatnonzero(count > TABLE)
    home = lattice.ordinal(lattice.round_nearest(centre[wild]))
    peak = below(borders(home) - centre[wild]) - below(borders(home - 1) - centre[wild])
    dim = np.concatenate([wild, tabled])
    full = np.concatenate([np.zeros((len(wild), probability.shape[1])), probability])
    top = np.concatenate([peak, probability.max(axis=1, initial=0)])
    order = np.argsort(top, kind="stable")
    dim = dim[order]
    return Cells(dim, low[dim], count[dim], full[order], top[order])


def _probabilities(centre, low, count, below, float32_rounding):
    """(K, J) probabilities of cells low..low + count - 1, the tails counted with the end cells."""
    width = int(count.max(initial=1))
    j = np.arange(width - 1)
    ordinal = np.minimum(low[:, None] + j, lattice.INFINITY - 1)
    edge = borders(ordinal, float32_rounding=float32_rounding) - centre[:, None].astype(np.float64)
    beyond = j >= (count - 1)[:, None]
    edge = np.where(beyond, np.inf, edge)
    with np.errstate(invalid="ignore", over="ignore"):
        left = np.pad(np.where(beyond, 1.0, below(edge)), ((0, 0), (1, 1)), constant_values=(0, 1))
        right = np.pad(
            np.where(beyond, 0.0, below(-edge)), ((0, 0), (1, 1)), constant_values=(1, 0)
        )
    # the difference of the smaller tails: no cancellation far out on either side
    inside = np.where(left[:, 1:] < 0.5, np.diff(left), -np.diff(right))
    return np.maximum(inside, 0.0)
