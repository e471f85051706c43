"""The walk on a shell: radial and tangential motion, a simulated null, an account of the radius.

Everything is in the cloud's comoving frame: places relative to the centroid of the rows given.
With x(t) the place of a row and v(s) its steps, so that x(t) = x(0) + sum v(s), exactly

    |x(t)|^2 - |x(0)|^2 = sum |v(s)|^2 + (|sum v(s)|^2 - sum |v(s)|^2) + 2 x(0) . sum v(s)
                          walk            memory                         origin

A walk whose steps know nothing of each other and of where they began has only the first term.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import lattice
from lib.dynamics import displacement


@dataclass(frozen=True)
class Shell:
    """The comoving motion of a cloud of rows."""

    start: np.ndarray  # (rows, dim) float32: places at frame 0, relative to the centroid
    length: np.ndarray  # (steps, rows) float64: lengths of the steps
    radial: np.ndarray  # (steps,) mean squared component along the place before the step
    tangential: np.ndarray  # (steps,) mean squared rest; the two sum to the mean squared length
    persistence: np.ndarray  # (steps,) mean cosine of a step with the step before; NaN at the first
    radius: np.ndarray  # (frames,) mean distance to the centroid
    walk: np.ndarray  # (frames,) the three terms of the account, means over the rows
    memory: np.ndarray
    origin: np.ndarray
    growth: np.ndarray  # (frames,) mean |x(t)|^2 - |x(0)|^2, measured by itself

    @property
    def radial_share(self) -> float:
        """Share of the squared motion that is radial; 1 / dim for directions drawn at random."""
        return float(self.radial.sum() / (self.radial.sum() + self.tangential.sum()))


def of(frames: np.ndarray) -> Shell:
    """The shell of `frames` (frames, rows, dim) float32 or float64 values."""
    place = frames - frames.mean(1, keepdims=True, dtype=np.float64).astype(frames.dtype)
    return _join(place[0], [_piece(place, place[0], None)])


def of_movie(path: Path, rows: np.ndarray, stream: str = "W", stop: int | None = None) -> Shell:
    """The shell of `rows` through a movie, read segment by segment."""
    pieces, start, last = [], None, None
    for _, patterns in displacement.segments(path, rows, stream, stop):
        frames = lattice.value(patterns)
        place = frames - frames.mean(1, keepdims=True, dtype=np.float64).astype(frames.dtype)
        start = place[0] if start is None else start
        pieces.append(_piece(place, start, last))
        last = place[-1] - place[-2]
    return _join(start, pieces)


def _piece(
    place: np.ndarray, start: np.ndarray, before: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Readings of places (frames, rows, dim); `before` is the step that led to the first."""
    step = place[1:] - place[:-1]
    length = np.sqrt(_dot(step, step))
    distance = np.sqrt(_dot(place, place))
    with np.errstate(invalid="ignore", divide="ignore"):
        radial = np.nan_to_num(_dot(step, place[:-1]) / distance[:-1])
        whole = step if before is None else np.concatenate([before[None], step])
        size = np.sqrt(_dot(whole, whole))
        cosine = _dot(whole[1:], whole[:-1]) / (size[1:] * size[:-1])
    persistence = _mean_of_finite(cosine)
    if before is None:
        persistence = np.concatenate([[np.nan], persistence])
    away = place - start
    return {
        "length": length,
        "radial": (radial**2).mean(1),
        "tangential": (length**2 - radial**2).mean(1),
        "persistence": persistence,
        "radius": distance.mean(1),
        "square": (length**2).mean(1),
        "away": _dot(away, away).mean(1),
        "origin": 2 * _dot(away, np.broadcast_to(start, away.shape)).mean(1),
        "growth": (distance**2).mean(1) - _dot(start[None], start[None]).mean(),
    }


def _mean_of_finite(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite; NaN where nothing is."""
    count = np.isfinite(values).sum(-1)
    total = np.nansum(values, -1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _join(start: np.ndarray, pieces: list[dict[str, np.ndarray]]) -> Shell:
    """One Shell from consecutive pieces, each of which begins with the last frame before it."""

    def steps(name: str) -> np.ndarray:
        return np.concatenate([piece[name] for piece in pieces])

    def frames(name: str) -> np.ndarray:
        return np.concatenate([p[name] if i == 0 else p[name][1:] for i, p in enumerate(pieces)])

    walk = np.concatenate([[0], np.cumsum(steps("square"))])
    return Shell(
        start=start,
        length=steps("length"),
        radial=steps("radial"),
        tangential=steps("tangential"),
        persistence=steps("persistence"),
        radius=frames("radius"),
        walk=walk,
        memory=frames("away") - walk,
        origin=frames("origin"),
        growth=frames("growth"),
    )


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products along the last axis of (frames, rows, dim), float64."""
    return np.einsum("trd,trd->tr", a, b, dtype=np.float64)


def simulate(
    start: np.ndarray, length: np.ndarray, *, walks: int, rng: np.random.Generator
) -> np.ndarray:
    """Mean distance of random walks: `walks` times each row of `start`, (walks, steps + 1) float64.

    start (rows, dim); length (steps, rows): every step has its recorded length and a direction
    drawn uniformly, independent of the place and of all other steps.
    """
    radius = np.empty((walks, len(length) + 1))
    for walk in range(walks):
        place = start.astype(np.float32).copy()
        radius[walk, 0] = np.linalg.norm(place, axis=1).mean()
        for t, size in enumerate(length):
            direction = rng.standard_normal(place.shape, dtype=np.float32)
            direction *= (size / np.linalg.norm(direction, axis=1))[:, None].astype(np.float32)
            place += direction
            radius[walk, t + 1] = np.sqrt(np.einsum("rd,rd->r", place, place)).mean()
    return radius
