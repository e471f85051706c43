"""The lattice's inner loops in main memory: one compiled pass each, block by block, in threads.

A kernel is `kernel(out, *inputs)` over flat arrays. Patterns are int16 (arithmetic shifts, no
surprises with unsigned types), float32 patterns int32. Numba compiles each at its first call, for
the types it is called with, and keeps the machine code beside this file. No kernel holds the
interpreter. `apply` hands out the blocks. On an accelerator torch does the same work in
`lib.lattice`; a test holds the two together on every pattern.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit

compiled = njit(nogil=True, cache=True)

FOLD = np.int32(-0x8000)  # minus it, a set sign bit's int16 becomes 0x8000 - u
INFINITY = 0x7F80  # pattern, and ordinal, of +infinity
OFF_THE_LINE = f"ordinals run from {-INFINITY} (-infinity) to {INFINITY} (+infinity)"
QUIET_NAN = np.int16(0x7FC0)
FLOAT32_INFINITY = 0x7F800000
REMAINDER = np.int32(16)  # bits that rounding float32 to bf16 cuts off

# ULP by exponent field: 2^(E-134), 2^-133 for E = 0 (as for E = 1); none at infinity and NaN
ULP_BY_EXPONENT = np.ldexp(np.float32(1), np.maximum(np.arange(256), 1) - 134).astype(np.float32)
ULP_BY_EXPONENT[255] = np.nan

CACHE = 3 << 18  # bytes of inputs and output worked on at a time: fits the second cache
WORTH_THREADS = 1 << 20  # elements from which on threads gain more than they cost


# ---------------------------------------------------------------- kernels
@compiled
def not_finite(out: np.ndarray, u: np.ndarray) -> None:
    """bool: infinity or NaN."""
    for i in range(out.size):
        out[i] = (u[i] & 0x7F80) == INFINITY


@compiled
def sign(out: np.ndarray, u: np.ndarray) -> None:
    """int16, 0 or 1."""
    for i in range(out.size):
        out[i] = (u[i] >> 15) & 1


@compiled
def exponent(out: np.ndarray, u: np.ndarray) -> None:
    """int16, 0..255."""
    for i in range(out.size):
        out[i] = (u[i] >> 7) & 0xFF


@compiled
def mantissa(out: np.ndarray, u: np.ndarray) -> None:
    """int16, 0..127."""
    for i in range(out.size):
        out[i] = u[i] & 0x7F


@compiled
def value(out: np.ndarray, u: np.ndarray) -> None:
    """float32: the pattern is its upper half."""
    for i in range(out.size):
        out[i] = np.int32(np.int32(u[i]) << REMAINDER).view(np.float32)


@compiled
def ulp(out: np.ndarray, u: np.ndarray) -> None:
    """float32: 2^(E-134), 2^-133 for E = 0, NaN at infinities and NaNs."""
    for i in range(out.size):
        out[i] = ULP_BY_EXPONENT[(np.int64(u[i]) >> 7) & 0xFF]


@compiled
def ordinal(out: np.ndarray, u: np.ndarray) -> None:
    """Integers: the ordinal of each int16 pattern."""
    for i in range(out.size):
        pattern = np.int32(u[i])
        out[i] = pattern if pattern >= 0 else FOLD - pattern


@compiled
def unfold(out: np.ndarray, o: np.ndarray) -> None:
    """int16: the pattern of each ordinal, of any integer type. Raises ValueError off the line."""
    lowest, highest = o[0], o[0]
    for i in range(out.size):
        lowest, highest = min(lowest, o[i]), max(highest, o[i])
        place = np.int16(o[i])
        out[i] = place if place >= 0 else FOLD - np.int32(place)
    if lowest < -INFINITY or highest > INFINITY:
        raise ValueError(OFF_THE_LINE)


@compiled
def up(out: np.ndarray, u: np.ndarray) -> None:
    """int16: the pattern of the next larger value; infinity and NaNs stay."""
    for i in range(out.size):
        pattern = np.int32(u[i])
        after = pattern + 1 if pattern >= 0 else pattern - 1
        after = 1 if pattern == -0x8000 else after  # past -0
        stays = ((pattern & 0x7FFF) > INFINITY) | (pattern == INFINITY)
        out[i] = np.int16(pattern if stays else after)


@compiled
def down(out: np.ndarray, u: np.ndarray) -> None:
    """int16: the pattern of the next smaller value; -infinity and NaNs stay."""
    for i in range(out.size):
        pattern = np.int32(u[i])
        after = pattern - 1 if pattern >= 0 else pattern + 1
        after = 1 - 0x8000 if pattern == 0 else after  # past +0
        stays = ((pattern & 0x7FFF) > INFINITY) | (pattern == INFINITY - 0x8000)
        out[i] = np.int16(pattern if stays else after)


@compiled
def steps(out: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """int32: ordinal(v) - ordinal(u)."""
    for i in range(out.size):
        before, after = np.int32(u[i]), np.int32(v[i])
        before = before if before >= 0 else FOLD - before
        after = after if after >= 0 else FOLD - after
        out[i] = after - before


@compiled
def historical(out: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """float64: (v - u) / ULP(u); infinite when leaving zero, 0 when staying there."""
    for i in range(out.size):
        before, after = np.int32(u[i]) << REMAINDER, np.int32(v[i]) << REMAINDER
        moved = np.float64(np.int32(after).view(np.float32))
        moved -= np.float64(np.int32(before).view(np.float32))
        exponent = (np.int64(u[i]) >> 7) & 0xFF
        # 2^(134-E) has 134 - E + 1023 in its own exponent field
        per_ulp = np.int64((1157 - max(exponent, 1)) << 52).view(np.float64)
        per_ulp = per_ulp if exponent != 0xFF else np.nan
        leaves_zero = ((u[i] & 0x7FFF) == 0) & (moved != 0)
        out[i] = moved * (np.inf if leaves_zero else per_ulp)


@compiled
def stochastic(out: np.ndarray, f: np.ndarray, random: np.ndarray) -> None:
    """int16: float32 patterns f (int32) plus random bits 0..65535, cut; a NaN becomes a quiet one.

    The sum carries into the exponent and stops short of the sign, so both signs are alike.
    """
    for i in range(out.size):
        pattern = np.int16((f[i] + np.int64(random[i])) >> REMAINDER)
        out[i] = QUIET_NAN if (f[i] & 0x7FFFFFFF) > FLOAT32_INFINITY else pattern


@njit(nogil=True, cache=True, fastmath={"reassoc"})  # sums of integers, exact in any order
def row_norms(rows: np.ndarray, l1: np.ndarray, l2: np.ndarray, linf: np.ndarray) -> None:
    """L1, L2 and Linf (n,) float64 of integer rows (n, D)."""
    for row in range(rows.shape[0]):
        total, squares, largest = 0.0, 0.0, 0.0
        for column in range(rows.shape[1]):
            size = abs(np.float64(rows[row, column]))
            total += size
            squares += size * size
            largest = max(largest, size)
        l1[row], l2[row], linf[row] = total, np.sqrt(squares), largest


# ---------------------------------------------------------------- blocks and threads
def apply(kernel: Callable[..., None], *arrays: np.ndarray, out: str) -> np.ndarray:
    """kernel over broadcast arrays -> an array of dtype `out` in their common shape.

    Arrays of any strides are worked on where they lie, block by block, large ones by as many
    threads as torch may use.
    """
    stored = "int16" if out == "uint16" else out
    answer = np.empty(np.broadcast_shapes(*(a.shape for a in arrays)), stored)
    parts = _parts(arrays, answer)
    in_threads(run, [(kernel, part) for part in parts], len(parts))
    return answer.view(out)


def norms(displacement: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(..., D) integers below 2^53 / D -> L1, L2, Linf (...), float64; the first and last exact."""
    rows = displacement.reshape(-1, displacement.shape[-1])
    parts = np.empty((3, len(rows)))
    count = torch.get_num_threads() if rows.size >= WORTH_THREADS else 1
    height = max(1, -(-len(rows) // count))
    starts = range(0, len(rows), height)
    pieces = [(rows[at : at + height], *parts[:, at : at + height]) for at in starts]
    in_threads(row_norms, pieces, count)
    l1, l2, linf = parts.reshape(3, *displacement.shape[:-1])
    return l1, l2, linf


def run(kernel: Callable[..., None], operands: list[np.ndarray]) -> None:
    """kernel over [inputs..., answer], a block that fits the cache at a time."""
    element = sum(a.dtype.itemsize for a in operands)
    iterator = np.nditer(
        operands,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"]] * (len(operands) - 1) + [["writeonly"]],
        order="C",
        buffersize=CACHE // element & ~1023,  # whole words of random bits, whole vectors
    )
    with iterator:
        for *blocks, result in iterator:
            if result.size:
                kernel(result, *blocks)


def in_threads(work: Callable[..., object], calls: Sequence[Sequence[Any]], count: int) -> None:
    """work(*each of calls), by `count` threads; raises what a call raised."""
    if count == 1 or len(calls) == 1:
        for call in calls:
            work(*call)
        return
    with ThreadPoolExecutor(count) as pool:  # the loops let go of the interpreter
        for done in [pool.submit(work, *call) for call in calls]:
            done.result()


def _parts(arrays: Sequence[np.ndarray], answer: np.ndarray) -> list[list[np.ndarray]]:
    """[inputs..., answer] cut into as many pieces as torch may use threads, if it is worth it."""
    alike = all(a.shape == answer.shape and a.flags.c_contiguous for a in arrays)
    count = torch.get_num_threads() if alike and answer.size >= WORTH_THREADS else 1
    if count == 1:
        return [[*arrays, answer]]
    size = -(-answer.size // count) + 1023 & ~1023
    flat = [a.reshape(-1) for a in (*arrays, answer)]
    return [[a[start : start + size] for a in flat] for start in range(0, answer.size, size)]
