"""Stragglers: who they are, and which of their components is still moving."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lib import lattice


@dataclass(frozen=True)
class Association:
    """How the last motion of a token goes with one of its traits."""

    trait: str
    rho: float  # Spearman's rank correlation
    low: float  # bootstrap interval over the tokens, 95 %
    high: float
    count: int  # tokens


def associations(
    motion: np.ndarray,
    traits: Mapping[str, np.ndarray],
    *,
    draws: int = 1000,
    rng: np.random.Generator,
) -> list[Association]:
    """Rank correlation of `motion` (tokens,) last steps with each trait (tokens,), with intervals.

    A trait that is the same for all tokens has no rank correlation and comes out as NaN.
    """
    picks = rng.integers(0, len(motion), (draws, len(motion)))
    late = stats.rankdata(motion[picks], axis=1)
    found = []
    for name, values in traits.items():
        values = np.asarray(values, np.float64)
        if np.ptp(values) == 0 or np.ptp(motion) == 0:
            found.append(Association(name, np.nan, np.nan, np.nan, len(motion)))
            continue
        drawn = _correlation(late, stats.rankdata(values[picks], axis=1))
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        rho = stats.spearmanr(motion, values).statistic
        found.append(Association(name, float(rho), float(low), float(high), len(motion)))
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis; NaN where one side is constant."""
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


@dataclass(frozen=True)
class Binade:
    """Components of one size at the end of a run."""

    exponent: int  # |w| in [2^exponent, 2^(exponent + 1))
    count: int
    median: float  # median last step in which such a component moved
    moving: float  # share that moved within the window at the end of the run


def by_size(
    last: np.ndarray, component: np.ndarray, *, steps: int, window: int, least: int = 20
) -> list[Binade]:
    """Last motion of components by the binade of their final size, smallest first.

    last (rows, dim) uint16 patterns at the end; component (rows, dim) last steps, from 1. Binades
    with fewer than `least` components are left out.
    """
    exponents = lattice.fields(last).exponent.astype(np.int64) - 127
    found = []
    for exponent in np.unique(exponents):
        steps_of = component[exponents == exponent]
        if len(steps_of) >= least:
            moving = float((steps_of > steps - window).mean())
            found.append(Binade(int(exponent), len(steps_of), float(np.median(steps_of)), moving))
    return found


def shares(component: np.ndarray) -> dict[str, float]:
    """What the last motions (rows, dim) of components vary with; shares of the variance, sum 1.

    `dimension`: between dimensions, the same for all tokens; `token`: between tokens, the same in
    all dimensions; `rest`: what neither explains. Raises ValueError if all are alike.
    """
    x = np.asarray(component, np.float64)
    mean = x.mean()
    total = ((x - mean) ** 2).sum()
    if total == 0:
        raise ValueError("all components moved last in the same step: there is nothing to share")
    dimension = x.shape[0] * ((x.mean(0) - mean) ** 2).sum() / total
    token = x.shape[1] * ((x.mean(1) - mean) ** 2).sum() / total
    return {"dimension": dimension, "token": token, "rest": 1 - dimension - token}
