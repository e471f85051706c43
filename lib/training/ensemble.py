"""An ensemble: many runs of one shape in one pass, along a batch dimension.

A small model's step costs dispatch, not arithmetic: sixty operations of some microseconds each.
Here each operation does the work of several members (products by `baddbmm`), while loss, weights,
batches and optimiser stay those of `loop`, `model` and `optim`. Members differ in seed, start and
all that the optimiser reads; they share the model's shape, the batch's and the text. No member sees
its companions, so a run's numbers do not depend on those beside it.

A pass takes as many members as the processor's cache holds; with more threads than one, passes run
side by side, each operation on one thread, and the numbers do not depend on that either.
"""

import contextlib
import ctypes
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from lib import artifacts, progress
from lib.training import experiments, loop, model, optim, worlds
from lib.training.config import ConfigError, Run, from_dict
from lib.training.model import Parameters, aten

SHAPE = ("vocab", "dim", "layers", "heads", "ff", "seq", "positions", "tied", "batch", "steps")
ARITHMETIC = ("param_dtype", "grad_dtype", "state_dtype", "compute_dtype", "device")
CACHE = 1 << 18  # numbers of one activation in a pass: a megabyte
Back = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Moment:
    """What an observer sees of all M members at step t; named tensors are (M, *shape), live views.

    `params`, `before`, `grads`, `exp_avg`, `exp_avg_sq` as in `loop.Moment`; step 0 has no more.
    """

    runs: Sequence[Run]
    params: Parameters
    before: Parameters
    grads: Parameters
    exp_avg: Parameters
    exp_avg_sq: Parameters
    step: int
    h: torch.Tensor  # (M, batch * seq, dim) last hidden states
    targets: torch.Tensor  # (M, batch * seq) wanted ids
    surprise: torch.Tensor  # (M, batch * seq) -ln p of the wanted id, at W_(t-1)


