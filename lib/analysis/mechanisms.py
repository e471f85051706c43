"""Dead rows alone: the update rule without the model, 2,200 rows x 2,560 dimensions, many steps.

Every row takes the same update and the same decay; only the arithmetic differs. What a model's
gradients would add is left out on purpose, so what remains is what rounding does by itself.

Where the law of coalescence is only approximate: Adam on prescribed gradients, no model at all.

Rows i = 1..N receive the gradients a_i(t) g(t), parallel by construction, so every departure from
exp(-Lambda) is the fault of one named ingredient. In float64. Source: Kingma and Ba (2015) for
Adam, Loshchilov and Hutter (2019) for decoupled decay; the arms are this book's.

What makes correlated dimensions with two modes? Dead rows alone, one mechanism at a time.

The thirteen printed holes differ in twenty of 2,560 dimensions, in a few of them by several lattice
steps with nothing in between. Two thousand rows coalesce in float32; on top
comes one mechanism that displaces groups of rows. As all rows take the same step, a displacement is
carried along unchanged but for decay, so it is added once, with the size it has at the end; that is
the one free number of an arm, and it is scanned.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lib import lattice
from lib.analysis import centres, qwen3


class Arithmetic(enum.StrEnum):
    """How a row is kept between steps."""

    FLOAT32 = "float32"  # master weights
    FLOAT64 = "float64"  # as good as exact
    BF16 = "bfloat16"  # decay and update each rounded to nearest, as torch's for-loop AdamW
    STOCHASTIC = "bf16, stochastic"  # the exact result rounded up or down at random


def step(
    rows: torch.Tensor,
    update: torch.Tensor,
    decay: float,
    arithmetic: Arithmetic,
    *,
    rng: np.random.Generator | None = None,
) -> torch.Tensor:
    """rows (N, D) * decay - update (D,), kept in `arithmetic`; the dtype of `rows` must be its own.

    Stochastic rounding draws from `rng`.
    """
    if arithmetic == Arithmetic.STOCHASTIC:
        wanted = rows.float() * decay - update.float()
        return lattice.round_stochastic(wanted, rng=rng).view(torch.bfloat16)
    return (rows * decay).sub_(update.to(rows.dtype))


def coalesce(
    rows: torch.Tensor,
    updates: Callable[[int], torch.Tensor],
    decay: float,
    steps: int,
    arithmetic: Arithmetic,
    *,
    snapshots: int = 20,
    seed: int = 42,
) -> tuple[np.ndarray, list[torch.Tensor]]:
    """Follow rows (N, D) float32 for `steps` steps: (steps kept (S,), rows at each, kept dtype).

    `updates(t)` is the common update (D,) of step t, from 1.
    """
    kinds = {Arithmetic.FLOAT32: torch.float32, Arithmetic.FLOAT64: torch.float64}
    rows = rows.to(kinds.get(arithmetic, torch.bfloat16))
    rng = np.random.default_rng(seed)
    keep = np.unique(np.linspace(0, steps, snapshots + 1).round().astype(int))
    kept = [rows.clone()]
    for t in range(1, steps + 1):
        rows = step(rows, updates(t), decay, arithmetic, rng=rng)
        if t in keep:
            kept.append(rows.clone())
    return keep, kept


def tethered(target: torch.Tensor, decay: float, jitter: float, seed: int = 42):
    """Updates (D,) that hold rows at `target` (D,) against decay, with relative `jitter`.

    The mean update is -(1 - decay) * target: the fixed point of w <- decay * w - update.
    """

    def update(t: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + t)
        noise = torch.randn(len(target), generator=generator, dtype=torch.float64)
        return -(1 - decay) * target.double() * (1 + jitter * noise)

    return update


@dataclass(frozen=True)
class Setting:
    """One arm: what differs from the assumptions of the law."""

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


def run_setting(s: Setting) -> np.ndarray:
    """Rows of the setting at start and end: (2, rows, dim) float64."""
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


def setting_exposure(s: Setting) -> float:
    """Lambda of the setting, as if decay were decoupled."""
    return float(-s.steps * np.log1p(-s.lr * s.decay))


def width(rows: np.ndarray) -> float:
    """Standard deviation per dimension round the centroid of rows (N, D)."""
    return float(np.sqrt(((rows - rows.mean(0)) ** 2).mean()))


def gated_width(s: Setting) -> float:
    """Predicted width where eps matters: the scatter of the rows' own fixed points.

    A steady gradient a gives the update a / (a + eps), so row i comes to rest at -u_i / omega; for
    a gradient without jitter of size one, averaged over its sizes as in `run`.
    """
    rng = np.random.default_rng(s.seed)
    rng.standard_normal((s.rows, s.dim))
    a = np.exp(s.scatter * rng.standard_normal((s.rows, 1)))
    size = a * np.abs(rng.choice([-1.0, 1.0], s.dim) * rng.uniform(0.5, 1.5, s.dim))
    fixed = size / (size + s.eps) / s.decay
    initial = 0.02 * np.exp(-setting_exposure(s))
    settled = 1 - np.exp(-setting_exposure(s))
    return float(np.hypot(initial, settled * np.sqrt(fixed.var(axis=0).mean())))


def rounding_error() -> float:
    """Rms relative error of rounding to bfloat16, over one binade with log-uniform values."""
    x = np.geomspace(1, 2, 100_001, endpoint=False).astype(np.float32)
    return float(np.sqrt(np.mean((lattice.value(lattice.round_nearest(x)) / x - 1.0) ** 2)))


def heated_width(s: Setting) -> float:
    """Width at which rounded gradients and decay balance, if gradients are mostly noise.

    Each step adds a fresh relative error e to an update of size one and decay takes the share
    2 lr omega of the variance: width = e sqrt(lr / (2 omega)).
    """
    return rounding_error() * float(np.sqrt(s.lr / (2 * s.decay)))


class Mechanism(enum.StrEnum):
    """What displaces rows."""

    NONE = "a cloud alone"
    TWO_CASTS = "one row in eight has another history"
    GATE = "Adam's eps gates a late gradient"
    AVERAGE = "mean of two checkpoints"
    SHARDS = "rounding by place in the matrix"
    SHARDS_TAIL = "the same, divided by a small sqrt(v)"
    STOCHASTIC = "stochastic rounding at the cast"
    LATE = "groups last seen at different times"
    HEAT = "merged first, heated afterwards"
    HEAT_TAIL = "merged first, then heated over a small sqrt(v)"


@dataclass(frozen=True)
class Pattern:
    """What the rows of a cluster look like on the lattice."""

    distinct: int  # different rows
    holes: int  # of at least two rows
    varying: int  # dimensions in which not all rows agree
    several: int  # of these, by more than one lattice step
    gapped: int  # of these, with empty cells between occupied ones: two modes
    correlation: float  # largest |correlation| between two dimensions of several steps; 0 if < 2


def pattern(bits: np.ndarray, weights: np.ndarray | None = None) -> Pattern:
    """Pattern of rows (N, D) uint16; `weights` (N,) rows each of them stands for."""
    weights = np.ones(len(bits), np.int64) if weights is None else np.asarray(weights)
    varying = np.flatnonzero((bits != bits[0]).any(axis=0))
    if not len(varying):
        return Pattern(1, int(weights.sum() > 1), 0, 0, 0, 0.0)
    ordinals = lattice.ordinal(np.ascontiguousarray(bits[:, varying])).astype(np.int64)
    _, group = np.unique(ordinals, axis=0, return_inverse=True)
    populations = np.bincount(group.ravel(), weights=weights)
    several = np.flatnonzero(np.ptp(ordinals, axis=0) > 1)
    gapped = [np.diff(np.unique(ordinals[:, k])).max() > 1 for k in several]
    strongest = 0.0
    if len(several) > 1:
        table = np.cov(ordinals[:, several[:200]].T.astype(float), fweights=weights)
        root = np.sqrt(np.diag(table))
        strongest = float(np.abs(np.triu(table / np.outer(root, root), 1)).max())
    return Pattern(
        len(populations), int((populations > 1).sum()), len(varying), len(several),
        int(sum(gapped)), strongest,
    )  # fmt: skip


def printed_pattern() -> Pattern:
    """The pattern of the thirteen printed holes of Qwen3-4B (its singletons are not printed)."""
    holes = qwen3.thirteen()
    return pattern(holes.bits, holes.populations)


def cloud(
    width: float, *, rows: int, steps: int, decay: float = 0.95, seed: int = 42
) -> np.ndarray:
    """(rows, 2560) float32: dead rows alone after `steps` steps, now of standard deviation `width`.

    They start exp(Lambda) times as wide, take a common noisy step that holds them at a lattice
    point with the printed exponents (lib.analysis.centres), and decay, in float32.
    """
    rng = np.random.default_rng(seed)
    centre = torch.from_numpy(centres.on_lattice(rng=rng))
    start = width / decay**steps * rng.standard_normal((rows, len(centre)), dtype=np.float32)
    push = tethered(centre, decay, 0.01, seed)
    _, kept = coalesce(
        centre + torch.from_numpy(start), push, decay, steps, Arithmetic.FLOAT32, snapshots=1
    )
    return kept[-1].numpy()


def displaced(rows: np.ndarray, mechanism: Mechanism, size: float, *, seed: int = 42) -> np.ndarray:
    """(N, K) uint16: rows (N, D) float32, displaced and cast to bfloat16, where they can differ.

    `size` is the rms displacement per dimension in units of W (the median one where it has heavy
    tails); STOCHASTIC, AVERAGE and NONE have none. Dimensions in which all rows agree are left out.
    """
    rng = np.random.default_rng(seed)
    kind = Mechanism(mechanism)
    if kind is Mechanism.STOCHASTIC:
        rounded = lattice.round_stochastic(torch.from_numpy(rows), rng=rng)
        return np.asarray(rounded.numpy()).view(np.uint16)
    if kind is Mechanism.AVERAGE:
        return _average(rows, rng)
    if kind is Mechanism.GATE:  # p_i h / (p_i |h| + eps), ln p_i scattered by one, heavy-tailed h
        h = rng.standard_t(2, rows.shape[1]).astype(np.float32)
        p = np.exp(rng.standard_normal((len(rows), 1), dtype=np.float32))
        return lattice.round_nearest(rows + np.float32(2 * size) * (p * h / (p * np.abs(h) + 1)))
    if kind in (Mechanism.HEAT, Mechanism.HEAT_TAIL):
        rows = lattice.value(lattice.round_nearest(rows))
    group, shift = groups(rows, kind, rng)
    shift = (size * shift).astype(np.float32)
    ends = [
        lattice.round_nearest(end(rows[group == g], axis=0) + shift[g])
        for g in range(len(shift))
        for end in (np.min, np.max)
    ]
    free = np.flatnonzero((np.stack(ends) != ends[0]).any(axis=0))
    return lattice.round_nearest(rows[:, free] + shift[group][:, free])


def groups(
    rows: np.ndarray, kind: Mechanism, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Who moves together, (N,) int64, and whither, (G, D) float64 of size one."""
    n, dim = rows.shape
    if kind is Mechanism.NONE:
        return np.zeros(n, int), np.zeros((1, dim))
    if kind is Mechanism.TWO_CASTS:  # as many as there are phantom rows among the dead
        group = (rng.random(n) < 1 / 8).astype(int)
    elif kind in (Mechanism.SHARDS, Mechanism.SHARDS_TAIL):  # contiguous blocks of the matrix
        group = np.arange(n) * 4 // n
    elif kind is Mechanism.LATE:
        group = rng.integers(0, 4, n)
    else:  # rows that have merged move together for ever
        varying = np.flatnonzero((rows != rows[0]).any(axis=0))
        _, group = np.unique(rows[:, varying], axis=0, return_inverse=True)
        group = group.ravel()
    shift = rng.standard_normal((group.max() + 1, dim))
    if kind is Mechanism.LATE:  # along the way home, the centre's own direction
        centre = rows.mean(axis=0, dtype=np.float64)
        along = centre / np.sqrt((centre**2).mean())
        shift = -np.exp(-rng.uniform(0, 3, (len(shift), 1))) * along
    if kind in (Mechanism.SHARDS_TAIL, Mechanism.HEAT_TAIL):  # an error over a v of any magnitude
        shift = shift / np.abs(rng.standard_normal(dim))
    return group, shift


