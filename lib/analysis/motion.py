"""Motion of a cloud of rows: moves on the lattice, bulk and thermal, the walk on a shell, the push.

Places are float values in weight space, (frames, rows, dim); a centroid is that of the rows given.
Films are read piece by piece (see films.pieces), so that they may be of any length.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib import lattice
from lib.training import films


def join(pieces: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What was read of consecutive pieces of a film, as if it had been read of the whole.

    Each piece begins with the last frame of the one before. What is read of every frame therefore
    has one entry more than what is read of every step, and that one repeats.
    """
    first, *later = pieces
    steps = [min(map(len, piece.values())) for piece in later]
    joined = {}
    for name in first:
        tails = [piece[name][-n:] for piece, n in zip(later, steps, strict=True)]
        joined[name] = np.concatenate([first[name], *tails])
    return joined


@dataclass(frozen=True)
class Moves:
    """Sizes of the moves of each step; all (steps, rows), move t leads from frame t to t + 1."""

    l1: np.ndarray  # int64, in lattice steps like the next two
    l2: np.ndarray  # float64
    linf: np.ndarray  # int64
    weight: np.ndarray  # float64: L2 in weight space
    wide: np.ndarray  # bool: L2 > sqrt(dim), on average more than one step in every component

    @property
    def still(self) -> np.ndarray:
        """Share of rows that do not move at each step: instantaneous freezing, (steps,)."""
        return (self.l1 == 0).mean(1)


def moves(frames: np.ndarray) -> Moves:
    """Moves between consecutive frames (frames, rows, dim) of uint16 patterns."""
    size = lattice.norms(lattice.steps(frames[:-1], frames[1:]))
    values = lattice.value(frames).astype(np.float64)
    weight = np.sqrt(((values[1:] - values[:-1]) ** 2).sum(-1))
    return Moves(*size, weight, size.l2 > np.sqrt(frames.shape[-1]))


def moves_of_film(path: Path, rows: np.ndarray) -> Moves:
    """Moves of `rows` through a whole film."""
    return Moves(**join([vars(moves(frames)) for _, frames in films.pieces(path, rows)]))


@dataclass(frozen=True)
class Cloud:
    """A cloud through time; position arrays have one entry a frame, velocity arrays one a step."""

    centroid: np.ndarray  # (frames, dim)
    radius: np.ndarray  # (frames,) mean distance to the centroid
    rms: np.ndarray  # (frames,) root mean square distance
    largest: np.ndarray  # (frames,) greatest distance
    norm: np.ndarray  # (frames,) mean distance to zero
    bulk: np.ndarray  # (steps,) |v_bulk|^2
    thermal: np.ndarray  # (steps,) <|peculiar|^2>
    speed: np.ndarray  # (steps,) <|v|^2> = bulk + thermal, measured by itself
    outward: np.ndarray  # (steps,) mean change of distance to the centroid
    null: np.ndarray  # (steps,) the same if peculiar velocities pointed anywhere: see `null_drift`


def cloud(frames: np.ndarray) -> Cloud:
    """The cloud of `frames` (frames, rows, dim), in their own precision; means in float64."""
    centroid = frames.mean(1, dtype=np.float64)
    place = frames - centroid[:, None].astype(frames.dtype)
    distance = np.sqrt(_dot(place, place))
    velocity = frames[1:] - frames[:-1]
    bulk = velocity.mean(1, dtype=np.float64)
    peculiar = velocity - bulk[:, None].astype(frames.dtype)
    squared = _dot(peculiar, peculiar)
    return Cloud(
        centroid=centroid,
        radius=distance.mean(1),
        rms=np.sqrt((distance**2).mean(1)),
        largest=distance.max(1),
        norm=np.sqrt(_dot(frames, frames)).mean(1),
        bulk=(bulk**2).sum(-1),
        thermal=squared.mean(1),
        speed=_dot(velocity, velocity).mean(1),
        outward=(distance[1:] - distance[:-1]).mean(1),
        null=null_drift(np.sqrt(squared), distance[:-1], frames.shape[-1]).mean(1),
    )


def cloud_of_film(path: Path, rows: np.ndarray) -> Cloud:
    """The cloud of `rows` through a whole film."""
    pieces = (lattice.value(frames) for _, frames in films.pieces(path, rows))
    return Cloud(**join([vars(cloud(frames)) for frames in pieces]))


def null_drift(length: np.ndarray, distance: np.ndarray, dim: int) -> np.ndarray:
    """Mean growth of a distance by a step of given length in a random direction: like `length`.

    In D dimensions a random step is almost all tangential, and walking along the tangent of a
    sphere leads outwards: E[|x + u| - |x|] = |u|^2 (D - 1) / (2 D |x|) to second order.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(length**2 * (dim - 1) / (2 * dim * distance))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products along the last axis of (frames, rows, dim), float64."""
    return np.einsum("trd,trd->tr", a, b).astype(np.float64)


