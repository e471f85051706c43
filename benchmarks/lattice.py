"""How fast is the lattice against a plain copy that reads and writes the same bytes?

    python -m benchmarks.lattice

Each operation runs in turn with (a) a plain copy that moves the same number of bytes and (b) the
obvious way to write it with whole-array expressions. Results are checked to agree.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from lib import lattice

ELEMENTS = 16 << 20
ROUNDS = 15


def best(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Best seconds of each call over ROUNDS alternating rounds."""
    seconds = dict.fromkeys(calls, np.inf)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def obvious_ordinal(u: np.ndarray) -> np.ndarray:
    wide = u.astype(np.int32)
    return np.where(wide < 0x8000, wide, 0x8000 - wide)


def obvious_up(u: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(u).view(torch.bfloat16)
    return torch.nextafter(x, torch.full_like(x, torch.inf)).view(torch.uint16).numpy()


def main() -> None:
    rng = np.random.default_rng(42)
    f = rng.normal(size=ELEMENTS).astype(np.float32)
    u, v = lattice.round_nearest(f), lattice.round_nearest(f[::-1].copy())
    t = torch.from_numpy(u)
    obvious = {
        "value": (lambda: t.view(torch.bfloat16).float().numpy()),
        "ordinal": (lambda: obvious_ordinal(u)),
        "steps": (lambda: obvious_ordinal(v) - obvious_ordinal(u)),
        "ulp": (lambda: np.abs(np.exp2((u >> 7 & 0xFF).astype(np.float32) - 134))),
        "neighbour_up": (lambda: obvious_up(u)),
        "round_nearest": (lambda: torch.from_numpy(f).bfloat16().view(torch.uint16).numpy()),
    }
    ours = {
        "value": (lambda: lattice.value(u)),
        "ordinal": (lambda: lattice.ordinal(u)),
        "steps": (lambda: lattice.steps(u, v)),
        "ulp": (lambda: lattice.ulp(u)),
        "neighbour_up": (lambda: lattice.neighbour_up(u)),
        "round_nearest": (lambda: lattice.round_nearest(f)),
    }
    moved = {"value": 6, "ordinal": 6, "steps": 8, "ulp": 6, "neighbour_up": 4, "round_nearest": 6}
    print(f"{ELEMENTS:,} elements, best of {ROUNDS}; ms")
    print(
        f"{'operation':14}{'copy':>8}{'obvious':>9}{'ours':>8}{'ours/copy':>11}{'obvious/ours':>14}"
    )
    for name in ours:
        same = np.array_equal(np.asarray(obvious[name]()), np.asarray(ours[name]()))
        assert same, f"{name}: the two ways disagree"
        source = np.zeros(ELEMENTS * moved[name] // 2, np.uint8)
        seconds = best({"copy": source.copy, "obvious": obvious[name], "ours": ours[name]})
        copy, plain, mine = (seconds[k] * 1e3 for k in ("copy", "obvious", "ours"))
        print(f"{name:14}{copy:8.1f}{plain:9.1f}{mine:8.1f}{mine / copy:11.2f}{plain / mine:14.2f}")
    seconds = best(
        {
            "copy": source.copy,
            "ours": lambda: lattice.round_stochastic(f, rng=np.random.default_rng(42)),
            "dust": lambda: np.random.default_rng(42).bytes(2 * ELEMENTS),
        }
    )
    print(
        f"round_stochastic: ours {seconds['ours'] * 1e3:.1f} ms, of which "
        f"drawing the random bits alone {seconds['dust'] * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
