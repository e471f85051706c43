"""Where the law of coalescence is only approximate: Adam on prescribed gradients, no model at all.

Rows i = 1..N receive the gradients a_i(t) g(t), parallel by construction, so every departure from
exp(-Lambda) is the fault of one named ingredient. In float64. Source: Kingma and Ba (2015) for
Adam, Loshchilov and Hutter (2019) for decoupled decay; the arms are this book's.
"""

from dataclasses import dataclass

import numpy as np

from lib import lattice


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


def run(s: Setting) -> np.ndarray:
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


def exposure(s: Setting) -> float:
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
    initial = 0.02 * np.exp(-exposure(s))
    settled = 1 - np.exp(-exposure(s))
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