@dataclass(frozen=True)
class Shell:
    """The walk of rows as seen from their centroid, and the account of their squared distances.

    With x(t) the place of a row relative to the centroid and v(s) its steps, exactly

        |x(t)|^2 - |x(0)|^2 = sum |v(s)|^2 + (|sum v(s)|^2 - sum |v(s)|^2) + 2 x(0) . sum v(s)
                              walk            memory                         origin

    A walk whose steps know nothing of each other and of where they began has only the first term.
    """

    start: np.ndarray  # (rows, dim) float64: places at frame 0
    length: np.ndarray  # (steps, rows) float64: lengths of the steps
    radial: np.ndarray  # (steps,) mean squared component along the place before the step
    persistence: np.ndarray  # (steps,) mean cosine of a step with the step before; NaN at the first
    walk: np.ndarray  # (frames,) the three terms of the account, means over the rows
    memory: np.ndarray
    origin: np.ndarray
    growth: np.ndarray  # (frames,) mean |x(t)|^2 - |x(0)|^2, measured by itself


def shell(pieces: Iterable[np.ndarray]) -> Shell:
    """The shell of a film's `pieces` (frames, rows, dim) of values; each begins where the one
    before ends, and the whole may be one piece."""
    readings, start, before = [], None, None
    for frames in pieces:
        place = frames - frames.mean(1, keepdims=True, dtype=np.float64)
        if start is None:
            start, before = place[0], np.full_like(place[:1], np.nan)
        steps = np.concatenate([before, np.diff(place, axis=0)])
        length, distance = np.sqrt(_dot(steps, steps)), np.sqrt(_dot(place, place))
        with np.errstate(invalid="ignore", divide="ignore"):
            radial = np.nan_to_num(_dot(steps[1:], place[:-1]) / distance[:-1])
            cosine = _dot(steps[1:], steps[:-1]) / (length[1:] * length[:-1])
        away = place - start
        readings.append({
            "length": length[1:],
            "radial": (radial**2).mean(1),
            "persistence": np.ma.masked_invalid(cosine).mean(1).filled(np.nan),
            "square": (distance**2).mean(1),
            "away": _dot(away, away).mean(1),
            "origin": 2 * (away * start).sum(-1).mean(1),
        })  # fmt: skip
        before = steps[-1:]
    seen = join(readings)
    walk = np.append(0, np.cumsum((seen["length"] ** 2).mean(1)))
    memory, growth = seen.pop("away") - walk, seen["square"] - seen.pop("square")[0]
    return Shell(start=start, walk=walk, memory=memory, growth=growth, **seen)


def simulate_walks(
    start: np.ndarray, length: np.ndarray, *, walks: int, rng: np.random.Generator
) -> np.ndarray:
    """Mean distance of random walks: `walks` times each row of `start`, (walks, steps + 1) float64.

    start (rows, dim); length (steps, rows): every step has its recorded length and a direction
    drawn uniformly, independent of the place and of all other steps.
    """
    radius = np.empty((walks, len(length) + 1))
    for walk in range(walks):
        place = start.astype(np.float32)
        radius[walk, 0] = np.linalg.norm(place, axis=1).mean()
        for t, size in enumerate(length):
            direction = rng.standard_normal(place.shape, dtype=np.float32)
            direction *= (size / np.linalg.norm(direction, axis=1))[:, None].astype(np.float32)
            place += direction
            radius[walk, t + 1] = np.sqrt(np.einsum("rd,rd->r", place, place)).mean()
    return radius


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors divided by their length along the last axis, float64; zero vectors stay zero."""
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine along the last axis (broadcast); 0 where a vector is zero."""
    return (unit(a) * unit(b)).sum(-1)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between two vectors in degrees."""
    return float(np.degrees(np.arccos(np.clip(cosine(a, b), -1, 1))))


def mean_cosine(total: np.ndarray, lengths: np.ndarray) -> float:
    """Coherence: mean cosine of all pairs of unit vectors with this sum (dim,) and `lengths` (n,).

    Vectors of length zero are left out; one that is shorter than one counts for less in each of its
    pairs. NaN without a pair.
    """
    n = np.count_nonzero(lengths)
    return float((total @ total - lengths @ lengths) / (n * (n - 1))) if n > 1 else np.nan


class Alignment(NamedTuple):
    """Gradients of a set of rows through a film; all (steps,)."""

    norm: np.ndarray  # mean length of a row's gradient
    least: np.ndarray  # least length of a row's gradient
    coherence: np.ndarray  # mean cosine between two rows' gradients
    with_h: np.ndarray  # mean cosine between a row's gradient and the mean hidden state


def alignment_of_film(path: Path, rows: np.ndarray) -> Alignment:
    """Alignment of the recorded gradients of `rows`, step by step; needs W.grad and mean_h."""
    wind, found = unit(films.read(path, "mean_h")), []
    for before, patterns in films.pieces(path, rows, "W.grad"):
        for step, grads in enumerate(lattice.value(patterns[1:]), before + 1):
            length, total = np.linalg.norm(grads, axis=1), unit(grads).sum(0)
            pushed = (length > 0).astype(np.float64)
            with_h = total @ wind[step] / max(pushed.sum(), 1)
            found.append((length.mean(), length.min(), mean_cosine(total, pushed), with_h))
    return Alignment(*np.array(found).T)
