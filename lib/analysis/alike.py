"""Rows that are rounded alike: what happens where the sums of dead gradients are cut differently.

A dead row's gradient is a sum over tokens. Rows whose weights agree get the same sum, but the same
*bits* only if it is added up in the same order. Here the rows of a matrix stand in blocks, and each
block cuts its sums into another number of parts, as tiles, shards and split products do. No model
is trained; the gradients' terms are prescribed, the same for all rows.
"""

import enum
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lib import lattice


class Sums(enum.StrEnum):
    """In which numbers the sums are kept."""

    FLOAT32 = "float32 throughout"
    CAST = "float32, the sum cast to bfloat16"
    PARTS = "partial sums in bfloat16"


@dataclass(frozen=True)
class Blocks:
    """Dead rows in blocks, under Adam with decoupled decay, weights and moments in float32."""

    sums: Sums = Sums.FLOAT32
    blocks: int = 8  # of equally many rows; block k adds its terms up in k + 1 parts
    every: int = 1  # steps from one sum that is cut to the next; between them none is
    rows: int = 256
    dim: int = 256
    tokens: int = 64  # terms of each sum
    lr: float = 1e-3
    decay: float = 4.0  # omega
    steps: int = 3000
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    spread: float = 0.0  # standard deviation of the rows' independent starts; 0: one point
    jitter: float = 1.0  # standard deviation of a gradient round its mean, in units of the mean
    snapshots: int = 30
    seed: int = 42


class History(NamedTuple):
    """What becomes of the rows."""

    exposure: np.ndarray  # (S,) float64, Lambda
    rows: np.ndarray  # (S, N, D) float32
    error: float  # rms difference between blocks' sums, in units of the rms sum


def split_sum(terms: np.ndarray, parts: int, sums: Sums) -> np.ndarray:
    """(D,) float32: the sum of terms (T, D) float32, cut into `parts`, rounded as `sums` says.

    Each part is added up in float32, then the parts are. PARTS rounds each part and the sum to
    bfloat16, CAST the sum only.
    """
    starts = np.arange(parts) * len(terms) // parts
    pieces = np.add.reduceat(terms, starts, axis=0)
    total = (_bf16(pieces) if sums is Sums.PARTS else pieces).sum(axis=0)
    return total if sums is Sums.FLOAT32 else _bf16(total)


def _bf16(x: np.ndarray) -> np.ndarray:
    return lattice.value(lattice.round_nearest(x))


def run(s: Blocks) -> History:
    """Rows of the setting through time; row i is in block i * blocks // rows.

    Identical rows of one block stay identical: they are computed by the same operations.
    """
    rng = np.random.default_rng(s.seed)
    block = np.arange(s.rows) * s.blocks // s.rows
    mean = rng.choice([-1.0, 1.0], s.dim) * rng.uniform(0.5, 1.5, s.dim)
    start = 0.02 * rng.standard_normal(s.dim)
    rows = (start + s.spread * rng.standard_normal((s.rows, s.dim))).astype(np.float32)
    m, v = np.zeros((2, s.blocks, s.dim), np.float32)
    decay, lr = np.float32(1 - s.lr * s.decay), np.float32(s.lr)
    keep = np.unique(np.linspace(0, s.steps, s.snapshots + 1).round().astype(int))
    kept, apart, power = [rows], 0.0, 0.0
    for t in range(1, s.steps + 1):
        noise = np.sqrt(s.tokens) * s.jitter * rng.standard_normal((s.tokens, s.dim))
        terms = (mean * (1 + noise) / s.tokens).astype(np.float32)
        parts = range(1, s.blocks + 1) if t % s.every == 0 else [1]
        cut = [split_sum(terms, k, s.sums) for k in parts]
        g = np.broadcast_to(cut, (s.blocks, s.dim))
        apart += float(g.var(axis=0, dtype=np.float64).mean())
        power += float((g.astype(np.float64) ** 2).mean())
        m += np.float32(1 - s.beta1) * (g - m)
        v += np.float32(1 - s.beta2) * (g * g - v)
        unbiased = m / np.float32(1 - s.beta1**t)
        root = np.sqrt(v / np.float32(1 - s.beta2**t)) + np.float32(s.eps)
        update = lr * unbiased / root
        rows = rows * decay - update[block]
        if t in keep:
            kept.append(rows)
    exposure = -keep * np.log1p(-s.lr * s.decay)
    return History(exposure, np.stack(kept), float(np.sqrt(apart / power)))
