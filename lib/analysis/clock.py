"""The clock: what decoupled decay leaves of a row without gradient, and how to read it back.

An input row of an untied model whose token never occurs gets a gradient of exactly zero, so AdamW
does nothing but multiply it: w_T = w_0 prod(1 - lr_t wd) = w_0 exp(-Lambda). Lambda, the exposure,
follows from the recipe; the norm of the row, and its scatter between tokens, follow from Lambda and
from the law of the initial draw. Source: derived in the chapters of the part "The clock"; Adam and
decoupled decay as in Loshchilov and Hutter (2019).
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import optimize, stats

from lib import files, paths

RELEASED = paths.DATA / "released"  # norms and recipes of released models
SUBNORMAL = 2.0**-149  # the smallest float32; squares below half of it are zero


class ClockError(ValueError):
    """A recipe, or a set of norms, says something that the clock cannot use."""


# ----------------------------------------------------------------------------- recipes
class Shape(enum.StrEnum):
    """Learning rate after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"  # straight to `end` at `horizon`
    COSINE = "cosine"  # half a cosine to `end` at `horizon`
    NEOX = "neox"  # gpt-neox until August 2023: a cosine to zero, clipped from below at `end`
    INVERSE_SQRT = "inverse sqrt"  # peak * sqrt(warmup / step)


