"""The snowball, the plain way: rows = bfloat16(centre + noise), then count who is identical.

Source: seed document 001, parts VI and VII. This is the reference that `lib.formation.exact` is
tested against. It does what the original notebooks did, operation by operation in float32, and it
is slow: a Monument Valley trial at their size draws 389 million random numbers.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from lib import lattice

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


@dataclass(frozen=True)
class Demographics:
    """What one trial's rows look like; a row's `population` is how many rows share its bits."""

    populations: np.ndarray  # (unique,) int64, descending
    varying: int  # dimensions in which not all rows agree

    @property
    def unique(self) -> int:
        """Distinct rows."""
        return len(self.populations)

    @property
    def holes(self) -> int:
        """Black holes: distinct rows with a population of at least two."""
        return int((self.populations > 1).sum())

    @property
    def tokens(self) -> int:
        """Rows that sit in a hole."""
        return int(self.populations[self.populations > 1].sum())

    @property
    def largest(self) -> int:
        """Population of the largest group."""
        return int(self.populations[0])


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


def census(bits: np.ndarray) -> Demographics:
    """Demographics of (rows, D) uint16 patterns; bits are compared, never floats."""
    bits = np.ascontiguousarray(bits)
    as_one = bits.view(np.dtype((np.void, bits.shape[1] * bits.itemsize))).ravel()
    _, counts = np.unique(as_one, return_counts=True)
    varying = int((bits != bits[0]).any(axis=0).sum())
    return Demographics(np.sort(counts)[::-1].astype(np.int64), varying)


def direct(centre: np.ndarray, *, scale: float, rows: int, rng, distribution=Distribution.GAUSSIAN):
    """One direct-sampling trial: Demographics of `rows` rows drawn round (D,) float32 centre."""
    return census(sample(centre, scale=scale, rows=rows, distribution=distribution, rng=rng))


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
    return census(survive(bits, survivors, rng=rng))
