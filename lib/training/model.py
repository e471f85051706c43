"""The model: a small GPT as functions over a dictionary of named parameters.

Pre-layer-norm blocks with biases, causal attention, exact GELU, a final layer norm; embedding E
and unembedding W are one matrix when tied. All parameters lie in one flat buffer, in the order of
`shapes`, so the optimiser is one pass and a checkpoint one tensor.

The forward pass is written once. Each of its parts returns its output and a function `back`, from
the gradient of the output to that of the input: in float32 on the CPU the backward pass is these,
operation by operation what autograd does and the same to the last bit (a test holds the two
together), without the graph, which costs a small model a quarter of its step. Elsewhere autograd
differentiates the forward pass, and `back` is not called.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from lib.training.config import Init, Run

LAYER_NORM_EPSILON = 1e-5  # torch's default
CHUNK = 64  # rows of logits at a time: 64 x 4,000 float32 (1 MB) stay in the processor's cache
SMALLEST = 1e-36  # probability: float32 has all its digits from 1.2e-38 up
Parameters = dict[str, torch.Tensor]
Back = Callable[[torch.Tensor], torch.Tensor]  # gradient of an output -> gradient of the input
aten = torch.ops.aten  # torch's operations by the names that autograd knows them by


def shapes(run: Run) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, W (the unembedding) first."""
    d, f = run.dim, run.ff
    named: dict[str, tuple[int, ...]] = {"W": (run.vocab, d)}
    if not run.tied:
        named["E"] = (run.vocab, d)
    if run.positions == "learned":
        named["positions"] = (run.seq, d)
    block = {"norm1": (d,), "qkv": (3 * d, d), "out": (d, d)}
    block |= {"norm2": (d,), "up": (f, d), "down": (d, f)}
    layers = {f"{i}.{name}": shape for i in range(run.layers) for name, shape in block.items()}
    for name, shape in {**layers, "norm": (d,)}.items():
        named |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return named


def count(run: Run) -> int:
    """Number of parameters."""
    return sum(map(math.prod, shapes(run).values()))


def views(flat: torch.Tensor, run: Run) -> Parameters:
    """Named views into a flat buffer (parameters,), no copy."""
    named = shapes(run)
    parts = flat.split([*map(math.prod, named.values())])
    return {name: part.view(named[name]) for name, part in zip(named, parts, strict=True)}


def initialise(run: Run) -> torch.Tensor:
    """Initial parameters, flat float32 (parameters,), drawn in the order of `shapes`.

    E and W by `run.init` and `run.init_std`, positions N(0, positions_std), other matrices
    N(0, hidden_std), layer norms one and zero, biases zero. Not yet on the lattice, but for
    Init.POINT_NOISE_CAST.
    """
    generator = torch.Generator().manual_seed(run.seed)
    flat = torch.zeros(count(run))
    for name, tensor in views(flat, run).items():
        if name in ("W", "E"):
            tensor.copy_(_rows(run, generator))
        elif "norm" in name and name.endswith("weight"):
            tensor.fill_(1.0)
        elif not name.endswith("bias"):
            std = run.positions_std if name == "positions" else run.hidden_std
            tensor.normal_(0.0, std, generator=generator)
    return flat


def _rows(run: Run, generator: torch.Generator) -> torch.Tensor:
    if run.init == Init.NORMAL:
        return torch.empty(run.vocab, run.dim).normal_(0.0, run.init_std, generator=generator)
    point = torch.empty(run.dim).normal_(0.0, run.init_std, generator=generator)
    noise = torch.empty(run.vocab, run.dim).normal_(0.0, run.init_noise, generator=generator)
    if run.init == Init.POINT:
        return point.expand(run.vocab, -1)
    if run.init == Init.POINT_NOISE:
        return point + noise
    return (point.bfloat16() + noise.bfloat16()).float()


