"""Motion of a cloud of rows: centroid and radius, bulk and thermal, radial and tangential.

Rows are float32 or float64 values in weight space, (rows, dim) or (frames, rows, dim); the
centroid is that of the rows given.

The walk on a shell: radial and tangential motion, a simulated null, an account of the radius.

Everything is in the cloud's comoving frame: places relative to the centroid of the rows given.
With x(t) the place of a row and v(s) its steps, so that x(t) = x(0) + sum v(s), exactly

    |x(t)|^2 - |x(0)|^2 = sum |v(s)|^2 + (|sum v(s)|^2 - sum |v(s)|^2) + 2 x(0) . sum v(s)
                          walk            memory                         origin

A walk whose steps know nothing of each other and of where they began has only the first term.

What pushes a token: the gradient of the unembedding, computed by hand and read from films.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import lattice
from lib.training import films
from lib.training.films import pieces


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


def moves_of(frames: np.ndarray) -> Moves:
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


def moves_of_film(
    path: Path, rows: np.ndarray, stream: str = "W", stop: int | None = None
) -> Moves:
    """Moves of `rows` through a whole film, read segment by segment."""
    parts = [moves_of(frames) for _, frames in pieces(path, rows, stream, stop)]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("l1", "l2", "linf", "weight")
    }
    return Moves(**joined, dim=parts[0].dim)


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
    radial: np.ndarray  # (steps,) mean outward component of the peculiar velocity
    outward: np.ndarray  # (steps,) mean change of distance to the centroid
    null: np.ndarray  # (steps,) the same if peculiar velocities pointed anywhere: see `null_drift`


OF_FRAMES = ("centroid", "radius", "rms", "largest", "norm")  # the others are of steps


def cloud(frames: np.ndarray) -> Cloud:
    """The cloud of `frames` (frames, rows, dim), in their own precision; means in float64."""
    w = np.asarray(frames)
    centroid = w.mean(1, dtype=np.float64)
    place = w - centroid[:, None].astype(w.dtype)
    distance = np.sqrt(_squares(place, place))
    velocity = w[1:] - w[:-1]
    bulk = velocity.mean(1, dtype=np.float64)
    speed = _squares(velocity, velocity).mean(1)
    peculiar = velocity - bulk[:, None].astype(w.dtype)
    squared = _squares(peculiar, peculiar)
    with np.errstate(invalid="ignore", divide="ignore"):
        radial = np.nan_to_num(_squares(peculiar, place[:-1]) / distance[:-1])
    return Cloud(
        centroid=centroid,
        radius=distance.mean(1),
        rms=np.sqrt((distance**2).mean(1)),
        largest=distance.max(1),
        norm=np.sqrt(_squares(w, w)).mean(1),
        bulk=(bulk**2).sum(-1),
        thermal=squared.mean(1),
        speed=speed,
        radial=radial.mean(1),
        outward=(distance[1:] - distance[:-1]).mean(1),
        null=null_drift(np.sqrt(squared), distance[:-1], w.shape[-1]).mean(1),
    )


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products along the last axis, float64."""
    return np.einsum("trd,trd->tr", a, b).astype(np.float64)


def null_drift(length: np.ndarray, distance: np.ndarray, dim: int) -> np.ndarray:
    """Mean growth of a distance by a step of given length in a random direction: like `length`.

    In D dimensions a random step is almost all tangential, and walking along the tangent of a
    sphere leads outwards: E[|x + u| - |x|] = |u|^2 (D - 1) / (2 D |x|) to second order.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(length**2 * (dim - 1) / (2 * dim * distance))


def cloud_of_film(
    path: Path, rows: np.ndarray, stream: str = "W", stop: int | None = None
) -> Cloud:
    """The cloud of `rows` through a film, read segment by segment."""
    parts = [
        (first, cloud(lattice.value(frames)))
        for first, frames in films.pieces(path, rows, stream, stop)
    ]
    joined = {}
    for name in Cloud.__dataclass_fields__:
        pieces = [getattr(part, name) for _, part in parts]
        if name in OF_FRAMES:  # the first frame of a piece repeats
            pieces = [
                p if first == 0 else p[1:] for (first, _), p in zip(parts, pieces, strict=True)
            ]
        joined[name] = np.concatenate(pieces)
    return Cloud(**joined)


@dataclass(frozen=True)
class Epochs:
    """Frames at which the cloud's life turns.

    Inhale (up to the least radius before the sneeze), sneeze (up to the fastest growth of the
    radius), deceleration, and fimbulwinter (from the frame at which most rows are frozen for good).
    """

    inhale: int  # least radius before the sneeze
    sneeze: int  # fastest growth of the radius
    dip: float  # radius at the inhale, as a share of the first
    winter: int | None  # first step from which `share` of the rows never move again; None: never

    @property
    def inhales(self) -> bool:
        return self.dip < 1


def epochs(
    radius: np.ndarray,
    frozen: np.ndarray | None = None,
    *,
    horizon: int | None = None,
    share: float = 0.9,
) -> Epochs:
    """Epochs from radius (frames,), inhale and sneeze looked for in the first `horizon` frames.

    `radius` may be the mean distance to the centroid or to zero (`Cloud.norm`).

    `frozen` (steps,) is the share of rows that will not move again (phases.frozen); without it
    there is no winter.
    """
    early = np.asarray(radius[:horizon], np.float64)
    sneeze = int(np.diff(early).argmax()) + 1
    inhale = int(early[: sneeze + 1].argmin())
    reached = np.array([], bool) if frozen is None else np.asarray(frozen) >= share
    winter = int(reached.argmax()) + 1 if reached.any() else None
    return Epochs(inhale, sneeze, float(early[inhale] / early[0]), winter)


def coherence(vectors: np.ndarray, floor: float = 0.0) -> float:
    """Mean cosine between all pairs of vectors (n, dim), zero vectors left out; NaN if n < 2.

    `floor` as in `unit`.
    """
    units = unit(vectors, floor)
    units = units[np.abs(units).sum(1) > 0]
    n = len(units)
    if n < 2:
        return float("nan")
    return float(((units.sum(0) ** 2).sum() - (units**2).sum()) / (n * (n - 1)))


def mean_cosine(total: np.ndarray, lengths: np.ndarray) -> float:
    """Mean cosine of all pairs of vectors with this sum and these lengths, none where it is zero.

    The same number as `coherence`, for vectors that are at hand only once. NaN without a pair.
    """
    n = np.count_nonzero(lengths)
    if n < 2:
        return float("nan")
    return float((total @ total - lengths @ lengths) / (n * (n - 1)))


def cosine(a: np.ndarray, b: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Cosine along the last axis (broadcast); 0 where a vector is zero. `floor` as in `unit`."""
    return (unit(a, floor) * unit(b, floor)).sum(-1)


