"""The law of coalescence: what it predicts, where it is only approximate, what a record shows.

Dead rows receive the same normalised update, so their differences shrink by decoupled weight decay
alone, spread(t) = spread(0) exp(-Lambda_t). The cloud that is cast to bf16 is then a snowball of
scale sigma_0 exp(-Lambda_t) round the centroid, whose census is known exactly
(lib.analysis.simulation). Source: derived in the chapters of the Coalescence part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special

from lib import lattice
from lib.analysis import simulation
from lib.training import loop, optim
from lib.training.config import Run

COUNTS = ("unique", "holes", "largest", "varying", "linf")  # what a census counts


def spread(rows: np.ndarray) -> np.ndarray:
    """Rms distance to the centroid of each cloud: rows (..., N, D) -> (...) float64."""
    rows = np.asarray(rows, dtype=np.float64)
    offset = rows - rows.mean(axis=-2, keepdims=True)
    return np.sqrt((offset**2).sum(axis=-1).mean(axis=-1))


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


def predicted(
    rows: np.ndarray, sigma: np.ndarray, *, trials: int = 200, seed: int = 42
) -> dict[str, np.ndarray]:
    """Quantiles 5, 50, 95 % of each of COUNTS in a snowball at each snapshot: name -> (S, 3).

    `rows` (S, N, D) give only the centroid and the number of rows; `sigma` (S,) is the predicted
    standard deviation per dimension.
    """
    table = {name: np.empty((len(rows), 3)) for name in COUNTS}
    for at, (now, scale) in enumerate(zip(rows, sigma.tolist(), strict=True)):
        centre = now.astype(np.float64).mean(axis=0).astype(np.float32)
        found = simulation.simulate(centre, scale=scale, rows=len(now), trials=trials, seed=seed)
        counts = {name: getattr(found, name) for name in COUNTS if name != "linf"}
        counts["linf"] = _extent(centre, scale, len(now), trials, seed)
        for name, values in counts.items():
            table[name][at] = np.quantile(values, (0.05, 0.5, 0.95))
    return table


def _extent(centre: np.ndarray, scale: float, rows: int, trials: int, seed: int) -> np.ndarray:
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


# ---------------------------------------------------------------- no model at all
def coalesce(
    rows: torch.Tensor,
    target: torch.Tensor,
    decay: float,
    steps: int,
    *,
    jitter: float,
    snapshots: int,
    seed: int = 42,
) -> tuple[np.ndarray, torch.Tensor]:
    """Dead rows alone, (N, D), computed in their own dtype: steps kept (S,), rows then (S, N, D).

    All rows take the same update, which holds them at `target` (D,) against decay: on average
    -(1 - decay) * target, the fixed point of w <- decay * w - update, with relative noise `jitter`.
    What a model's gradients would add is left out on purpose; what remains is what rounding does.
    """
    keep = np.unique(np.linspace(0, steps, snapshots + 1).round().astype(int))
    kept = [rows]
    for t in range(1, steps + 1):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + t)
        noise = torch.randn(len(target), generator=generator, dtype=torch.float64)
        update = -(1 - decay) * target.double() * (1 + jitter * noise)
        rows = (rows * decay).sub_(update.to(rows.dtype))
        if t in keep:
            kept.append(rows)
    return keep, torch.stack(kept)


@dataclass(frozen=True)
class Setting:
    """Rows under Adam with prescribed gradients, and what differs from the law's assumptions."""

    lr: float = 1e-3
    decay: float = 3.0  # omega
    steps: int = 2000
    rows: int = 100
    dim: int = 32
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 0.0  # in units of the typical gradient of the median row
    scatter: float = 1.0  # standard deviation of ln a_i between rows: unequal probabilities
    forget: float = 0.0  # steps in which the scatter dies away; 0: it stays for ever
    fall: float = 0.0  # steps in which all gradients fall by e; 0: they do not
    jitter: float = 1.0  # standard deviation of g(t) round its mean, in units of the mean
    correct: bool = True  # Adam's bias correction
    clip: bool = False  # gradients scaled down by a factor of each step, as clipping does
    coupled: bool = False  # decay added to the gradient (L2) instead of decoupled
    rounded: bool = False  # gradients rounded to bfloat16, row by row
    seed: int = 42

    @property
    def exposure(self) -> float:
        """Lambda at the end, as if decay were decoupled."""
        return float(-self.steps * np.log1p(-self.lr * self.decay))


