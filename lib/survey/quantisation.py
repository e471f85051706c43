"""What the lattice does to a cloud of rows: which dimensions can vary, what values occur."""

import math

import numpy as np

from lib import lattice

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def as_power(x: float) -> str:
    """A power of two in words for prose and tables, e.g. "2⁻⁹". Raises ValueError otherwise."""
    mantissa, exponent = math.frexp(x)
    if mantissa != 0.5:
        raise ValueError(f"{x} is no power of two")
    return "2" + str(exponent - 1).translate(SUPERSCRIPTS)


def spelled(pattern: int) -> str:
    """A pattern's fields as "s eeeeeeee mmmmmmm"."""
    text = f"{int(pattern):016b}"
    return f"{text[0]} {text[1:9]} {text[9:]}"


def half_precision(bits: np.ndarray) -> np.ndarray:
    """float16 patterns (uint16, any shape) -> the nearest bf16 patterns, uint16."""
    return lattice.round_nearest(bits.view(np.float16).astype(np.float32))
