"""The snowball, the plain way: rows = bfloat16(centre + noise), then count who is identical.

Source: seed document 001, parts VI and VII. This is the reference that `lib.analysis.simulation` is
tested against. It does what the original notebooks did, operation by operation in float32, and it
is slow: a Monument Valley trial at their size draws 389 million random numbers.

Cells: into which lattice points noise can carry each dimension, and how often.

A row's bits in one dimension depend on one number x = float32(c + n). Its bf16 cell is an interval
whose borders are the midpoints m of neighbouring lattice values. A midpoint is itself a float32
number, so what float32 rounding does is shift each border by half a float32 ULP, h: the sum c + n
rounds to m or beyond from m - h on, and x = m goes to the neighbour with the even mantissa. Between
ordinals o and o + 1 the border for the exact sum is therefore m + h if o is even, else m - h.
What remains unmodelled is the rounding of sigma * z itself, a relative 2^-24 in z.

What needs no simulation: expected occupied cells, holes, tokens, pairs, largest, varying.

With independent dimensions the probability of a cell of the lattice is a product over the active
dimensions. N rows in cells of probability p are a multinomial, so
E[distinct rows] = sum 1 - (1 - p)^N, E[holes] = that - sum N p (1 - p)^(N - 1),
E[identical pairs] = N (N - 1) / 2 * product over dimensions of sum p^2. The sums run over all
cells above `floor`; the mass below it enters as a bound on the error, not as a guess.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special, stats

from lib import lattice
from lib.analysis.census import Demographics, demographics

VOCABULARY = 151_936  # rows of Qwen3-4B's matrix
SURVIVORS = 2_221  # rows inside the radius void, the sources' Monument Valley count
HOLE_TOKENS = 2_100  # rows in the 13 holes, the sources' direct-sampling count
CHUNK = 1 << 22  # numbers drawn at a time


class Distribution(StrEnum):
    """How the noise is spread; `scale` is sigma, radius, radius and b, in the units of W."""

    GAUSSIAN = "gaussian"  # independent N(0, sigma^2) in every dimension
    BALL = "ball"  # uniform in a ball: dimensions are not independent
    SHELL = "shell"  # uniform on a sphere: nor here
    LAPLACE = "laplace"  # independent, density exp(-|x|/b) / 2b

    @property
    def independent(self) -> bool:
        """Whether the dimensions of one row are independent."""
        return self in (Distribution.GAUSSIAN, Distribution.LAPLACE)


def check(centre: np.ndarray, scale: float, rows: int) -> np.ndarray:
    """(D,) float32 centre, checked. Raises TypeError, ValueError in the caller's words."""
    centre = np.asarray(centre)
    if centre.dtype != np.float32:
        raise TypeError(
            f"the centre must be float32, got {centre.dtype}: cast it, that rounds once"
        )
    if centre.ndim != 1 or not centre.size:
        raise ValueError(f"the centre must be one row, got shape {centre.shape}")
    if not np.isfinite(centre).all():
        raise ValueError("the centre holds NaN or infinite values")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"sigma (or radius, or b) must be a positive number, got {scale}")
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    return centre


