"""What the law of coalescence predicts, and what a record of dead rows shows.

The law: dead rows receive the same normalised update, so their differences shrink by decoupled
weight decay alone, spread(t) = spread(0) exp(-Lambda_t). The cloud that is cast to bf16 is then a
snowball of scale sigma_0 exp(-Lambda_t) round the centroid, whose census is known exactly
(lib.analysis.simulation). Source: derived in the chapters of the Coalescence part.

Nearly dead tokens: how far from the dead centroid a row stands that was seen now and then.

A meeting fills a row's second moment with a gradient far larger than a dead row's. Until it is
forgotten, the row takes a smaller share r of the common step,

    r_t = sqrt(v_t / (v_t + extra_t)) ,

v being that of a row never met and extra the meetings' part; while the cloud is pushed out against
decay, the row only decays and falls behind by delta, along the cloud's own direction:

    delta_(t+1) = (1 - lr wd) delta_t + lr |u_t| (1 - r_t) .

Dimension by dimension, that is: in one where the hidden state that was met happened to be small,
little was written into v. Hidden states leave a layer norm, so their components are drawn as
Gaussian. Everything else is recorded or known; nothing is fitted. What is left out: the kick in the
direction of what was met, and what the row gets as an input. Source: derived in the chapter on
second lives.

The dosimeter: what the width of a dead cluster says of its exposure, and what recipes say.

For two numbers x, y and a lattice whose borders lie anywhere with equal chance, the mean of
|round(x) - round(y)| is |x - y|, however coarse the lattice. So the mean absolute difference of
rounded rows, over pairs and dimensions, estimates that of the unrounded ones, which is
2 sigma / sqrt(pi) for a Gaussian cloud. Recipes: data/recipes.yaml, a source beside each value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import special, stats

from lib import files, lattice, paths
from lib.analysis import simulation
from lib.analysis.census import Demographics, demographics
from lib.training import loop, optim
from lib.training.config import Run


def spread(rows: np.ndarray) -> np.ndarray:
    """Rms distance to the centroid of each cloud: rows (..., N, D) -> (...) float64."""
    rows = np.asarray(rows, dtype=np.float64)
    offset = rows - rows.mean(axis=-2, keepdims=True)
    return np.sqrt((offset**2).sum(axis=-1).mean(axis=-1))


def excess(rows: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """ln(spread / first spread) + Lambda, (S,): zero where the law holds exactly."""
    width = spread(rows)
    return np.log(width / width[0]) + exposure - exposure[0]


def demography(rows: np.ndarray) -> Demographics:
    """Demographics of float32 rows (N, D) after rounding to bf16."""
    return demographics(lattice.round_nearest(np.ascontiguousarray(rows, dtype=np.float32)))


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
        found = simulation.simulate(
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
    return {name: np.array([getattr(d, name) for d in found]) for name in COUNTS}


def shrunk(cast: np.ndarray, centre: np.ndarray, exposure: float) -> np.ndarray:
    """Rows that the law predicts after a cast: (N, D) float64.

    `cast` (N, D) are the rows as cast; `centre` (D,) is where their centroid has gone since.
    """
    mean = cast.astype(np.float64).mean(axis=0)
    return centre + (cast - mean) * np.exp(-exposure)


def exposure(run: Run) -> np.ndarray:
    """Weight-decay exposure Lambda_t = -sum ln(1 - lr_s wd), (steps + 1,) float64; Lambda_0 = 0."""
    lr = np.array([optim.learning_rate(run, step) for step in range(1, run.steps + 1)])
    return np.concatenate([[0.0], np.cumsum(-np.log1p(-lr * run.weight_decay))])


def split_contraction(before: np.ndarray, after: np.ndarray, decay: float) -> np.ndarray:
    """What one step did to the squared spread: (2,) = shares taken by decay and by the update.

    With d the rows (N, D) less their centroid, d_after = decay * d + e defines the update's part
    e (rounding included); the squared spread changes by the factor decay^2 + 2 decay <d.e>/<d.d> +
    <e.e>/<d.d>. Returned are 1 - decay^2 and minus the rest, so both are positive when they shrink.
    """
    d = before - before.mean(0)
    e = (after - after.mean(0)) - decay * d
    power = (d * d).sum() or np.nan
    return np.array([1 - decay**2, -(2 * decay * (d * e).sum() + (e * e).sum()) / power])


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
    (steps,) the power that rounding adds (observers.rounding_noise).
    """
    power = np.empty(len(noise) + 1)
    power[0] = first**2
    for step, (share, added) in enumerate(zip(contraction, noise, strict=True)):
        power[step + 1] = power[step] * (1 - share) + added
    return np.sqrt(power)


