"""AdamW on a lattice, with every rounding where torch has it, and the state that it carries.

On the bf16 lattice the order of roundings *is* the algorithm, and torch has three (see `Update`).
`adamw_` is the form used in training, `adamw_reference` spells each operation out. Tests hold the
two and torch.optim.AdamW together, bit for bit. Source: Loshchilov and Hutter (2019).

Where parameter, gradient and state are not all on one lattice (a float32 state, a master copy,
stochastic rounding), the moments follow the for-loop order on their own lattice, and decay and
update are one float32 expression that is rounded once, when the parameter is stored.
"""

from dataclasses import dataclass

import numpy as np
import torch

from lib import lattice
from lib.training.config import ConfigError, Master, Rounding, Run, Schedule, Update

PIECE = 1 << 21  # numbers updated at a time: what passes between operations stays in the cache
BATCHES, ROUNDING = 0, 1  # what random numbers are drawn for, each from a stream of its own


def generator(run: Run, step: int, purpose: int) -> np.random.Generator:
    """Random numbers of one step: a resumed run draws what it would have drawn."""
    return np.random.default_rng([run.seed, purpose, step])


def device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes cuda, then mps, then cpu. Raises ConfigError."""
    here = [kind for kind in ("cuda", "mps", "cpu") if getattr(torch, kind).is_available()]
    if name not in (*here, "auto"):
        raise ConfigError(f"device {name!r} is not available here; there is {', '.join(here)}")
    return torch.device(here[0] if name == "auto" else name)


# ----------------------------------------------------------------------------- scalars
@dataclass(frozen=True)
class Coefficients:
    """The scalars of one AdamW step, in double precision as in torch."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    decay: float  # 1 - lr * weight_decay: factor on the parameter
    step_size: float  # lr / (1 - beta1^t)
    correction: float  # sqrt(1 - beta2^t): divides sqrt(exp_avg_sq)


def coefficients(run: Run, step: int) -> Coefficients:
    """Scalars of step `step`, counted from 1."""
    lr = learning_rate(run, step)
    decay = 1 - lr * run.weight_decay
    step_size = lr / (1 - run.beta1**step)
    correction = (1 - run.beta2**step) ** 0.5
    return Coefficients(lr, run.beta1, run.beta2, run.eps, decay, step_size, correction)


def learning_rate(run: Run, step: int) -> float:
    """Learning rate of step `step` (1 .. run.steps): warm-up, then the schedule."""
    if step <= run.warmup:
        return run.lr * step / run.warmup
    if run.schedule == Schedule.CONSTANT or run.steps == run.warmup:
        return run.lr
    done = min(1.0, (step - run.warmup) / (run.steps - run.warmup))
    shape = 1 - done if run.schedule == Schedule.LINEAR else (1 + np.cos(np.pi * done)) / 2
    return float(run.lr * (run.lr_end + (1 - run.lr_end) * shape))


# ----------------------------------------------------------------------------- state
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
        return {name: x for name, x in vars(self).items() if isinstance(x, torch.Tensor)}


def start(run: Run, flat: torch.Tensor) -> State:
    """State before the first step from float32 initial parameters (parameters,)."""
    moment = torch.zeros_like(flat, dtype=getattr(torch, run.state_dtype))
    param = torch.empty_like(flat, dtype=getattr(torch, run.param_dtype))
    state = State(0, param, moment, moment.clone())
    if run.master == Master.FP32:
        state.master = torch.empty_like(flat)
    elif run.master == Master.LOW16:
        state.low = torch.empty_like(flat, dtype=torch.int16)
    store_(state, flat)
    return state


def store_(state: State, wanted: torch.Tensor, rng: np.random.Generator | None = None) -> None:
    """Make float32 `wanted` (parameters,) the parameters: to the nearest value of their lattice.

    With `rng` (for a bf16 lattice) they are rounded stochastically. A master keeps them exactly; of
    Master.LOW16 the model sees the upper 16 bits, truncated.
    """
    if state.low is not None:
        pattern = wanted.view(torch.int32)
        state.low.copy_(pattern)  # int32 -> int16 keeps the lower 16 bits
        state.param.view(torch.int16).copy_(pattern >> 16)
    elif rng is not None:
        bits = lattice.round_stochastic(wanted, rng=rng)
        state.param.view(torch.int16).copy_(bits.view(torch.int16))
    else:
        state.param.copy_(wanted)
    if state.master is not None:
        state.master.copy_(wanted)