def run_setting(s: Setting) -> np.ndarray:
    """Rows of the setting at start and end: (2, rows, dim) float64.

    They receive the gradients a_i(t) g(t), parallel by construction, so every departure from
    exp(-Lambda) is the fault of one named ingredient. Source: Kingma and Ba (2015) for Adam,
    Loshchilov and Hutter (2019) for decoupled decay.
    """
    rng = np.random.default_rng(s.seed)
    rows = 0.02 * rng.standard_normal((s.rows, s.dim))
    a = s.scatter * rng.standard_normal((s.rows, 1))
    mean = rng.choice([-1.0, 1.0], s.dim) * rng.uniform(0.5, 1.5, s.dim)
    start = rows.copy()
    m, v = np.zeros_like(rows), np.zeros_like(rows)
    for t in range(1, s.steps + 1):
        scale = np.exp(a * (np.exp(-t / s.forget) if s.forget else 1.0))
        g = scale * mean * (1 + s.jitter * rng.standard_normal(s.dim))
        if s.fall:
            g *= np.exp(-t / s.fall)
        if s.clip:
            g *= rng.uniform(0.1, 1.0)
        if s.coupled:
            g = g + s.decay * rows
        if s.rounded:
            g = lattice.value(lattice.round_nearest(g.astype(np.float32))).astype(np.float64)
        m += (1 - s.beta1) * (g - m)
        v += (1 - s.beta2) * (g * g - v)
        bias = (1 - s.beta1**t, np.sqrt(1 - s.beta2**t)) if s.correct else (1.0, 1.0)
        update = (m / bias[0]) / (np.sqrt(v) / bias[1] + s.eps)
        rows = rows * (1 - s.lr * (0.0 if s.coupled else s.decay)) - s.lr * update
    return np.stack([start, rows])


def gated_width(s: Setting) -> float:
    """Predicted width per dimension where eps matters: the scatter of the rows' own fixed points.

    A steady gradient a gives the update a / (a + eps), so row i comes to rest at -u_i / omega; for
    a gradient without jitter of size one, averaged over its sizes as in `run_setting`.
    """
    rng = np.random.default_rng(s.seed)
    rng.standard_normal((s.rows, s.dim))
    a = np.exp(s.scatter * rng.standard_normal((s.rows, 1)))
    size = a * np.abs(rng.choice([-1.0, 1.0], s.dim) * rng.uniform(0.5, 1.5, s.dim))
    fixed = size / (size + s.eps) / s.decay
    shrunk = np.exp(-s.exposure)
    return float(np.hypot(0.02 * shrunk, (1 - shrunk) * np.sqrt(fixed.var(axis=0).mean())))


def heated_width(lr: float, decay: float, error: float) -> float:
    """Width per dimension at which noise of relative size `error` in the update and decay balance.

    Each step adds a fresh error to an update of size one and decay takes the share 2 lr omega of
    the variance: width = error * sqrt(lr / (2 omega)). The cloud cannot be narrower while
    gradients are mostly noise, rounded row by row.
    """
    return float(error * np.sqrt(lr / (2 * decay)))


def rounding_error() -> float:
    """Rms relative error of rounding to bfloat16, over one binade with log-uniform values."""
    x = np.geomspace(1, 2, 100_001, endpoint=False).astype(np.float32)
    return float(np.sqrt(np.mean((lattice.value(lattice.round_nearest(x)) / x - 1.0) ** 2)))


# ---------------------------------------------------------------- tokens seen now and then
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


