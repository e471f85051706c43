"""The sky of a matrix: rows as stars, seen from a point, and drawn as the naked eye would see them.

Three principal coordinates of a row make a point in space: the first axis points to the meridian
(x), the third to the equinox (y), the second to the north pole (z). Angles are in degrees, east
and north positive. The geometry is one of `(n, 3)` points and knows nothing of tokens; what draws,
draws on axes that it is given (`plots.sky_axes`): stars on black, brighter where they crowd.
"""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.colors import to_hex as hexadecimal
from matplotlib.pyplot import get_cmap
from scipy.spatial import cKDTree

from lib import foreign, plots


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


def directions(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """(n,) and (n,) degrees -> (n, 3) float64 unit vectors (x, y, z)."""
    lon, lat = np.radians(longitude), np.radians(latitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def orthographic(sky: Sky, longitude: float, latitude: float) -> np.ndarray:
    """(3, n) float64 in [-1, 1]: the globe from far away, (longitude, latitude) in its middle.

    Each star's place to the east and to the north on the disc, and towards the eye: positive on
    the near side. Differences are taken before the sines, so that fields of a billionth of a
    degree stay sharp.
    """
    d_lon = np.radians(sky.longitude - longitude)
    lat, lat0 = np.radians(sky.latitude), np.radians(latitude)
    half = 2 * np.sin(d_lon / 2) ** 2  # 1 - cos(d_lon)
    east = np.cos(lat) * np.sin(d_lon)
    north = np.sin(lat - lat0) + np.sin(lat0) * np.cos(lat) * half
    towards = np.cos(lat - lat0) - np.cos(lat0) * np.cos(lat) * half
    return np.stack([east, north, towards])


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
    east, north, towards = orthographic(sky, longitude, latitude)
    ahead = towards > 1e-9
    scale = np.divide(np.degrees(1), towards, out=np.zeros_like(towards), where=ahead)
    east, north = east * scale, north * scale
    inside = ahead & (np.abs(east) <= _half(width)) & (np.abs(north) <= _half(width))
    return Field(inside, east[inside], north[inside])


def _half(width: float) -> float:
    """From the middle to the edge of a field, in degrees at its centre."""
    return float(np.degrees(np.tan(np.radians(width / 2))))


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


DIMMEST = 0.22  # of the colour map: darker would not be seen on black
SHADES = 64  # of the colour map that stars have
MARK = plots.PALETTE["sky"]
CAMERA = {"x": -1.49, "y": -2.16, "z": 1.15}  # of the room; far enough off for a narrow page


def starlight() -> Colormap:
    """The colour map in force without its dark end, so that the loneliest star is seen on black."""
    shades = get_cmap()(np.linspace(DIMMEST, 1, 256))
    return LinearSegmentedColormap.from_list("starlight", shades)


def brightness(density: np.ndarray) -> LogNorm:
    """A logarithmic scale for a density: from its 2nd percentile to three times its 90th.

    A cluster of a few stars in a hundred is beyond the end and shines, and does not dim the rest.
    """
    low, high = np.percentile(density, [2, 90])
    high *= 3
    return LogNorm(max(low, 1e-9), max(high, 2 * low, 1e-8), clip=True)


def stars(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    density: np.ndarray,
    *,
    size: float = 0.4,
    norm: LogNorm | None = None,
) -> ScalarMappable:
    """All points (x, y), each (n,), coloured by their (n,) density, the densest drawn last.

    `norm`: the scale of brightness, default `brightness(density)`, in SHADES steps: stars of one
    step are one set of equal markers, which matplotlib draws in one go.
    """
    scale = ScalarMappable(norm or brightness(density), starlight())
    order = np.argsort(density, kind="stable")
    shade = (np.asarray(scale.norm(density[order])) * (SHADES - 1)).round().astype(int)
    for chosen in np.split(order, np.flatnonzero(np.diff(shade)) + 1):
        color = scale.to_rgba(np.median(density[chosen]))
        ax.scatter(x[chosen], y[chosen], s=size, lw=0, color=color, rasterized=True)
    return scale


def map_of(ax: Axes, sky: Sky, density: np.ndarray) -> ScalarMappable:
    """All stars on axes with a geographic projection (Mollweide: equal areas stay equal)."""
    graticule(ax)
    return stars(ax, np.radians(sky.longitude), np.radians(sky.latitude), density)


def graticule(ax: Axes) -> None:
    """Meridians every 60 degrees and parallels every 30, with small labels."""
    ax.set_longitude_grid(60)
    ax.set_latitude_grid(30)
    ax.tick_params(labelsize=6.5, colors="#9a9a9a")


def globe(ax: Axes, sky: Sky, density: np.ndarray, longitude: float, latitude: float) -> None:
    """The near side of the globe with (longitude, latitude) in the middle of its disc."""
    for lat in range(-60, 61, 30):
        _curve(ax, np.linspace(-180, 180, 361), np.full(361, float(lat)), longitude, latitude)
    for lon in range(-180, 180, 30):
        _curve(ax, np.full(181, float(lon)), np.linspace(-90, 90, 181), longitude, latitude)
    rim = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(rim), np.sin(rim), color="#777777", lw=0.8)
    ax.set(aspect="equal", xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.grid(False)
    east, north, towards = orthographic(sky, longitude, latitude)
    near = towards > 0
    stars(ax, east[near], north[near], density[near], norm=brightness(density))


def _curve(ax: Axes, lon: np.ndarray, lat: np.ndarray, lon0: float, lat0: float) -> None:
    """A line of the graticule, where it is on the near side."""
    east, north, towards = orthographic(Sky(np.ones_like(lon), lon, lat), lon0, lat0)
    east[towards <= 0] = np.nan
    ax.plot(east, north, color="#ffffff", alpha=0.18, lw=0.5, zorder=0)


def field_of_view(
    ax: Axes, field: Field, width: float, density: np.ndarray, *, inner: float = 0
) -> None:
    """What a telescope shows, with the frame of the next, narrower field of `inner` degrees."""
    size = float(np.clip(3000 / max(field.inside.sum(), 1), 0.5, 9))
    if field.inside.any():  # an empty field is black
        stars(ax, field.east, field.north, density[field.inside], size=size)
    half, edge = _half(width), _half(inner)
    ax.set(aspect="equal", xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[])
    ax.grid(False)
    if inner:
        ax.plot(edge * np.array([-1, 1, 1, -1, -1]), edge * np.array([-1, -1, 1, 1, -1]),
                color=MARK, lw=0.8)  # fmt: skip


def ring(ax: Axes, x: float, y: float, size: float = 14) -> None:
    """A thin ring round a place, so that a point too small to see can be found."""
    ax.plot([x], [y], "o", ms=size, mfc="none", mec=MARK, mew=0.9, zorder=5)


def room(points: np.ndarray, density: np.ndarray, dead: np.ndarray, names: list[str]) -> go.Figure:
    """(n, 3) principal coordinates -> an interactive 3-D sky; `names` (n,) show on hovering.

    Coordinates are rounded to four digits and sent as float32, which keeps the page small.
    """
    shade = np.asarray(brightness(density[~dead])(density[~dead])).round(2).astype(np.float32)
    shades = [[i / 8, hexadecimal(starlight()(i / 8))] for i in range(9)]
    glow = {"size": 1.4, "color": shade, "colorscale": shades, "cmin": 0, "cmax": 1}
    circle = {"size": 14, "color": MARK, "symbol": "circle-open"}
    figure = go.Figure()
    for chosen, label, marker in ((~dead, "live rows", glow), (dead, "the dead ball", circle)):
        x, z, y = points[chosen].round(4).astype(np.float32).T
        figure.add_scatter3d(
            x=x, y=y, z=z, mode="markers", name=label, marker=marker | {"line": {"width": 0}},
            text=[foreign.in_html(name) for name, yes in zip(names, chosen, strict=True) if yes],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    look = {"backgroundcolor": plots.SKY, "gridcolor": "#333333", "color": "#bdbdbd"}
    look |= {"zeroline": True, "zerolinecolor": "#777777"}
    scene = {"aspectmode": "data", "bgcolor": plots.SKY, "camera": {"eye": CAMERA}}
    for name, number in (("xaxis", 1), ("yaxis", 3), ("zaxis", 2)):
        low, high = np.percentile(points[:, number - 1], [0.2, 99.8])  # a few are far out
        edge = 0.05 * (high - low)
        scene[name] = look | {"title": {"text": f"PC {number}"}, "range": [low - edge, high + edge]}
    figure.update_layout(
        scene=scene,
        paper_bgcolor=plots.SKY, font={"color": "#e6e6e6"}, autosize=True,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"x": 0.02, "y": 0.98, "itemsizing": "constant", "bgcolor": "rgba(0,0,0,0)"},
    )  # fmt: skip
    return figure
