"""What the law of coalescence predicts, and what a record of dead rows shows.

The law: dead rows receive the same normalised update, so their differences shrink by decoupled
weight decay alone, spread(t) = spread(0) exp(-Lambda_t). The cloud that is cast to bf16 is then a
snowball of scale sigma_0 exp(-Lambda_t) round the centroid, whose census is known exactly
(lib.formation.exact). Source: derived in the chapters of the Coalescence part.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

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


COUNTS = ("unique", "holes", "largest", "varying", "linf")  # what a census counts


def predicted(
    rows: np.ndarray, sigma: np.ndarray, *, trials: int = 200, seed: int = 42
) -> dict[str, np.ndarray]:
    """Quantiles 5, 50, 95 % of each of COUNTS in a snowball at each snapshot: name -> (S, 3).

    `rows` (S, N, D) give only the centroid and the number of rows; `sigma` (S,) is the predicted
    standard deviation per dimension.
    """
    table = {name: np.empty((len(rows), 3)) for name in COUNTS}
    for snapshot, scale in enumerate(sigma):
        centre = rows[snapshot].astype(np.float64).mean(axis=0).astype(np.float32)
        found = exact.simulate(
            centre, scale=float(scale), rows=rows.shape[1], trials=trials, seed=seed, workers=1
        )
        for name in COUNTS[:-1]:
            table[name][snapshot] = np.quantile(getattr(found, name), (0.05, 0.5, 0.95))
        farthest = extent(centre, float(scale), rows.shape[1], trials, seed)
        table["linf"][snapshot] = np.quantile(farthest, (0.05, 0.5, 0.95))
    return table


def extent(centre: np.ndarray, scale: float, rows: int, trials: int, seed: int) -> np.ndarray:
    """Largest range in any dimension, in lattice steps, of Gaussian snowballs: (trials,) int64.

    Only the lowest and the highest of `rows` values matter in each dimension; both are drawn from
    their own distributions (of the minimum and the maximum, taken as independent).
    """
    rng = np.random.default_rng(seed)
    u = rng.random((2, trials, len(centre)))
    highest = special.ndtri(u[0] ** (1 / rows)) * scale
    lowest = -special.ndtri(u[1] ** (1 / rows)) * scale
    ends = (lattice.round_nearest((centre + z).astype(np.float32)) for z in (lowest, highest))
    low, high = (lattice.ordinal(bits).astype(np.int64) for bits in ends)
    return (high - low).max(axis=1)


def census(rows: np.ndarray) -> dict[str, np.ndarray]:
    """The same counts of recorded rows (S, N, D): name of COUNTS -> (S,) int64."""
    found = [demography(now) for now in rows]
    return {
        name: np.array([d.populations[0] if name == "largest" else getattr(d, name) for d in found])
        for name in COUNTS
    }


def shrunk(cast: np.ndarray, centre: np.ndarray, exposure: float) -> np.ndarray:
    """Rows that the law predicts after a cast: (N, D) float64.

    `cast` (N, D) are the rows as cast; `centre` (D,) is where their centroid has gone since.
    """
    mean = cast.astype(np.float64).mean(axis=0)
    return centre + (cast - mean) * np.exp(-exposure)


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
