"""Which sigma, and which centre, if the thirteen holes were a snowball? And can it be one at all?

Model: rows are N(c, sigma^2 I), rounded to the lattice; nothing is known of c. In units of a
dimension's ULP the centre stands at delta in a chain of unit cells, the noise is s = sigma / ULP.
With a flat prior for delta each dimension has an evidence

    L_d(sigma) = integral of prod_j p_j(delta, s)^n_j  d delta,
    p_j = Phi((j + 1/2 - delta) / s) - Phi((j - 1/2 - delta) / s),

n_j being how many of the N rows sit in cell j. Dimensions are independent under the model, so the
likelihood of sigma is the product. Binade edges and float32's half ULP are absorbed by delta.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from lib import artifacts, lattice, progress
from lib.analysis import qwen3

WIDE = 0.04  # s from which no cell has a flat inside
T = np.linspace(-9, 9, 181)  # delta relative to a border, in units of s
FINE = 401  # nodes over the stretch that holds the likelihood


@dataclass(frozen=True)
class Steps:
    """How rows are spread over lattice steps, dimension by dimension; alike dimensions together."""

    ulp: np.ndarray  # (G,) float64
    low: np.ndarray  # (G,) int64: lowest occupied cell; the commonest cell is 0
    counts: tuple[np.ndarray, ...]  # per group: rows in cells low, low + 1, ...
    times: np.ndarray  # (G,) int64: how many dimensions look like this

    @property
    def dims(self) -> int:
        """All dimensions."""
        return int(self.times.sum())

    @property
    def rows(self) -> int:
        """Rows, the same in every dimension."""
        return int(self.counts[0].sum())


def observed() -> Steps:
    """Qwen3-4B's 2,100 rows in holes: 20 varying dimensions by their bits, 2,540 constant ones."""
    hole = qwen3.thirteen()
    exponent = lattice.fields(hole.bits[0]).exponent.astype(np.int64)
    offset = lattice.ordinal(hole.bits).astype(np.int64) - lattice.ordinal(hole.bits[:1])
    rest = qwen3.exponents().tolist()
    ulps, lows, counts, times = [], [], [], []
    for d in range(len(hole.dims)):
        rest.remove(exponent[d])
        low = int(offset[:, d].min())
        count = np.bincount(offset[:, d] - low, weights=hole.populations).astype(np.int64)
        ulps.append(2.0 ** (exponent[d] - 134.0))
        lows.append(low)
        counts.append(count)
        times.append(1)
    for e, n in zip(*np.unique(rest, return_counts=True), strict=True):
        ulps.append(2.0 ** (e - 134.0))
        lows.append(0)
        counts.append(np.array([hole.populations.sum()]))
        times.append(int(n))
    return Steps(np.array(ulps), np.array(lows), tuple(counts), np.array(times))


def of_rows(steps: np.ndarray, ulp: np.ndarray) -> Steps:
    """Steps of (rows, D) int64 lattice steps with (D,) float64 ULPs; alike dimensions gathered."""
    groups: dict[tuple, int] = {}
    for d in range(steps.shape[1]):
        low = int(steps[:, d].min())
        count = np.bincount(steps[:, d] - low)
        low -= int(count.argmax()) + low  # count from the commonest cell
        key = (float(ulp[d]), low, *count.tolist())
        groups[key] = groups.get(key, 0) + 1
    keys = list(groups)
    return Steps(
        np.array([k[0] for k in keys]),
        np.array([k[1] for k in keys]),
        tuple(np.array(k[2:]) for k in keys),
        np.array(list(groups.values())),
    )


def evidence(sigmas: np.ndarray, data: Steps) -> np.ndarray:
    """(S, G) float64 log L_d of one dimension of each group, at each of (S,) sigmas."""
    return np.array(
        [
            [
                _one(s / ulp, low, n)[0]
                for ulp, low, n in zip(data.ulp, data.low, data.counts, strict=True)
            ]
            for s in progress.bar(sigmas, desc="likelihood")
        ]
    )


def surface(
    sigmas: np.ndarray, deltas: np.ndarray, *, ulp: float, low: int, counts: np.ndarray
) -> np.ndarray:
    """(S, T) float64 log likelihood of one dimension at (S,) sigmas and (T,) offsets in steps.

    `low` and `counts` are those of `Steps`. With a flat prior it is the joint posterior, unscaled.
    """
    return np.array([_log_likelihood(deltas, s, low, counts) for s in sigmas / ulp])


