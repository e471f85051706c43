"""The model: a small GPT as functions over a dictionary of named parameters.

Pre-layer-norm blocks with biases, causal attention, exact GELU, a final layer norm; embedding E
and unembedding W are one matrix when tied. All parameters lie in one flat buffer, in the order of
`shapes`, so the optimiser is one pass and a checkpoint one tensor.

Loss and gradients of one step: forward and backward pass written out, in float32 on the CPU.

Operation by operation as autograd would do it, so the numbers are the same to the last bit (a test
holds the two together), without the graph, which costs a small model a quarter of its step. Runs on
an accelerator and runs that compute in bfloat16 go through autograd: see `loop.train`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from lib.training.config import Init, Run

CHUNK = 64  # rows of logits at a time: 64 x 4,000 float32 (1 MB) stay in the processor's cache
SMALLEST = 1e-36  # probability: float32 has all its digits from 1.2e-38 up
Parameters = dict[str, torch.Tensor]


def shapes(run: Run) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, W (the unembedding) first."""
    d, f = run.dim, run.ff
    named: dict[str, tuple[int, ...]] = {"W": (run.vocab, d)}
    if not run.tied:
        named["E"] = (run.vocab, d)
    if run.positions == "learned":
        named["positions"] = (run.seq, d)
    for i in range(run.layers):
        named |= {
            f"{i}.norm1.weight": (d,),
            f"{i}.norm1.bias": (d,),
            f"{i}.qkv.weight": (3 * d, d),
            f"{i}.qkv.bias": (3 * d,),
            f"{i}.out.weight": (d, d),
            f"{i}.out.bias": (d,),
            f"{i}.norm2.weight": (d,),
            f"{i}.norm2.bias": (d,),
            f"{i}.up.weight": (f, d),
            f"{i}.up.bias": (f,),
            f"{i}.down.weight": (d, f),
            f"{i}.down.bias": (d,),
        }
    return named | {"norm.weight": (d,), "norm.bias": (d,)}


def count(run: Run) -> int:
    """Number of parameters."""
    return sum(math.prod(shape) for shape in shapes(run).values())


def views(flat: torch.Tensor, run: Run) -> Parameters:
    """Named views into a flat buffer (parameters,), no copy."""
    named, start = {}, 0
    for name, shape in shapes(run).items():
        size = math.prod(shape)
        named[name] = flat[start : start + size].view(shape)
        start += size
    if start != flat.numel():
        raise ValueError(f"the buffer holds {flat.numel():,} numbers; this run has {start:,}")
    return named


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


def hidden(named: Parameters, tokens: torch.Tensor, run: Run) -> torch.Tensor:
    """Last hidden states h: (batch, seq, dim) in the parameters' dtype, from ids (batch, seq)."""
    batch, seq = tokens.shape
    x = F.embedding(tokens, named["W" if run.tied else "E"])
    if run.positions == "learned":
        x = x + named["positions"][:seq]
    for i in range(run.layers):
        y = _norm(x, named, f"{i}.norm1")
        qkv = _linear(y, named, f"{i}.qkv").view(batch, seq, 3, run.heads, run.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + _linear(y.transpose(1, 2).reshape(batch, seq, run.dim), named, f"{i}.out")
        y = F.gelu(_linear(_norm(x, named, f"{i}.norm2"), named, f"{i}.up"))
        x = x + _linear(y, named, f"{i}.down")
    return _norm(x, named, "norm")


def _norm(x: torch.Tensor, named: Parameters, name: str) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], named[f"{name}.weight"], named[f"{name}.bias"])


def _linear(x: torch.Tensor, named: Parameters, name: str) -> torch.Tensor:
    return F.linear(x, named[f"{name}.weight"], named[f"{name}.bias"])


