"""The ensemble beside the single engine, in one process: `python -m benchmarks.ensemble`.

32 runs at 48 and at 128 dimensions, in the world of the coalescence part and in the smaller one of
the tied rows, the ways alternating. The single engine trains one run after another on one thread,
which is its fastest; the ensemble trains all of them on one thread, and on two. Prints milliseconds
a step of a run by the wall and of processor time, how many times as many runs a second that is, and
whether the members' parameters are the single engine's bit for bit.

Two bounds stand beside it, both measured: the matrix products of a step alone, and the single
engine with the tokens of eight steps in one, which calls each operation once for eight and has one
model to move where eight members have eight: no ensemble of the same operations can cost less.

Two single engines at a time on two cores are twice as fast as one, so the ratio by processor time
tells what is gained; that by the wall on two threads, how long one waits for an answer.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lib.training import ensemble, loop
from lib.training.config import SMALL_FLOAT32, Run

CHECKED = 4  # members held against the single engine
MERGED = 8  # steps whose tokens one step takes, for the bound


class Clock:
    """The best of several timings of one way, in ms a step of a run: (wall, processor)."""

    def __init__(self) -> None:
        self.best = np.full(2, np.inf)

    def time(self, work: Callable[[], Any], steps: int) -> Any:
        start = np.array([time.perf_counter(), time.process_time()])
        outcome = work()
        taken = np.array([time.perf_counter(), time.process_time()]) - start
        self.best = np.minimum(self.best, 1e3 * taken / steps)
        return outcome


def products(run: Run, clock: Clock, repeats: int = 20) -> None:
    """Time the matrix products of a step alone: forward, and twice as many backward."""
    n, d = run.tokens_per_step, run.dim
    sizes = [(run.vocab, d)] + run.layers * [(3 * d, d), (d, d), (run.ff, d), (d, run.ff)]
    pairs = [(torch.randn(n, one), torch.randn(other, one)) for other, one in sizes]

    def work() -> None:
        for _ in range(repeats):
            for x, w in pairs:
                y = x @ w.T
                y @ w
                y.T @ x

    clock.time(work, repeats)


def compare(run: Run, members: int, stream: np.ndarray, rounds: int) -> None:
    runs = [run.replace(seed=seed) for seed in range(members)]
    chosen = runs[:: members // CHECKED][:CHECKED]
    bounds = ("tokens of 8 in 1 step", "products alone")
    names = ("single", "ensemble, 1 thread", "ensemble, 2 threads", *bounds)
    merged = run.replace(batch=MERGED * run.batch)
    clocks = {name: Clock() for name in names}
    loop.train(run.replace(steps=2), stream)
    for _ in range(rounds):
        alone = clocks["single"].time(
            lambda: [loop.train(one, stream) for one in chosen], CHECKED * run.steps
        )
        for threads, name in enumerate(names[1:3], 1):
            many = [one.replace(threads=threads) for one in runs]
            found = clocks[name].time(
                lambda many=many: ensemble.train(many, stream), members * run.steps
            )
        clocks[bounds[0]].time(lambda: loop.train(merged, stream), MERGED * run.steps)
        products(run, clocks[bounds[1]])
    beside = found[:: members // CHECKED][:CHECKED]
    pairs = [(a.state.param, b.state.param) for a, b in zip(alone, beside, strict=True)]
    same = sum(torch.equal(*pair) for pair in pairs)
    apart = max((a - b).abs().max() for a, b in pairs)
    sizes = f"vocabulary {run.vocab}, {run.tokens_per_step} tokens a step"
    print(f"D = {run.dim}, {sizes}, {members} runs")
    for name, clock in clocks.items():
        wall, processor = clock.best
        ratio = clocks["single"].best / clock.best
        print(
            f"  {name:21s} {wall:6.2f} ms by the wall ({ratio[0]:4.2f} x), "
            f"{processor:6.2f} ms of a processor ({ratio[1]:4.2f} x)"
        )
    print(f"  {same} of {CHECKED} members bit for bit, largest difference {apart:.1e}")
    assert apart < 1e-4, "the ensemble is another computation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--members", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    stream = np.random.default_rng(42).integers(0, 150, 200_000).astype(np.uint16)
    for dim in (48, 128):
        run = SMALL_FLOAT32.replace(dim=dim, ff=2 * dim, steps=args.steps)
        compare(run, args.members, stream, args.rounds)
        compare(run.replace(vocab=210, batch=4), args.members, stream, args.rounds)


if __name__ == "__main__":
    main()
