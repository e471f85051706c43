"""Plain ways to the same answers: what the library is compared with."""

from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F

from lib import lattice
from lib.training.config import Run


def gradient(h: np.ndarray, W: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dL/dW (vocab, dim) float64 of the unembedding: mean over n of (p_ni - y_ni) h_n.

    h (tokens, dim), W (vocab, dim), targets (tokens,) ids. For a token that is never a target the
    second term is absent; what an embedding receives as input is not in it.
    """
    h = np.asarray(h, np.float64)
    logits = h @ np.asarray(W, np.float64).T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(h)), targets] -= 1
    return p.T @ h / len(h)


class Peer(torch.nn.Module):
    """The sources' recipe as one writes it: a module, model.to(bfloat16), torch.optim.AdamW."""

    def __init__(self, run: Run):
        super().__init__()
        nn, d = torch.nn, run.dim
        self.run = run
        self.W, self.positions = nn.Embedding(run.vocab, d), nn.Embedding(run.seq, d)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(d), "qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d),
                    "norm2": nn.LayerNorm(d), "up": nn.Linear(d, run.ff),
                    "down": nn.Linear(run.ff, d),
                }
            )
            for _ in range(run.layers)
        )  # fmt: skip
        self.norm = nn.LayerNorm(d)

    def forward(self, tokens, targets):
        b, s = tokens.shape
        x = self.W(tokens) + self.positions.weight[:s]
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm1"](x)).chunk(3, -1)
            q, k, v = (t.view(b, s, self.run.heads, -1).transpose(1, 2) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + block["out"](y.transpose(1, 2).reshape(b, s, -1))
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x))))
        logits = F.linear(self.norm(x), self.W.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def load(self, named):
        for name, parameter in self.named_parameters():
            parameter.data.copy_(named[name.removeprefix("blocks.").replace("W.weight", "W")
                                      .replace("positions.weight", "positions")])  # fmt: skip
        return self


def first_identical(rows: np.ndarray) -> np.ndarray:
    """(rows,) the first identical row of each: the bytes of a row are the key."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(row.tobytes(), i) for i, row in enumerate(rows)], dtype=int)


def neighbours(bits: np.ndarray, steps: int = 1) -> np.ndarray:
    """(edges, 2) ids of distinct rows with L∞ <= `steps`: every row against all later ones."""
    first = np.sort(np.unique(bits, axis=0, return_index=True)[1])
    ordinals = lattice.ordinal(np.ascontiguousarray(bits[first]))
    edges = []
    for i in range(len(first) - 1):
        near = np.flatnonzero((np.abs(ordinals[i + 1 :] - ordinals[i]) <= steps).all(axis=1))
        edges += [(first[i], first[i + 1 + j]) for j in near]
    return np.array(edges, dtype=np.int64).reshape(-1, 2)


def coherence(vectors: np.ndarray, floor: float = 0.0) -> float:
    """Mean cosine of all pairs of vectors, zeros left out; lengths below `floor` count as it."""
    vectors = [v for v in np.asarray(vectors, np.float64) if v.any()]
    units = [v / max(np.linalg.norm(v), floor) for v in vectors]
    return float(np.mean([a @ b for a, b in combinations(units, 2)]))