def last_met_distance(
    run: Run, record: Mapping[str, np.ndarray], met: np.ndarray, *, seed: int = 42
) -> np.ndarray:
    """Predicted distance to the dead centroid at the end: (n,) float64, in the units of W.

    A meeting fills a row's second moment with a gradient far larger than a dead row's. Until it is
    forgotten the row takes only the share r_t = sqrt(v_t / (v_t + extra_t)) of the common step, v
    being that of a row never met and extra the meetings' part. While the cloud is pushed out
    against decay, the row falls behind by delta, along the cloud's own direction:

        delta_(t+1) = (1 - lr wd) delta_t + lr |u_t| (1 - r_t) .

    Dimension by dimension, that is: in one where the hidden state that was met happened to be
    small, little was written into v. Hidden states leave a layer norm, so their components are
    drawn as Gaussian; 24 dimensions stand for all. Everything else is recorded or known, nothing
    is fitted. Left out: the kick in the direction of what was met, and what the row gets as an
    input. `record` is that of observers.Coalescence (push, gradient, hidden, steps); `met` is that
    of `meetings`. Source: derived in the chapter on second lives.
    """
    rng = np.random.default_rng(seed)
    decay = np.exp(-np.diff(exposure(run)))
    rate = -np.log(decay) / run.weight_decay
    push = np.interp(
        np.arange(1, run.steps + 1), record["steps"], np.linalg.norm(record["push"], axis=1)
    )
    common = 0.0
    extra, behind = np.zeros((2, met.shape[1], 24))
    for t in range(run.steps):
        common = run.beta2 * common + (1 - run.beta2) * record["gradient"][t] ** 2
        extra *= run.beta2
        for row in np.flatnonzero(met[t + 1, :, 0]):
            seen = rng.standard_normal((met[t + 1, row, 0], extra.shape[1])).sum(axis=0)
            extra[row] += (1 - run.beta2) * (seen * record["hidden"][t] / run.tokens_per_step) ** 2
        share = np.sqrt(common / (common + extra))
        behind = decay[t] * behind + rate[t] * push[t] * (1 - share)
    return np.sqrt((behind**2).mean(axis=1))


def last_met_tokens(
    run: Run, record: Mapping[str, np.ndarray], met: np.ndarray, *, seed: int = 42
) -> dict[str, np.ndarray]:
    """Where each of the n nearly dead tokens of a run stands at its end: name -> (n,).

    `times` int64, how often it was a target; `since`, exposure since it was last read or wanted (of
    the whole run, if never); `distance` from the centroid of the rows that no text uses, in the
    units of W; `foreseen`, what `last_met_distance` predicts of it, with the spread of those rows;
    `norm`, its length over that of their centroid; `cosine` with the latter. Floats are float64.

    `record` is that of observers.Coalescence, whose first n rows are the tokens of `met`
    (steps + 1, n, 2), which is that of `meetings`.
    """
    seen = met.any(axis=2)  # tied rows move as inputs too
    last = np.where(seen.any(axis=0), run.steps - seen[::-1].argmax(axis=0), 0)
    total = exposure(run)
    rows = record["rows"][-1].astype(np.float64)
    tokens, unseen = rows[: met.shape[1]], rows[met.shape[1] :]
    home = unseen.mean(axis=0)
    length, home_length = np.linalg.norm(tokens, axis=1), np.linalg.norm(home)
    return {
        "times": met[:, :, 0].sum(axis=0),
        "since": total[-1] - total[last],
        "distance": np.linalg.norm(tokens - home, axis=1),
        "foreseen": np.hypot(last_met_distance(run, record, met, seed=seed), spread(unseen)),
        "norm": length / home_length,
        "cosine": tokens @ home / (length * home_length),
    }


# ---------------------------------------------------------------- a cluster's width
def dose(
    values: np.ndarray, weights: np.ndarray, dims: int, *, draws: int = 2000, seed: int = 42
) -> np.ndarray:
    """Width of the cloud behind rounded rows: (3,) sigma per dimension, low and high end at 90 %.

    `values` (H, K) float are distinct rows, `weights` (H,) how many rows each stands for. `dims`
    counts all dimensions, those included in which all rows agree and which `values` leaves out.

    For two numbers and a lattice whose borders lie anywhere with equal chance, the mean of
    |round(x) - round(y)| is |x - y|, however coarse the lattice. So the mean absolute difference of
    rounded rows, over pairs and dimensions, estimates that of the unrounded ones, which is
    2 sigma / sqrt(pi) for a Gaussian cloud. The interval resamples dimensions.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    total = weights.sum()
    order = np.argsort(values, axis=0)
    below = np.cumsum(weights[order], axis=0)[:-1]
    gaps = np.diff(np.take_along_axis(values, order, axis=0), axis=0)
    apart = 2 * (gaps * below * (total - below)).sum(axis=0) / (total * (total - 1))
    apart = np.pad(apart, (0, dims - len(apart)))
    rng = np.random.default_rng(seed)
    means = [rng.choice(apart, dims).mean() for _ in range(draws)]
    return np.sqrt(np.pi) / 2 * np.array([apart.mean(), *np.quantile(means, (0.05, 0.95))])
