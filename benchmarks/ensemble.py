"""The ensemble beside the single engine, in one process, alternating: `python -m benchmarks.ensemble`.

The 48-dimensional world of the coalescence part with 32 runs, and the same at 128 dimensions. The
single engine trains one run after another on one thread, which is its fastest (a second thread only
costs it, so that is shown too); the ensemble trains all of them, on one thread and on two. Prints
runs of a thousand steps an hour, the ratios by the wall and by processor time, and whether every
member's parameters are the single engine's bit for bit. With the single engine twice at a time on
two cores the wall's ratio is that of processor time, so both are printed.
"""

import argparse
import time

import numpy as np
import torch

from lib.training import ensemble, loop
from lib.training.config import SMALL_FLOAT32, Run


class Clock:
    """The best of several timings of one way, in seconds a step of a run: (wall, processor)."""

    def __init__(self):
        self.best = np.full(2, np.inf)

    def time(self, work, steps: int) -> list:
        now = np.array([time.perf_counter(), time.process_time()])
        outcome = work()
        taken = np.array([time.perf_counter(), time.process_time()]) - now
        self.best = np.minimum(self.best, taken / steps)
        return outcome


def compare(run: Run, members: int, stream: np.ndarray, rounds: int) -> None:
    runs = [run.replace(seed=seed) for seed in range(members)]
    few = runs[:: max(1, members // 4)][:4]
    ways = {"single, 1 thread": 1, "single, 2 threads": 2}
    together = {"ensemble, 1 thread": 1, "ensemble, 2 threads": 2}
    clocks = {name: Clock() for name in (*ways, *together)}
    loop.train(run.replace(steps=2), stream)
    for _ in range(rounds):
        for name, threads in ways.items():
            one = [few[0].replace(threads=threads)] if threads > 1 else few
            found = clocks[name].time(
                lambda one=one: [loop.train(r, stream) for r in one], len(one) * run.steps
            )
            alone = found if threads == 1 else alone
        for name, threads in together.items():
            all_runs = [r.replace(threads=threads) for r in runs]
            outcomes = clocks[name].time(
                lambda all_runs=all_runs: ensemble.train(all_runs, stream), members * run.steps
            )
            beside = outcomes[:: max(1, members // 4)][:4]
            same = [torch.equal(a.state.param, b.state.param) for a, b in zip(alone, beside)]
            apart = [(a.state.param - b.state.param).abs().max() for a, b in zip(alone, beside)]
            assert max(apart) < 1e-4, "the ensemble is another computation"
    print(f"D = {run.dim}, {members} runs of {run.steps} steps")
    base = clocks["single, 1 thread"].best
    for name, clock in clocks.items():
        wall, cpu = clock.best * 1e3
        times = base * 1e3 / clock.best / 1e3
        print(
            f"  {name:20s} {wall:6.2f} ms a step of a run ({cpu:5.2f} of a processor); "
            f"{times[0]:5.2f} x by the wall, {times[1]:5.2f} x by processor time"
        )
    bits = f"{sum(same)} of {len(same)} bit for bit"
    print(f"  checked against the single engine: {bits}, largest difference {max(apart):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    stream = np.random.default_rng(42).integers(0, 300, 200_000).astype(np.uint16)
    for dim, members in ((48, 32), (128, 32)):
        run = SMALL_FLOAT32.replace(dim=dim, ff=2 * dim, steps=args.steps)
        compare(run, members, stream, args.rounds)


if __name__ == "__main__":
    main()
