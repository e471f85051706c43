"""Arithmetic as a value: which lattice a number is stored on, and how it gets there.

Nothing here is a context manager: a dtype is a choice of the experiment, written in the `Run`.

AdamW, transparent: every operation named, every rounding written out.

On the bf16 lattice the order of roundings *is* the algorithm, and torch has three (see `Update`).
`adamw_reference` spells them out; `step_` is the fast form used in training. Tests hold the two
and torch.optim.AdamW together, bit for bit. Source: Loshchilov and Hutter (2019).

Where parameter, gradient and state are not all on one lattice (a float32 state, a master copy,
stochastic rounding), the moments follow the for-loop order on their own lattice, and decay and
update are one float32 expression that is rounded once, when the parameter is stored.
"""

from dataclasses import dataclass

import numpy as np
import torch

from lib import lattice
from lib.training.config import ConfigError, Master, Rounding, Run, Schedule, Update

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


PIECE = 1 << 21  # numbers updated at a time: what passes between operations stays in the cache


@dataclass(frozen=True)
class Coefficients:
    """The scalars of one AdamW step, in double precision as in torch."""

    lr: float
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    decay: float  # 1 - lr * weight_decay: factor on the parameter
    step_size: float  # lr / (1 - beta1^t)
    correction: float  # sqrt(1 - beta2^t): divides sqrt(exp_avg_sq)


def coefficients(run: Run, step: int) -> Coefficients:
    """Scalars of step `step`, counted from 1."""
    lr = learning_rate(run, step)
    return Coefficients(
        lr=lr,
        weight_decay=run.weight_decay,
        beta1=run.beta1,
        beta2=run.beta2,
        eps=run.eps,
        decay=1 - lr * run.weight_decay,
        step_size=lr / (1 - run.beta1**step),
        correction=(1 - run.beta2**step) ** 0.5,
    )


def learning_rate(run: Run, step: int) -> float:
    """Learning rate of step `step` (1 .. run.steps): warm-up, then the schedule."""
    if step <= run.warmup:
        return run.lr * step / run.warmup
    if run.schedule == Schedule.CONSTANT or run.steps == run.warmup:
        return run.lr
    done = min(1.0, (step - run.warmup) / (run.steps - run.warmup))
    shape = 1 - done if run.schedule == Schedule.LINEAR else (1 + np.cos(np.pi * done)) / 2
    return float(run.lr * (run.lr_end + (1 - run.lr_end) * shape))