def _one(s: float, low: int, n: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, int]:
    """log evidence, nodes, their log weights, how many of the last stand for a cell's inside."""
    if s >= WIDE or np.count_nonzero(n) > 1:
        nodes, weights, inner = *_zoom(s, low, n), 0
    else:
        nodes, weights, inner = *_flat(s, low), 1
    log_weight = np.log(weights) + _log_likelihood(nodes, s, low, n)
    return float(special.logsumexp(log_weight)), nodes, log_weight, inner


def _zoom(s: float, low: int, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights where the likelihood has one summit.

    Many rows fix delta to a small part of s. The likelihood is log-concave, so the stretch that
    holds it is narrowed down until it is many nodes wide.
    """
    ends = low - 0.5 - 9 * s, low + len(n) - 0.5 + 9 * s
    while True:
        nodes, step = np.linspace(*ends, FINE, retstep=True)
        log = _log_likelihood(nodes, s, low, n)
        held = np.flatnonzero(log > log.max() - 30)
        if len(held) > FINE // 4:
            return nodes, np.full(FINE, step)
        ends = nodes[held[0]] - step, nodes[held[-1]] + step


def _flat(s: float, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights where all rows sit in one cell: falling at its borders, flat inside."""
    borders = cell + np.array([-0.5, 0.5])
    near = (borders[:, None] + s * T).ravel()
    weights = np.full(len(near), s * (T[1] - T[0]))
    return np.append(near, cell), np.append(weights, 1 - 18 * s)


def _log_likelihood(nodes: np.ndarray, s: float, low: int, n: np.ndarray) -> np.ndarray:
    """log of the product of p_j ** n_j at every node."""
    return sum(n[j] * _log_cell(low + j - nodes, s) for j in np.flatnonzero(n))


def _log_cell(x: np.ndarray, s: float) -> np.ndarray:
    """log P(|x + s z| falls within half a cell of 0), accurate in both tails."""
    a = (np.abs(x) - 0.5) / s  # by symmetry the upper tail: Q(a) - Q(b)
    b = (np.abs(x) + 0.5) / s
    upper, lower = special.log_ndtr(-a), special.log_ndtr(-b)
    return upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-16)))


# ---------------------------------------------------------------- posterior and its predictions
def refined(data: Steps, smallest: float, largest: float, *, points: int = 61) -> tuple:
    """(sigmas, probabilities): a coarse grid, then a fine one round its likeliest sigma."""
    for _ in range(2):
        sigmas = np.geomspace(smallest, largest, points)
        p = posterior(sigmas, evidence(sigmas, data), data)
        held = np.flatnonzero(p > 1e-6)
        smallest = sigmas[max(held[0] - 1, 0)]
        largest = sigmas[min(held[-1] + 1, points - 1)]
    return sigmas, p


def without(data: Steps, drop: np.ndarray) -> Steps:
    """The data without the groups where `drop` (G,) bool is True."""
    keep = np.flatnonzero(~drop)
    counts = tuple(data.counts[g] for g in keep)
    return Steps(data.ulp[keep], data.low[keep], counts, data.times[keep])


def posterior(sigmas: np.ndarray, log_evidence: np.ndarray, data: Steps) -> np.ndarray:
    """(S,) probabilities of sigmas (a grid equal in log sigma, flat prior)."""
    total = log_evidence @ data.times
    return np.exp(total - special.logsumexp(total))


