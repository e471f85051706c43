"""The sky of a matrix: rows as stars, seen from a point, on maps and through a telescope.

Three principal coordinates of a row make a point in space: the first axis points to the meridian
(x), the third to the equinox (y), the second to the north pole (z). Angles are in degrees, east
and north positive. Everything here is geometry of `(n, 3)` points and knows nothing of tokens.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree


class Sky(NamedTuple):
    """Where each row stands, seen from one point: three float64 arrays (n,)."""

    radius: np.ndarray  # distance in the three coordinates, in the units of the matrix
    longitude: np.ndarray  # degrees, -180..180, 0 at the meridian
    latitude: np.ndarray  # degrees, -90..90, 90 at the second axis


def observe(projection: np.ndarray, origin: np.ndarray | None = None) -> Sky:
    """(n, 3) principal coordinates 1..3 -> their Sky from `origin` (3,), default the zero row.

    With the cluster's centroid as origin this is the view in W', the translated space. A row at
    the origin itself has radius 0 and is put at longitude and latitude 0.
    """
    points = np.asarray(projection, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"a sky needs three coordinates a row, not an array of {points.shape}")
    if origin is not None:
        points = points - np.asarray(origin, dtype=np.float64)
    x, z, y = points.T  # axes 1, 2, 3
    radius = np.sqrt(x * x + y * y + z * z)
    sine = np.divide(z, radius, out=np.zeros_like(z), where=radius > 0)
    return Sky(radius, np.degrees(np.arctan2(y, x)), np.degrees(np.arcsin(np.clip(sine, -1, 1))))


def turn(sky: Sky, longitude: float) -> Sky:
    """The same sky with this longitude in the middle of the map: longitudes count from it."""
    return sky._replace(longitude=(sky.longitude - longitude + 180) % 360 - 180)


def aim(sky: Sky, density: np.ndarray, width: float) -> tuple[float, float]:
    """(longitude, latitude) of the middle of the most crowded place, in degrees.

    From the star with the largest (n,) density, to the median of the stars in a field `width`
    degrees wide round it.
    """
    brightest = int(np.argmax(density))
    place = float(sky.longitude[brightest]), float(sky.latitude[brightest])
    found = telescope(sky, *place, width).inside
    east = (sky.longitude[found] - place[0] + 180) % 360 - 180
    return place[0] + float(np.median(east)), float(np.median(sky.latitude[found]))


def square_share(width: float) -> float:
    """The fraction of the whole sky that a square field `width` degrees wide covers."""
    return float(np.arcsin(np.sin(np.radians(width / 2)) ** 2) / np.pi)


def directions(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """(n,) and (n,) degrees -> (n, 3) float64 unit vectors (x, y, z)."""
    lon, lat = np.radians(longitude), np.radians(latitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def orthographic(
    sky: Sky, longitude: float, latitude: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The globe seen from far away, with (longitude, latitude) in the middle of its disc.

    Returns x (east), y (north), both (n,) in [-1, 1], and (n,) bool: on the near side.
    """
    east, north, towards = _turn(sky, longitude, latitude)
    return east, north, towards > 0


class Field(NamedTuple):
    """What a telescope shows: rows in a square window, and their offsets from its middle."""

    inside: np.ndarray  # (n,) bool
    east: np.ndarray  # (m,) degrees east of the middle, for the m rows inside
    north: np.ndarray  # (m,) degrees


def telescope(sky: Sky, longitude: float, latitude: float, width: float) -> Field:
    """The rows in a square field `width` degrees wide (under 170), centred on a direction.

    Offsets are gnomonic (great circles are straight), in degrees at the centre of the field.
    """
    if not 0 < width < 170:
        raise ValueError(f"a field of view is between 0 and 170 degrees wide, not {width}")
    east, north, towards = _turn(sky, longitude, latitude)
    ahead = towards > 1e-9
    scale = np.divide(np.degrees(1), towards, out=np.zeros_like(towards), where=ahead)
    half = np.degrees(np.tan(np.radians(width / 2)))
    east, north = east * scale, north * scale
    inside = ahead & (np.abs(east) <= half) & (np.abs(north) <= half)
    return Field(inside, east[inside], north[inside])


def _turn(sky: Sky, longitude: float, latitude: float) -> np.ndarray:
    """(3, n): each direction's components east, north and towards (longitude, latitude).

    Differences are taken before the sines, so that fields of a billionth of a degree stay sharp.
    """
    d_lon = np.radians(sky.longitude - longitude)
    lat, lat0 = np.radians(sky.latitude), np.radians(latitude)
    half = 2 * np.sin(d_lon / 2) ** 2  # 1 - cos(d_lon)
    east = np.cos(lat) * np.sin(d_lon)
    north = np.sin(lat - lat0) + np.sin(lat0) * np.cos(lat) * half
    towards = np.cos(lat - lat0) - np.cos(lat0) * np.cos(lat) * half
    return np.stack([east, north, towards])


def star_density(sky: Sky, neighbours: int, at: np.ndarray | None = None) -> np.ndarray:
    """(m,) float64: rows per square degree round each of the (m, 3) unit vectors `at`.

    The k-nearest-neighbour estimate: k rows over the solid angle of the cap that reaches the k-th.
    Default `at`: the rows themselves. Identical directions give a cap of at least 1e-7 degrees.
    """
    stars = directions(sky.longitude, sky.latitude)
    tree = cKDTree(stars, compact_nodes=False, balanced_tree=False)  # fast with many duplicates
    chord, _ = tree.query(stars if at is None else at, k=[neighbours], workers=1)
    chord = np.maximum(chord[:, 0], np.radians(1e-7))
    return neighbours / (np.pi * chord**2 * np.degrees(1) ** 2)  # a cap's area is pi chord^2


class Raster(NamedTuple):
    """A density on a grid of cells: edges in degrees, values (rows, columns), south first."""

    longitude: np.ndarray
    latitude: np.ndarray
    density: np.ndarray  # rows per square degree


def density_field(sky: Sky, neighbours: int, cells: int = 360) -> Raster:
    """The star density at the centres of `cells` x `cells`/2 cells over the whole sky."""
    lon = np.linspace(-180, 180, cells + 1)
    lat = np.linspace(-90, 90, cells // 2 + 1)
    grid = np.meshgrid((lon[1:] + lon[:-1]) / 2, (lat[1:] + lat[:-1]) / 2)
    density = star_density(sky, neighbours, directions(*grid).reshape(-1, 3))
    return Raster(lon, lat, density.reshape(grid[0].shape))
