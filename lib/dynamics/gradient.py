"""What pushes a token: the gradient of the unembedding, computed by hand and read from films."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import lattice
from lib.dynamics import motion
from lib.training import movie


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float64."""
    shifted = np.exp(np.asarray(logits, np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def by_hand(h: np.ndarray, W: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dL/dW (vocab, dim) float64 of the unembedding: mean over n of (p_ni - y_ni) h_n.

    h (tokens, dim), W (vocab, dim), targets (tokens,) ids. For a token that is never a target the
    second term is absent; what an embedding receives as input is not in it.
    """
    h = np.asarray(h, np.float64)
    p = softmax(h @ np.asarray(W, np.float64).T)
    p[np.arange(len(h)), targets] -= 1
    return p.T @ h / len(h)


@dataclass(frozen=True)
class Alignment:
    """Gradients of a set of rows through a film; all (steps,)."""

    norm: np.ndarray  # mean length of a row's gradient
    least: np.ndarray  # least length of a row's gradient
    coherence: np.ndarray  # mean cosine between two rows' gradients
    with_h: np.ndarray  # mean cosine between a row's gradient and the mean hidden state


def alignment(grads: np.ndarray, mean_h: np.ndarray) -> Alignment:
    """Alignment of gradients (steps, rows, dim) with each other and with mean_h (steps, dim)."""
    units = motion.unit(grads)
    length = np.linalg.norm(grads, axis=-1)
    count = (length > 0).sum(1)
    total = units.sum(1)
    pairs = np.maximum(count * (count - 1), 1)
    return Alignment(
        norm=length.mean(1),
        least=length.min(1),
        coherence=((total**2).sum(-1) - count) / pairs,
        with_h=(total * motion.unit(mean_h)).sum(-1) / np.maximum(count, 1),
    )


def alignment_of_movie(path: Path, rows: np.ndarray) -> Alignment:
    """Alignment of the recorded gradients of `rows`, step by step; needs W.grad and mean_h."""
    count, parts = movie.about(path)["W.grad"][0], []
    for start in range(0, count, movie.KEY):
        span = slice(max(start, 1), min(start + movie.KEY, count))
        grads = lattice.value(movie.read(path, "W.grad", span, rows))
        parts.append(alignment(grads, movie.read(path, "mean_h", span)))
    names = Alignment.__dataclass_fields__
    return Alignment(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})
