"""Arithmetic as a value: which lattice a number is stored on, and how it gets there.

Nothing here is a context manager: a dtype is a choice of the experiment, written in the `Run`.
"""

import numpy as np
import torch

from lib import lattice
from lib.training.config import ConfigError, Rounding

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def dtype(name: str) -> torch.dtype:
    """The torch dtype called `name`. Raises ConfigError for any other name."""
    if name not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, got {name!r}")
    return _DTYPES[name]


def device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes cuda, then mps, then cpu. Raises ConfigError."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name, False):
        there = ", ".join(kind for kind, yes in available.items() if yes)
        raise ConfigError(f"device {name!r} is not available here; there is {there}")
    return torch.device(name)


def on_lattice(x: torch.Tensor, grid: torch.dtype) -> torch.Tensor:
    """Float32 x rounded to the nearest value of `grid` (ties to even), as float32."""
    return x if grid == torch.float32 else x.to(grid).float()


def store_(
    out: torch.Tensor, x: torch.Tensor, *, rounding: str, rng: np.random.Generator | None = None
) -> torch.Tensor:
    """Put float32 x (...) on the lattice of `out` (...), to nearest or stochastically. Returns out.

    `rng` is drawn from only if `rounding` is stochastic (which needs a bf16 `out`).
    """
    if rounding == Rounding.NEAREST:
        return out.copy_(x)
    bits = lattice.round_stochastic(x, rng=rng)
    out.view(torch.int16).copy_(bits.view(torch.int16))
    return out


def split_master_(high: torch.Tensor, low: torch.Tensor, master: torch.Tensor) -> None:
    """Write float32 `master` as bf16 `high` (its upper 16 bits, truncated) and int16 `low`."""
    pattern = master.view(torch.int32)
    low.copy_(pattern)  # int32 -> int16 keeps the lower 16 bits
    high.view(torch.int16).copy_(pattern >> 16)


def join_master(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """The float32 whose upper 16 bits are bf16 `high` and whose lower 16 bits are int16 `low`."""
    pattern = high.view(torch.int16).to(torch.int32) << 16
    return (pattern | (low.to(torch.int32) & 0xFFFF)).view(torch.float32)
