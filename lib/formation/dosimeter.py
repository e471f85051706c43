"""The dosimeter: what the width of a dead cluster says of its exposure, and what recipes say.

For two numbers x, y and a lattice whose borders lie anywhere with equal chance, the mean of
|round(x) - round(y)| is |x - y|, however coarse the lattice. So the mean absolute difference of
rounded rows, over pairs and dimensions, estimates that of the unrounded ones, which is
2 sigma / sqrt(pi) for a Gaussian cloud. Recipes: data/recipes.yaml, a source beside each value.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lib import files, paths


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

    `dims` counts all dimensions, those included in which all rows agree and which `values` leaves
    out. The interval resamples dimensions.
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


@dataclass(frozen=True)
class Stage:
    """One stage of a published training, as far as it decides the exposure."""

    peak: float  # highest learning rate
    decay: float  # weight decay
    steps: int
    warmup: int = 0  # steps of linear warm-up to the peak; afterwards straight down to zero

    def rates(self) -> np.ndarray:
        """(steps,) float64 learning rates of the steps 1, 2, ..."""
        t = np.arange(1, self.steps + 1, dtype=np.float64)
        up = t / max(self.warmup, 1)
        down = (self.steps - t) / max(self.steps - self.warmup, 1)
        return self.peak * np.minimum(up, down) if self.warmup else self.peak * down

    def exposure(self) -> float:
        """Lambda = -sum ln(1 - lr wd) over the steps."""
        return float(abs(np.log1p(-self.rates() * self.decay).sum()))


@dataclass(frozen=True)
class Recipe:
    """What is published of one model's training."""

    stages: tuple[Stage, ...]
    initial: float  # standard deviation per dimension at the start
    facts: dict[str, Any]  # the whole entry of data/recipes.yaml, sources included

    def exposure(self) -> float:
        """Lambda of all stages together."""
        return sum(stage.exposure() for stage in self.stages)


@lru_cache
def recipe(name: str) -> Recipe:
    """The published recipe `name` of data/recipes.yaml. Raises KeyError listing the names."""
    table = files.read_yaml(paths.DATA / "recipes.yaml")
    if name not in table:
        raise KeyError(f"no recipe {name!r} in data/recipes.yaml; there are {', '.join(table)}")
    entry = table[name]
    kinds = {"peak": float, "decay": float, "steps": int, "warmup": int}
    stages = tuple(
        Stage(**{key: kind(part[key]["value"]) for key, kind in kinds.items()})
        for part in entry["stages"]
    )
    return Recipe(stages, float(entry["initial"]["value"]), entry)


def floor(rate: float, decay: float, error: float) -> float:
    """Width at which noise of relative size `error` in the update and decay balance.

    An update of size one with a fresh error each step: error * sqrt(lr / (2 wd)); the cloud cannot
    be narrower while gradients carry such noise (lib.formation.approximations.heated_width).
    """
    return float(error * np.sqrt(rate / (2 * decay)))


def last_rate(stage: Stage) -> float:
    """The learning rate from which on a stage has one unit of exposure left: where heat freezes."""
    rates = stage.rates()
    left = np.cumsum((rates * stage.decay)[::-1])[::-1]
    return float(rates[int(np.flatnonzero(left >= 1.0)[-1])]) if left[0] >= 1 else stage.peak
