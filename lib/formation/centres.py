"""Centres of the sources' snowballs, rebuilt from what their notebooks printed.

The matrix of Qwen3-4B is not at hand, but three facts about it are (data/qwen3): the exponents of
the largest hole's 2,560 components, the bits of all 13 holes in the 20 dimensions where they
differ, and the norms. Only dimensions with a cell border within a few sigma matter, so these facts
fix more than they seem to.
"""

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lib import lattice, paths

BIAS = 127


@dataclass(frozen=True)
class Holes:
    """The 13 black holes of Qwen3-4B-Instruct-2507 where they differ; printed facts."""

    populations: np.ndarray  # (13,) int64, descending
    dims: np.ndarray  # (20,) int64: indices into the 2,560 dimensions
    bits: np.ndarray  # (13, 20) uint16


@lru_cache
def printed() -> dict:
    """The figures that the original notebooks printed: data/qwen3/printed_figures.json."""
    return json.loads((paths.QWEN3 / "printed_figures.json").read_text(encoding="utf-8"))


@lru_cache
def holes() -> Holes:
    """The 13 holes: data/qwen3/qwen3_black_hole_bits_13x20.json."""
    file = paths.QWEN3 / "qwen3_black_hole_bits_13x20.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    return Holes(
        np.array(table["populations"], np.int64),
        np.array(table["dims"], np.int64),
        np.array(table["uint16"], np.uint16),
    )


def exponents() -> np.ndarray:
    """(2560,) int64 exponent fields of the largest hole, ascending: the printed histogram."""
    histogram = printed()["largest_hole_exponents"]
    return np.repeat([int(e) for e in histogram], list(histogram.values()))


def on_lattice(*, rng: np.random.Generator) -> np.ndarray:
    """(2560,) float32 lattice point: the largest hole as far as it is known.

    The 20 varying dimensions hold its own bits. In the 2,540 others the exponents are the printed
    ones, in random order; signs and mantissas, which no notebook printed, are random, the mantissas
    drawn until the norm is within 1e-4 of the hole's. A mantissa of zero, which halves the way to
    the next cell, is as likely as any other.
    """
    hole = holes()
    norm = printed()["largest_hole_norm"]
    known = lattice.fields(hole.bits[0]).exponent
    rest = exponents().tolist()
    for exponent in known.tolist():
        rest.remove(exponent)
    rest = rng.permutation(np.array(rest))
    centre = np.empty(len(rest) + len(hole.dims), np.float32)
    free = np.setdiff1d(np.arange(centre.size), hole.dims)
    centre[hole.dims] = lattice.value(hole.bits[0])
    mantissa = rng.integers(0, 128, len(rest))
    sign = np.where(rng.random(len(rest)) < 0.5, -1, 1)

    def value() -> np.ndarray:
        return np.ldexp(sign * (1 + mantissa / 128), rest - BIAS).astype(np.float32)

    centre[free] = value()
    for _ in range(100_000):
        off = np.linalg.norm(centre.astype(np.float64)) - norm
        if abs(off) < 1e-4 * norm:
            return centre
        # redraw the mantissa of one component; keep it if the norm comes closer
        k = rng.integers(len(rest))
        old = mantissa[k]
        mantissa[k] = rng.integers(0, 128)
        if (mantissa[k] > old) == (off > 0):
            mantissa[k] = old
        centre[free] = value()
    raise RuntimeError("no mantissas give the printed norm")


def weighted_mean(lattice_point: np.ndarray) -> np.ndarray:
    """(2560,) float32: the population-weighted mean of the 13 holes, the sources' 0.3709 centre.

    `lattice_point` is a centre of `on_lattice`. The mean leaves the lattice in the 20 varying
    dimensions, and only there.
    """
    hole = holes()
    centre = lattice_point.copy()
    value = lattice.value(hole.bits).astype(np.float64)
    mean = hole.populations @ value / hole.populations.sum()
    centre[hole.dims] = mean.astype(np.float32)
    return centre


def centred(*, rng: np.random.Generator, tails: float = 4.5) -> np.ndarray:
    """(2560,) float32: a surrogate of the mean-centred centre, norm 0.1661, off the lattice.

    Subtracting the mean row of W leaves components that have nothing to do with the lattice.
    Assumption: they are independent draws of a Student t with `tails` degrees of freedom, scaled to
    the printed norm. 4.5 gives the printed excess kurtosis, 11.9; inf gives Gaussian components.
    """
    size = len(exponents())
    left = rng.standard_normal(size) if np.isinf(tails) else rng.standard_t(tails, size)
    return (left * (printed()["centred_norm"] / np.linalg.norm(left))).astype(np.float32)
