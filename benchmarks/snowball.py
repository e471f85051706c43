"""Snowballs: the sources' way (lib.formation.snowball) against the exact simulator, side by side.

Run `python -m benchmarks.snowball`. Both ways alternate in one process on one thread; results are
checked to agree before a ratio is printed. About a minute.
"""

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from lib.formation import centres, exact, snowball
from lib.formation.snowball import HOLE_TOKENS, SURVIVORS, VOCABULARY

ROUNDS = 3


def seconds(work):
    """(wall seconds, result) of one call."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def compare(name, reference, centre, *, scale, rows, trials, rounds=ROUNDS):
    """Alternate one reference trial and a batch of fast trials; print times, ratio, agreement."""
    slow, fast, found, many = [], [], [], None
    for turn in range(rounds):
        rng = np.random.default_rng(turn)
        t, demographics = seconds(lambda rng=rng: reference(rng))
        slow.append(t)
        found.append(demographics)
        t, many = seconds(
            lambda turn=turn: exact.simulate(
                centre, scale=scale, rows=rows, trials=trials, seed=turn, workers=1
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
    point = centres.on_lattice(rng=np.random.default_rng(42))
    holes = centres.weighted_mean(point)
    away = centres.centred(rng=np.random.default_rng(42))

    def valley(rng):
        return snowball.monument_valley(holes, scale=1.5e-9, rng=rng)

    def direct(centre, scale, rows):
        return lambda rng: snowball.direct(centre, scale=scale, rows=rows, rng=rng)

    print(f"numpy {np.__version__}, one thread, median of {ROUNDS} alternating rounds, per trial")
    compare(
        f"Monument Valley {VOCABULARY:,} -> {SURVIVORS:,} x 2,560, sigma 1.5e-9",
        valley, holes, scale=1.5e-9, rows=SURVIVORS, trials=5000,
    )  # fmt: skip
    for label, centre, scale, rows, trials in (
        ("direct, the holes' mean, sigma 1.5e-9", holes, 1.5e-9, SURVIVORS, 5000),
        ("direct, a centred centre, sigma 1.5e-9", away, 1.5e-9, HOLE_TOKENS, 2000),
        ("direct, sigma 2e-8 (the peak)", holes, 2e-8, SURVIVORS, 200),
        ("direct, sigma 1e-5 (every dimension moves)", holes, 1e-5, SURVIVORS, 200),
    ):
        compare(
            f"{label}, {rows:,} rows",
            direct(centre, scale, rows), centre, scale=scale, rows=rows, trials=trials,
        )  # fmt: skip


if __name__ == "__main__":
    main()
