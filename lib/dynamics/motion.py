"""Motion of a cloud of rows: centroid and radius, bulk and thermal, radial and tangential.

Rows are float32 or float64 values in weight space, (rows, dim) or (frames, rows, dim); the
centroid is that of the rows given.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import lattice
from lib.dynamics import displacement


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


def cloud_of_movie(
    path: Path, rows: np.ndarray, stream: str = "W", stop: int | None = None
) -> Cloud:
    """The cloud of `rows` through a movie, read segment by segment."""
    parts = [
        (first, cloud(lattice.value(frames)))
        for first, frames in displacement.segments(path, rows, stream, stop)
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
