"""The bfloat16 lattice: bits, values, ULPs, ordinals, steps and roundings, exact at every edge.

A bf16 pattern is s|E(8)|M(7). Its value is (-1)^s 2^(E-127) (1 + M/128) for 0 < E < 255, and
(-1)^s 2^-126 (M/128) for E = 0. Every function takes NumPy arrays (uint16 or int16 patterns, or
ml_dtypes.bfloat16) or torch tensors (bfloat16, uint16, int16) of any shape, reads them where they
lie and answers in kind: NumPy for NumPy, torch on the same device for torch. The inner loops are
in `lib.kernels`.

Where the number line ends: infinities are its two ends (ordinals +-32640), one step beyond the
largest finite value. A NaN has no place on it: `ordinal` and `steps` do not look for it, because
that would cost a second pass; call `check_finite` once on data from outside.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch

from lib import kernels
from lib.kernels import INFINITY, MANTISSA_BITS, QUIET_NAN, Array, apply, cast, is_torch, view

__all__ = ["INFINITY", "LARGEST", "MANTISSA_BITS", "QUIET_NAN"]  # and every function below

LARGEST = 0x7F7F  # pattern, and ordinal, of the largest finite value
PIECE = 1 << 20  # elements that one generator rounds stochastically


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
    bad = apply(kernels.not_finite, _signed(pattern), out="bool")
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
    patterns = _signed(x)
    parts = (kernels.sign, kernels.exponent, kernels.mantissa)
    return Fields(*(apply(part, patterns, out="int16") for part in parts))


def value(x: Array) -> Array:
    """The patterns' values: float32 in x's shape, exact (bf16 is the upper half of float32)."""
    return apply(kernels.value, _signed(x), out="float32")


def ulp(x: Array) -> Array:
    """Distance to the next value away from zero: float32, 2^(E-134), and 2^-133 where E = 0.

    NaN for infinities and NaNs. Downwards from a power of two the gap is half of this.
    """
    return apply(kernels.ulp, _signed(x), out="float32", scratch=("int16",))


# ---------------------------------------------------------------- the number line
def ordinal(x: Array, dtype: str = "int32") -> Array:
    """Lattice coordinate: u if u < 0x8000 else 0x8000 - u. int32 (or int16) in x's shape.

    Monotone in the value; -0 and +0 are both 0; every step of one is a step to the next value,
    across binades and through zero. All ordinals fit int16; their differences need int32.
    """
    return apply(kernels.ordinal, _signed(x), out=dtype, scratch=("int16", "int16"))


def from_ordinal(o: Array) -> Array:
    """Pattern of each ordinal: uint16, same shape; 0 becomes +0. Raises ValueError off the line."""
    o = o if is_torch(o) else np.asarray(o)
    if o.is_floating_point() if is_torch(o) else o.dtype.kind not in "iu":
        raise TypeError(f"ordinals are integers, got {o.dtype}")
    return apply(kernels.unfold, o, out="uint16", scratch=("int16",))


def neighbour_up(x: Array) -> Array:
    """Pattern of the next larger value: uint16. Infinity and NaN stay; both zeros go to 2^-133."""
    return apply(kernels.up, _signed(x), out="uint16", scratch=("int16",))


def neighbour_down(x: Array) -> Array:
    """Pattern of the next smaller value: uint16. -infinity and NaN stay; zeros go to -2^-133."""
    return apply(kernels.down, _signed(x), out="uint16", scratch=("int16",))


def steps(a: Array, b: Array) -> Array:
    """Exact lattice displacement from a to b, ordinal(b) - ordinal(a): int32, broadcast shape."""
    scratch = ("int16", "int16", "int32")
    return apply(kernels.steps, _signed(a), _signed(b), out="int32", scratch=scratch)


def historical_displacement(before: Array, after: Array) -> Array:
    """The sources' dW' = (W[t] - W[t-1]) / ULP(W[t-1]): float64, broadcast shape.

    Equals `steps` only inside a binade: half-integers appear below a power of two, multiples
    above the next, +-infinity when leaving zero (whose exponent the sources had no ULP for).
    """
    scratch = ("int16", "float32", "float64")
    moved = _signed(before), _signed(after)
    return apply(kernels.historical, *moved, out="float64", scratch=scratch)


class Norms(NamedTuple):
    """Norms of displacements along the last axis, in lattice steps."""

    l1: Array  # int64
    l2: Array  # float64
    linf: Array  # int64


def norms(displacement: Array) -> Norms:
    """L1, L2 and Linf of integer displacements (..., D) in steps -> three arrays (...)."""
    if kernels.accelerator(displacement) is None and is_torch(displacement):
        return Norms(*map(torch.as_tensor, norms(displacement.numpy())))
    if is_torch(displacement):
        size = displacement.abs().double()
        parts = size.sum(-1), (size * size).sum(-1).sqrt(), size.amax(-1)
    else:
        parts = kernels.norms(np.asarray(displacement))
    return Norms(cast(parts[0], "int64"), parts[1], cast(parts[2], "int64"))


# ---------------------------------------------------------------- from float32 to the lattice
def round_nearest(x: Array) -> Array:
    """Patterns nearest to float32 x, ties to the even mantissa: uint16. NaN becomes a quiet NaN.

    torch's own cast, which is the same rule; beyond the largest value it rounds to infinity.
    """
    if kernels.accelerator(x) is not None:
        _float32_bits(x)
        return x.detach().to(torch.bfloat16).view(torch.uint16)
    patterns = np.asarray(_float32_bits(x), order="C").view(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # read-only memory: torch warns, and we only read
        tensor = torch.from_numpy(patterns)
    rounded = np.empty(patterns.shape, np.uint16)  # NumPy's large arrays lie on large pages
    torch.from_numpy(rounded).view(torch.bfloat16).copy_(tensor)
    return torch.from_numpy(rounded) if is_torch(x) else rounded


def round_stochastic(x: Array, *, rng: np.random.Generator | torch.Generator) -> Array:
    """One of the two patterns round float32 x, the nearer one more often: uint16; the mean is x.

    The discarded 16 bits, read as a probability, decide: a uniform 16-bit number is added before
    they are cut off. Lattice values stay as they are; NaN becomes a quiet NaN. A torch tensor takes
    a torch.Generator of its own device, or a NumPy generator (drawn on the host).
    """
    pattern = _float32_bits(x)
    shape = tuple(pattern.shape)
    if isinstance(rng, np.random.Generator) and kernels.accelerator(pattern) is None:
        return _round_in_pieces(pattern, rng)
    if isinstance(rng, np.random.Generator):
        dust = _dust(math.prod(shape), rng).reshape(shape).astype(np.int32)
    else:
        dust = torch.randint(0, 1 << 16, shape, generator=rng, device=rng.device).int()
        dust = dust.to(pattern.device) if is_torch(pattern) else dust.cpu().numpy()
    return apply(kernels.stochastic, pattern, dust, out="uint16", scratch=("int32",))


def _round_in_pieces(pattern: Array, rng: np.random.Generator) -> Array:
    """Patterns of float32 patterns in main memory, however many threads do it.

    Up to PIECE of them take their dust from rng itself; more are rounded in pieces of PIECE, each
    with a generator of its own that rng seeds, so that threads need not wait for one another.
    """
    flat = np.asarray(pattern).reshape(-1)
    rounded = np.empty(flat.shape, np.int16)
    starts = range(0, flat.size, PIECE)
    rngs = [rng]
    if flat.size > PIECE:
        seeds = rng.integers(0, 1 << 64, (len(starts), 4), dtype=np.uint64)
        rngs = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]

    def round_piece(start: int, rng: np.random.Generator) -> None:
        piece = flat[start : start + PIECE]
        dust = _dust(piece.size, rng)
        kernels.run(kernels.stochastic, [piece, dust, rounded[start : start + PIECE]], ("int32",))

    kernels.in_threads(round_piece, list(zip(starts, rngs, strict=False)), torch.get_num_threads())
    rounded = rounded.reshape(pattern.shape).view(np.uint16)
    return torch.from_numpy(rounded) if is_torch(pattern) else rounded


def _dust(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) uint16, uniform: four pieces of each 64-bit word, a generator's fastest output."""
    return rng.integers(0, 1 << 64, -(-count // 4), dtype=np.uint64).view(np.uint16)[:count]


# ---------------------------------------------------------------- as the kernels take them
def _signed(x: Array) -> Array:
    """The patterns of x as int16, in x's memory."""
    return view(bits(x), "int16")


def _float32_bits(x: Array) -> Array:
    """float32 x as int32, in x's memory. Raises TypeError for any other type."""
    x = x.detach() if is_torch(x) else np.asarray(x)
    if x.dtype not in (torch.float32, np.float32):
        raise TypeError(f"expected float32, got {x.dtype}: convert it yourself, that rounds once")
    return view(x, "int32")
