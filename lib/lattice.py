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

import math
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
    bad = _apply("not_finite", _signed(x), out="bool")
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
    return Fields(*(_apply(name, _signed(x), out="int16") for name in Fields._fields))


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
    return _apply("unfold", o, out="uint16")


def neighbour_up(x: Array) -> Array:
    """Pattern of the next larger value: uint16. Infinity and NaN stay; both zeros go to 2^-133."""
    return _apply("up", _signed(x), out="uint16")


def neighbour_down(x: Array) -> Array:
    """Pattern of the next smaller value: uint16. -infinity and NaN stay; zeros go to -2^-133."""
    return _apply("down", _signed(x), out="uint16")


def steps(a: Array, b: Array) -> Array:
    """Exact lattice displacement from a to b, ordinal(b) - ordinal(a): int32, broadcast shape."""
    return _apply("steps", _signed(a), _signed(b), out="int32")


def historical_displacement(before: Array, after: Array) -> Array:
    """The sources' dW' = (W[t] - W[t-1]) / ULP(W[t-1]): float64, broadcast shape.

    Equals `steps` only inside a binade: half-integers appear below a power of two, multiples
    above the next, +-infinity when leaving zero (whose exponent the sources had no ULP for).
    """
    return _apply("historical", _signed(before), _signed(after), out="float64")


class Norms(NamedTuple):
    """Norms of displacements along the last axis, in lattice steps."""

    l1: Array  # int64
    l2: Array  # float64
    linf: Array  # int64


def norms(displacement: Array) -> Norms:
    """L1, L2 and Linf of integer displacements (..., D) in steps -> three arrays (...)."""
    if _accelerator(displacement) is not None:
        size = displacement.abs().double()
        l1, l2, linf = size.sum(-1), (size * size).sum(-1).sqrt(), size.amax(-1)
        return Norms(l1.long(), l2, linf.long())
    if isinstance(displacement, torch.Tensor):
        return Norms(*map(torch.as_tensor, norms(displacement.numpy())))
    from lib import kernels

    l1, l2, linf = kernels.norms(np.asarray(displacement))
    return Norms(l1.astype(np.int64), l2, linf.astype(np.int64))


# ---------------------------------------------------------------- from float32 to the lattice
def round_nearest(x: Array) -> Array:
    """Patterns nearest to float32 x, ties to the even mantissa: uint16. NaN becomes a quiet NaN.

    torch's own cast, which is the same rule; beyond the largest value it rounds to infinity.
    """
    if _accelerator(x) is not None:
        _float32_bits(x)
        return x.detach().to(torch.bfloat16).view(torch.uint16)
    patterns = np.asarray(_float32_bits(x), order="C").view(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # read-only memory: torch warns, and we only read
        tensor = torch.from_numpy(patterns)
    rounded = np.empty(patterns.shape, np.uint16)  # NumPy's large arrays lie on large pages
    torch.from_numpy(rounded).view(torch.bfloat16).copy_(tensor)
    return torch.from_numpy(rounded) if isinstance(x, torch.Tensor) else rounded


def round_stochastic(x: Array, *, rng: np.random.Generator | torch.Generator) -> Array:
    """One of the two patterns round float32 x, the nearer one more often: uint16; the mean is x.

    The discarded 16 bits, read as a probability, decide: a uniform 16-bit number is added before
    they are cut off. Lattice values stay as they are; NaN becomes a quiet NaN. A torch tensor takes
    a torch.Generator of its own device, or a NumPy generator (drawn on the host).
    """
    pattern = _float32_bits(x)
    shape = tuple(pattern.shape)
    if isinstance(rng, np.random.Generator) and _accelerator(pattern) is None:
        return _round_in_pieces(pattern, rng)
    if isinstance(rng, np.random.Generator):
        random = _random_bits(math.prod(shape), rng).reshape(shape).astype(np.int32)
    else:
        random = torch.randint(0, 1 << 16, shape, generator=rng, device=rng.device).int()
        random = random.to(pattern.device) if isinstance(x, torch.Tensor) else random.cpu().numpy()
    return _apply("stochastic", pattern, random, out="uint16")


def _round_in_pieces(pattern: Array, rng: np.random.Generator) -> Array:
    """Patterns of float32 patterns in main memory, however many threads do it.

    Up to PIECE of them take their random bits from rng itself; more are rounded in pieces of PIECE,
    each with a generator of its own that rng seeds, so that threads need not wait for one another.
    """
    from lib import kernels

    flat = np.asarray(pattern).reshape(-1)
    rounded = np.empty(flat.shape, np.int16)
    starts = range(0, flat.size, PIECE)
    rngs = [rng]
    if flat.size > PIECE:
        seeds = rng.integers(0, 1 << 64, (len(starts), 4), dtype=np.uint64)
        rngs = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]

    def round_piece(start: int, rng: np.random.Generator) -> None:
        piece = flat[start : start + PIECE]
        random = _random_bits(piece.size, rng)
        kernels.run(kernels.stochastic, [piece, random, rounded[start : start + PIECE]])

    calls = list(zip(starts, rngs, strict=False))
    kernels.in_threads(round_piece, calls, torch.get_num_threads())
    rounded = rounded.reshape(pattern.shape).view(np.uint16)
    return torch.from_numpy(rounded) if isinstance(pattern, torch.Tensor) else rounded