def loss(h: torch.Tensor, W: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats, scalar: h (tokens, dim), W (vocab, dim), targets (tokens,).

    In float32 logits are made, used and forgotten chunk by chunk; in bf16 all at once, as the
    sources' code does.
    """
    if h.dtype == torch.float32:
        return ChunkedCrossEntropy.apply(h, W, targets)
    return F.cross_entropy(F.linear(h, W), targets)


class ChunkedCrossEntropy(torch.autograd.Function):
    """`cross_entropy_` for autograd."""

    @staticmethod
    def forward(ctx, h: torch.Tensor, W: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        grad_W = torch.empty_like(W)
        loss, grad_h = cross_entropy_(h, W, targets, grad_W)
        ctx.save_for_backward(grad_h, grad_W)
        return loss

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        grad_h, grad_W = ctx.saved_tensors
        return grad_h * upstream, grad_W * upstream, None


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


Back = Callable[[torch.Tensor], torch.Tensor]  # gradient of an output -> gradient of the input
aten = torch.ops.aten  # torch's operations by the names that autograd knows them by
LAYER_NORM_EPSILON = 1e-5  # of layer norm: torch's default


@torch.no_grad()
def loss_and_gradients_(
    named: Parameters,
    grads: Parameters,
    tokens: torch.Tensor,
    targets: torch.Tensor,
    run: Run,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss (scalar, nats) and last hidden states (batch, seq, dim); `grads` are overwritten.

    `named` and `grads` are float32 on the CPU, ids (batch, seq) int64.
    """
    batch, seq = tokens.shape
    x = F.embedding(tokens, named["W" if run.tied else "E"])
    if run.positions == "learned":
        x = x + named["positions"][:seq]
    x = x.view(-1, run.dim)
    backs = []
    for i in range(run.layers):
        x, back = _attention(x, named, grads, i, (batch, seq, run.heads, run.head_dim))
        backs.append(back)
        x, back = _feed_forward(x, named, grads, i)
        backs.append(back)
    h, back = _norm_and_back(x, named, grads, "norm")
    loss, dx = cross_entropy_(h, named["W"], targets.flatten(), grads["W"])
    dx = back(dx)
    for back in reversed(backs):
        dx = back(dx)
    dx = dx.view(batch, seq, run.dim)
    if run.positions == "learned":
        grads["positions"].zero_()
        torch.sum(dx, 0, out=grads["positions"][:seq])
    dE = aten.embedding_dense_backward(dx, tokens, run.vocab, -1, False)
    grads["W"].add_(dE) if run.tied else grads["E"].copy_(dE)
    return loss, h.view(batch, seq, run.dim)


def _attention(
    x: torch.Tensor, named: Parameters, grads: Parameters, i: int, shape: tuple
) -> tuple[torch.Tensor, Back]:
    """x + attention(norm(x)) and its gradient; x is (batch * seq, dim)."""
    batch, seq, heads, width = shape
    y, norm_back = _norm_and_back(x, named, grads, f"{i}.norm1")
    qkv, qkv_back = _linear_and_back(y, named, grads, f"{i}.qkv")
    q, k, v = qkv.view(batch, seq, 3, heads, width).permute(2, 0, 3, 1, 4)
    attended, logsumexp = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
    mixed = attended.transpose(1, 2).reshape(x.shape)
    out, out_back = _linear_and_back(mixed, named, grads, f"{i}.out")

    def back(dx: torch.Tensor) -> torch.Tensor:
        upstream = out_back(dx).view(batch, seq, heads, width).transpose(1, 2)
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
    y, norm_back = _norm_and_back(x, named, grads, f"{i}.norm2")
    up, up_back = _linear_and_back(y, named, grads, f"{i}.up")
    down, down_back = _linear_and_back(F.gelu(up), named, grads, f"{i}.down")

    def back(dx: torch.Tensor) -> torch.Tensor:
        dup = aten.gelu_backward(down_back(dx), up)
        return norm_back(up_back(dup)).add_(dx)

    return down.add_(x), back


def _linear_and_back(
    x: torch.Tensor, named: Parameters, grads: Parameters, name: str
) -> tuple[torch.Tensor, Back]:
    weight = named[f"{name}.weight"]

    def back(dy: torch.Tensor) -> torch.Tensor:
        torch.mm(dy.T, x, out=grads[f"{name}.weight"])
        torch.sum(dy, 0, out=grads[f"{name}.bias"])
        return dy @ weight

    return F.linear(x, weight, named[f"{name}.bias"]), back


def _norm_and_back(
    x: torch.Tensor, named: Parameters, grads: Parameters, name: str
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
