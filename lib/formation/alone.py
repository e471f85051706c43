"""Dead rows alone: the update rule without the model, 2,200 rows x 2,560 dimensions, many steps.

Every row takes the same update and the same decay; only the arithmetic differs. What a model's
gradients would add is left out on purpose, so what remains is what rounding does by itself.
"""

import enum
from collections.abc import Callable

import numpy as np
import torch

from lib import lattice


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
