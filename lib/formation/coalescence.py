"""What the law of coalescence predicts, and what a record of dead rows shows.

The law: dead rows receive the same normalised update, so their differences shrink by decoupled
weight decay alone, spread(t) = spread(0) exp(-Lambda_t). The cloud that is cast to bf16 is then a
snowball of scale sigma_0 exp(-Lambda_t) round the centroid, whose census is known exactly
(lib.formation.exact). Source: derived in the chapters of the Coalescence part.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from lib import lattice
from lib.formation import exact


@dataclass(frozen=True)
class Demography:
    """The dead rows of one snapshot on the bf16 lattice."""

    unique: int  # distinct rows
    holes: int  # distinct rows with at least two members
    populations: tuple[int, ...]  # of all distinct rows, descending
    linf: int  # largest difference between two rows in any dimension, in lattice steps
    varying: int  # dimensions in which not all rows agree


def spread(rows: np.ndarray) -> np.ndarray:
    """Rms distance to the centroid of each cloud: rows (..., N, D) -> (...) float64."""
    rows = np.asarray(rows, dtype=np.float64)
    offset = rows - rows.mean(axis=-2, keepdims=True)
    return np.sqrt((offset**2).sum(axis=-1).mean(axis=-1))


def excess(rows: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """ln(spread / first spread) + Lambda, (S,): zero where the law holds exactly."""
    width = spread(rows)
    return np.log(width / width[0]) + exposure - exposure[0]


def demography(rows: np.ndarray) -> Demography:
    """Census of float32 rows (N, D) after rounding to bf16."""
    bits = lattice.round_nearest(np.ascontiguousarray(rows, dtype=np.float32))
    ordinals = lattice.ordinal(bits)
    _, counts = np.unique(bits, axis=0, return_counts=True)
    extent = ordinals.max(axis=0) - ordinals.min(axis=0)
    return Demography(
        unique=len(counts),
        holes=int((counts > 1).sum()),
        populations=tuple(sorted(counts.tolist(), reverse=True)),
        linf=int(extent.max()),
        varying=int((extent > 0).sum()),
    )


def predicted_unique(
    rows: np.ndarray, sigma: np.ndarray, *, trials: int = 200, seed: int = 42
) -> np.ndarray:
    """Quantiles 5, 50, 95 % of the distinct rows of a snowball at each snapshot: (S, 3) float64.

    `rows` (S, N, D) give only the centroid and the number of rows; `sigma` (S,) is the predicted
    standard deviation per dimension.
    """
    table = np.empty((len(rows), 3))
    for snapshot, scale in enumerate(sigma):
        centre = rows[snapshot].astype(np.float64).mean(axis=0).astype(np.float32)
        found = exact.simulate(
            centre, scale=float(scale), rows=rows.shape[1], trials=trials, seed=seed,
            varying=False, workers=1,
        )  # fmt: skip
        table[snapshot] = np.quantile(found.unique, (0.05, 0.5, 0.95))
    return table


def slope(exposure: np.ndarray, width: np.ndarray) -> float:
    """Least-squares slope of ln(width) against Lambda; the law says -1."""
    return float(stats.linregress(exposure, np.log(width)).slope)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent values and its Student confidence interval: mean, low, high."""
    values = np.asarray(values, dtype=np.float64)
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def merge_probability(steps: np.ndarray, exposure: float) -> float:
    """Probability that two rows `steps` (D,) lattice steps apart share a cell after decay.

    Each difference of k steps shrinks to k exp(-Lambda) of a step; a cell border lies between the
    two values with that probability (or surely, if it is at least one step), dimension by
    dimension, the centroid having drifted to an unrelated place.
    """
    left = np.abs(np.asarray(steps, dtype=np.float64)) * np.exp(-exposure)
    return float(np.prod(np.clip(1 - left, 0, 1)))


def noise_spread(first: float, contraction: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Predicted spread (steps + 1,) under stochastic rounding: shrink by decay, add the noise.

    `contraction` (steps,) is the share of the squared spread that decay takes at each step, `noise`
    (steps,) the power that rounding adds (lib.formation.runs.rounding_noise).
    """
    power = np.empty(len(noise) + 1)
    power[0] = first**2
    for step, (share, added) in enumerate(zip(contraction, noise, strict=True)):
        power[step + 1] = power[step] * (1 - share) + added
    return np.sqrt(power)


@dataclass(frozen=True)
class Dose:
    """What a dead cluster says of its exposure."""

    sigma: float  # standard deviation per dimension before rounding
    low: float  # 90 % interval of sigma, from resampling the dimensions
    high: float

    def exposure(self, initial: float) -> tuple[float, float, float]:
        """Lambda = ln(initial / sigma) with its interval, low and high; inf where sigma is 0."""
        with np.errstate(divide="ignore"):
            found = np.log(initial / np.array([self.sigma, self.high, self.low]))
        return tuple(float(x) for x in found)


def dose(
    values: np.ndarray, weights: np.ndarray, dims: int, *, draws: int = 2000, seed: int = 42
) -> Dose:
    """Width of the cloud behind rounded rows: values (H, K) float, weights (H,) rows per value row.

    For two numbers x, y and a lattice whose borders lie anywhere with equal chance, the mean of
    |round(x) - round(y)| is |x - y|, however coarse the lattice. So the mean absolute difference of
    rounded rows, over pairs and dimensions, estimates that of the unrounded ones, which is
    2 sigma / sqrt(pi) for a Gaussian cloud. `dims` counts all dimensions, those included in which
    all rows agree and which `values` leaves out. The interval resamples dimensions.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    total = weights.sum()
    per_dimension = np.zeros(dims)
    for k in range(values.shape[1]):
        order = np.argsort(values[:, k])
        below = np.cumsum(weights[order])[:-1]
        gaps = np.diff(values[order, k])
        per_dimension[k] = 2 * (gaps * below * (total - below)).sum() / (total * (total - 1))
    rng = np.random.default_rng(seed)
    means = np.array([rng.choice(per_dimension, dims).mean() for _ in range(draws)])
    scale = np.sqrt(np.pi) / 2
    low, high = np.quantile(means, (0.05, 0.95)) * scale
    return Dose(float(per_dimension.mean() * scale), float(low), float(high))