def finest(state: State) -> torch.Tensor:
    """The parameters as finely as the run knows them: float32 (parameters,), a copy."""
    if state.low is not None:
        upper = state.param.view(torch.int16).int() << 16
        return (upper | (state.low.int() & 0xFFFF)).view(torch.float32)
    return (state.param if state.master is None else state.master).to(torch.float32, copy=True)


# ----------------------------------------------------------------------------- training
def step_(state: State, grad: torch.Tensor, run: Run) -> None:
    """One optimiser step in place; `grad` (parameters,) in grad_dtype."""
    state.step += 1
    if run.mixed:
        c, g = coefficients(run, state.step), grad.to(state.exp_avg.dtype)
        state.exp_avg.lerp_(g, 1 - c.beta1)
        state.exp_avg_sq.mul_(c.beta2).addcmul_(g, g, value=1 - c.beta2)
        denominator = (state.exp_avg_sq.float().sqrt() / c.correction).add_(c.eps)
        wanted = finest(state) * c.decay
        wanted.addcdiv_(state.exp_avg.float(), denominator, value=-c.step_size)
        stochastic = run.rounding == Rounding.STOCHASTIC
        store_(state, wanted, generator(run, state.step, ROUNDING) if stochastic else None)
    else:
        buffers = (state.param, grad, state.exp_avg, state.exp_avg_sq)
        for part in zip(*(buffer.split(PIECE) for buffer in buffers), strict=True):
            adamw_(*part, run, state.step)


def adamw_(
    param: torch.Tensor,
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    run: Run,
    step: int,
) -> None:
    """AdamW's step `step` in place on tensors of one dtype and shape, in torch's operations."""
    c = coefficients(run, step)
    if run.update == Update.FUSED:
        torch._fused_adamw_(
            [param], [grad], [exp_avg], [exp_avg_sq], [], [torch.tensor(float(step))],
            lr=c.lr, beta1=c.beta1, beta2=c.beta2, weight_decay=run.weight_decay, eps=c.eps,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        return
    decay, beta2 = c.decay, c.beta2
    if run.update == Update.FOREACH:  # rounds scalar factors to the tensors' dtype first
        decay, beta2 = torch.tensor([decay, beta2]).to(param.dtype).tolist()
    if c.decay != 1:
        param.mul_(decay)
    exp_avg.lerp_(grad, 1 - c.beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - c.beta2)
    denominator = (exp_avg_sq.sqrt() / c.correction).add_(c.eps)
    param.addcdiv_(exp_avg, denominator, value=-c.step_size)


# ----------------------------------------------------------------------------- spelt out
def adamw_reference(
    param: torch.Tensor,
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    run: Run,
    step: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """AdamW's step `step` -> new (param, exp_avg, exp_avg_sq), all of one dtype and shape.

    `keep` is the rounding of an intermediate to the lattice; `fma` a multiply-add rounded to
    float32 once, as the processor does it.
    """
    c, grid = coefficients(run, step), param.dtype
    keep = lambda x: x.to(grid).float()  # noqa: E731
    f32 = lambda x: torch.tensor(x, dtype=torch.float32)  # noqa: E731
    root = torch.sqrt  # of the vector library: in float32 its last bit may be off
    p, g, m, v = (x.float() for x in (param, grad, exp_avg, exp_avg_sq))
    w1, w2, eps = f32(1 - c.beta1), f32(1 - c.beta2), keep(f32(c.eps))  # `add` rounds its scalar
    decay, beta2 = f32(c.decay), f32(c.beta2)
    if run.update == Update.FOREACH:  # scalar factors are rounded to the lattice
        decay, beta2 = keep(decay), keep(beta2)
    elif run.update == Update.FUSED:  # rounds when it stores, takes the correctly rounded root
        keep = lambda x: x  # noqa: E731
        root = lambda x: x.double().sqrt().float()  # noqa: E731
        eps = f32(c.eps)

    if c.decay != 1:
        p = keep(p * decay)
    # lerp starts from the nearer end, so that its coefficient is at most one half
    m = keep(fma(w1, g - m, m) if w1 < 0.5 else fma(w1 - 1, g - m, g))
    v = keep(v * beta2)
    v = keep(fma(w2 * g, g, v))
    denominator = keep(keep(keep(root(v)) / f32(c.correction)) + eps)
    p = p + f32(-c.step_size) * m / denominator
    return p.to(grid), m.to(grid), v.to(grid)


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
