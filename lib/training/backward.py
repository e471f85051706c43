"""Loss and gradients of one step: forward and backward pass written out, in float32 on the CPU.

Operation by operation as autograd would do it, so the numbers are the same to the last bit (a test
holds the two together), without the graph, which costs a small model a quarter of its step. Runs on
an accelerator and runs that compute in bfloat16 go through autograd: see `loop.train`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from lib.training import model
from lib.training.config import Run

Back = Callable[[torch.Tensor], torch.Tensor]  # gradient of an output -> gradient of the input
aten = torch.ops.aten  # torch's operations by the names that autograd knows them by
EPSILON = 1e-5  # of layer norm: torch's default


@torch.no_grad()
def loss_and_gradients_(
    named: model.Parameters,
    grads: model.Parameters,
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
    h, back = _norm(x, named, grads, "norm")
    loss, dx = model.cross_entropy_(h, named["W"], targets.flatten(), grads["W"])
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
    x: torch.Tensor, named: model.Parameters, grads: model.Parameters, i: int, shape: tuple
) -> tuple[torch.Tensor, Back]:
    """x + attention(norm(x)) and its gradient; x is (batch * seq, dim)."""
    batch, seq, heads, width = shape
    y, norm_back = _norm(x, named, grads, f"{i}.norm1")
    qkv, qkv_back = _linear(y, named, grads, f"{i}.qkv")
    q, k, v = qkv.view(batch, seq, 3, heads, width).permute(2, 0, 3, 1, 4)
    attended, logsumexp = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
    mixed = attended.transpose(1, 2).reshape(x.shape)
    out, out_back = _linear(mixed, named, grads, f"{i}.out")

    def back(dx: torch.Tensor) -> torch.Tensor:
        upstream = out_back(dx).view(batch, seq, heads, width).transpose(1, 2)
        dqkv = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            upstream, q, k, v, attended, logsumexp, 0.0, True
        )
        dqkv = torch.stack([d.transpose(1, 2) for d in dqkv], 2).view(qkv.shape)
        return norm_back(qkv_back(dqkv)).add_(dx)

    return out.add_(x), back


def _feed_forward(
    x: torch.Tensor, named: model.Parameters, grads: model.Parameters, i: int
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
    x: torch.Tensor, named: model.Parameters, grads: model.Parameters, name: str
) -> tuple[torch.Tensor, Back]:
    weight = named[f"{name}.weight"]

    def back(dy: torch.Tensor) -> torch.Tensor:
        torch.mm(dy.T, x, out=grads[f"{name}.weight"])
        torch.sum(dy, 0, out=grads[f"{name}.bias"])
        return dy @ weight

    return F.linear(x, weight, named[f"{name}.bias"]), back


def _norm(
    x: torch.Tensor, named: model.Parameters, grads: model.Parameters, name: str
) -> tuple[torch.Tensor, Back]:
    weight, bias = named[f"{name}.weight"], named[f"{name}.bias"]
    shape = x.shape[-1:]
    y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, EPSILON)

    def back(dy: torch.Tensor) -> torch.Tensor:
        dx, dweight, dbias = aten.native_layer_norm_backward(
            dy, x, shape, mean, rstd, weight, bias, [True, True, True]
        )
        grads[f"{name}.weight"].copy_(dweight)
        grads[f"{name}.bias"].copy_(dbias)
        return dx

    return y, back