def meetings(run: Run, stream: np.ndarray, wanted: slice, until: int = 0) -> np.ndarray:
    """How often each id of `wanted` was a target or an input at each step: (steps + 1, n, 2) int64.

    Batches are drawn anew from the run's seed, so nothing has to be recorded while it trains.
    `until` > 0: after that step the text had none of them.
    """
    met = np.zeros((run.steps + 1, wanted.stop - wanted.start, 2), dtype=np.int64)
    for step in range(1, (until or run.steps) + 1):
        inputs, targets = (part.numpy().ravel() for part in loop.batch(stream, run, step))
        for kind, seen in enumerate((targets, inputs)):
            hits = seen[(seen >= wanted.start) & (seen < wanted.stop)] - wanted.start
            np.add.at(met[step, :, kind], hits, 1)
    return met


def last_seen(met: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When each id was last read or wanted, (n,) int64 steps (0: never), and how often it was a
    target, (n,). `met` as from `meetings`; tied rows move as inputs too.
    """
    seen = met.sum(axis=2) > 0
    steps = np.where(seen.any(axis=0), len(met) - 1 - seen[::-1].argmax(axis=0), 0)
    return steps, met[:, :, 0].sum(axis=0)


def late_distance(
    run: Run,
    record: Mapping[str, np.ndarray],
    met: np.ndarray,
    *,
    draws: int = 24,
    seed: int = 42,
) -> np.ndarray:
    """Predicted distance to the dead centroid at the end: (n,) float64, in the units of W.

    `record` is that of observers.Coalescence (push, gradient, hidden, steps); `met` is that of
    `meetings`; `draws` dimensions stand for all.
    """
    rng = np.random.default_rng(seed)
    decay = np.exp(-np.diff(exposure(run)))
    rate = -np.log(decay) / run.weight_decay
    push = np.interp(
        np.arange(1, run.steps + 1), record["steps"], np.linalg.norm(record["push"], axis=1)
    )
    common, extra = 0.0, np.zeros((met.shape[1], draws))
    behind = np.zeros_like(extra)
    for t in range(run.steps):
        common = run.beta2 * common + (1 - run.beta2) * record["gradient"][t] ** 2
        extra *= run.beta2
        for row in np.flatnonzero(met[t + 1, :, 0]):
            seen = rng.standard_normal((met[t + 1, row, 0], draws)).sum(axis=0)
            extra[row] += (1 - run.beta2) * (seen * record["hidden"][t] / run.tokens_per_step) ** 2
        share = np.sqrt(common / (common + extra))
        behind = decay[t] * behind + rate[t] * push[t] * (1 - share)
    return np.sqrt((behind**2).mean(axis=1))


def late_tokens(
    run: Run, record: Mapping[str, np.ndarray], met: np.ndarray, *, seed: int = 42
) -> dict[str, np.ndarray]:
    """Where each of the n nearly dead tokens of a run stands at its end: name -> (n,).

    `times` int64, how often it was a target; `since`, exposure since it was last read or wanted (of
    the whole run, if never); `distance` from the centroid of the rows that no text uses, in the
    units of W; `foreseen`, what `late_distance` predicts of it, with the spread of those rows;
    `norm`, its length over that of their centroid; `cosine` with the latter. Floats are float64.

    `record` is that of observers.Coalescence, whose first n rows are the tokens of `met`
    (steps + 1, n, 2), which is that of `meetings`.
    """
    last, times = last_seen(met)
    total = exposure(run)
    rows = record["rows"][-1].astype(np.float64)
    tokens, unseen = rows[: met.shape[1]], rows[met.shape[1] :]
    home = unseen.mean(axis=0)
    length, home_length = np.linalg.norm(tokens, axis=1), np.linalg.norm(home)
    return {
        "times": times,
        "since": total[-1] - total[last],
        "distance": np.linalg.norm(tokens - home, axis=1),
        "foreseen": np.hypot(late_distance(run, record, met, seed=seed), spread(unseen)),
        "norm": length / home_length,
        "cosine": tokens @ home / (length * home_length),
    }


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
class Schedule:
    """What is published of one model's training."""

    stages: tuple[Stage, ...]
    initial: float  # standard deviation per dimension at the start
    facts: dict[str, Any]  # the whole entry of data/recipes.yaml, sources included

    def exposure(self) -> float:
        """Lambda of all stages together."""
        return sum(stage.exposure() for stage in self.stages)


@lru_cache
def schedule(name: str) -> Schedule:
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
    return Schedule(stages, float(entry["initial"]["value"]), entry)


def heat_floor(rate: float, decay: float, error: float) -> float:
    """Width at which noise of relative size `error` in the update and decay balance.

    An update of size one with a fresh error each step: error * sqrt(lr / (2 wd)); the cloud cannot
    be narrower while gradients carry such noise (mechanisms.heated_width).
    """
    return float(error * np.sqrt(rate / (2 * decay)))


def last_rate(stage: Stage) -> float:
    """The learning rate from which on a stage has one unit of exposure left: where heat freezes."""
    rates = stage.rates()
    left = np.cumsum((rates * stage.decay)[::-1])[::-1]
    return float(rates[int(np.flatnonzero(left >= 1.0)[-1])]) if left[0] >= 1 else stage.peak