# ----------------------------------------------------------------------------- training
@dataclass
class State:
    """What a run carries from step to step; flat (parameters,), in the order of model.shapes."""

    step: int  # optimiser steps done
    param: torch.Tensor  # what the model sees, param_dtype
    exp_avg: torch.Tensor  # first moment, state_dtype
    exp_avg_sq: torch.Tensor  # second moment, state_dtype
    master: torch.Tensor | None = None  # float32, with Master.FP32
    low: torch.Tensor | None = None  # int16 lower halves, with Master.LOW16

    def tensors(self) -> dict[str, torch.Tensor]:
        """The buffers by name, without those that this run has not."""
        named = {
            name: getattr(self, name)
            for name in ("param", "exp_avg", "exp_avg_sq", "master", "low")
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def start(run: Run, flat: torch.Tensor) -> State:
    """State before the first step from float32 initial parameters (parameters,)."""
    grid = dtype(run.state_dtype)
    zeros = torch.zeros(len(flat), dtype=grid, device=flat.device)
    state = State(
        step=0,
        param=flat.to(dtype(run.param_dtype), copy=True),
        exp_avg=zeros,
        exp_avg_sq=zeros.clone(),
    )
    if run.master == Master.FP32:
        state.master = flat.clone()
    elif run.master == Master.LOW16:
        state.low = torch.empty(len(flat), dtype=torch.int16, device=flat.device)
        split_master_(state.param, state.low, flat)
    return state


def step_(
    state: State, grad: torch.Tensor, run: Run, *, rng: np.random.Generator | None = None
) -> None:
    """One optimiser step in place; `grad` (parameters,) in grad_dtype; `rng` rounds, if asked."""
    state.step += 1
    c = coefficients(run, state.step)
    if run.mixed:
        _moments_(grad.to(state.exp_avg.dtype), state.exp_avg, state.exp_avg_sq, c)
        denominator = (state.exp_avg_sq.float().sqrt() / c.correction).add_(c.eps)
        wanted = finest(state) * c.decay
        wanted.addcdiv_(state.exp_avg.float(), denominator, value=-c.step_size)
        _store_(state, run, wanted, rng)
    else:
        buffers = (state.param, grad, state.exp_avg, state.exp_avg_sq)
        for part in zip(*(buffer.split(PIECE) for buffer in buffers), strict=True):
            adamw_(*part, c, state.step, run.update)


def adamw_(
    param: torch.Tensor,
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    c: Coefficients,
    step: int,
    update: str = Update.FOR_LOOP,
) -> None:
    """One AdamW step in place on tensors of one dtype and shape, in torch's operations."""
    if update == Update.FUSED:
        torch._fused_adamw_(
            [param], [grad], [exp_avg], [exp_avg_sq], [], [torch.tensor(float(step))],
            lr=c.lr, beta1=c.beta1, beta2=c.beta2, weight_decay=c.weight_decay, eps=c.eps,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        return
    foreach = update == Update.FOREACH
    if c.decay != 1:
        param.mul_(_factor(c.decay, param, foreach))
    _moments_(grad, exp_avg, exp_avg_sq, c, foreach)
    denominator = (exp_avg_sq.sqrt() / c.correction).add_(c.eps)
    param.addcdiv_(exp_avg, denominator, value=-c.step_size)


def _moments_(
    g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, c: Coefficients, foreach: bool = False
) -> None:
    m.lerp_(g, 1 - c.beta1)
    v.mul_(_factor(c.beta2, v, foreach)).addcmul_(g, g, value=1 - c.beta2)


def _factor(x: float, like: torch.Tensor, foreach: bool) -> float:
    """torch's foreach multiplication rounds a scalar factor to the tensor's dtype first."""
    return float(torch.tensor(x).to(like.dtype)) if foreach else x


def finest(state: State) -> torch.Tensor:
    """The parameters as finely as the run knows them: float32 (parameters,), a copy."""
    if state.low is not None:
        return join_master(state.param, state.low)
    return (state.param if state.master is None else state.master).to(torch.float32, copy=True)


def _store_(state: State, run: Run, wanted: torch.Tensor, rng: np.random.Generator | None) -> None:
    if state.low is not None:
        split_master_(state.param, state.low, wanted)
        return
    if state.master is not None:
        state.master.copy_(wanted)
    store_(state.param, wanted, rounding=run.rounding, rng=rng)


# ----------------------------------------------------------------------------- spelt out
def adamw_reference(
    param: torch.Tensor,
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    c: Coefficients,
    *,
    update: str = Update.FOR_LOOP,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One AdamW step -> new (param, exp_avg, exp_avg_sq), all of one dtype and shape.

    `keep` is the rounding of an intermediate to the lattice; `fma` a multiply-add rounded to
    float32 once, as the processor does it.
    """
    grid = param.dtype
    p, g, m, v = (x.float() for x in (param, grad, exp_avg, exp_avg_sq))
    w1, w2 = _f32(1 - c.beta1), _f32(1 - c.beta2)
    decay, beta2, eps = _f32(c.decay), _f32(c.beta2), _f32(c.eps)
    if update == Update.FOREACH:  # scalar factors are rounded to the lattice
        decay, beta2 = on_lattice(decay, grid), on_lattice(beta2, grid)
    if update == Update.FUSED:  # rounds when it stores, takes the correctly rounded square root
        root = lambda x: x.double().sqrt().float()  # noqa: E731
        keep = lambda x: x  # noqa: E731
    else:
        root = torch.sqrt  # of the vector library: in float32 its last bit may be off
        keep = lambda x: on_lattice(x, grid)  # noqa: E731
        eps = on_lattice(eps, grid)  # `add` rounds its scalar to the lattice

    if c.decay != 1:
        p = keep(p * decay)
    # lerp starts from the nearer end, so that its coefficient is at most one half
    m = keep(fma(w1, g - m, m) if w1 < 0.5 else fma(w1 - 1, g - m, g))
    v = keep(v * beta2)
    v = keep(fma(w2 * g, g, v))
    denominator = keep(keep(keep(root(v)) / _f32(c.correction)) + eps)
    p = p + _f32(-c.step_size) * m / denominator
    return p.to(grid), m.to(grid), v.to(grid)


def _f32(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float32)


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """a * b + c of float32 tensors, rounded to float32 once.

    The product is exact in float64; the sum is rounded to odd there, so that the second rounding
    cannot be misled (Boldo and Melquiond, 2008).
    """
    product, c = a.double() * b.double(), c.double()
    total = product + c
    rest = total - product  # two-sum: total + error is the exact sum
    error = (product - (total - rest)) + (c - rest)
    even = total.view(torch.int64).bitwise_and(1) == 0
    odd = torch.nextafter(total, torch.copysign(torch.full_like(total, torch.inf), error))
    return torch.where((error != 0) & even, odd, total).float()