def unit(vectors: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Vectors divided by their length along the last axis; zero vectors stay zero.

    Lengths below `floor` count as `floor`, as in `torch.nn.functional.normalize` (there 1e-12):
    shorter vectors then come out shorter than one.
    """
    vectors = np.asarray(vectors, np.float64)
    length = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), floor)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between two vectors in degrees."""
    return float(np.degrees(np.arccos(np.clip(cosine(a, b), -1, 1))))


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


def shell_of(frames: np.ndarray) -> Shell:
    """The shell of `frames` (frames, rows, dim) float32 or float64 values."""
    place = frames - frames.mean(1, keepdims=True, dtype=np.float64).astype(frames.dtype)
    return _join_shell(place[0], [_shell_piece(place, place[0], None)])


def shell_of_film(
    path: Path, rows: np.ndarray, stream: str = "W", stop: int | None = None
) -> Shell:
    """The shell of `rows` through a film, read segment by segment."""
    pieces, start, last = [], None, None
    for _, patterns in films.pieces(path, rows, stream, stop):
        frames = lattice.value(patterns)
        place = frames - frames.mean(1, keepdims=True, dtype=np.float64).astype(frames.dtype)
        start = place[0] if start is None else start
        pieces.append(_shell_piece(place, start, last))
        last = place[-1] - place[-2]
    return _join_shell(start, pieces)


def _shell_piece(
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


def _join_shell(start: np.ndarray, pieces: list[dict[str, np.ndarray]]) -> Shell:
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


def simulate_walks(
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


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float64."""
    shifted = np.exp(np.asarray(logits, np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@dataclass(frozen=True)
class Alignment:
    """Gradients of a set of rows through a film; all (steps,)."""

    norm: np.ndarray  # mean length of a row's gradient
    least: np.ndarray  # least length of a row's gradient
    coherence: np.ndarray  # mean cosine between two rows' gradients
    with_h: np.ndarray  # mean cosine between a row's gradient and the mean hidden state


def alignment(grads: np.ndarray, mean_h: np.ndarray) -> Alignment:
    """Alignment of gradients (steps, rows, dim) with each other and with mean_h (steps, dim)."""
    units = unit(grads)
    length = np.linalg.norm(grads, axis=-1)
    count = (length > 0).sum(1)
    total = units.sum(1)
    pairs = np.maximum(count * (count - 1), 1)
    return Alignment(
        norm=length.mean(1),
        least=length.min(1),
        coherence=((total**2).sum(-1) - count) / pairs,
        with_h=(total * unit(mean_h)).sum(-1) / np.maximum(count, 1),
    )


def alignment_of_film(path: Path, rows: np.ndarray) -> Alignment:
    """Alignment of the recorded gradients of `rows`, step by step; needs W.grad and mean_h."""
    count, parts = films.about(path)["W.grad"][0], []
    for start in range(0, count, films.KEY):
        span = slice(max(start, 1), min(start + films.KEY, count))
        grads = lattice.value(films.read(path, "W.grad", span, rows))
        parts.append(alignment(grads, films.read(path, "mean_h", span)))
    names = Alignment.__dataclass_fields__
    return Alignment(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})
