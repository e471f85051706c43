"""How fast is the exact census against torch.unique(dim=0) and np.unique(axis=0)?

    python -m benchmarks.census [ROWS]

A bfloat16 matrix of 151,936 x 2,560 with Qwen3-4B's thirteen populations planted in it,
memory-mapped from a file. Each way runs in turn, in one process; all must report the same
populations. The peers get the rows as int16, which both sort as they are.
"""

import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lib.analysis import census

POPULATIONS = [814, 704, 306, 228, 11, 10, 6, 5, 4, 4, 3, 3, 2]
ROUNDS = 2
DIM = 2_560


def planted(path: Path, rows: int) -> np.ndarray:
    """(rows, DIM) uint16 memory map: Gaussian rows and POPULATIONS of near-identical holes."""
    rng = np.random.default_rng(42)
    W = np.memmap(path, np.uint16, "w+", shape=(rows, DIM))
    for start in range(0, rows, 4_096):
        block = rng.standard_normal((min(4_096, rows - start), DIM), dtype=np.float32) * 0.022
        W[start : start + len(block)] = block.view(np.uint32) >> 16
    ids, at = rng.permutation(rows), 0
    for population in POPULATIONS:
        hole = W[ids[0]].copy()
        hole[rng.integers(4, DIM, 20)] += 1
        W[ids[at : at + population]] = hole
        at += population
    W.flush()
    return np.memmap(path, np.uint16, "c", shape=(rows, DIM))


def by_census(W: np.ndarray) -> list[int]:
    return census.duplicates(W).populations.tolist()


def by_torch(W: np.ndarray) -> list[int]:
    rows = torch.from_numpy(np.asarray(W).view(np.int16))
    _, _, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    return sorted((n for n in counts.tolist() if n > 1), reverse=True)


def by_numpy(W: np.ndarray) -> list[int]:
    rows = np.asarray(W).view(np.int16)
    _, _, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return sorted((n for n in counts.tolist() if n > 1), reverse=True)


def main() -> None:
    """Print seconds and ratios."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 151_936
    ways: dict[str, Callable[[np.ndarray], list[int]]] = {
        "census.duplicates": by_census,
        "torch.unique(dim=0)": by_torch,
        "np.unique(axis=0)": by_numpy,
    }
    with tempfile.TemporaryDirectory() as folder:
        W = planted(Path(folder) / "w.bin", rows)
        W.max()  # every page in memory before the first clock starts
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                start = time.perf_counter()
                found = way(W)
                seconds[name].append(time.perf_counter() - start)
                assert found == POPULATIONS, name
        tracemalloc.start()
        by_census(W)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    ours = max(seconds["census.duplicates"])
    print(
        f"{rows:,} x {DIM:,} bfloat16, {W.nbytes / 1e9:.2f} GB memory-mapped, {ROUNDS} rounds each"
    )
    for name, taken in seconds.items():
        runs = ", ".join(f"{s:.3f}" for s in taken)
        print(f"{name:22} {runs} s   {min(taken) / ours:8.1f} x our slowest round")
    print(f"extra memory of the census at its peak: {peak / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
