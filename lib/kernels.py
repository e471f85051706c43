"""The lattice's inner loops in main memory: one compiled pass each, large arrays in threads.

A kernel is `kernel(out, *inputs)` over flat arrays. Patterns are int16 (arithmetic shifts, no
surprises with unsigned types), float32 patterns int32. Numba compiles each at its first call, for
the types it is called with, and keeps the machine code beside this file. No kernel holds the
interpreter. On an accelerator torch does the same work in `lib.lattice`; a test holds the two
together on every pattern.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit

compiled = njit(nogil=True, cache=True)

FOLD = np.int32(-0x8000)  # minus it, a set sign bit's int16 becomes 0x8000 - u
QUIET_NAN = np.int16(0x7FC0)
FLOAT32_INFINITY = 0x7F800000
REMAINDER = np.int32(16)  # bits that rounding float32 to bf16 cuts off

# ULP by exponent field: 2^(E-134), 2^-133 for E = 0 (as for E = 1); none at infinity and NaN
ULP_BY_EXPONENT = np.ldexp(np.float32(1), np.maximum(np.arange(256), 1) - 134).astype(np.float32)
ULP_BY_EXPONENT[255] = np.nan

WORTH_THREADS = 1 << 20  # elements from which on threads gain more than they cost


# ---------------------------------------------------------------- kernels
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
    """Integers: the ordinal of each int16 pattern, or the pattern of each ordinal on the line."""
    for i in range(out.size):
        place = np.int32(u[i])
        out[i] = place if place >= 0 else FOLD - place


@compiled
def steps(out: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """int32: ordinal(v) - ordinal(u)."""
    for i in range(out.size):
        before, after = np.int32(u[i]), np.int32(v[i])
        before = before if before >= 0 else FOLD - before
        after = after if after >= 0 else FOLD - after
        out[i] = after - before


@compiled
def stochastic(out: np.ndarray, f: np.ndarray, random: np.ndarray) -> None:
    """Patterns: float32 patterns f (int32) plus random bits 0..65535, cut; a NaN becomes quiet.

    The sum carries into the exponent and stops short of the sign, so both signs are alike.
    """
    for i in range(out.size):
        pattern = np.int16((f[i] + np.int64(random[i])) >> REMAINDER)
        out[i] = QUIET_NAN if (f[i] & 0x7FFFFFFF) > FLOAT32_INFINITY else pattern


@njit(nogil=True, cache=True, fastmath={"reassoc"})  # sums of integers, exact in any order
def row_norms(rows: np.ndarray, l1: np.ndarray, l2: np.ndarray, linf: np.ndarray) -> None:
    """L1, L2 and Linf (n,) of integer rows (n, D)."""
    for row in range(rows.shape[0]):
        total, squares, largest = 0.0, 0.0, 0.0
        for column in range(rows.shape[1]):
            size = abs(np.float64(rows[row, column]))
            total += size
            squares += size * size
            largest = max(largest, size)
        l1[row], l2[row], linf[row] = total, np.sqrt(squares), largest


# ---------------------------------------------------------------- threads
def apply(kernel: Callable[..., None], *arrays: np.ndarray, out: str) -> np.ndarray:
    """kernel over broadcast arrays -> an array of dtype `out` in their common shape."""
    arrays = np.broadcast_arrays(*arrays)
    answer = np.empty(arrays[0].shape, out)
    flat = (np.ascontiguousarray(array).reshape(-1) for array in arrays)
    in_threads(kernel, pieces(answer.reshape(-1), *flat))
    return answer


def norms(displacement: np.ndarray) -> list[np.ndarray]:
    """(..., D) integers below 2^53 / D -> L1, L2, Linf (...), int64, float64, int64."""
    rows = displacement.reshape(-1, displacement.shape[-1])
    answers = [np.empty(len(rows), dtype) for dtype in ("int64", "float64", "int64")]
    in_threads(row_norms, pieces(rows, *answers))
    return [answer.reshape(displacement.shape[:-1]) for answer in answers]


def pieces(*arrays: np.ndarray) -> list[list[np.ndarray]]:
    """Arrays cut along the first axis, if they are large: a piece for each thread of torch's."""
    count = torch.get_num_threads() if arrays[0].size >= WORTH_THREADS else 1
    length = max(1, -(-len(arrays[0]) // count))
    starts = range(0, len(arrays[0]), length)
    return [[array[start : start + length] for array in arrays] for start in starts]


def in_threads(work: Callable[..., object], calls: Sequence[Sequence[Any]]) -> None:
    """work(*each of calls), by as many threads as torch may use; raises what a call raised."""
    if torch.get_num_threads() == 1 or len(calls) == 1:
        for call in calls:
            work(*call)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # the loops let go of the interpreter
        for done in [pool.submit(work, *call) for call in calls]:
            done.result()