@dataclass(frozen=True)
class Stage:
    """A stretch of training under one schedule; steps are counted from its beginning."""

    steps: int  # optimiser steps
    peak: float  # learning rate at the end of the warm-up
    decay: float  # decoupled weight decay on the embedding; 0 where it is exempt
    shape: Shape = Shape.CONSTANT
    end: float = 0.0  # learning rate from `horizon` on
    warmup: int = 0  # steps of linear warm-up
    warmup_from: float = 0.0  # learning rate at step 0 of it
    horizon: int = 0  # step at which the shape ends, if that is not `steps`

    def __post_init__(self):
        if self.shape not in tuple(Shape):
            raise ClockError(f"shape must be one of {', '.join(Shape)}; got {self.shape!r}")
        for name in ("steps", "warmup", "horizon", "peak", "decay", "end", "warmup_from"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ClockError(f"{name} must be a number from 0 on, got {value!r}")
        if self.shape == Shape.INVERSE_SQRT and not self.warmup:
            raise ClockError("an inverse square root needs a warm-up")

    def rates(self) -> np.ndarray:
        """Learning rate of every step, (steps,) float64."""
        step = np.arange(1, int(self.steps) + 1, dtype=np.float64)
        end, horizon = self.end, self.horizon or self.steps
        done = np.clip((step - self.warmup) / max(horizon - self.warmup, 1), 0, 1)
        after = np.full(len(step), self.peak)
        if self.shape == Shape.LINEAR:
            after = end + (self.peak - end) * (1 - done)
        elif self.shape == Shape.COSINE:
            after = end + (self.peak - end) * (1 + np.cos(np.pi * done)) / 2
        elif self.shape == Shape.NEOX:  # the angle is a share of all steps, warm-up included
            at = np.minimum(step, horizon - self.warmup) - self.warmup
            after = np.maximum(self.peak / 2 * (1 + np.cos(np.pi * at / horizon)), end)
        elif self.shape == Shape.INVERSE_SQRT:
            after = self.peak * np.sqrt(self.warmup / step)
        rising = self.warmup_from + (self.peak - self.warmup_from) * step / max(self.warmup, 1)
        return np.where(step <= self.warmup, rising, after)


class Law(enum.StrEnum):
    """Law of a component at the start."""

    NORMAL = "normal"
    UNIFORM = "uniform"


@dataclass(frozen=True)
class Start:
    """The initial draw of a row: independent components of mean zero."""

    sigma: float  # standard deviation of a component, of a cut normal before the cut
    law: Law = Law.NORMAL
    cut: float = 0.0  # a normal law is cut at so many standard deviations; 0: it is not

    def __post_init__(self):
        if self.law not in tuple(Law):
            raise ClockError(f"law must be one of {', '.join(Law)}; got {self.law!r}")
        for name, value in (("sigma", self.sigma), ("cut", self.cut)):
            if not isinstance(value, (int, float)) or value < 0 or (name, value) == ("sigma", 0):
                raise ClockError(f"{name} must be a positive number, got {value!r}")

    @cached_property
    def unit(self) -> Any:
        """The law of a component over sigma: a frozen distribution of scipy.stats."""
        if self.law == Law.UNIFORM:
            return stats.uniform(-np.sqrt(3), 2 * np.sqrt(3))
        return stats.truncnorm(-self.cut, self.cut) if self.cut else stats.norm()

    @cached_property
    def moments(self) -> tuple[float, float, float]:
        """Standard deviation of a component, kurtosis, and the sixth moment over its cube."""
        second, fourth, sixth = (float(self.unit.moment(k)) for k in (2, 4, 6))
        return self.sigma * second**0.5, fourth / second**2, sixth / second**3

    def norm(self, dim: int) -> tuple[float, float]:
        """Median of a row's norm, and its relative scatter, to the order 1 / dim.

        The squared norm is dim s^2 times one plus a sum of mean zero, variance (kurtosis - 1) / dim
        and, by Cornish and Fisher, median -skewness / 6 of its standard deviation.
        """
        s, fourth, sixth = self.moments
        third = sixth - 3 * fourth + 2  # central moment of a squared component
        median = 1 - third / (fourth - 1) / (6 * dim)
        return s * np.sqrt(dim * median), scatter(fourth, dim)


def scatter(kurtosis: float, dim: int) -> float:
    """Relative standard deviation of a row's norm: sqrt((kurtosis - 1) / 4 dim)."""
    return float(np.sqrt((kurtosis - 1) / (4 * dim)))


@dataclass(frozen=True)
class Recipe:
    """What decides the norm of a row that never got a gradient."""

    stages: tuple[Stage, ...]
    start: Start | None = None  # None: not known
    assumed: tuple[str, ...] = ()  # the values that no source gives
    exempt: bool = False  # embeddings are not decayed, whatever the stages say

    def exposure(self) -> np.ndarray:
        """Lambda after every step, (steps + 1,) float64, Lambda_0 = 0; dimensionless."""
        decay = 0.0 if self.exempt else 1.0
        parts = [-np.log1p(-stage.rates() * stage.decay * decay) for stage in self.stages]
        return np.cumsum(np.concatenate([[0.0], *parts]))

    @property
    def total(self) -> float:
        """Lambda at the end."""
        return float(self.exposure()[-1])


def recipe(entry: Any, name: str = "recipe") -> Recipe:
    """A recipe from `{start: {...}, stages: [{...}], exempt: ...}`.

    Each value is plain or `{value, source, status}`; the fields are those of Start and Stage. A
    value whose status is "assumed" is listed in `assumed`. Raises ClockError naming what is wrong.
    """
    assumed: list[str] = []

    def plain(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            return value
        if value.get("status") == "assumed":
            assumed.append(where)
        return value.get("value")

    def made(kind: type, values: Any, where: str) -> Any:
        known = [field.name for field in fields(kind)]
        if not isinstance(values, Mapping) or set(values) - set(known):
            raise ClockError(f"{name}: {where} maps {', '.join(known)} to values; got {values!r}")
        try:
            return kind(**{key: plain(value, f"{where}: {key}") for key, value in values.items()})
        except (TypeError, ClockError) as error:
            raise ClockError(f"{name}: {where}: {error}") from None

    if not isinstance(entry, Mapping) or not isinstance(entry.get("stages"), list):
        raise ClockError(f"{name}: a recipe has `stages`, a list, and may have `start`")
    start = made(Start, entry["start"], "start") if entry.get("start") else None
    stages = [made(Stage, stage, f"stage {i}") for i, stage in enumerate(entry["stages"], 1)]
    exempt = bool(plain(entry.get("exempt", False), "exempt"))
    return Recipe(tuple(stages), start, tuple(assumed), exempt)


def read_recipe(path: Path, name: str | None = None) -> Recipe:
    """The recipe in a YAML file, or that of `name` in a file of many. Raises ClockError."""
    try:
        entry = files.read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClockError(f"{path}: {' '.join(str(error).split())}") from None
    if name is not None and not (isinstance(entry, Mapping) and name in entry):
        raise ClockError(f"{path}: has no recipe {name!r}")
    return recipe(entry[name] if name else entry, str(path))


# ----------------------------------------------------------------------------- reading norms
@dataclass(frozen=True)
class Reading:
    """An exposure read from norms."""

    exposure: float  # Lambda
    low: float  # ends of its confidence interval, from the scatter of the rows alone
    high: float
    scatter: float  # relative standard deviation of the norms
    expected: float  # the same as the start's law has it


def read(norms: np.ndarray, start: Start, dim: int, *, level: float = 0.95) -> Reading:
    """Lambda from the norms (n,) of never seen rows, in the units of the start.

    The mean of ln norm is that of the start less Lambda, with Student's interval. Raises ClockError
    for fewer than two rows, or a norm that is not positive: exp(-Lambda) is never zero.
    """
    norms = np.asarray(norms, np.float64)
    if len(norms) < 2 or not (np.isfinite(norms) & (norms > 0)).all():
        raise ClockError("an exposure is read from at least two norms, all of them positive")
    logs, (s, fourth, _) = np.log(norms), start.moments
    initial = np.log(s * np.sqrt(dim)) - (fourth - 1) / (4 * dim)  # mean of ln norm, to 1 / dim
    error = logs.std(ddof=1) / np.sqrt(len(norms))
    reach = stats.t.ppf((1 + level) / 2, len(norms) - 1) * error
    found, width = float(initial - logs.mean()), float(norms.std(ddof=1) / norms.mean())
    return Reading(found, found - reach, found + reach, width, scatter(fourth, dim))


def clustered(norms: np.ndarray, dim: int) -> np.ndarray:
    """Which of the norms (n,) lie in the densest window of eight expected scatters: (n,) bool.

    A list of never seen tokens may be wrong about some; those that were seen lie elsewhere. Norms
    of zero, and those that are not numbers, are in no window.
    """
    logs = np.log(np.where(norms > 0, norms, np.nan))
    order, width = np.sort(logs[np.isfinite(logs)]), 8 * scatter(3, dim)
    inside = np.searchsorted(order, order + width, "right") - np.arange(len(order))
    low = order[np.argmax(inside)] if len(order) else np.inf
    return (logs >= low) & (logs <= low + width)


def restored(norm: float, dim: int, start: Start) -> float:
    """The norm that float32 arithmetic prints as `norm` on average, squares being subnormal.

    Solves dim E[round(x^2 / u)] u = norm^2 for the scale of x, u = SUBNORMAL. Far above u it
    returns `norm`.
    """
    quantiles = start.unit.ppf((np.arange(200_000) + 0.5) / 200_000) / start.unit.std()
    mean = norm**2 / (dim * SUBNORMAL)  # of the rounded squares, in units of u
    if mean > 1e6:
        return norm

    def excess(factor: float) -> float:
        return float(np.mean(np.rint(mean * np.square(factor * quantiles))) / mean - 1)

    return float(norm * optimize.brentq(excess, np.exp(-3), np.exp(3)))
