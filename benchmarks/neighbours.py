"""Exact lattice neighbours of a full-size matrix, against reading it and against brute force.

    python -m benchmarks.neighbours [--rows 151936] [--dim 2560] [--steps 1]

A synthetic matrix of the size of Qwen3-4B's: Gaussian rows, a dead cluster of black holes and
single rows, and planted pairs of neighbours. The answer is known, so every run is checked.
"""

import argparse
import time

import numpy as np

from lib import lattice
from lib.analysis import census, graph
from tests import oracles

CLUSTER, DISTINCT, PAIRS = 2_212, 125, 500
BRUTE_ROWS = 1_500
ROUNDS = 3


def synthetic(rows: int, dim: int, *, steps: int, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """((rows, dim) uint16, (edges, 2)): a matrix and all its neighbours within `steps`."""
    rng = np.random.default_rng(seed)
    bits = np.empty((rows, dim), dtype=np.uint16)
    for start in range(0, rows, 4_096):
        part = bits[start : start + 4_096]
        part[...] = lattice.round_nearest(
            0.0217 * rng.standard_normal(part.shape, dtype=np.float32)
        )
    centre = lattice.round_nearest(0.0073 * rng.standard_normal(dim, dtype=np.float32))
    offsets = rng.integers(-1, 2, (DISTINCT, dim)) * (rng.random((DISTINCT, dim)) < 20 / dim)
    offsets[:, 0] += np.arange(DISTINCT) % 7  # some are neighbours, some are not
    vectors = np.unique(lattice.from_ordinal(lattice.ordinal(centre) + offsets), axis=0)
    chosen = rng.choice(rows, CLUSTER + 2 * PAIRS, replace=False)
    bits[chosen[:CLUSTER]] = vectors[np.minimum(rng.geometric(0.3, CLUSTER), len(vectors)) - 1]
    bits[chosen[: len(vectors)]] = vectors
    left, right = chosen[CLUSTER : CLUSTER + PAIRS], chosen[CLUSTER + PAIRS :]
    shift = rng.integers(-steps, steps + 1, (PAIRS, dim))
    bits[right] = lattice.from_ordinal(lattice.ordinal(bits[left]) + shift)
    cluster = np.sort(chosen[:CLUSTER])
    inside = cluster[oracles.neighbours(bits[cluster], steps)]
    return bits, np.unique(np.vstack([inside, np.sort(np.column_stack([left, right]), 1)]), axis=0)


def seconds(call) -> tuple[float, object]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=151_936)
    parser.add_argument("--dim", type=int, default=2_560)
    parser.add_argument("--steps", type=int, default=1)
    args = parser.parse_args()
    bits, truth = synthetic(args.rows, args.dim, steps=args.steps)
    print(f"{args.rows:,} x {args.dim:,} bf16, {bits.nbytes / 1e9:.2f} GB, steps {args.steps}")
    words = bits.reshape(-1).view(np.uint64)
    best = {"read": np.inf, "census": np.inf, "search": np.inf}
    for _ in range(ROUNDS):
        best["read"] = min(best["read"], seconds(lambda: np.bitwise_xor.reduce(words))[0])
        took, _ = seconds(lambda: census.duplicates(bits))
        best["census"] = min(best["census"], took)
        took, found = seconds(lambda: graph.search(bits, args.steps))
        best["search"] = min(best["search"], took)
    assert np.array_equal(found.edges, truth), "the search and the planted truth disagree"
    print(
        f"edges {len(found.edges):,}, all planted ones and no other; components {found.components}"
    )
    print(f"reading every word of the matrix  {best['read']:.3f} s")
    print(f"census of identical rows          {best['census']:.3f} s (part of the search)")
    print(f"search, census included           {best['search']:.3f} s")
    sample = np.random.default_rng(0).choice(args.rows, BRUTE_ROWS, replace=False)
    part = np.ascontiguousarray(bits[np.sort(np.concatenate([truth[:100].ravel(), sample]))])
    brute, expected = seconds(lambda: oracles.neighbours(part, args.steps))
    ours, got = seconds(lambda: graph.search(part, args.steps))
    assert np.array_equal(got.edges, expected), "the search and brute force disagree"
    whole = brute * (args.rows / len(part)) ** 2
    print(
        f"brute force on {len(part):,} rows: {brute:.2f} s against {ours:.3f} s, same edges "
        f"({len(expected)}); on all rows it would take {whole / 3600:.1f} h, "
        f"{whole / best['search']:,.0f} times as long"
    )


if __name__ == "__main__":
    main()
