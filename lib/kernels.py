"""The lattice's inner loops: kernels over blocks that stay in the processor's cache.

A kernel is `kernel(xp, out, *inputs, *scratch)`: it writes its answer into `out`, may use the
scratch arrays, and calls only what NumPy and torch spell alike (`xp` is one of the two), so that
one text serves main memory and accelerators. Patterns are int16 (arithmetic shifts, no surprises
with unsigned types in torch), float32 patterns int32. `apply` hands out the blocks. A kernel that
needs many passes has a twin in `lib.compiled`, which main memory uses instead.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

Array = Any  # np.ndarray or torch.Tensor

MANTISSA_BITS = 7
BIAS = 127  # of the exponent field
SIGN = -0x8000  # the sign bit of an int16
INFINITY = 0x7F80  # pattern, and ordinal, of +infinity
QUIET_NAN = 0x7FC0
FLOAT32_INFINITY = 0x7F800000
# u and its neighbour, added modulo 2^16, stay at or below this except where the neighbour is not
# u +- 1: at the zero that is stepped away from, at the end of the line, and at NaNs
SPECIAL = 0xFF00
CACHE = 3 << 18  # bytes of inputs, scratch and output worked on at a time: fits the second cache
WORTH_THREADS = 1 << 20  # elements from which on threads gain more than they cost

# ULP by exponent field: 2^(E-134), 2^-133 for E = 0 (as for E = 1); none at infinity and NaN
ULP_BY_EXPONENT = np.ldexp(np.float32(1), np.maximum(np.arange(256), 1) - (BIAS + MANTISSA_BITS))
ULP_BY_EXPONENT = ULP_BY_EXPONENT.astype(np.float32)
ULP_BY_EXPONENT[255] = np.nan


# ---------------------------------------------------------------- kernels
def not_finite(xp: Any, out: Array, u: Array) -> None:
    """bool: infinity or NaN."""
    out[...] = (u & INFINITY) == INFINITY


def sign(xp: Any, out: Array, u: Array) -> None:
    """int16, 0 or 1."""
    xp.bitwise_right_shift(u, 15, out=out)
    out &= 1


def exponent(xp: Any, out: Array, u: Array) -> None:
    """int16, 0..255."""
    xp.bitwise_right_shift(u, MANTISSA_BITS, out=out)
    out &= 0xFF


def mantissa(xp: Any, out: Array, u: Array) -> None:
    """int16, 0..127."""
    xp.bitwise_and(u, 0x7F, out=out)


def value(xp: Any, out: Array, u: Array) -> None:
    """float32: the pattern is its upper half."""
    wide = view(out, "int32")
    wide[...] = u
    wide <<= 16


def ulp(xp: Any, out: Array, u: Array, size: Array) -> None:
    """float32 2^(E-134): the float whose exponent field is E - 7. Scratch: int16."""
    xp.bitwise_and(u, INFINITY, out=size)
    if size.min() <= 7 << 7 or size.max() == INFINITY:  # a ULP that is subnormal, or none: look up
        table = ULP_BY_EXPONENT
        if is_torch(u):
            table = torch.from_numpy(table).to(u.device)
        out[...] = table[cast(size >> MANTISSA_BITS, "int64")]
        return
    size -= MANTISSA_BITS << MANTISSA_BITS
    value(xp, out, size)


def fold(xp: Any, out: Array, u: Array, top: Array) -> None:
    """int16 ordinal of each pattern, and pattern of each ordinal. Scratch: int16.

    u for a clear sign bit; for a set one 0x8000 - u, which is |u| with the sign bit turned (two's
    complement). So -0, whose |u| overflows to itself, becomes 0; otherwise twice is the identity.
    """
    xp.abs(u, out=out)
    xp.bitwise_and(u, SIGN, out=top)
    out ^= top


def ordinal(xp: Any, out: Array, u: Array, folded: Array, top: Array) -> None:
    """Any integer: fold, widened. Scratch: int16, int16."""
    fold(xp, folded, u, top)
    out[...] = folded


def unfold(xp: Any, out: Array, o: Array, top: Array) -> None:
    """int16 pattern of each ordinal, of any integer type: fold, in place. Scratch: int16."""
    if int(o.min()) < -INFINITY or int(o.max()) > INFINITY:
        raise ValueError(f"ordinals run from {-INFINITY} (-infinity) to {INFINITY} (+infinity)")
    out[...] = o
    xp.bitwise_and(out, SIGN, out=top)
    xp.abs(out, out=out)
    out ^= top


def steps(xp: Any, out: Array, u: Array, v: Array, folded: Array, top: Array, wide: Array) -> None:
    """int32 ordinal(v) - ordinal(u). Scratch: int16, int16, int32."""
    ordinal(xp, out, v, folded, top)
    ordinal(xp, wide, u, folded, top)
    out -= wide


def up(xp: Any, out: Array, u: Array, spare: Array) -> None:
    """int16 pattern of the next larger value. Scratch: int16."""
    xp.bitwise_right_shift(u, 15, out=out)
    out |= 1  # +1 for a clear sign bit, -1 for a set one: towards +infinity
    out += u
    xp.add(out, u, out=spare)
    if unsigned_max(spare) > SPECIAL:  # -0 goes to 2^-133; +infinity and NaNs stay
        out[u == SIGN] = 1
        stays = (u == INFINITY) | ((u & 0x7FFF) > INFINITY)
        out[stays] = u[stays]


def down(xp: Any, out: Array, u: Array, spare: Array) -> None:
    """int16 pattern of the next smaller value. Scratch: int16."""
    xp.bitwise_right_shift(u, 15, out=spare)
    spare |= 1
    xp.subtract(u, spare, out=out)
    xp.add(out, u, out=spare)
    if unsigned_max(spare) > SPECIAL:  # +0 goes to -2^-133; -infinity and NaNs stay
        out[u == 0] = SIGN + 1
        stays = (u == SIGN + INFINITY) | ((u & 0x7FFF) > INFINITY)
        out[stays] = u[stays]


def historical(
    xp: Any, out: Array, u: Array, v: Array, size: Array, narrow: Array, wide: Array
) -> None:
    """float64 (v - u) / ULP(u). Scratch: int16, float32, float64."""
    value(xp, narrow, v)
    out[...] = narrow
    value(xp, narrow, u)
    wide[...] = narrow
    out -= wide
    ulp(xp, narrow, u, size)
    wide[...] = narrow
    zero = narrow == ULP_BY_EXPONENT[0]  # or another subnormal, which is none
    if zero.any():  # zero has no exponent, hence no ULP; staying there is no motion
        wide[zero & ((u & 0x7FFF) == 0) & (out != 0)] = 0
    xp.divide(out, wide, out=out)


def stochastic(xp: Any, out: Array, f: Array, dust: Array, wide: Array) -> None:
    """int16 patterns: float32 patterns f plus dust 0..65535, cut. Scratch: int32.

    The sum carries into the exponent and stops short of the sign, so both signs are alike.
    """
    wide[...] = dust
    wide += f
    wide >>= 16
    out[...] = wide
    largest = view(f, "float32").max()
    if largest != largest:  # the maximum is NaN if anything is
        out[(f & 0x7FFFFFFF) > FLOAT32_INFINITY] = QUIET_NAN


TWINS = (ulp, ordinal, unfold, up, down, steps, historical, stochastic)


# ---------------------------------------------------------------- blocks
def norms(displacement: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(..., D) integers below 2^53 / D -> L1, L2, Linf (...), float64; the first and last exact."""
    from lib import compiled

    rows = displacement.reshape(-1, displacement.shape[-1])
    parts = np.empty((3, len(rows)))
    count = torch.get_num_threads() if rows.size >= WORTH_THREADS else 1
    height = max(1, -(-len(rows) // count))
    starts = range(0, len(rows), height)
    pieces = [(rows[at : at + height], *parts[:, at : at + height]) for at in starts]
    in_threads(compiled.norms, pieces, count)
    l1, l2, linf = parts.reshape(3, *displacement.shape[:-1])
    return l1, l2, linf


def in_threads(work: Callable[..., object], calls: Sequence[Sequence[Any]], count: int) -> None:
    """work(*each of calls), by `count` threads; raises what a call raised."""
    if count == 1 or len(calls) == 1:
        for call in calls:
            work(*call)
        return
    with ThreadPoolExecutor(count) as pool:  # the loops let go of the interpreter
        for done in [pool.submit(work, *call) for call in calls]:
            done.result()


def twin(kernel: Callable[..., None]) -> Callable[..., object] | None:
    """The compiled kernel(out, *inputs) that does in one pass what `kernel` does in several."""
    if kernel not in TWINS:
        return None
    from lib import compiled  # Numba takes half a second: only where something is computed

    return getattr(compiled, kernel.__name__)


def apply(
    kernel: Callable[..., None],
    *arrays: Array,
    out: str,
    scratch: Sequence[str] = (),
) -> Array:
    """kernel over broadcast arrays -> an array of dtype `out` in their common shape.

    Arrays and tensors in main memory, of any strides, are worked on as NumPy arrays where they
    lie, block by block, large ones by as many threads as torch may use; those on an accelerator by
    torch itself, in one go.
    """
    stored = "int16" if out == "uint16" else out
    device = accelerator(*arrays)
    if device is not None:
        arrays = torch.broadcast_tensors(*(torch.as_tensor(a).to(device) for a in arrays))
        answer, *spare = (
            torch.empty(arrays[0].shape, dtype=getattr(torch, dtype), device=device)
            for dtype in (stored, *scratch)
        )
        if answer.numel():
            kernel(torch, answer, *arrays, *spare)
        return view(answer, out)
    if any(map(is_torch, arrays)):
        return torch.from_numpy(apply(kernel, *map(np.asarray, arrays), out=out, scratch=scratch))
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    answer = np.empty(shape, stored)
    parts = _parts(arrays, answer)
    in_threads(run, [(kernel, part, scratch) for part in parts], len(parts))
    return answer.view(out)


def _parts(arrays: Sequence[np.ndarray], answer: np.ndarray) -> list[list[np.ndarray]]:
    """[inputs..., answer] cut into as many pieces as torch may use threads, if it is worth it."""
    alike = all(a.shape == answer.shape and a.flags.c_contiguous for a in arrays)
    count = torch.get_num_threads() if alike and answer.size >= WORTH_THREADS else 1
    if count == 1:
        return [[*arrays, answer]]
    size = -(-answer.size // count) + 1023 & ~1023
    flat = [a.reshape(-1) for a in (*arrays, answer)]
    return [[a[start : start + size] for a in flat] for start in range(0, answer.size, size)]


def run(kernel: Callable[..., None], operands: list[np.ndarray], scratch: Sequence[str]) -> None:
    """kernel, or its twin, over [inputs..., answer], a block that fits the cache at a time."""
    fused = twin(kernel)
    given = () if fused else scratch
    element = sum(np.dtype(d).itemsize for d in (*given, *(a.dtype for a in operands)))
    block = CACHE // element & ~1023  # whole words of random bits, whole vectors
    iterator = np.nditer(
        operands,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"]] * (len(operands) - 1) + [["writeonly"]],
        order="C",
        buffersize=block,
    )
    spare = [np.empty(min(block, iterator.itersize), dtype) for dtype in given]
    with iterator, np.errstate(divide="ignore", invalid="ignore"):
        for *blocks, result in iterator:
            if not result.size:
                continue
            if fused:
                fused(result, *blocks)
            else:
                kernel(np, result, *blocks, *(s[: result.size] for s in spare))


def accelerator(*arrays: Array) -> torch.device | None:
    """Where torch must do the work itself: the device of the first tensor outside main memory."""
    return next((a.device for a in arrays if is_torch(a) and a.device.type != "cpu"), None)


# ---------------------------------------------------------------- NumPy and torch alike
def is_torch(x: Array) -> bool:
    """Whether x is a tensor."""
    return isinstance(x, torch.Tensor)


def cast(x: Array, dtype: str) -> Array:
    """x as `dtype`, itself if it is that already."""
    return x.to(getattr(torch, dtype)) if is_torch(x) else x.astype(dtype, copy=False)


def unsigned_max(x: Array) -> int:
    """The largest of int16 x, read as unsigned."""
    return int((x.int() & 0xFFFF).max() if is_torch(x) else x.view(np.uint16).max())


def view(x: Array, dtype: str) -> Array:
    """x's memory read as `dtype`."""
    return x.view(getattr(torch, dtype)) if is_torch(x) else x.view(dtype)