def predict(
    sigma: float, data: Steps, *, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One replicate: (rows, K) int64 steps in the dimensions that moved, and their ULPs (K,).

    delta is drawn from its posterior given sigma in every dimension, then all rows anew.
    """
    columns, ulps = [], []
    for ulp, low, n, times in zip(data.ulp, data.low, data.counts, data.times, strict=True):
        s = sigma / ulp
        _, nodes, log_weight, inner = _one(s, int(low), n)
        p = np.exp(log_weight - special.logsumexp(log_weight))
        pick = rng.choice(len(nodes), times, p=p)
        delta = nodes[pick]
        if inner:  # a node inside a cell stands for all of the cell's inside
            inside = pick >= len(nodes) - inner
            delta = delta + inside * rng.uniform(-0.5 + 9 * s, 0.5 - 9 * s, times)
        moves = np.abs(delta - np.rint(delta)) > 0.5 - 8.4 * s
        for one in delta[moves]:
            columns.append(np.rint(one + s * rng.standard_normal(data.rows)).astype(np.int64))
            ulps.append(ulp)
    steps = np.stack(columns, axis=1) if columns else np.zeros((data.rows, 1), np.int64)
    return steps, np.array(ulps if columns else [1.0])


def statistics(steps: np.ndarray) -> dict[str, float]:
    """What a replicate is judged by; `steps` (rows, K), rows repeated as often as they occur."""
    rows, n = np.unique(steps, axis=0, return_counts=True)
    gaps, widest = 0, 0
    varying = np.flatnonzero((steps != steps[0]).any(axis=0))
    for k in varying:
        cells = np.unique(rows[:, k])
        gaps = max(gaps, int(np.diff(cells).max()) - 1)
        widest = max(widest, int(cells[-1] - cells[0]))
    return {
        "holes": int((n > 1).sum()),
        "largest": int(n.max()),
        "varying": len(varying),
        "widest": widest,
        "gap": gaps,
        "alike": alike(steps, varying),
    }


def alike(steps: np.ndarray, varying: np.ndarray) -> float:
    """Largest |correlation| between two dimensions in which at least 1 % of rows are away.

    Independent dimensions of N rows have correlations of about 1 / sqrt(N).
    """
    moved = steps[:, varying] != np.median(steps[:, varying], axis=0)
    moved = moved[:, (moved.mean(axis=0) > 0.01) & (moved.mean(axis=0) < 0.99)]
    if moved.shape[1] < 2:
        return 0.0
    table = np.corrcoef(moved.T.astype(np.float64))
    return float(np.abs(table - np.eye(len(table))).max())


def expand(hole_steps: np.ndarray, populations: np.ndarray) -> np.ndarray:
    """(rows, K) steps with every hole repeated as often as it has tokens."""
    return np.repeat(hole_steps, populations, axis=0)


def independent_holes(steps: np.ndarray, trials: int, *, rng: np.random.Generator) -> np.ndarray:
    """(trials,) holes if every dimension keeps its own rows' steps but they are dealt anew.

    Shuffling each column by itself keeps every marginal and removes every tie between dimensions:
    a test of independence that assumes nothing about the noise.
    """
    found = []
    for _ in range(trials):
        dealt = rng.permuted(steps, axis=0)
        found.append(int((np.unique(dealt, axis=0, return_counts=True)[1] > 1).sum()))
    return np.array(found)


# ---------------------------------------------------------------- populations alone (ABC)
@dataclass(frozen=True)
class Abc(artifacts.Recipe):
    """Approximate Bayesian computation from populations alone, centre anywhere.

    Draws log-uniform sigma and a centre uniform in its cell in every dimension, simulates 2,100
    rows, and keeps for each draw (draws,) float64: sigma, delta (distance to Qwen's populations),
    holes, varying dimensions, widest step.
    """

    draws: int
    smallest: float  # sigma
    largest: float
    seed: int

    name = "snowball-abc"

    def make(self) -> dict[str, np.ndarray]:
        """Simulate."""
        rng = np.random.default_rng(self.seed)
        target = qwen3.thirteen().populations
        ulp = 2.0 ** (qwen3.exponents() - 134.0)
        keep = {
            name: np.zeros(self.draws) for name in ("sigma", "delta", "holes", "varying", "widest")
        }
        for i in progress.bar(range(self.draws), desc="ABC"):
            sigma = float(np.exp(rng.uniform(np.log(self.smallest), np.log(self.largest))))
            s = sigma / ulp
            offset = rng.uniform(-0.5, 0.5, len(ulp))
            near = np.flatnonzero(np.abs(offset) > 0.5 - 6 * s)
            noise = rng.standard_normal((int(target.sum()), len(near)))
            steps = np.rint(offset[near] + s[near] * noise).astype(np.int64)
            if not len(near):
                steps = np.zeros((int(target.sum()), 1), np.int64)
            key = steps @ rng.integers(1, 1 << 62, steps.shape[1])  # rows by hash: wraps around
            n = np.sort(np.unique(key, return_counts=True)[1])[::-1]
            top = np.zeros(len(target))
            top[: min(len(n), len(top))] = n[: len(top)]
            span = steps.max(axis=0) - steps.min(axis=0)
            values = (
                sigma,
                np.abs(top - target).sum() / target.sum(),
                (n > 1).sum(),
                (span > 0).sum(),
                span.max(),
            )
            for name, value in zip(keep, values, strict=True):
                keep[name][i] = value
        return keep