# ----------------------------------------------------------------------------- the pass
@torch.no_grad()
def loss_and_gradients_(
    named: Parameters, grads: Parameters, tokens: torch.Tensor, targets: torch.Tensor, run: Run
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss (scalar, nats) and last hidden states (batch, seq, dim); `grads` are overwritten.

    `named` and `grads` are float32 on the CPU, ids (batch, seq) int64.
    """
    h, backs = _forward(named, grads, tokens, run)
    loss, dx = cross_entropy_(h, named["W"], targets.flatten(), grads["W"])
    for back in reversed(backs):
        dx = back(dx)
    dx = dx.view(*tokens.shape, run.dim)
    if run.positions == "learned":
        grads["positions"].zero_()
        torch.sum(dx, 0, out=grads["positions"][: tokens.shape[1]])
    dE = aten.embedding_dense_backward(dx, tokens, run.vocab, -1, False)
    grads["W"].add_(dE) if run.tied else grads["E"].copy_(dE)
    return loss, h.view(dx.shape)


def by_autograd_(
    named: Parameters, grads: Parameters, tokens: torch.Tensor, targets: torch.Tensor, run: Run
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for leaves `named` whose .grad are `grads`, on any device and in any dtype.

    In float32 logits are made, used and forgotten chunk by chunk; in bf16 all at once, as the
    sources' code does.
    """
    torch._foreach_zero_([*grads.values()])
    h, W, targets = _forward(named, None, tokens, run)[0], named["W"], targets.flatten()
    if h.dtype == torch.float32:
        loss, grad_h = cross_entropy_(h.detach(), W.detach(), targets, grads["W"])
        h.backward(grad_h)
    else:
        loss = F.cross_entropy(F.linear(h, W), targets)
        loss.backward()
    return loss, h.detach().view(*tokens.shape, run.dim)


def _forward(
    named: Parameters, grads: Parameters | None, tokens: torch.Tensor, run: Run
) -> tuple[torch.Tensor, list[Back]]:
    """Last hidden states (batch * seq, dim), and the way back through blocks and final norm.

    The way back fills `grads`; None leaves it to autograd.
    """
    batch, seq = tokens.shape
    x = F.embedding(tokens, named["W" if run.tied else "E"])
    if run.positions == "learned":
        x = x + named["positions"][:seq]
    x, backs = x.view(-1, run.dim), []
    shape = (batch, seq, run.heads, run.dim // run.heads)
    for i in range(run.layers):
        x, back = _attention(x, named, grads, i, shape)
        x, after = _feed_forward(x, named, grads, i)
        backs += [back, after]
    h, back = _norm(x, named, grads, "norm")
    return h, [*backs, back]


def _attention(
    x: torch.Tensor, named: Parameters, grads: Parameters | None, i: int, shape: tuple[int, ...]
) -> tuple[torch.Tensor, Back]:
    """x + attention(norm(x)) and its gradient; x is (batch * seq, dim)."""
    batch, seq, heads, width = shape
    y, norm_back = _norm(x, named, grads, f"{i}.norm1")
    qkv, qkv_back = _linear(y, named, grads, f"{i}.qkv")
    q, k, v = qkv.view(batch, seq, 3, heads, width).permute(2, 0, 3, 1, 4)
    if grads is None:
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        attended, logsumexp = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
    mixed = attended.transpose(1, 2).reshape(x.shape)
    out, out_back = _linear(mixed, named, grads, f"{i}.out")

    def back(dx: torch.Tensor) -> torch.Tensor:
        upstream = out_back(dx).view(shape).transpose(1, 2)
        dqkv = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            upstream, q, k, v, attended, logsumexp, 0.0, True
        )
        dqkv = torch.stack([d.transpose(1, 2) for d in dqkv], 2).view(qkv.shape)
        return norm_back(qkv_back(dqkv)).add_(dx)

    return out.add_(x), back


def _feed_forward(
    x: torch.Tensor, named: Parameters, grads: Parameters | None, i: int
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
    x: torch.Tensor, named: Parameters, grads: Parameters | None, name: str
) -> tuple[torch.Tensor, Back]:
    weight = named[f"{name}.weight"]

    def back(dy: torch.Tensor) -> torch.Tensor:
        torch.mm(dy.T, x, out=grads[f"{name}.weight"])
        torch.sum(dy, 0, out=grads[f"{name}.bias"])
        return dy @ weight

    return F.linear(x, weight, named[f"{name}.bias"]), back


def _norm(
    x: torch.Tensor, named: Parameters, grads: Parameters | None, name: str
) -> tuple[torch.Tensor, Back]:
    weight, bias = named[f"{name}.weight"], named[f"{name}.bias"]
    shape = x.shape[-1:]
    y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, LAYER_NORM_EPSILON)

    def back(dy: torch.Tensor) -> torch.Tensor:
        dx, dweight, dbias = aten.native_layer_norm_backward(
            dy, x, shape, mean, rstd, weight, bias, [True, True, True]
        )
        grads[f"{name}.weight"].copy_(dweight)
        grads[f"{name}.bias"].copy_(dbias)
        return dx

    return y, back


# ----------------------------------------------------------------------------- the loss
def cross_entropy_(
    h: torch.Tensor, W: torch.Tensor, targets: torch.Tensor, grad_W: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of softmax(h W^T) in nats and its gradient by h; by W it fills `grad_W`.

    dL/dh = (p - y) W / n and dL/dW_i = sum_n (p_ni - y_ni) h_n / n; the logits (tokens, vocab) are
    never all in memory.
    """
    n = len(h)
    total = h.new_zeros(())
    grad_h = torch.empty_like(h)
    grad_W.zero_()
    buffer = h.new_empty(min(CHUNK, n), len(W))
    minus_one = h.new_full((len(buffer), 1), -1.0)
    for start in range(0, n, CHUNK):
        rows, wanted = h[start : start + CHUNK], targets[start : start + CHUNK, None]
        p = torch.mm(rows, W.T, out=buffer[: len(rows)])
        torch.softmax(p, 1, out=p)
        chosen = p.gather(1, wanted)
        if chosen.min() > SMALLEST:
            total -= chosen.log().sum()
        else:  # so improbable that the logarithm of p has lost digits: from the logits then
            total += F.cross_entropy(F.linear(rows, W), wanted[:, 0], reduction="sum")
        p.scatter_add_(1, wanted, minus_one[: len(rows)])
        torch.mm(p, W, out=grad_h[start : start + CHUNK])
        grad_W.addmm_(p.T, rows)
    grad_W.div_(n)
    return total / n, grad_h.div_(n)


@torch.no_grad()
def probabilities(h: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    """Mean probability of every token over positions: (vocab,), from h (tokens, dim)."""
    mean = W.new_zeros(len(W))
    for rows in h.split(CHUNK):
        mean += torch.softmax(F.linear(rows, W), 1).sum(0)
    return mean / len(h)
