"""The bfloat16 lattice: bits, values, ULPs, ordinals, steps and roundings, exact at every edge.

A bf16 pattern is s|E(8)|M(7). Its value is (-1)^s 2^(E-127) (1 + M/128) for 0 < E < 255, and
(-1)^s 2^-126 (M/128) for E = 0. Every function takes NumPy arrays (uint16 or int16 patterns, or
ml_dtypes.bfloat16) or torch tensors (bfloat16, uint16, int16) of any shape, reads them where they
lie and answers in kind: NumPy for NumPy, torch on the same device for torch. In main memory the
compiled loops of `lib.kernels` do the work, on an accelerator the expressions of TORCH below.

Where the number line ends: infinities are its two ends (ordinals +-32640), one step beyond the
largest finite value. A NaN has no place on it: `ordinal` and `steps` do not look for it, because
that would cost a second pass; call `check_finite` once on data from outside.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch

Array = Any  # np.ndarray or torch.Tensor

MANTISSA_BITS = 7
BIAS = 127  # of the exponent field
INFINITY = 0x7F80  # pattern, and ordinal, of +infinity
LARGEST = 0x7F7F  # pattern, and ordinal, of the largest finite value
QUIET_NAN = 0x7FC0
PIECE = 1 << 20  # elements that one generator rounds stochastically

_MEND = "use lattice.round_nearest(x) to put float32 on the lattice"


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


def check_finite(x: Array, name: str = "array") -> Array:
    """Patterns of x, checked: raises ValueError naming the first NaN or infinity."""
    bad = (_signed(x) & INFINITY) == INFINITY
    if bad.any():
        first = tuple(int(axis[0]) for axis in np.nonzero(np.asarray(bad.tolist())))
        raise ValueError(f"{name} holds {int(bad.sum())} NaN or infinite values, first at {first}")
    return bits(x)


class Fields(NamedTuple):
    """The three fields of a pattern, each int16 (signed, so that differences do not wrap)."""

    sign: Array  # 0 or 1
    exponent: Array  # 0..255
    mantissa: Array  # 0..127


def fields(x: Array) -> Fields:
    """Sign, exponent and mantissa fields, each int16 in x's shape."""
    u = _signed(x)
    return Fields((u >> 15) & 1, (u >> MANTISSA_BITS) & 0xFF, u & 0x7F)


def value(x: Array) -> Array:
    """The patterns' values: float32 in x's shape, exact (bf16 is the upper half of float32)."""
    return _apply("value", _signed(x), out="float32")


def ulp(x: Array) -> Array:
    """Distance to the next value away from zero: float32, 2^(E-134), and 2^-133 where E = 0.

    NaN for infinities and NaNs. Downwards from a power of two the gap is half of this.
    """
    return _apply("ulp", _signed(x), out="float32")


# ---------------------------------------------------------------- the number line
def ordinal(x: Array, dtype: str = "int32") -> Array:
    """Lattice coordinate: u if u < 0x8000 else 0x8000 - u. int32 (or int16) in x's shape.

    Monotone in the value; -0 and +0 are both 0; every step of one is a step to the next value,
    across binades and through zero. All ordinals fit int16; their differences need int32.
    """
    return _apply("ordinal", _signed(x), out=dtype)


def from_ordinal(o: Array) -> Array:
    """Pattern of each ordinal: uint16, same shape; 0 becomes +0. Raises ValueError off the line."""
    o = o if isinstance(o, torch.Tensor) else np.asarray(o)
    is_float = o.is_floating_point() if isinstance(o, torch.Tensor) else o.dtype.kind not in "iu"
    if is_float:
        raise TypeError(f"ordinals are integers, got {o.dtype}")
    if ((o < -INFINITY) | (o > INFINITY)).any():
        raise ValueError(f"ordinals run from {-INFINITY} (-infinity) to {INFINITY} (+infinity)")
    return _apply("ordinal", o, out="uint16")  # which is its own inverse


def neighbour_up(x: Array) -> Array:
    """Pattern of the next larger value: uint16. Infinity and NaN stay; both zeros go to 2^-133."""
    return _neighbour(x, 1)


def neighbour_down(x: Array) -> Array:
    """Pattern of the next smaller value: uint16. -infinity and NaN stay; zeros go to -2^-133."""
    return _neighbour(x, -1)


def steps(a: Array, b: Array) -> Array:
    """Exact lattice displacement from a to b, ordinal(b) - ordinal(a): int32, broadcast shape."""
    return _apply("steps", _signed(a), _signed(b), out="int32")


class Norms(NamedTuple):
    """Norms of displacements along the last axis, in lattice steps."""

    l1: Array  # int64
    l2: Array  # float64
    linf: Array  # int64


def norms(displacement: Array) -> Norms:
    """L1, L2 and Linf of integer displacements (..., D) in steps -> three arrays (...)."""
    if isinstance(displacement, torch.Tensor):
        if displacement.is_cpu:
            return Norms(*map(torch.from_numpy, norms(displacement.numpy())))
        size = displacement.abs().double()
        return Norms(size.sum(-1).long(), (size * size).sum(-1).sqrt(), size.amax(-1).long())
    from lib import kernels

    return Norms(*kernels.norms(np.asarray(displacement)))


