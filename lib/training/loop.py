"""The training loop: one function, everything visible, nothing remembered that is not in `State`.

Batches and stochastic rounding at step t are drawn from generators seeded by (seed, t), so a run
resumed from a checkpoint goes on bit for bit as if it had never stopped.
"""

import contextlib
import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from lib import progress
from lib.training import model, optim
from lib.training.config import ConfigError, Run
from lib.training.worlds import World


class Stopped(RuntimeError):
    """The run was stopped by a signal after a whole step; its checkpoint says where to go on."""


class Diverged(RuntimeError):
    """The loss is no longer finite."""


@dataclass(frozen=True)
class Moment:
    """What an observer sees at step t; step 0 is the initial state (no loss, no gradient).

    `params` are W_t, after the update; `before` is what the forward pass saw, W_(t-1). The
    tensors are live views: copy what you keep.
    """

    run: Run
    params: model.Parameters  # by name, param_dtype, after the update
    before: model.Parameters  # by name, compute_dtype, before the update
    grads: model.Parameters  # by name, grad_dtype: what the optimiser was given
    exp_avg: model.Parameters
    exp_avg_sq: model.Parameters
    state: optim.State
    step: int = 0
    loss: float = math.nan  # nats per token, at W_(t-1)
    lr: float = 0.0
    h: torch.Tensor | None = None  # (batch, seq, dim) last hidden states
    targets: torch.Tensor | None = None  # (batch, seq) wanted ids


Observer = Callable[[Moment], None]


class Observation:
    """What is kept of a run; subclasses are frozen dataclasses whose fields are the choices."""

    name: ClassVar[str]  # of the artefact that holds it
    suffix: ClassVar[str] = ".safetensors"
    resumable: ClassVar[bool] = False

    def watch(self, run: Run, world: World, *path: Path) -> dict[str, np.ndarray] | None:
        """Train `run` in `world`; the arrays that are kept (a film writes them to `path`)."""
        raise TypeError(f"{type(self).__name__} does not say what it keeps")


@dataclass(frozen=True)
class Outcome:
    """What a run has come to: loss before each update (steps,) float32 in nats, and the state."""

    losses: np.ndarray
    state: optim.State


def train(
    run: Run,
    stream: np.ndarray,
    *,
    observers: Sequence[Observer] = (),
    intervene: Callable[[model.Parameters], None] | None = None,
    resume: Outcome | None = None,
    save: Callable[[Outcome], None] | None = None,
    save_every: int = 0,
    label: str = "training",
) -> Outcome:
    """Train on a token stream (tokens,) of integers; observers are called at step 0 and after each.

    `intervene(grads)` may change the gradients (by name, compute_dtype) before the optimiser
    gets them: for experiments that take a cause away. `resume` is what a shorter run came to, or
    `save` was given: it is called at every step t where t + 1 is a multiple of `save_every` (so
    that frames 0..t are whole segments), and when SIGINT or SIGTERM ask to stop, which then raises
    Stopped. Raises ConfigError if the stream does not fit the run, Diverged if the loss is not
    finite.
    """
    check_stream(run, stream)
    device = optim.device(run.device)
    grid, compute = getattr(torch, run.grad_dtype), getattr(torch, run.compute_dtype)
    with _undisturbed(run.threads) as asked:
        state = resume.state if resume else optim.start(run, model.initialise(run).to(device))
        losses = np.full(run.steps, np.nan, np.float32)
        if resume:
            losses[: len(resume.losses)] = resume.losses
        # the model computes in `work` and its gradients gather in `sums`, both flat
        work = state.param.to(compute, copy=True)
        sums = torch.zeros_like(work)
        given = sums if grid == compute else torch.zeros_like(sums, dtype=grid)
        named, gradients = model.views(work, run), model.views(sums, run)
        moment = Moment(
            run=run,
            params=model.views(state.param, run),
            before={name: tensor.detach() for name, tensor in named.items()},
            grads=model.views(given, run),
            exp_avg=model.views(state.exp_avg, run),
            exp_avg_sq=model.views(state.exp_avg_sq, run),
            state=state,
        )
        loss_and_gradients_ = model.loss_and_gradients_
        if device.type != "cpu" or compute != torch.float32:
            loss_and_gradients_ = model.by_autograd_
            for name, tensor in named.items():
                tensor.requires_grad_().grad = gradients[name]
        for observe in observers if state.step == 0 else ():
            observe(moment)

        bar = progress.bar(total=run.steps, initial=state.step, desc=label, unit="step")
        for step in range(state.step + 1, run.steps + 1):
            tokens, targets = (ids.to(device) for ids in batch(stream, run, step))
            loss, h = loss_and_gradients_(named, gradients, tokens, targets, run)
            if intervene:
                intervene(gradients)
            if given is not sums:
                given.copy_(sums)
            losses[step - 1] = value = loss.item()
            if not np.isfinite(value):
                raise Diverged(f"the loss is {value} at step {step}: lower lr (now {run.lr:g})")
            optim.step_(state, given, run)
            lr = optim.learning_rate(run, step)
            seen = {"step": step, "loss": value, "lr": lr, "h": h, "targets": targets}
            for observe in observers:
                observe(dataclasses.replace(moment, **seen))
            with torch.no_grad():
                work.copy_(state.param)
            bar.update()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{value:.3f}", refresh=False)
            stopping = bool(asked)
            if save and (stopping or (save_every and (step + 1) % save_every == 0)):
                save(Outcome(losses[:step], state))
            if stopping and step < run.steps:
                bar.close()
                raise Stopped(f"stopped after step {step} of {run.steps}; run again to go on")
        bar.close()
    return Outcome(losses, state)


def batch(stream: np.ndarray, run: Run, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of step `step`: two (batch, seq) int64, windows at random places."""
    rng = optim.generator(run, step, optim.BATCHES)
    starts = rng.integers(0, len(stream) - run.seq, run.batch)
    windows = stream[starts[:, None] + np.arange(run.seq + 1)].astype(np.int64)
    return torch.from_numpy(windows[:, :-1].copy()), torch.from_numpy(windows[:, 1:].copy())


def check_stream(run: Run, stream: np.ndarray) -> None:
    """Raises ConfigError if the stream is no 1-D integer array, too short, or out of vocabulary."""
    if stream.ndim != 1 or stream.dtype.kind not in "ui":
        raise ConfigError(f"the stream must be 1-D integers, got {stream.dtype} {stream.shape}")
    if len(stream) <= run.seq:
        raise ConfigError(f"the stream has {len(stream)} tokens; seq={run.seq} needs more")
    if int(stream.min()) < 0 or int(stream.max()) >= run.vocab:
        raise ConfigError(
            f"the stream has ids {stream.min()}..{stream.max()}; vocab is {run.vocab}"
        )


@contextlib.contextmanager
def _undisturbed(threads: int) -> Iterator[list[int]]:
    """So many threads of torch's, and a list that fills when SIGINT or SIGTERM ask to stop.

    Signals reach the main thread only.
    """
    asked: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    with contextlib.ExitStack() as afterwards:
        afterwards.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
        for kind in (signal.SIGINT, signal.SIGTERM) if in_main else ():
            before = signal.signal(kind, lambda number, _: asked.append(number))
            afterwards.callback(signal.signal, kind, before)
        yield asked
