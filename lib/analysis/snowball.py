"""The snowball, rows = bfloat16(centre + noise): drawn the plain way, its cells, its expectations.

`sample` does what the original notebooks did, operation by operation in float32; it is slow, and
what `lib.analysis.simulation` is tested against. `cells` says into which lattice points noise can
carry each dimension, and how often; where few dimensions move, `expected` needs no simulation.
Source: seed document 001, parts VI and VII.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from lib import lattice

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


# ---------------------------------------------------------------- where noise can carry a row
TABLE = 24  # a dimension with more reachable cells than this is drawn, not tabulated
GAUSSIAN_REACH = 8.4  # sigmas; beyond lies a probability of 5e-17
LAPLACE_REACH = 37.0  # b; 9e-17


@dataclass(frozen=True)
class Cells:
    """The dimensions that noise can move ("active"), most restless first."""

    dim: np.ndarray  # (K,) int64: index into the centre
    low: np.ndarray  # (K,) int32: ordinal of the lowest reachable cell
    wild: np.ndarray  # (K,) bool: more than TABLE cells are in reach
    probability: np.ndarray  # (K, J) float64: of cell low + j; rows sum to 1, zeros if wild
    peak: np.ndarray  # (K,) float64: probability of the likeliest cell (of the centre's if wild)

    def __len__(self) -> int:
        return len(self.dim)

    def restless_first(self) -> "Cells":
        """The same dimensions, those that leave their likeliest cell most often first."""
        order = np.argsort(self.peak, kind="stable")
        return Cells(*(column[order] for column in vars(self).values()))


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
        return stats.laplace(scale=scale).cdf
    half = (dim - 1) / 2 if distribution is Distribution.SHELL else (dim + 1) / 2
    return lambda x: special.betainc(half, half, np.clip((1 + x / scale) / 2, 0, 1))


def borders(ordinal: np.ndarray) -> np.ndarray:
    """Border between cells `ordinal` and `ordinal + 1`: float64, exact, same shape.

    A row's bits depend on float32(c + n). The midpoint m of two neighbouring lattice values is a
    float32 number itself, and goes to the neighbour with the even mantissa; the sum c + n rounds to
    m from half a float32 ULP below it to half of one above. So its border lies that much above m if
    the lower ordinal is even, else below. The rounding of sigma * z, 2^-24 in z, is not modelled.
    """
    lower = lattice.value(lattice.from_ordinal(ordinal)).astype(np.float64)
    upper = lattice.value(lattice.from_ordinal(ordinal + 1)).astype(np.float64)
    half = (upper - lower) * 2.0**-17  # float32 is 2^16 times as fine as bf16, and half of that
    return (lower + upper) / 2 + np.where(np.asarray(ordinal) % 2 == 0, half, -half)


def cell_probability(ordinal: np.ndarray, centre: np.ndarray, below: Callable) -> np.ndarray:
    """Probability of each cell `ordinal` round that `centre`: float64, same shape.

    `below` is a `marginal`.
    """
    return below(borders(ordinal) - centre) - below(borders(ordinal - 1) - centre)


def cells(
    centre: np.ndarray,
    *,
    scale: float,
    distribution: Distribution = Distribution.GAUSSIAN,
) -> Cells:
    """Active dimensions and cell probabilities of noise round (D,) float32 `centre`."""
    centre = check(centre, scale, 1)
    scale = float(np.float32(scale))  # as the float32 product sees it
    below = marginal(distribution, scale, centre.size)
    wide = np.float32(reach(distribution, scale, centre.size))
    low = lattice.ordinal(lattice.round_nearest(np.nextafter(centre - wide, np.float32(-np.inf))))
    high = lattice.ordinal(lattice.round_nearest(np.nextafter(centre + wide, np.float32(np.inf))))
    count = high - low + 1
    tabled = np.flatnonzero((count > 1) & (count <= TABLE))
    probability = _probabilities(centre[tabled], low[tabled], count[tabled], below)
    peak = probability.max(axis=1, initial=0)
    moves = 1 - peak > 1e-15
    wild = np.flatnonzero(count > TABLE)
    home = lattice.ordinal(lattice.round_nearest(centre[wild]))
    dim = np.concatenate([wild, tabled[moves]])
    none = np.zeros((len(wild), probability.shape[1]))
    return Cells(
        dim,
        low[dim],
        count[dim] > TABLE,
        np.concatenate([none, probability[moves]]),
        np.concatenate([cell_probability(home, centre[wild], below), peak[moves]]),
    ).restless_first()


def two_cells(p: np.ndarray) -> Cells:
    """The table of dimensions that have two cells each and leave the first with p (K,)."""
    dim, low = np.arange(len(p)), np.zeros(len(p), np.int32)
    both = np.stack([1 - p, p], axis=1)
    return Cells(dim, low, low > 0, both, both.max(axis=1)).restless_first()


def _probabilities(centre, low, count, below):
    """(K, J) probabilities of cells low..low + count - 1, the tails counted with the end cells."""
    j = np.arange(int(count.max(initial=1)) - 1)
    ordinal = np.minimum(low[:, None] + j, lattice.INFINITY - 1)
    edge = borders(ordinal) - centre[:, None].astype(np.float64)
    edge = np.where(j < (count - 1)[:, None], edge, np.inf)
    left = np.pad(below(edge), ((0, 0), (1, 1)), constant_values=(0, 1))
    right = np.pad(below(-edge), ((0, 0), (1, 1)), constant_values=(1, 0))
    # the difference of the smaller tails: no cancellation far out on either side
    inside = np.where(left[:, 1:] < 0.5, np.diff(left), -np.diff(right))
    return np.maximum(inside, 0.0)


# ---------------------------------------------------------------- what needs no simulation
FLOOR = 1e-9  # probability of the rarest cell that is summed
MOST_CELLS = 4_000_000
LIKELIEST = 300  # cells that can hold the largest group


class Expected(NamedTuple):
    """Expected counts among N rows."""

    unique: float  # distinct rows
    holes: float  # of these, with a population of at least two
    tokens: float  # rows that share their cell with another
    error: float  # what the cells below the floor can change of any of them, at most


def product_cells(table: Cells, floor: float) -> tuple[np.ndarray, float]:
    """Probabilities (C,) of all cells above `floor`, descending, and the mass of the others.

    With independent dimensions that of a cell of the lattice is a product over the active ones.
    Raises ValueError where they are too many, or a dimension reaches too many cells: simulate.
    """
    if table.wild.any():
        raise ValueError("a dimension reaches too many cells for a closed form: simulate")
    p = np.ones(1)
    for of_dimension in table.probability:
        p = np.outer(p, of_dimension).ravel()
        p = p[p > floor]
        if len(p) > MOST_CELLS:
            raise ValueError("too many cells for a closed form: raise the floor, or simulate")
    return np.sort(p)[::-1], max(0.0, 1.0 - p.sum())


def expected(table: Cells, rows: int, *, floor: float = FLOOR) -> Expected:
    """Expected counts of `rows` rows, a multinomial over the cells of `table`.

    Rows in cells below the floor count as alone; each shares its cell with a probability of at most
    rows * floor. Raises ValueError as `product_cells` does.
    """
    p, rest = product_cells(table, floor)
    log_other = np.log1p(-np.minimum(p, 1 - 1e-16))  # that a row lies elsewhere
    occupied = -np.expm1(rows * log_other)
    alone = rows * p * np.exp(rows * log_other - log_other)
    shared = -np.expm1((rows - 1) * log_other)
    return Expected(
        unique=float(occupied.sum() + rows * rest),
        holes=float((occupied - alone).sum()),
        tokens=float(rows * (p * shared).sum()),
        error=rows * rest * min(1.0, rows * floor),
    )


def expected_largest(table: Cells, rows: int) -> float:
    """Expected population of the largest group, by Levin's (1981) representation.

    P(max <= m) = P(W = N) / P(Poisson(N) = N) * product of P(Poisson(N p) <= m), W the sum of the
    Poissons cut off at m. P(W = N) is taken as normal; only the LIKELIEST cells can bind.
    Where one cell is far ahead of all others the answer is its own expectation.
    """
    p, _ = product_cells(table, FLOOR)
    mean = rows * p[:LIKELIEST]
    if len(mean) == 1 or (mean[0] - mean[1]) / np.sqrt(mean[0] + mean[1]) > 7:
        return float(mean[0])  # no other cell can overtake the likeliest: a plain binomial
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