# ---------------------------------------------------------------- from float32 to the lattice
def round_nearest(x: Array) -> Array:
    """Patterns nearest to float32 x, ties to the even mantissa: uint16. NaN becomes a quiet NaN.

    torch's own cast, which is the same rule; beyond the largest value it rounds to infinity.
    """
    x = _float32(x)
    if isinstance(x, torch.Tensor):
        return x.to(torch.bfloat16).view(torch.uint16)
    rounded = np.empty(x.shape, np.uint16)  # NumPy's large arrays lie on large pages
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # read-only memory: torch warns, and we only read
        tensor = torch.from_numpy(np.asarray(x, order="C"))
    torch.from_numpy(rounded).view(torch.bfloat16).copy_(tensor)
    return rounded


def round_stochastic(x: Array, *, rng: np.random.Generator) -> Array:
    """One of the two patterns round float32 x, the nearer one more often: uint16; the mean is x.

    The discarded 16 bits, read as a probability, decide: a uniform 16-bit number is added before
    they are cut off. Lattice values stay as they are; NaN becomes a quiet NaN. Up to PIECE elements
    take their random bits from rng itself; more are rounded in pieces of PIECE, each with a
    generator of its own that rng seeds, so that neither threads nor devices change the result: a
    tensor on an accelerator is rounded in main memory.
    """
    x = _float32(x)
    if isinstance(x, torch.Tensor):
        return torch.from_numpy(round_stochastic(x.cpu().numpy(), rng=rng)).to(x.device)
    from lib import kernels

    pattern = np.ascontiguousarray(x).view(np.int32).reshape(-1)
    rounded = np.empty(pattern.shape, np.uint16)
    starts = range(0, pattern.size, PIECE)
    rngs = [rng]
    if len(starts) > 1:
        seeds = rng.integers(0, 1 << 64, (len(starts), 4), dtype=np.uint64)
        rngs = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]

    def round_piece(start: int, rng: np.random.Generator) -> None:
        piece = pattern[start : start + PIECE]
        words = rng.integers(0, 1 << 64, -(-piece.size // 4), dtype=np.uint64)  # a word gives four
        random = words.view(np.uint16)[: piece.size]
        kernels.stochastic(rounded[start : start + PIECE], piece, random)

    kernels.in_threads(round_piece, list(zip(starts, rngs, strict=False)))
    return rounded.reshape(x.shape)


# ---------------------------------------------------------------- which device does the work
def _signed(x: Array) -> Array:
    """The patterns of x as int16, in x's memory."""
    pattern = bits(x)
    return pattern.view(torch.int16 if isinstance(pattern, torch.Tensor) else np.int16)


def _float32(x: Array) -> Array:
    """x, without its graph. Raises TypeError unless it is float32."""
    x = x.detach() if isinstance(x, torch.Tensor) else np.asarray(x)
    if x.dtype not in (torch.float32, np.float32):
        raise TypeError(f"expected float32, got {x.dtype}: convert it yourself, that rounds once")
    return x


def _neighbour(x: Array, step: int) -> Array:
    """Pattern of the value `step` (+1 or -1) further: uint16. The line's end and NaNs stay."""
    u, place = _signed(x), ordinal(x)
    library = torch if isinstance(u, torch.Tensor) else np
    after = _signed(from_ordinal(library.clip(place + step, -INFINITY, INFINITY)))
    after = library.where(place + step == 0, u & -0x8000, after)  # zero keeps the sign it came from
    return bits(library.where(abs(place) > INFINITY, u, after))


def _apply(name: str, *arrays: Array, out: str) -> Array:
    """The kernel `name` where the arrays lie -> an array of dtype `out` in their common shape."""
    devices = [array.device for array in arrays if isinstance(array, torch.Tensor)]
    device = next((device for device in devices if device.type != "cpu"), None)
    if device is not None:
        answer = TORCH[name](*(torch.as_tensor(array, device=device) for array in arrays))
        if out == "uint16":
            return answer.short().view(torch.uint16)
        return answer.to(getattr(torch, out))
    from lib import kernels  # Numba takes half a second: only where something is computed

    answer = kernels.apply(getattr(kernels, name), *map(np.asarray, arrays), out=out)
    return torch.from_numpy(answer) if devices else answer


def _torch_ulp(u: torch.Tensor) -> torch.Tensor:
    exponent = (u.int() >> MANTISSA_BITS) & 0xFF
    size = torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent.clamp(1) - 134)
    return torch.where(exponent == 0xFF, torch.nan, size)


def _torch_ordinal(u: torch.Tensor) -> torch.Tensor:
    return torch.where(u >= 0, u.int(), -0x8000 - u.int())


TORCH = {  # the same as the kernels of these names in lib.kernels: int16 patterns in, tensors out
    "value": lambda u: u.view(torch.bfloat16).float(),
    "ulp": _torch_ulp,
    "ordinal": _torch_ordinal,
    "steps": lambda u, v: _torch_ordinal(v) - _torch_ordinal(u),
}
