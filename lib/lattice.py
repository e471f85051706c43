"""The bfloat16 lattice: bits, values, ULPs, ordinals, steps and roundings, exact at every edge.

A bf16 pattern is s|E(8)|M(7). Its value is (-1)^s 2^(E-127) (1 + M/128) for 0 < E < 255, and
(-1)^s 2^-126 (M/128) for E = 0. Every function takes NumPy arrays (uint16 or int16 patterns, or
ml_dtypes.bfloat16) or torch tensors (bfloat16, uint16, int16) of any shape, reads them where they
lie and answers in kind: NumPy for NumPy, torch on the same device for torch.

Where the number line ends: infinities are its two ends (ordinals +-32640), one step beyond the
largest finite value. A NaN has no place on it: `ordinal` and `steps` do not look for it, because
that would cost a second pass; call `check_finite` once on data from outside.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

Array = Any  # np.ndarray or torch.Tensor

BIAS = 127  # of the exponent field
MANTISSA_BITS = 7
INFINITY = 0x7F80  # pattern, and ordinal, of +infinity
LARGEST = 0x7F7F  # pattern, and ordinal, of the largest finite value
QUIET_NAN = 0x7FC0
BLOCK = 1 << 15  # elements worked on at a time: temporaries stay in the processor's cache

# ULP by exponent field: 2^(E-134), 2^-133 for E = 0 (as for E = 1); none at infinity and NaN
ULP_BY_EXPONENT = np.ldexp(np.float32(1), np.maximum(np.arange(256), 1) - (BIAS + MANTISSA_BITS))
ULP_BY_EXPONENT = ULP_BY_EXPONENT.astype(np.float32)
ULP_BY_EXPONENT[255] = np.nan


# ---------------------------------------------------------------- patterns in, patterns out
def bits(x: Array) -> Array:
    """Patterns of x, a view of x's memory: uint16, same shape.

    Raises TypeError for floats that are not bfloat16: casting them rounds, so it must be asked for.
    """
    if isinstance(x, torch.Tensor):
        if x.dtype not in (torch.bfloat16, torch.uint16, torch.int16):
            raise TypeError(f"expected bfloat16, uint16 or int16, got {x.dtype}: {_MEND}")
        return x.detach().view(torch.uint16)
    if isinstance(x, int):
        return np.asarray(x, dtype=np.uint16)  # one pattern; OverflowError if it is none
    x = np.asanyarray(x)
    if x.dtype.itemsize != 2 or not (x.dtype.kind in "ui" or x.dtype.name == "bfloat16"):
        raise TypeError(f"expected bfloat16, uint16 or int16, got {x.dtype}: {_MEND}")
    return x.view(np.uint16)


_MEND = "use lattice.round_nearest(x) to put float32 on the lattice"


def check_finite(x: Array, name: str = "array") -> Array:
    """Patterns of x, checked: raises ValueError naming the first NaN or infinity."""
    pattern = bits(x)
    bad = _apply(lambda u: (u & INFINITY) == INFINITY, pattern, out="bool")
    if bad.any():
        first = tuple(int(axis[0]) for axis in np.nonzero(np.asarray(bad.tolist())))
        raise ValueError(f"{name} holds {int(bad.sum())} NaN or infinite values, first at {first}")
    return pattern


class Fields(NamedTuple):
    """The three fields of a pattern, each int16 (signed, so that differences do not wrap)."""

    sign: Array  # 0 or 1
    exponent: Array  # 0..255
    mantissa: Array  # 0..127


def fields(x: Array) -> Fields:
    """Sign, exponent and mantissa fields, each int16 in x's shape."""
    return Fields(
        _apply(lambda u: (u >> 15) & 1, x, out="int16"),
        _apply(lambda u: (u >> MANTISSA_BITS) & 0xFF, x, out="int16"),
        _apply(lambda u: u & 0x7F, x, out="int16"),
    )


def value(x: Array) -> Array:
    """The patterns' values: float32 in x's shape, exact (bf16 is the upper half of float32)."""
    return _apply(lambda u: _view(_cast(u, "int32") << 16, "float32"), x, out="float32")


def ulp(x: Array) -> Array:
    """Distance to the next value away from zero: float32, 2^(E-134), and 2^-133 where E = 0.

    NaN for infinities and NaNs. Downwards from a power of two the gap is half of this.
    """

    def kernel(u: Array) -> Array:
        if _is_torch(u):
            return torch.from_numpy(ULP_BY_EXPONENT).to(u.device)[
                (u >> MANTISSA_BITS & 0xFF).long()
            ]
        size = u & INFINITY
        if size.min() <= 7 << 7 or size.max() == INFINITY:  # subnormal or missing ULPs: look up
            return ULP_BY_EXPONENT.take(size >> MANTISSA_BITS)
        wide = size.astype(np.int32)  # the float 2^(E-134) has exponent field E - 7
        wide -= MANTISSA_BITS << MANTISSA_BITS
        wide <<= 16
        return wide.view(np.float32)

    return _apply(kernel, x, out="float32")


