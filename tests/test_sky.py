"""The sky: places, fields and densities whose answers are known, and what is drawn of them."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from lib import plots
from lib.analysis import sky

SEED = 42


@pytest.fixture
def rng():
    return np.random.default_rng(SEED)


def test_axes_of_the_sky_point_where_the_book_says():
    view = sky.observe(np.array([[2.0, 0, 0], [0, 3.0, 0], [0, 0, 4.0], [-1.0, 0, 0], [0, 0, 0]]))
    assert np.allclose(view.radius, [2, 3, 4, 1, 0])
    assert np.allclose(view.latitude, [0, 90, 0, 0, 0])  # axis 2 is north
    assert np.allclose(view.longitude[[0, 2, 3]], [0, 90, 180])  # axis 1 meridian, 3 equinox


def test_directions_undo_observation_from_any_origin(rng):
    points, origin = rng.normal(size=(500, 3)), np.array([0.3, -0.2, 0.9])
    view = sky.observe(points, origin)
    x, y, z = (sky.directions(view.longitude, view.latitude) * view.radius[:, None]).T
    assert np.allclose(np.stack([x, z, y], axis=1) + origin, points)


def test_a_telescope_sees_a_square_of_its_width():
    lon = np.array([0.0, 4.9, 5.1, -4.9, 180.0])
    view = sky.Sky(np.ones(5), lon, np.zeros(5))
    field = sky.telescope(view, 0, 0, 10)
    assert field.inside.tolist() == [True, True, False, True, False]
    assert field.east[1] == pytest.approx(np.degrees(np.tan(np.radians(4.9))))


def test_a_telescope_stays_sharp_at_a_billionth_of_a_degree():
    offsets = np.array([-1e-9, 0.0, 2e-9])
    view = sky.Sky(np.ones(3), 37.0 + offsets * 2, np.full(3, 60.0))
    field = sky.telescope(view, 37, 60, 1e-8)
    assert np.allclose(field.east, offsets, rtol=1e-4, atol=1e-14)  # cos 60 = 1/2; 37 has ulp 7e-15


@pytest.mark.parametrize("width", [0, -1, 170])
def test_impossible_fields_are_refused(width):
    with pytest.raises(ValueError, match="field of view"):
        sky.telescope(sky.Sky(np.ones(1), np.zeros(1), np.zeros(1)), 0, 0, width)


def test_a_globe_shows_each_star_on_one_side(rng):
    view = sky.observe(rng.normal(size=(400, 3)))
    front, back = sky.orthographic(view, 20, 30), sky.orthographic(view, 200, -30)
    assert np.allclose(front[2], -back[2])
    middle = sky.orthographic(sky.Sky(np.ones(1), np.array([20.0]), np.array([30.0])), 20, 30)
    assert np.allclose(middle[:, 0], [0, 0, 1])
    assert np.allclose((front**2).sum(axis=0), 1)


def test_density_of_an_even_sky_is_even(rng):
    view = sky.observe(rng.normal(size=(20_000, 3)))
    even = 20_000 / (129600 / np.pi)  # stars over square degrees of the sphere
    assert np.median(sky.star_density(view, 40)) == pytest.approx(even, rel=0.1)
    lon, lat = np.meshgrid(np.arange(-177, 180, 6), np.arange(-87, 90, 6))
    field = sky.star_density(view, 40, sky.directions(lon, lat).reshape(-1, 3))
    areas = np.cos(np.radians(lat)).ravel()
    assert (field * areas).sum() / areas.sum() == pytest.approx(even, rel=0.1)


def test_identical_directions_do_not_divide_by_zero():
    view = sky.Sky(np.ones(50), np.zeros(50), np.zeros(50))
    assert np.isfinite(sky.star_density(view, 5)).all()


def test_the_telescope_is_aimed_at_a_clump_across_the_seam(rng):
    lon = np.concatenate([rng.uniform(-180, 180, 3000), 180 + rng.normal(0, 0.01, 300)])
    lat = np.concatenate([rng.uniform(-60, 60, 3000), 10 + rng.normal(0, 0.01, 300)])
    view = sky.Sky(np.ones(3300), (lon + 180) % 360 - 180, lat)
    found = sky.aim(view, sky.star_density(view, 16), 0.2)
    assert abs((found[0] - 180 + 180) % 360 - 180) < 0.01
    assert found[1] == pytest.approx(10, abs=0.01)


def test_a_sky_needs_three_coordinates():
    with pytest.raises(ValueError, match="three coordinates"):
        sky.observe(np.zeros((4, 2)))


def test_every_star_is_drawn_and_none_is_too_dim(rng):
    view = sky.observe(rng.normal(size=(3000, 3)))
    ax = plots.sky_axes(Figure(), projection="mollweide")
    drawn = sky.map_of(ax, view, sky.star_density(view, 8))
    assert sum(len(group.get_offsets()) for group in ax.collections) == 3000
    assert all(group.get_rasterized() for group in ax.collections)
    colors = np.concatenate([group.get_facecolor() for group in ax.collections])[:, :3]
    assert colors.max(axis=1).min() > 0.3  # visible on black
    shown = [drawn.to_rgba(value)[:3] for value in drawn.get_clim()]
    assert np.allclose([colors[0], colors[-1]], shown, atol=0.05)  # the bar shows what is drawn


def test_the_room_is_small_and_holds_every_dead_row(rng):
    points, density = rng.normal(size=(1300, 3)), rng.uniform(1, 9, 1300)
    dead = np.arange(1300) < 300
    room = sky.room(points, density, dead, [f"id {i}" for i in range(1300)])
    assert [len(trace.text) for trace in room.data] == [1000, 300]
    assert len(room.to_json()) < 80_000
