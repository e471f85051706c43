"""Displacements: how far rows move in a step, on the lattice and in weight space."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import lattice
from lib.training import movie

PIECE = 16  # steps at a time: what is computed of them should stay in the processor's cache


@dataclass(frozen=True)
class Moves:
    """Sizes of the moves of each step; all (steps, rows), move t leads from frame t to t + 1.

    L1, L2 and Linf in lattice steps (int64, float64, int64); `weight` is the L2 norm in weight
    space (float64).
    """

    l1: np.ndarray
    l2: np.ndarray
    linf: np.ndarray
    weight: np.ndarray
    dim: int


def of(frames: np.ndarray) -> Moves:
    """Moves between consecutive frames (frames, rows, dim) of uint16 patterns."""
    steps = lattice.norms(lattice.steps(frames[:-1], frames[1:]))
    values = lattice.value(frames).astype(np.float64)
    weight = np.sqrt(((values[1:] - values[:-1]) ** 2).sum(-1))
    return Moves(steps.l1, steps.l2, steps.linf, weight, frames.shape[-1])


def moved(frames: np.ndarray) -> np.ndarray:
    """Which components change between consecutive frames (frames, rows, dim) of uint16 patterns.

    (frames - 1, rows, dim) bool. +0 and -0 are one lattice point.
    """
    before, after = frames[:-1], frames[1:]
    return (before != after) & (((before | after) & 0x7FFF) != 0)


def of_movie(path: Path, rows: np.ndarray, stream: str = "W", stop: int | None = None) -> Moves:
    """Moves of `rows` through a whole movie, read segment by segment."""
    parts = [of(frames) for _, frames in segments(path, rows, stream, stop)]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("l1", "l2", "linf", "weight")
    }
    return Moves(**joined, dim=parts[0].dim)


def segments(
    path: Path, rows: np.ndarray, stream: str = "W", stop: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first frame, frames (n, rows, dim) uint16), each overlapping the last by one.

    So every move of the movie lies in exactly one piece.
    """
    count = movie.about(path)[stream][0] if stop is None else stop
    last = None
    for start in range(0, count, movie.KEY):
        frames = movie.read(path, stream, slice(start, min(start + movie.KEY, count)), rows)
        if last is not None:
            frames, start = np.concatenate([last, frames]), start - 1
        for first in range(0, len(frames) - 1, PIECE):
            yield start + first, frames[first : first + PIECE + 1]
        last = frames[-1:]