# ---------------------------------------------------------------- the number line
def ordinal(x: Array, dtype: str = "int32") -> Array:
    """Lattice coordinate: u if u < 0x8000 else 0x8000 - u. int32 (or int16) in x's shape.

    Monotone in the value; -0 and +0 are both 0; every step of one is a step to the next value,
    across binades and through zero. All ordinals fit int16; their differences need int32.
    """
    return _apply(_fold, x, out=dtype)


def from_ordinal(o: Array) -> Array:
    """Pattern of each ordinal: uint16, same shape; 0 becomes +0. Raises ValueError off the line."""
    o = o if _is_torch(o) else np.asarray(o)
    if o.is_floating_point() if _is_torch(o) else o.dtype.kind not in "iu":
        raise TypeError(f"ordinals are integers, got {o.dtype}")
    if (abs(_cast(o, "int64")) > INFINITY).any():
        raise ValueError(f"ordinals run from {-INFINITY} (-infinity) to {INFINITY} (+infinity)")
    return _apply(_unfold, _cast(o, "int16"), out="uint16")


def neighbour_up(x: Array) -> Array:
    """Pattern of the next larger value: uint16. Infinity and NaN stay; both zeros go to 2^-133."""
    return _apply(_up, x, out="uint16")


def neighbour_down(x: Array) -> Array:
    """Pattern of the next smaller value: uint16. -infinity and NaN stay; zeros go to -2^-133."""
    return _apply(lambda u: _up(u ^ -0x8000) ^ -0x8000, x, out="uint16")


def steps(a: Array, b: Array) -> Array:
    """Exact lattice displacement from a to b, ordinal(b) - ordinal(a): int32, broadcast shape."""
    return _apply(lambda u, v: _cast(_fold(v), "int32") - _fold(u), a, b, out="int32")


def historical_displacement(before: Array, after: Array) -> Array:
    """The sources' dW' = (W[t] - W[t-1]) / ULP(W[t-1]): float64, broadcast shape.

    Equals `steps` only inside a binade: half-integers appear below a power of two, multiples
    above the next, +-infinity when leaving zero (whose exponent the sources had no ULP for).
    """

    def kernel(u: Array, v: Array) -> Array:
        start = _cast(value(u), "float64")
        moved = _cast(value(v), "float64") - start
        unit = _cast(ulp(u), "float64") * (start != 0)  # zero has no exponent, hence no ULP
        unit = unit + (moved == 0)  # staying put is 0, from anywhere
        with np.errstate(divide="ignore"):
            return moved / unit

    return _apply(kernel, before, after, out="float64")


class Norms(NamedTuple):
    """Norms of displacements along the last axis, in lattice steps."""

    l1: Array  # int64
    l2: Array  # float64
    linf: Array  # int64


def norms(displacement: Array) -> Norms:
    """L1, L2 and Linf of integer displacements (..., D) in steps -> three arrays (...)."""
    displacement = displacement if _is_torch(displacement) else np.asarray(displacement)
    size = abs(_cast(displacement, "int64"))
    linf = size.amax(-1) if _is_torch(size) else size.max(-1)
    return Norms(size.sum(-1), (_cast(size, "float64") ** 2).sum(-1) ** 0.5, linf)