def noise(
    distribution: Distribution, scale: float, rows: int, dim: int, *, rng: np.random.Generator
) -> np.ndarray:
    """(rows, dim) float32 noise, made in float32 throughout as the sources made it."""
    scale32 = np.float32(scale)
    if distribution is Distribution.LAPLACE:
        # an exponential with a random sign; the sources' -b sign(u) log(1 - 2|u|) gives
        # minus infinity once in 2^24 draws, when u is exactly -1/2
        size = rng.standard_exponential((rows, dim), dtype=np.float32)
        return size * np.where(rng.random((rows, dim), dtype=np.float32) < 0.5, -scale32, scale32)
    z = rng.standard_normal((rows, dim), dtype=np.float32)
    if distribution is Distribution.GAUSSIAN:
        return z * scale32
    radius = np.full(rows, scale32)
    if distribution is Distribution.BALL:
        radius *= (rng.random(rows) ** (1.0 / dim)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return z * radius[:, None]


def sample(
    centre: np.ndarray,
    *,
    scale: float,
    rows: int,
    distribution: Distribution = Distribution.GAUSSIAN,
    rng: np.random.Generator,
) -> np.ndarray:
    """(rows, D) uint16 patterns of bfloat16(centre + noise), rounded once to float32 on the way."""
    centre = check(centre, scale, rows)
    bits = np.empty((rows, centre.size), np.uint16)
    step = max(1, CHUNK // centre.size)
    for start in range(0, rows, step):
        part = noise(distribution, scale, min(step, rows - start), centre.size, rng=rng)
        part += centre
        bits[start : start + step] = lattice.round_nearest(part)
    return bits


def survive(bits: np.ndarray, survivors: int, *, rng: np.random.Generator) -> np.ndarray:
    """(survivors, D) rows left after all others were deleted, every subset equally likely."""
    return bits[rng.permutation(len(bits))[:survivors]]


def direct(centre: np.ndarray, *, scale: float, rows: int, rng, distribution=Distribution.GAUSSIAN):
    """One direct-sampling trial: Demographics of `rows` rows drawn round (D,) float32 centre."""
    return demographics(sample(centre, scale=scale, rows=rows, distribution=distribution, rng=rng))


def monument_valley(
    centre: np.ndarray,
    *,
    scale: float,
    rng: np.random.Generator,
    population: int = VOCABULARY,
    survivors: int = SURVIVORS,
    distribution: Distribution = Distribution.GAUSSIAN,
) -> Demographics:
    """One Monument Valley trial: draw `population` rows, delete all but `survivors`, census."""
    bits = sample(centre, scale=scale, rows=population, distribution=distribution, rng=rng)
    return demographics(survive(bits, survivors, rng=rng))


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


def cells(
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


MOST_CELLS = 4_000_000


@dataclass(frozen=True)
class Expected:
    """An expectation and a bound on what the cells below the floor can change."""

    value: float
    error: float


def product_cells(table: Cells, *, floor: float = 1e-9) -> tuple[np.ndarray, float]:
    """Probabilities (C,) of all cells above `floor`, descending, and the mass of the others.

    Raises ValueError where they are too many, or a dimension reaches too many cells: simulate.
    """
    p = np.ones(1)
    for k in range(len(table)):
        if table.wild[k]:
            raise ValueError("a dimension reaches too many cells for a closed form: simulate")
        p = np.outer(p, table.probability[k]).ravel()
        p = p[p > floor]
        if len(p) > MOST_CELLS:
            raise ValueError("too many cells for a closed form: raise the floor, or simulate")
    return np.sort(p)[::-1], max(0.0, 1.0 - p.sum())


def expected_unique(table: Cells, rows: int, *, floor: float = 1e-9) -> Expected:
    """Expected number of distinct rows."""
    p, rest = product_cells(table, floor=floor)
    value = -np.expm1(rows * np.log1p(-np.minimum(p, 1 - 1e-16))).sum()
    # a cell below the floor adds at most rows * p, and at least that less (rows * p)^2 / 2
    return Expected(float(value + rows * rest), rows * rest * min(1.0, rows * floor / 2))


def expected_holes(table: Cells, rows: int, *, floor: float = 1e-9) -> Expected:
    """Expected number of distinct rows with a population of at least two."""
    p, rest = product_cells(table, floor=floor)
    empty = rows * np.log1p(-np.minimum(p, 1 - 1e-16))
    alone = rows * p * np.exp(empty - np.log1p(-np.minimum(p, 1 - 1e-16)))
    return Expected(float((-np.expm1(empty) - alone).sum()), rows * rows * rest * floor / 2)


def expected_tokens(table: Cells, rows: int, *, floor: float = 1e-9) -> Expected:
    """Expected number of rows that share their cell with another."""
    p, rest = product_cells(table, floor=floor)
    shared = -np.expm1((rows - 1) * np.log1p(-np.minimum(p, 1 - 1e-16)))
    return Expected(float(rows * (p * shared).sum()), rows * rows * rest * floor)


def expected_varying(table: Cells, rows: int) -> float:
    """Expected number of dimensions in which not all rows agree; exact for every distribution.

    Rows are independent even where dimensions are not. Wild dimensions count as varying.
    """
    tabled = table.probability[~table.wild]
    return float((1 - (tabled**rows).sum(axis=1)).sum() + table.wild.sum())


def expected_pairs(
    centre: np.ndarray, table: Cells, rows: int, *, scale: float, distribution: Distribution
) -> float:
    """Expected number of identical pairs of rows, wild dimensions included."""
    below = marginal(distribution, float(np.float32(scale)), centre.size)
    log_same = 0.0
    for k in range(len(table)):
        p = table.probability[k]
        if table.wild[k]:
            edge = borders(table.low[k] + np.arange(table.count[k] - 1))
            edge = edge - float(centre[table.dim[k]])
            p = np.diff(np.concatenate([[0.0], below(edge), [1.0]]))
        log_same += np.log((p**2).sum())
    return float(np.exp(np.log(rows * (rows - 1) / 2) + log_same))


def expected_largest(table: Cells, rows: int, *, floor: float = 1e-9, top: int = 300) -> float:
    """Expected population of the largest group, by Levin's (1981) representation.

    P(max <= m) = P(W = N) / P(Poisson(N) = N) * product of P(Poisson(N p) <= m), W the sum of the
    Poissons cut off at m. P(W = N) is taken as normal; only the `top` likeliest cells can bind.
    Where one cell is far ahead of all others the answer is its own expectation.
    """
    p, _ = product_cells(table, floor=floor)
    mean = rows * p[:top]
    if len(mean) == 1:
        return float(mean[0])
    gap = (mean[0] - mean[1]) / np.sqrt(mean[0] + mean[1])
    if gap > 7:  # no other cell can overtake the likeliest: a plain binomial
        return float(mean[0])
    free = rows - mean.sum()
    width = 9 * np.sqrt(mean[0]) + 12
    m = np.arange(max(0, int(mean[0] - width)), int(mean[0] + width) + 1)
    log_cdf = stats.poisson.logcdf(m[:, None], mean)
    # moments of a Poisson cut off at m: E[X] = mean * F(m-1) / F(m), E[X(X-1)] likewise
    ratio1 = np.exp(stats.poisson.logcdf(m[:, None] - 1, mean) - log_cdf)
    ratio2 = np.exp(stats.poisson.logcdf(m[:, None] - 2, mean) - log_cdf)
    first, second = mean * ratio1, mean**2 * ratio2
    centre = first.sum(axis=1) + free
    spread = np.sqrt((second + first - first**2).sum(axis=1) + free)
    log_at_n = stats.norm.logpdf(rows, centre, spread)
    log_norm = rows * np.log(rows) - rows - special.gammaln(rows + 1)
    below = np.exp(np.minimum(log_at_n - log_norm + log_cdf.sum(axis=1), 0))
    below = np.maximum.accumulate(below)
    return float(m[0] + (1 - below).sum())
