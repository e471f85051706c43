"""How fast is the lattice against a plain copy that reads and writes the same bytes?

    python -m benchmarks.lattice

Each operation runs in turn with
(a) "copy": `array.copy()` of so many bytes that read and written together are those of the
    operation, half of them read and half written;
(b) "move": the same bytes as the operation reads and the same as it writes, each counted by
    itself, into fresh memory: a copy as far as both go, the rest filled (or only read);
(c) "obvious": the way to write it with whole-array expressions that comes to mind first.
Answers are checked to agree with the obvious way's.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from lib import kernels, lattice

ROWS, DIM = 6_554, 2_560  # 16.8 million components
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


def obvious_from_ordinal(o: np.ndarray) -> np.ndarray:
    return np.where(o >= 0, o, 0x8000 - o).astype(np.uint16)


def obvious_next(u: np.ndarray, end: float) -> np.ndarray:
    x = torch.from_numpy(u).view(torch.bfloat16)
    return torch.nextafter(x, torch.full_like(x, end)).view(torch.uint16).numpy()


def obvious_ulp(u: np.ndarray) -> np.ndarray:
    return np.exp2((u >> 7 & 0xFF).astype(np.float32) - 134)


def obvious_historical(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    before, after = ((x.astype(np.uint32) << 16).view(np.float32).astype(float) for x in (u, v))
    return (after - before) / obvious_ulp(u)


def obvious_norms(moved: np.ndarray) -> np.ndarray:
    size = np.abs(moved.astype(np.int64))
    return np.array([size.sum(-1), (size.astype(float) ** 2).sum(-1) ** 0.5, size.max(-1)])


def draw(count: int, rng: np.random.Generator) -> np.ndarray:
    """The random bits of `lattice.round_stochastic`, piece after piece."""
    starts = range(0, count, lattice.PIECE)
    seeds = rng.integers(0, 1 << 64, (len(starts), 4), dtype=np.uint64)
    sizes = (min(lattice.PIECE, count - start) for start in starts)
    pieces = [
        np.random.Generator(np.random.SFC64(seed)).integers(0, 1 << 64, size // 4, dtype=np.uint64)
        for seed, size in zip(seeds, sizes, strict=True)
    ]
    return np.concatenate(pieces).view(np.uint16)


def obvious_stochastic(f: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    dust = draw(f.size, rng).reshape(f.shape)
    return ((f.view(np.uint32) + dust) >> 16).astype(np.uint16)


def mover(read: int, written: int) -> Callable[[], np.ndarray]:
    """Reads `read` bytes and writes `written` bytes of fresh memory, plainly."""
    source, both = np.zeros(read, np.uint8), min(read, written)

    def move() -> np.ndarray:
        target = np.empty(written, np.uint8)
        target[:both] = source[:both]
        target[both:] = 1
        if read > both:
            source[both:].max()
        return target

    return move


def main() -> None:
    rng = np.random.default_rng(42)
    f = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    u, v = lattice.round_nearest(f), lattice.round_nearest(f[::-1])
    o, moved = lattice.ordinal(u), lattice.steps(u, v)
    t, tf, tv = (torch.from_numpy(x) for x in (u, f, v))
    draws = rng.bit_generator.state  # both ways of rounding stochastically draw the same bits

    def again() -> np.random.Generator:
        rng.bit_generator.state = draws
        return rng

    pattern = f.view(np.int32)
    dust = draw(f.size, again()).reshape(f.shape)

    # operation: bytes read and bytes written an element, ours, the obvious way
    table: dict[str, tuple[int, int, Callable, Callable]] = {
        "value": (2, 4, lambda: lattice.value(u), lambda: t.view(torch.bfloat16).float().numpy()),
        "ulp": (2, 4, lambda: lattice.ulp(u), lambda: obvious_ulp(u)),
        "ordinal": (2, 4, lambda: lattice.ordinal(u), lambda: obvious_ordinal(u)),
        "from_ordinal": (4, 2, lambda: lattice.from_ordinal(o), lambda: obvious_from_ordinal(o)),
        "neighbour_up": (2, 2, lambda: lattice.neighbour_up(u), lambda: obvious_next(u, np.inf)),
        "neighbour_down": (
            2,
            2,
            lambda: lattice.neighbour_down(u),
            lambda: obvious_next(u, -np.inf),
        ),
        "steps": (
            4,
            4,
            lambda: lattice.steps(u, v),
            lambda: obvious_ordinal(v) - obvious_ordinal(u),
        ),
        "historical": (
            4,
            8,
            lambda: lattice.historical_displacement(u, v),
            lambda: obvious_historical(u, v),
        ),
        "norms": (4, 0, lambda: np.array(lattice.norms(moved)), lambda: obvious_norms(moved)),
        "round_nearest": (
            4,
            2,
            lambda: lattice.round_nearest(f),
            lambda: tf.bfloat16().view(torch.uint16).numpy(),
        ),
        "round_stochastic": (
            4,
            2,
            lambda: lattice.round_stochastic(f, rng=again()),
            lambda: obvious_stochastic(f, again()),
        ),
        "the same, drawn": (  # the random bits drawn beforehand, and read
            6,
            2,
            lambda: kernels.apply(kernels.stochastic, pattern, dust, out="uint16"),
            lambda: obvious_stochastic(f, again()),
        ),
        "ordinal, torch": (2, 4, lambda: lattice.ordinal(t), lambda: obvious_ordinal(u)),
        "steps, torch": (
            4,
            4,
            lambda: lattice.steps(t, tv),
            lambda: obvious_ordinal(v) - obvious_ordinal(u),
        ),
    }
    print(f"{u.size:,} elements, best of {ROUNDS}; ms")
    print(
        f"{'operation':17}{'bytes':>7}{'copy':>7}{'move':>7}{'ours':>7}{'obvious':>9}"
        f"{'ours/copy':>11}{'ours/move':>11}{'obvious/ours':>14}"
    )
    for name, (read, written, ours, obvious) in table.items():
        same = np.array_equal(np.asarray(obvious()), np.asarray(ours()))
        assert same, f"{name}: the two ways disagree"
        calls = {
            "copy": np.zeros(u.size * (read + written) // 2, np.uint8).copy,
            "move": mover(u.size * read, u.size * written),
            "ours": ours,
            "obvious": obvious,
        }
        copy, move, mine, plain = (1e3 * s for s in best(calls).values())
        print(
            f"{name:17}{f'{read}+{written}':>7}{copy:7.1f}{move:7.1f}{mine:7.1f}{plain:9.1f}"
            f"{mine / copy:11.2f}{mine / move:11.2f}{plain / mine:14.2f}"
        )
    drawn = best({"bits": lambda: draw(f.size, again())})["bits"]
    print(f"drawing the random bits alone, one thread: {drawn * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
