"""The lattice's inner loops, compiled: one pass where NumPy would need several.

`kernel(out, *inputs)` does for flat arrays in main memory what the kernel of the same name in
`lib.kernels` does in torch on an accelerator. Numba compiles each at its first call, for the types
it is called with, and keeps the machine code beside this file. No kernel holds the interpreter.
"""

import numpy as np
from numba import njit

compiled = njit(nogil=True, cache=True)

FOLD = np.int32(-0x8000)  # minus it, a set sign bit's int16 becomes 0x8000 - u
INFINITY = 0x7F80  # pattern, and ordinal, of +infinity
OFF_THE_LINE = f"ordinals run from {-INFINITY} (-infinity) to {INFINITY} (+infinity)"
QUIET_NAN = np.int16(0x7FC0)
FLOAT32_INFINITY = 0x7F800000
REMAINDER = np.int32(16)  # bits that rounding float32 to bf16 cuts off

ULP_BY_EXPONENT = np.ldexp(np.float32(1), np.maximum(np.arange(256), 1) - 134).astype(np.float32)
ULP_BY_EXPONENT[255] = np.nan


@compiled
def ordinal(out: np.ndarray, u: np.ndarray) -> None:
    """Integers: the ordinal of each int16 pattern."""
    for i in range(out.size):
        pattern = np.int32(u[i])
        out[i] = pattern if pattern >= 0 else FOLD - pattern


@compiled
def ulp(out: np.ndarray, u: np.ndarray) -> None:
    """float32: 2^(E-134), 2^-133 for E = 0, NaN at infinities and NaNs."""
    for i in range(out.size):
        out[i] = ULP_BY_EXPONENT[(np.int64(u[i]) >> 7) & 0xFF]


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
def stochastic(out: np.ndarray, f: np.ndarray, dust: np.ndarray) -> None:
    """int16: float32 patterns f (int32) plus dust 0..65535, cut; a NaN becomes a quiet one."""
    for i in range(out.size):
        pattern = np.int16((f[i] + np.int64(dust[i])) >> REMAINDER)
        out[i] = QUIET_NAN if (f[i] & 0x7FFFFFFF) > FLOAT32_INFINITY else pattern


@njit(nogil=True, cache=True, fastmath={"reassoc"})  # sums of integers, exact in any order
def norms(rows: np.ndarray, l1: np.ndarray, l2: np.ndarray, linf: np.ndarray) -> None:
    """L1, L2 and Linf (n,) float64 of integer rows (n, D)."""
    for row in range(rows.shape[0]):
        total, squares, largest = 0.0, 0.0, 0.0
        for column in range(rows.shape[1]):
            size = abs(np.float64(rows[row, column]))
            total += size
            squares += size * size
            largest = max(largest, size)
        l1[row], l2[row], linf[row] = total, np.sqrt(squares), largest