def _average(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean of two bfloat16 checkpoints between which the whole cloud moved by a few steps."""
    move = lattice.ulp(lattice.round_nearest(rows[0])) * rng.uniform(-4, 4, rows.shape[1])
    first = lattice.value(lattice.round_nearest(rows))
    second = lattice.value(lattice.round_nearest(rows + move.astype(np.float32)))
    return lattice.round_nearest((first + second) / np.float32(2))


def pattern_distance(found: Pattern, wanted: Pattern) -> float:
    """How far two patterns are apart: sum of |ln ((a + 1) / (b + 1))| over the counts."""
    names = ("distinct", "varying", "several", "gapped")
    return float(
        sum(abs(np.log((getattr(found, k) + 1) / (getattr(wanted, k) + 1))) for k in names)
    )


def best(
    clouds: Sequence[np.ndarray],
    mechanism: Mechanism,
    sizes: Sequence[float],
    wanted: Pattern,
    *,
    seed: int = 42,
) -> tuple[int, float, Pattern]:
    """Which of `clouds` (N, D) and which size comes nearest to `wanted`: index, size, pattern."""
    alike = (Mechanism.NONE, Mechanism.STOCHASTIC, Mechanism.AVERAGE)
    tried = sizes[:1] if mechanism in alike else sizes
    found = [
        (k, size, pattern(displaced(rows, mechanism, size, seed=seed)))
        for k, rows in enumerate(clouds)
        for size in tried
    ]
    return min(found, key=lambda one: pattern_distance(one[2], wanted))


def cooled(rows: np.ndarray, factor: float) -> np.ndarray:
    """Rows (N, D) float32 after a further decay by `factor` round their own centroid."""
    centre = rows.mean(axis=0, dtype=np.float64)
    return (centre + (rows - centre) * factor).astype(np.float32)