@torch.no_grad()
def train(
    runs: Sequence[Run],
    stream: np.ndarray,
    *,
    observers: Sequence[Callable[[Moment], None]] = (),
    label: str = "ensemble",
) -> list[loop.Outcome]:
    """Train every run on the token stream (tokens,); one Outcome each, in their order.

    The members' `threads`, the largest of them, is the number of passes side by side. Raises
    ConfigError where `loop.train` does, for runs that differ in shape or arithmetic, and for any
    but float32 computation on the CPU; loop.Diverged when a loss is no longer finite.
    """
    check(runs, stream)
    _keep_memory()
    first = runs[0]
    members, tokens = len(runs), first.tokens_per_step
    states = [optim.start(run, model.initialise(run)) for run in runs]
    kept = {name: _gathered(states, name) for name in ("param", "exp_avg", "exp_avg_sq")}
    work = kept["param"].float().clone()
    sums = torch.zeros_like(work)
    given = sums
    if first.grad_dtype != "float32":
        given = torch.zeros_like(sums, dtype=getattr(torch, first.grad_dtype))
    h = torch.zeros(members, tokens, first.dim)
    surprise = torch.zeros(members, tokens)
    targets = torch.zeros(members, tokens, dtype=torch.int64)
    inputs = torch.zeros_like(targets)
    losses = np.full((members, first.steps), np.nan, np.float32)
    seen = {name: views(flat, first) for name, flat in kept.items()}
    moment = Moment(
        runs, seen.pop("param"), views(work, first), views(given, first), **seen,
        step=0, h=h, targets=targets, surprise=surprise,
    )  # fmt: skip
    size = max(1, CACHE // (tokens * first.dim))
    parts = [slice(at, min(at + size, members)) for at in range(0, members, size)]
    passes = [
        (views(work[part], first), views(sums[part], first), inputs[part], targets[part])
        for part in parts
    ]

    def advance(i: int) -> torch.Tensor:
        part = parts[i]
        loss = loss_and_gradients_(*passes[i], h[part], surprise[part], first)
        if given is not sums:
            given[part].copy_(sums[part])
        for j in range(part.start, part.stop):
            optim.step_(states[j], given[j], runs[j])
        return loss

    threads = max(run.threads for run in runs)
    with _one_thread_each(), ThreadPoolExecutor(threads, initializer=_alone) as pool:
        spread = map if threads == 1 else pool.map
        for observe in observers:
            observe(moment)
        bar = progress.bar(total=first.steps, desc=label, unit="step")
        for step in range(1, first.steps + 1):
            drawn: dict[int, tuple[torch.Tensor, ...]] = {}
            for j, run in enumerate(runs):
                if run.seed not in drawn:
                    drawn[run.seed] = loop.batch(stream, run, step)
                inputs[j], targets[j] = (ids.flatten() for ids in drawn[run.seed])
            value = torch.cat(list(spread(advance, range(len(parts))))).numpy()
            losses[:, step - 1] = value
            if not np.isfinite(value).all():
                who = ", ".join(str(i) for i in np.flatnonzero(~np.isfinite(value)))
                raise loop.Diverged(f"the loss of member {who} is not finite at step {step}")
            for observe in observers:
                observe(dataclasses.replace(moment, step=step))
            work.copy_(kept["param"])
            bar.update()
        bar.close()
    return [loop.Outcome(loss, state) for loss, state in zip(losses, states, strict=True)]


def check(runs: Sequence[Run], stream: np.ndarray) -> None:
    """Raises ConfigError unless these runs on this stream make an ensemble."""
    if not runs:
        raise ConfigError("an ensemble needs at least one run")
    for name in (*SHAPE, *ARITHMETIC):
        found = sorted({str(getattr(run, name)) for run in runs})
        if len(found) > 1:
            raise ConfigError(f"members must agree in {name}; got {', '.join(found)}")
    if (runs[0].compute_dtype, runs[0].device) != ("float32", "cpu"):
        raise ConfigError("an ensemble computes in float32 on the CPU")
    loop.check_stream(runs[0], stream)


def views(flat: torch.Tensor, run: Run) -> Parameters:
    """Named views (M, *shape) into a flat buffer (M, parameters), no copy."""
    named = model.shapes(run)
    parts = flat.split([int(np.prod(shape)) for shape in named.values()], dim=1)
    return {name: part.unflatten(1, named[name]) for name, part in zip(named, parts, strict=True)}


def _gathered(states: Sequence[optim.State], name: str) -> torch.Tensor:
    """One buffer of all states (M, parameters), of which each state's own becomes a row."""
    whole = torch.stack([getattr(state, name) for state in states])
    for state, row in zip(states, whole, strict=True):
        setattr(state, name, row)
    return whole


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_memory() -> None:
    """Let the C library keep what is freed: else each large tensor is mapped and zeroed anew.

    glibc's own calls; elsewhere nothing happens. Without them a quarter of a step is page faults.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never give the top of the heap back
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: its largest


def _alone() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


# ----------------------------------------------------------------------------- the pass
def loss_and_gradients_(
    named: Parameters,
    grads: Parameters,
    tokens: torch.Tensor,
    targets: torch.Tensor,
    h: torch.Tensor,
    surprise: torch.Tensor,
    run: Run,
) -> torch.Tensor:
    """Losses (M,) in nats; `grads`, `h` (M, n, dim) and `surprise` (M, n) are overwritten.

    `model.loss_and_gradients_` for M members; ids `tokens`, `targets` (M, n) int64.
    """
    members, n = tokens.shape  # noqa: RUF059
    source = "W" if run.tied else "E"
    ids = tokens + run.vocab * torch.arange(members)[:, None]
    rows = named[source]
    x = torch.stack([F.embedding(t, E) for t, E in zip(tokens, rows, strict=True)])
    if run.positions == "learned":
        x.view(members, run.batch, run.seq, run.dim).add_(named["positions"][:, None])
    backs = []
    for i in range(run.layers):
        x, back = _attention(x, named, grads, i, run)
        x, after = _feed_forward(x, named, grads, i)
        backs += [back, after]
    last, back = _norm(x, named, grads, "norm")
    h.copy_(last)
    loss, dx = cross_entropy_(h, named["W"], targets, grads["W"], surprise)
    for back in (back, *reversed(backs)):  # noqa: B020
        dx = back(dx)
    if run.positions == "learned":
        grads["positions"].copy_(dx.view(members, run.batch, run.seq, run.dim).sum(1))
    dE = aten.embedding_dense_backward(dx, ids, members * run.vocab, -1, False).view(rows.shape)
    grads["W"].add_(dE) if run.tied else grads["E"].copy_(dE)
    return loss


def _attention(
    x: torch.Tensor, named: Parameters, grads: Parameters, i: int, run: Run
) -> tuple[torch.Tensor, Back]:
    """x + attention(norm(x)) and its gradient; x is (M, n, dim)."""
    shape = (len(x) * run.batch, run.seq, run.heads, run.dim // run.heads)
    y, norm_back = _norm(x, named, grads, f"{i}.norm1")
    qkv, qkv_back = _linear(y, named, grads, f"{i}.qkv")
    q, k, v = qkv.view(*shape[:2], 3, *shape[2:]).permute(2, 0, 3, 1, 4)
    attended, logsumexp = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
    out, out_back = _linear(attended.transpose(1, 2).reshape(x.shape), named, grads, f"{i}.out")

    def back(dx: torch.Tensor) -> torch.Tensor:
        upstream = out_back(dx).view(shape).transpose(1, 2)
        dqkv = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            upstream, q, k, v, attended, logsumexp, 0.0, True
        )
        dqkv = torch.stack([d.transpose(1, 2) for d in dqkv], 2).view(qkv.shape)
        return norm_back(qkv_back(dqkv)).add_(dx)

    return out.add_(x), back


def _feed_forward(
    x: torch.Tensor, named: Parameters, grads: Parameters, i: int
) -> tuple[torch.Tensor, Back]:
    """x + down(gelu(up(norm(x)))) and its gradient."""
    y, norm_back = _norm(x, named, grads, f"{i}.norm2")
    up, up_back = _linear(y, named, grads, f"{i}.up")
    down, down_back = _linear(F.gelu(up), named, grads, f"{i}.down")

    def back(dx: torch.Tensor) -> torch.Tensor:
        dup = aten.gelu_backward(down_back(dx), up)
        return norm_back(up_back(dup)).add_(dx)

    return down.add_(x), back


def _linear(
    x: torch.Tensor, named: Parameters, grads: Parameters, name: str
) -> tuple[torch.Tensor, Back]:
    weight, bias = named[f"{name}.weight"], named[f"{name}.bias"]

    def back(dy: torch.Tensor) -> torch.Tensor:
        grads[f"{name}.weight"].copy_(torch.bmm(dy.mT, x))
        grads[f"{name}.bias"].copy_(dy.sum(1))
        return torch.bmm(dy, weight)

    return torch.baddbmm(bias[:, None], x, weight.mT), back


def _norm(
    x: torch.Tensor, named: Parameters, grads: Parameters, name: str
) -> tuple[torch.Tensor, Back]:
    """The kernel of the layer norm takes one weight, so members go one by one."""
    weights, biases = named[f"{name}.weight"], named[f"{name}.bias"]
    shape = x.shape[-1:]
    each = [
        torch.native_layer_norm(one, shape, weight, bias, model.LAYER_NORM_EPSILON)
        for one, weight, bias in zip(x, weights, biases, strict=True)
    ]

    def back(dy: torch.Tensor) -> torch.Tensor:
        dx = torch.empty_like(x)
        for j, (_, mean, rstd) in enumerate(each):
            dx[j], dweight, dbias = aten.native_layer_norm_backward(
                dy[j], x[j], shape, mean, rstd, weights[j], biases[j], [True, True, True]
            )
            grads[f"{name}.weight"][j].copy_(dweight)
            grads[f"{name}.bias"][j].copy_(dbias)
        return dx

    return torch.stack([y for y, _, _ in each]), back


def cross_entropy_(
    h: torch.Tensor,
    W: torch.Tensor,
    targets: torch.Tensor,
    grad_W: torch.Tensor,
    surprise: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`model.cross_entropy_` of M members: losses (M,), gradient by h (M, n, dim).

    `grad_W` (M, vocab, dim) and `surprise` (M, n), -ln p of each target, are filled.
    """
    n = h.shape[1]
    total = h.new_zeros(len(h))
    grad_h = torch.empty_like(h)
    grad_W.zero_()
    for start in range(0, n, model.CHUNK):
        part = slice(start, start + model.CHUNK)
        rows, wanted = h[:, part], targets[:, part, None]
        p = torch.bmm(rows, W.mT)
        torch.softmax(p, 2, out=p)
        chosen = p.gather(2, wanted)
        if chosen.min() > model.SMALLEST:
            surprise[:, part] = chosen.log().neg_().squeeze(2)
        else:  # the logarithm of p has lost digits: from the logits then
            exact = torch.bmm(rows, W.mT).log_softmax(2).gather(2, wanted)
            surprise[:, part] = exact.neg_().squeeze(2)
        total += surprise[:, part].sum(1)
        p.scatter_add_(2, wanted, -torch.ones_like(chosen))
        grad_h[:, part] = torch.bmm(p, W)
        grad_W.baddbmm_(p.mT, rows)
    grad_W.div_(n)
    return total / n, grad_h.div_(n)


# ----------------------------------------------------------------------------- artefacts
class Observation:
    """What is kept of an ensemble; subclasses are frozen dataclasses whose fields are choices."""

    name: ClassVar[str]  # of the artefact that holds it

    def watch(self, runs: Sequence[Run], world: worlds.World) -> dict[str, Any]:
        """Train the runs in the world; the arrays that are kept, members along the first axis."""
        raise TypeError(f"{type(self).__name__} does not say what it keeps")


@dataclass(frozen=True)
class Ensemble(artifacts.Recipe):
    """Runs of one shape trained together, and what is kept of them."""

    world: worlds.Recipe
    runs: tuple[Run, ...]
    observe: Observation

    @property
    def name(self) -> str:
        """Name of the artefact."""
        return self.observe.name

    def make(self) -> dict[str, Any]:
        """Train, and keep what the observation keeps."""
        return self.observe.watch(self.runs, self.world.get())

    def parameters(self) -> dict[str, Any]:
        """World, contents of the world, runs and observation as plain values."""
        return {
            "world": experiments.tagged(self.world),
            "contents": self.world.artefact().provenance["content"],
            "runs": [dataclasses.asdict(run) for run in self.runs],
            "observe": experiments.tagged(self.observe),
        }

    def makers(self) -> tuple[Any, ...]:
        """The observation's code, which reaches all of the training."""
        return (type(self.observe),)

    @classmethod
    def restored(cls, parameters: Mapping[str, Any]) -> "Ensemble":
        """The ensemble with these plain parameters."""
        world, observe = (experiments.untagged(parameters[name]) for name in ("world", "observe"))
        return cls(world, tuple(map(from_dict, parameters["runs"])), observe)
