"""Which sigma, and which centre, if the thirteen holes were a snowball? And can it be one at all?

Model: rows are N(c, sigma^2 I), rounded to the lattice; nothing is known of c. In units of a
dimension's ULP the centre stands at delta in a chain of unit cells, the noise is s = sigma / ULP.
With a flat prior for delta each dimension has an evidence

    L_d(sigma) = integral of prod_j p_j(delta, s)^n_j  d delta,
    p_j = Phi((j + 1/2 - delta) / s) - Phi((j - 1/2 - delta) / s),

n_j being how many of the N rows sit in cell j. Dimensions are independent under the model, so the
likelihood of sigma is the product. Binade edges and float32's half ULP are absorbed by delta.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from scipy import special

from lib import lattice, progress
from lib.analysis import qwen3
from lib.analysis.census import demographics, without_singles

WIDE = 0.04  # s from which no cell has a flat inside
T = np.linspace(-9, 9, 181)  # delta relative to a border, in units of s
FINE = 401  # nodes over the stretch that holds the likelihood


class Chain(NamedTuple):
    """How rows are spread over the cells of a dimension, and of all that look like it."""

    ulp: float
    low: int  # lowest occupied cell; 0 is that of the largest hole, or the commonest
    counts: np.ndarray  # (cells,) int64: rows in cells low, low + 1, ...
    times: int  # dimensions that look like this


def observed() -> list[Chain]:
    """Qwen3-4B's 2,100 rows in holes: 20 varying dimensions by their bits, 2,540 constant ones.

    The cluster's single rows are missing, as their bits are not printed.
    """
    hole = qwen3.thirteen()
    exponents = lattice.fields(hole.bits[0]).exponent.tolist()
    chains = []
    for offset, exponent in zip(hole.displacement.T, exponents, strict=True):
        counts = np.bincount(offset - offset.min(), weights=hole.populations).astype(np.int64)
        chains.append(Chain(2.0 ** (exponent - 134.0), int(offset.min()), counts, 1))
    everyone = np.array([hole.populations.sum()])
    constant = Counter(qwen3.exponents().tolist()) - Counter(exponents)
    for exponent, times in sorted(constant.items()):
        chains.append(Chain(2.0 ** (exponent - 134.0), 0, everyone, times))
    return chains


def of_rows(steps: np.ndarray, ulp: np.ndarray) -> list[Chain]:
    """Chains of (rows, D) int64 lattice steps with (D,) float64 ULPs; alike dimensions gathered."""
    alike: Counter[tuple] = Counter()
    for column, size in zip(steps.T, ulp.tolist(), strict=True):
        counts = np.bincount(column - column.min())
        alike[size, -int(counts.argmax()), *counts.tolist()] += 1
    return [
        Chain(size, low, np.array(counts), times) for (size, low, *counts), times in alike.items()
    ]


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
def refined(data: list[Chain], smallest: float, largest: float, *, points: int) -> tuple:
    """(points,) sigmas and their probabilities: a coarse grid, then one round the likeliest sigma.

    The prior is flat in log sigma.
    """
    for _ in range(2):
        sigmas = np.geomspace(smallest, largest, points)
        p = special.softmax(evidence(sigmas, data) @ [chain.times for chain in data])
        held = np.flatnonzero(p > 1e-6)
        smallest = sigmas[max(held[0] - 1, 0)]
        largest = sigmas[min(held[-1] + 1, points - 1)]
    return sigmas, p


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


def statistics(steps: np.ndarray) -> dict[str, float]:
    """What a replicate is judged by; `steps` (rows, K), rows repeated as often as they occur.

    Only rows in holes count, as in Qwen3-4B no others are known: single ones are left out first,
    and where nothing is left all figures are 0.

    `widest` is the largest distance of two rows in one dimension, in steps; `gap` the most empty
    cells between occupied ones; `alike` the largest |correlation| between two dimensions in which
    at least 1 % of rows are away, about 1 / sqrt(rows) where they are independent.
    """
    steps = without_singles(steps)
    if not len(steps):
        return dict.fromkeys(("holes", "largest", "varying", "widest", "gap", "alike"), 0)
    found = demographics(lattice.from_ordinal(steps))
    varying = steps[:, found.extent > 0]
    moved = varying != np.median(varying, axis=0)
    moved = moved[:, (moved.mean(axis=0) > 0.01) & (moved.mean(axis=0) < 0.99)]
    alike = 0.0
    if moved.shape[1] > 1:
        table = np.corrcoef(moved.T.astype(np.float64))
        alike = float(np.abs(table - np.eye(len(table))).max())
    return {
        "holes": found.holes,
        "largest": found.largest,
        "varying": found.varying,
        "widest": found.linf,
        "gap": max((int(np.diff(np.unique(column)).max()) - 1 for column in varying.T), default=0),
        "alike": alike,
    }
