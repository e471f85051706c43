"""Snowballs: the sources' way (lib.analysis.snowball) against the exact simulator, side by side.

Run `python -m benchmarks.snowball`. Both ways alternate in one process on one thread; results are
checked to agree before a ratio is printed. About a minute.
"""

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from lib.analysis import centres, simulation, snowball
from lib.analysis.snowball import HOLE_TOKENS, SURVIVORS, VOCABULARY, Distribution

ROUNDS = 3


def seconds(work):
    """(wall seconds, result) of one call."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def compare(
    name, reference, centre, *, scale, rows, trials, distribution="gaussian", rounds=ROUNDS
):
    """Alternate one reference trial and a batch of fast trials; print times, ratio, agreement."""
    slow, fast, found, many = [], [], [], None
    for turn in range(rounds):
        rng = np.random.default_rng(turn)
        t, demographics = seconds(lambda rng=rng: reference(rng))
        slow.append(t)
        found.append(demographics)
        t, many = seconds(
            lambda turn=turn: simulation.simulate(
                centre,
                scale=scale,
                rows=rows,
                trials=trials,
                seed=turn,
                workers=1,
                distribution=distribution,
            )
        )
        fast.append(t / trials)
    for key in ("unique", "holes", "largest", "varying"):
        mean = np.mean([getattr(d, key) for d in found])
        sample = getattr(many, key)
        assert abs(mean - sample.mean()) < 5 * sample.std() / np.sqrt(rounds) + 0.5, (name, key)
    a, b = np.median(slow), np.median(fast)
    print(
        f"{name:<58} reference {a * 1e3:>10,.1f} ms   exact {b * 1e6:>8,.1f} us   "
        f"ratio {a / b:>12,.0f}"
    )


def main():
    """All comparisons."""
    print(f"numpy {np.__version__}, one thread, median of {ROUNDS} alternating rounds, per trial")
    point = centres.on_lattice(rng=np.random.default_rng(42))
    holes = centres.weighted_mean(point)
    away = centres.centred(rng=np.random.default_rng(42))

    def valley(rng):
        return snowball.monument_valley(holes, scale=1.5e-9, rng=rng)

    def direct(centre, scale, rows, distribution):
        return lambda rng: snowball.direct(
            centre, scale=scale, rows=rows, rng=rng, distribution=Distribution(distribution)
        )

    compare(
        f"Monument Valley {VOCABULARY:,} -> {SURVIVORS:,} x 2,560, sigma 1.5e-9",
        valley, holes, scale=1.5e-9, rows=SURVIVORS, trials=5000,
    )  # fmt: skip
    length = float(np.sqrt(holes.size))  # a shell of this radius has a sigma of one
    for label, centre, scale, rows, trials, distribution in (
        ("the holes' mean, sigma 1.5e-9", holes, 1.5e-9, SURVIVORS, 5000, "gaussian"),
        ("a centred centre, sigma 1.5e-9", away, 1.5e-9, HOLE_TOKENS, 2000, "gaussian"),
        ("laplace, b 1.1e-9", holes, 1.1e-9, SURVIVORS, 2000, "laplace"),
        ("ball, sigma 1.5e-9", holes, 1.5e-9 * length, SURVIVORS, 500, "ball"),
        ("sigma 2e-8 (the peak)", holes, 2e-8, SURVIVORS, 200, "gaussian"),
        ("ball, sigma 2e-8", holes, 2e-8 * length, SURVIVORS, 50, "ball"),
        ("sigma 1e-5, every dimension moves", holes, 1e-5, SURVIVORS, 200, "gaussian"),
        ("ball, sigma 1e-5, every one moves", holes, 1e-5 * length, SURVIVORS, 5, "ball"),
    ):
        compare(
            f"direct, {label}, {rows:,} rows", direct(centre, scale, rows, distribution), centre,
            scale=scale, rows=rows, trials=trials, distribution=distribution,
        )  # fmt: skip
    parallel(holes)


def parallel(centre):
    """One and two workers over trials, alternating; the same numbers, or an assertion fails."""
    for scale, trials in ((1.5e-9, 40_000), (2e-8, 1500)):
        times, found = {1: [], 2: []}, {}
        for _ in range(ROUNDS):
            for workers in times:
                t, found[workers] = seconds(
                    lambda w=workers, s=scale, n=trials: simulation.simulate(
                        centre, scale=s, rows=SURVIVORS, trials=n, workers=w
                    )
                )
                times[workers].append(t)
        for key in ("unique", "holes", "tokens", "largest", "varying"):
            assert (getattr(found[1], key) == getattr(found[2], key)).all(), key
        one, two = (np.median(times[workers]) for workers in times)
        print(
            f"{trials:,} trials at sigma {scale:g}: one worker {one:.2f} s, two {two:.2f} s, "
            f"ratio {one / two:.2f}, the same numbers"
        )


if __name__ == "__main__":
    main()