# ---------------------------------------------------------------- from float32 to the lattice
def round_nearest(x: Array) -> Array:
    """Patterns nearest to float32 x, ties to the even mantissa: uint16. NaN becomes a quiet NaN.

    torch's own cast, which is the same rule; beyond the largest value it rounds to infinity.
    """
    if _is_torch(x):
        _float32_bits(x)
        return x.detach().to(torch.bfloat16).view(torch.uint16)
    patterns = _float32_bits(np.asarray(x, order="C")).view(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # read-only memory: torch warns, and we only read
        tensor = torch.from_numpy(patterns)
    return tensor.to(torch.bfloat16).view(torch.uint16).numpy()


def round_stochastic(x: Array, *, rng: np.random.Generator | torch.Generator) -> Array:
    """One of the two patterns round float32 x, the nearer one more often: uint16; the mean is x.

    The discarded 16 bits, read as a probability, decide: a uniform 16-bit number is added before
    they are cut off. Lattice values stay as they are; NaN becomes a quiet NaN. A torch tensor takes
    a torch.Generator of its own device, or a NumPy generator (drawn on the host).
    """
    pattern = _float32_bits(x)
    shape = tuple(pattern.shape)
    if isinstance(rng, torch.Generator):
        dust = torch.randint(0, 1 << 16, shape, generator=rng, device=rng.device).int()
        dust = dust.to(pattern.device) if _is_torch(pattern) else dust.cpu().numpy()
    else:
        dust = np.frombuffer(rng.bytes(2 * int(np.prod(shape))), np.uint16).astype(np.int32)
        dust = dust.reshape(shape)
    return _apply(_stochastic, pattern, dust, out="uint16")


# ---------------------------------------------------------------- kernels: int16 or int32 arrays
def _fold(u: Array) -> Array:
    negative = u >> 15  # 0, or -1 for a set sign bit: int16 shifts are arithmetic
    folded = negative & 0x7FFF
    folded ^= u
    folded -= negative  # two's complement of the lower 15 bits
    return folded


def _unfold(o: Array) -> Array:
    negative = o >> 15
    return (o + negative) ^ (negative & 0x7FFF)


def _up(u: Array) -> Array:
    moved = u >> 15
    moved |= 1  # +1 for a clear sign bit, -1 for a set one: towards +infinity
    moved += u
    size = u & 0x7FFF
    if size.min() == 0 or size.max() >= INFINITY:  # blocks with zeros, infinities or NaNs
        moved = moved - (u == -0x8000) * (moved - 1)  # -0 goes to 2^-133
        stays = (u == INFINITY) | (size > INFINITY)
        moved = moved - stays * (moved - u)
    return moved


def _stochastic(f: Array, dust: Array) -> Array:
    nan = (f & 0x7FFFFFFF) > 0x7F800000
    rounded = ((f & 0x7FFFFFFF) + dust) >> 16  # of the magnitude, so both signs are alike
    rounded = rounded | ((f >> 16) & -0x8000)
    return _cast(rounded * ~nan + QUIET_NAN * nan, "int16")


# ---------------------------------------------------------------- NumPy and torch alike
def _is_torch(x: Array) -> bool:
    return isinstance(x, torch.Tensor)


def _cast(x: Array, dtype: str) -> Array:
    return x.to(getattr(torch, dtype)) if _is_torch(x) else x.astype(dtype, copy=False)


def _view(x: Array, dtype: str) -> Array:
    return x.view(getattr(torch, dtype)) if _is_torch(x) else x.view(dtype)


def _float32_bits(x: Array) -> Array:
    x = x.detach() if _is_torch(x) else np.asarray(x)
    if x.dtype not in (torch.float32, np.float32):
        raise TypeError(f"expected float32, got {x.dtype}: convert it yourself, that rounds once")
    return _view(x, "int32")


def _apply(kernel: Callable[..., Array], *arrays: Array, out: str) -> Array:
    """kernel over broadcast arrays, block by block; 16-bit patterns arrive as int16.

    Tensors in main memory are worked on as NumPy arrays over the same memory; those on an
    accelerator by torch itself, in one go.
    """
    arrays = tuple(map(_array, arrays))
    if any(_is_torch(a) for a in arrays):
        if any(_is_torch(a) and a.device.type != "cpu" for a in arrays):
            device = next(a.device for a in arrays if _is_torch(a) and a.device.type != "cpu")
            result = kernel(*(torch.as_tensor(a).to(device) for a in arrays))
            return result.view(torch.uint16) if out == "uint16" else _cast(result, out)
        return torch.from_numpy(_apply(kernel, *map(np.asarray, arrays), out=out))
    stored = "int16" if out == "uint16" else out
    iterator = np.nditer(
        [*arrays, None],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"]] * len(arrays) + [["writeonly", "allocate"]],
        op_dtypes=[a.dtype for a in arrays] + [np.dtype(stored)],
        order="C",
        buffersize=BLOCK,
    )
    with iterator:
        for *blocks, result in iterator:
            result[...] = kernel(*blocks)
        return iterator.operands[-1].view(out)


def _array(x: Array) -> Array:
    """x as the kernels take it: int32 as it is, every 16-bit kind as int16, in x's memory."""
    if not _is_torch(x) and not isinstance(x, int):
        x = np.asanyarray(x)
    if not isinstance(x, int) and x.dtype in ((torch.int32,) if _is_torch(x) else (np.int32,)):
        return x
    return _view(bits(x), "int16")
