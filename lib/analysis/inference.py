"""Which sigma, and which centre, if the thirteen holes were a snowball? And can it be one at all?

Model: rows are N(c, sigma^2 I), rounded to the lattice; nothing is known of c. In units of a
dimension's ULP the centre stands at delta in a chain of unit cells, the noise is s = sigma / ULP.
With a flat prior for delta each dimension has an evidence

    L_d(sigma) = integral of prod_j p_j(delta, s)^n_j  d delta,
    p_j = Phi((j + 1/2 - delta) / s) - Phi((j - 1/2 - delta) / s),

n_j being how many of the N rows sit in cell j. Dimensions are independent under the model, so the
likelihood of sigma is the product. Binade edges and float32's half ULP are absorbed by delta.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from lib import progress

WIDE = 0.04  # s from which no cell has a flat inside
T = np.linspace(-9, 9, 181)  # delta relative to a border, in units of s
FINE = 401  # nodes over the stretch that holds the likelihood


class Chain(NamedTuple):
    """How rows are spread over the cells of a dimension, and of all that look like it."""

    ulp: float
    low: int  # lowest occupied cell; 0 is the commonest
    counts: np.ndarray  # (cells,) int64: rows in cells low, low + 1, ...
    times: int  # dimensions that look like this


def evidence(sigmas: np.ndarray, data: list[Chain]) -> np.ndarray:
    """(S, G) float64 log L_d of one dimension of each chain, at each of (S,) sigmas."""
    return np.array(
        [
            [special.logsumexp(_weighted(sigma / chain.ulp, chain)[1]) for chain in data]
            for sigma in progress.bar(sigmas, desc="likelihood")
        ]
    )


def log_likelihood(deltas: np.ndarray, s: float, chain: Chain) -> np.ndarray:
    """log of the product of p_j ** n_j at every offset of the centre: (T,) float64."""
    occupied = np.flatnonzero(chain.counts)
    return sum(chain.counts[j] * _log_cell(chain.low + j - deltas, s) for j in occupied)


def _log_cell(x: np.ndarray, s: float) -> np.ndarray:
    """log P(|x + s z| falls within half a cell of 0), accurate in both tails."""
    a = (np.abs(x) - 0.5) / s  # by symmetry the upper tail: Q(a) - Q(b)
    b = (np.abs(x) + 0.5) / s
    upper, lower = special.log_ndtr(-a), special.log_ndtr(-b)
    return upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-16)))


def _weighted(s: float, chain: Chain) -> tuple[np.ndarray, np.ndarray, bool]:
    """Nodes of delta, the log of weight times likelihood there, whether the last is an inside."""
    flat = s < WIDE and np.count_nonzero(chain.counts) == 1
    nodes, weights = _flat(s, chain.low) if flat else _zoom(s, chain)
    return nodes, np.log(weights) + log_likelihood(nodes, s, chain), flat


def _zoom(s: float, chain: Chain) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights where the likelihood has one summit.

    Many rows fix delta to a small part of s. The likelihood is log-concave, so the stretch that
    holds it is narrowed down until it is many nodes wide.
    """
    ends = chain.low - 0.5 - 9 * s, chain.low + len(chain.counts) - 0.5 + 9 * s
    while True:
        nodes, step = np.linspace(*ends, FINE, retstep=True)
        log = log_likelihood(nodes, s, chain)
        held = np.flatnonzero(log > log.max() - 30)
        if len(held) > FINE // 4:
            return nodes, np.full(FINE, step)
        ends = nodes[held[0]] - step, nodes[held[-1]] + step


def _flat(s: float, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights where all rows sit in one cell: falling at its borders, flat inside.

    The last node stands for all of the inside.
    """
    borders = cell + np.array([-0.5, 0.5])
    near = (borders[:, None] + s * T).ravel()
    weights = np.full(len(near), s * (T[1] - T[0]))
    return np.append(near, cell), np.append(weights, 1 - 18 * s)


# ---------------------------------------------------------------- posterior and its predictions
def predict(
    sigma: float, data: list[Chain], *, rng: np.random.Generator, rows: int | None = None
) -> np.ndarray:
    """One replicate: (rows, K) int64 steps in the dimensions that moved.

    delta is drawn from its posterior given sigma in every dimension, then all rows anew, as many
    as `data` has or `rows`: where single rows are missing from the data, the cloud had more.
    """
    rows = int(data[0].counts.sum()) if rows is None else rows
    columns = []
    for chain in data:
        s = sigma / chain.ulp
        nodes, log_weight, flat = _weighted(s, chain)
        pick = rng.choice(len(nodes), chain.times, p=special.softmax(log_weight))
        delta = nodes[pick]
        if flat:
            inside = pick == len(nodes) - 1
            delta = delta + inside * rng.uniform(-0.5 + 9 * s, 0.5 - 9 * s, chain.times)
        moves = np.abs(delta - np.rint(delta)) > 0.5 - 8.4 * s
        for one in delta[moves]:
            columns.append(np.rint(one + s * rng.standard_normal(rows)).astype(np.int64))
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 1), np.int64)