def _random_bits(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) uint16, uniform: four pieces of each 64-bit word, a generator's fastest output."""
    return rng.integers(0, 1 << 64, -(-count // 4), dtype=np.uint64).view(np.uint16)[:count]


# ---------------------------------------------------------------- which device does the work
def _signed(x: Array) -> Array:
    """The patterns of x as int16, in x's memory."""
    pattern = bits(x)
    return pattern.view(torch.int16 if isinstance(pattern, torch.Tensor) else np.int16)


def _float32_bits(x: Array) -> Array:
    """float32 x as int32, in x's memory. Raises TypeError for any other type."""
    x = x.detach() if isinstance(x, torch.Tensor) else np.asarray(x)
    if x.dtype not in (torch.float32, np.float32):
        raise TypeError(f"expected float32, got {x.dtype}: convert it yourself, that rounds once")
    return x.view(torch.int32 if isinstance(x, torch.Tensor) else np.int32)


def _accelerator(*arrays: Array) -> torch.device | None:
    """Where torch must do the work itself: the device of the first tensor outside main memory."""
    tensors = (a for a in arrays if isinstance(a, torch.Tensor))
    return next((a.device for a in tensors if a.device.type != "cpu"), None)


def _apply(name: str, *arrays: Array, out: str) -> Array:
    """The kernel `name` where the arrays lie -> an array of dtype `out` in their common shape."""
    device = _accelerator(*arrays)
    if device is not None:
        answer = TORCH[name](*(torch.as_tensor(a).to(device) for a in arrays))
        if out == "uint16":
            return answer.to(torch.int16).view(torch.uint16)
        return answer.to(getattr(torch, out))
    if any(isinstance(a, torch.Tensor) for a in arrays):
        return torch.from_numpy(_apply(name, *map(np.asarray, arrays), out=out))
    from lib import kernels  # Numba takes half a second: only where something is computed

    return kernels.apply(getattr(kernels, name), *arrays, out=out)


def _torch_ulp(u: torch.Tensor) -> torch.Tensor:
    exponent = (u.int() >> 7) & 0xFF
    size = torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent.clamp(1) - 134)
    return torch.where(exponent == 0xFF, torch.nan, size)


def _torch_value(u: torch.Tensor) -> torch.Tensor:
    return (u.int() << 16).view(torch.float32)


def _torch_ordinal(u: torch.Tensor) -> torch.Tensor:
    u = u.int()
    return torch.where(u >= 0, u, -0x8000 - u)


def _torch_unfold(o: torch.Tensor) -> torch.Tensor:
    if o.numel() and (int(o.min()) < -INFINITY or int(o.max()) > INFINITY):
        raise ValueError(f"ordinals run from {-INFINITY} (-infinity) to {INFINITY} (+infinity)")
    return torch.where(o >= 0, o.int(), -0x8000 - o.int())


def _torch_neighbour(u: torch.Tensor, step: int) -> torch.Tensor:
    """The pattern `step` (+1 or -1) further along the line; its end and NaNs stay."""
    u = u.int()
    place = _torch_ordinal(u)
    stays = ((u & 0x7FFF) > INFINITY) | (place == step * INFINITY)
    after = _torch_unfold((place + step).clamp(-INFINITY, INFINITY))
    after = torch.where(place + step == 0, u & -0x8000, after)  # zero keeps the sign it came from
    return torch.where(stays, u, after)


def _torch_historical(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    moved = _torch_value(v).double() - _torch_value(u).double()
    leaves_zero = ((u & 0x7FFF) == 0) & (moved != 0)
    return torch.where(leaves_zero, moved * torch.inf, moved / _torch_ulp(u).double())


def _torch_stochastic(f: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
    is_nan = (f & 0x7FFFFFFF) > 0x7F800000
    return torch.where(is_nan, QUIET_NAN, (f + random) >> 16)


TORCH = {  # the same as the kernels of these names in lib.kernels: int16 patterns in, tensors out
    "not_finite": lambda u: (u & INFINITY) == INFINITY,
    "sign": lambda u: (u >> 15) & 1,
    "exponent": lambda u: (u >> MANTISSA_BITS) & 0xFF,
    "mantissa": lambda u: u & 0x7F,
    "value": _torch_value,
    "ulp": _torch_ulp,
    "ordinal": _torch_ordinal,
    "unfold": _torch_unfold,
    "up": lambda u: _torch_neighbour(u, 1),
    "down": lambda u: _torch_neighbour(u, -1),
    "steps": lambda u, v: _torch_ordinal(v) - _torch_ordinal(u),
    "historical": _torch_historical,
    "stochastic": _torch_stochastic,
}
