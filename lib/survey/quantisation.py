"""What the lattice does to a cloud of rows: which dimensions can vary, what values occur."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from lib import lattice

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def as_power(x: float) -> str:
    """A power of two in words for prose and tables, e.g. "2⁻⁹". Raises ValueError otherwise."""
    mantissa, exponent = math.frexp(x)
    if mantissa != 0.5:
        raise ValueError(f"{x} is no power of two")
    return "2" + str(exponent - 1).translate(SUPERSCRIPTS)


def spelled(pattern: int) -> str:
    """A pattern's fields as "s eeeeeeee mmmmmmm"."""
    text = f"{int(pattern):016b}"
    return f"{text[0]} {text[1:9]} {text[9:]}"


def half_precision(bits: np.ndarray) -> np.ndarray:
    """float16 patterns (uint16, any shape) -> the nearest bf16 patterns, uint16."""
    return lattice.round_nearest(bits.view(np.float16).astype(np.float32))


@dataclass(frozen=True)
class SpreadFit:
    """One width R of a cloud, common to all dimensions, fitted to which dimensions vary."""

    width: float  # length R
    low: float  # 95 % likelihood interval of R
    high: float
    probability: np.ndarray  # (dims,) chance that each dimension varies
    classes: np.ndarray  # (k, 4): step length, dimensions, observed varying, expected varying
    deviance: float  # of the classes' counts
    p_value: float  # share of simulated counts that deviate at least as much


def fit_spread(
    step: np.ndarray, varies: np.ndarray, *, rng: np.random.Generator, trials: int = 2_000
) -> SpreadFit:
    """Fit P(dimension varies) = min(1, R / step) to `step` (dims,) lengths, `varies` (dims,) bool.

    R is the maximum-likelihood width; the interval is where the log likelihood is within 1.92 of
    its maximum; the p-value comes from `trials` simulated sets of counts, with R fitted to each.
    Raises ValueError if no dimension varies, or all do: then R is not bounded.
    """
    if not varies.any() or varies.all():
        raise ValueError("the width can be fitted only if some dimensions vary and some do not")
    lengths, at = np.unique(step, return_inverse=True)
    total = np.bincount(at).astype(float)
    observed = np.bincount(at, weights=varies)
    log_grid = np.linspace(np.log(lengths[0]) - 12, np.log(lengths[-1]) + 1, 4_000)
    chance = np.clip(np.exp(log_grid)[:, None] / lengths, 1e-300, 1 - 1e-3)  # (grid, k)
    likelihood = observed @ np.log(chance).T + (total - observed) @ np.log1p(-chance).T
    best = likelihood.argmax()
    inside = np.flatnonzero(likelihood > likelihood[best] - 1.92)
    draws = rng.binomial(total.astype(int), chance[best], (trials, len(total)))
    fits = draws @ np.log(chance).T + (total - draws) @ np.log1p(-chance).T
    null = [_deviance(d, total, chance[f.argmax()]) for d, f in zip(draws, fits, strict=True)]
    deviance = _deviance(observed, total, chance[best])
    return SpreadFit(
        float(np.exp(log_grid[best])),
        *(float(np.exp(log_grid[i])) for i in (inside[0], inside[-1])),
        chance[best][at],
        np.column_stack([lengths, total, observed, total * chance[best]]),
        float(deviance),
        float((np.sum(np.array(null) >= deviance) + 1) / (trials + 1)),
    )


def _deviance(observed: np.ndarray, total: np.ndarray, chance: np.ndarray) -> float:
    """Twice the log likelihood ratio of binomial counts against `chance`."""
    missed, expected = total - observed, total * chance
    return 2 * float(xlogy(observed, observed / expected).sum()
                     + xlogy(missed, missed / (total - expected)).sum())  # fmt: skip


def survivors(values: np.ndarray) -> dict[str, float]:
    """Share of float32 `values` (any shape) that a round trip through each format leaves as is."""
    flat = np.asarray(values, dtype=np.float32).ravel()
    with np.errstate(over="ignore", under="ignore"):
        half = flat.astype(np.float16).astype(np.float32)
    brain = lattice.value(lattice.round_nearest(flat))
    return {"bfloat16": float((brain == flat).mean()), "float16": float((half == flat).mean())}


def gaps(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((k,) lengths, (k,) counts) of gaps between neighbouring values, commonest first."""
    length, count = np.unique(np.diff(np.unique(values.astype(np.float64))), return_counts=True)
    order = np.argsort(-count, kind="stable")
    return length[order], count[order]
