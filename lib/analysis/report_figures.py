"""The figures of a field report; nothing is drawn of what could not be measured."""

import matplotlib.pyplot as plt
import numpy as np

from lib import plots
from lib.analysis import sky
from lib.analysis.report import Report

RINGS = 100  # rows found dead that the map marks at most


def norms(found: Report) -> None:
    """Figure: the lengths of all rows, those found dead on top."""
    if len(found.finite) < 2:
        return
    dead = found.norms[found.found]
    edges = np.linspace(found.finite.min(), found.finite.max() + 1e-12, 200)
    _, ax = plt.subplots()
    ax.hist(found.finite, edges, color=plots.LIVE, label="all rows")
    if len(dead):
        ax.hist(dead[np.isfinite(dead)], edges, color=plots.DEAD, label="found dead")
    ax.set(xlabel="length of the row (units of the matrix)", ylabel="rows", yscale="log")
    ax.legend()
    plt.show()


def distances(found: Report) -> None:
    """Figure: the distances of all rows, those found dead on top, and the edges of the void."""
    if found.distances is None or (found.distances > 0).sum() < 2:
        return
    away = found.distances[found.distances > 0]
    edges = np.geomspace(away.min(), away.max() * 1.001, 160)
    dead = np.clip(found.distances[found.found], edges[0], None)
    _, ax = plt.subplots()
    ax.hist(away, edges, color=plots.LIVE, label="all rows")
    if len(dead):
        ax.hist(dead, edges, color=plots.DEAD, label="found dead")
    for radius in (found.void.inner, found.void.outer) if found.void else ():
        ax.axvline(max(radius, edges[0]), ls=":", color=plots.PALETTE["ink"])
    ax.set(xlabel="distance (units of the matrix)", ylabel="rows", xscale="log", yscale="log")
    ax.legend()
    plt.show()


def sky_map(found: Report) -> None:
    """Figure: every row a star, rings round at most RINGS of those found dead."""
    if found.sky is None:
        return
    view = sky.observe(found.sky.projection)
    density = sky.star_density(view, min(16, len(found.sky.ids)))
    ax = plots.sky_axes(plt.figure(figsize=(7.2, 3.9)), projection="mollweide")
    sky.graticule(ax)
    size = np.clip(20_000 / len(density), 0.4, 12)
    sky.stars(ax, np.radians(view.longitude), np.radians(view.latitude), density, size=size)
    dead = np.flatnonzero(np.isin(found.sky.ids, found.found))
    for star in dead[:: len(dead) // RINGS + 1]:
        sky.ring(ax, *np.radians([view.longitude[star], view.latitude[star]]), 5)
    plt.show()
