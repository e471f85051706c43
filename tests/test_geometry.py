"""Lengths, distances and axes: against plain float64 arithmetic and known answers."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lib import lattice
from lib.analysis import geometry
from tests.small import specimen_of

SEED = 42


@pytest.fixture
def rng():
    return np.random.default_rng(SEED)


def bf16(values: np.ndarray) -> np.ndarray:
    return lattice.round_nearest(values.astype(np.float32))


def test_lengths_of_bf16_rows_equal_float64_arithmetic(rng):
    bits = bf16(rng.normal(size=(300, 40)) * 0.02)
    values = lattice.value(bits).astype(np.float64)
    point = values[7]
    assert np.allclose(geometry.distances(bits, point), np.linalg.norm(values - point, axis=1))
    assert geometry.distances(bits, point)[7] == 0
    assert np.allclose(geometry.centroid(bits), values.mean(axis=0), rtol=1e-12)


def test_one_lattice_step_is_measured_exactly(rng):
    bits = np.repeat(bf16(rng.normal(size=(1, 64)) * 0.02), 2, axis=0)
    bits[1, 5] += 1
    step = abs(float(lattice.value(bits)[1, 5]) - float(lattice.value(bits)[0, 5]))
    found = geometry.distances(bits, lattice.value(bits)[0].astype(np.float64))
    assert found.tolist() == [0.0, step]


def test_blocks_cover_every_row_once_in_order(rng, monkeypatch):
    monkeypatch.setattr(geometry, "BLOCK_BYTES", 8 * 16 * 10)
    rows = rng.normal(size=(101, 16))
    parts = list(geometry.blocks(rows, "test"))
    assert [len(values) for values in parts] == [10] * 10 + [1]
    assert np.array_equal(np.concatenate(parts), rows)
    whole = specimen_of("test", bf16(rows), source="here")
    assert np.array_equal(
        np.concatenate(list(geometry.blocks(whole, "test"))), whole.values(np.s_[:])
    )


def test_covariance_and_axes_agree_with_numpy(rng):
    rows = (rng.normal(size=(900, 12)) * np.arange(1, 13) + 5).astype(np.float32)
    cov = geometry.covariance(rows, geometry.centroid(rows))
    assert np.allclose(cov, np.cov(rows.astype(float).T, bias=True), rtol=1e-5, atol=1e-5)
    axes, variances = geometry.principal_axes(cov, 3)
    values, vectors = np.linalg.eigh(np.cov(rows.astype(float).T, bias=True))
    assert np.allclose(variances, values[::-1][:3], rtol=1e-5)
    assert np.allclose(np.abs(np.diag(axes.T @ vectors[:, ::-1][:, :3])), 1, atol=1e-5)


def test_covariance_far_from_the_origin_does_not_cancel(rng):
    rows = rng.normal(size=(2000, 8)) * 1e-4 + 100.0
    exact = np.cov(rows.T, bias=True)
    found = geometry.covariance(rows, rows.mean(axis=0))
    assert np.allclose(found, exact, rtol=1e-4, atol=1e-4 * exact.max())


def test_axes_have_one_sign_whatever_the_solver_gives(rng, monkeypatch):
    axes = np.linalg.qr(rng.normal(size=(30, 4)))[0]
    found = []
    for signs in (np.ones(4), np.array([-1, 1, -1, -1])):
        solver = (np.arange(4.0), axes * signs)
        monkeypatch.setattr(geometry.linalg, "eigh", lambda cov, solver=solver, **_: solver)
        found.append(geometry.principal_axes(np.eye(30), 4)[0])
    assert np.array_equal(*found)
    assert (found[0][np.abs(found[0]).argmax(axis=0), range(4)] > 0).all()


def test_projection_is_of_uncentred_rows(rng):
    rows = rng.normal(size=(50, 6)) + 3
    axes = np.linalg.qr(rng.normal(size=(6, 3)))[0]
    assert np.allclose(geometry.project(rows, axes), rows @ axes)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (np.zeros((3, 4), dtype=np.int32), "bfloat16 bits"),
        (np.array([[1.0, np.nan]]), "NaN"),
        (np.full((2, 2), 0x7F80, dtype=np.uint16), "infinity"),
        (np.zeros(5), "matrix"),
    ],
)
def test_rows_without_a_geometry_are_refused(rows, what):
    with pytest.raises(geometry.GeometryError, match=what):
        list(geometry.blocks(rows, "test"))


def test_a_point_of_another_width_is_refused():
    with pytest.raises(geometry.GeometryError, match="a point of shape"):
        geometry.distances(np.zeros((3, 5)), np.zeros(4))


def crowd(rng, dim=64):
    """A tight ball far from the origin, with twins, among ordinary rows: float32 rows."""
    ball = rng.normal(size=dim) * 0.04 + rng.normal(size=(80, dim)) * 1e-6
    ball[10:30] = ball[10]
    return np.concatenate([ball, rng.normal(size=(400, dim)) * 0.06]).astype(np.float32)


@pytest.mark.parametrize("k", [1, 3, 25])
def test_nearest_equals_brute_force_even_in_a_tight_ball(rng, k):
    rows = crowd(rng)
    itself = np.arange(len(rows))
    found = geometry.nearest(rows, rows, k, skip=itself)
    every = cdist(rows, rows)
    np.fill_diagonal(every, np.inf)
    assert np.array_equal(found.distances, np.sort(every, axis=1)[:, :k])
    assert np.array_equal(found.distances, np.take_along_axis(every, found.ids, axis=1))
    assert found.measured < every.size / 2  # it did screen


def test_nearest_across_several_blocks_and_batches(rng, monkeypatch):
    monkeypatch.setattr(geometry, "ROWS", 37)
    monkeypatch.setattr(geometry, "QUERIES", 13)
    rows = crowd(rng, dim=16)
    queries = rows[::7]
    found = geometry.nearest(queries, rows, 4)
    every = np.sort(cdist(queries, rows), axis=1)
    assert np.array_equal(found.distances, every[:, :4])


def test_nearest_refuses_more_neighbours_than_rows():
    with pytest.raises(geometry.GeometryError, match="cannot give"):
        geometry.nearest(np.zeros((2, 3)), np.zeros((2, 3)), 2, skip=np.arange(2))


def test_the_error_bound_holds_and_is_not_absurd(rng):
    a, b = rng.normal(size=(60, 896)), rng.normal(size=(70, 896))
    a2, b2 = (a**2).sum(1), (b**2).sum(1)
    product = (a.astype(np.float32) @ b.astype(np.float32).T).astype(float)
    error = np.abs((a2[:, None] + b2 - 2 * product) - cdist(a, b) ** 2)
    bound = geometry.error_bound(a2, b2, 896)
    assert (error <= bound).all()
    assert bound.max() < 1e-3 * (a2.max() + b2.max())


@pytest.mark.parametrize("spread", [2e-7, 1e-5, 2e-4, 1e-3])
def test_rounding_is_undone_on_average(rng, spread):
    row, step, dim = rng.normal(size=4000) * 0.01, 2e-4, 4000
    moved = row + rng.normal(size=(200, dim)) * spread
    seen = np.linalg.norm(step * (np.round(moved / step) - np.round(row / step)), axis=1)
    true = np.sqrt(np.mean((moved - row) ** 2) * dim)
    square = np.sqrt(np.mean(seen**2))  # the relation is one of mean squares
    assert geometry.before_rounding(square, step, dim) == pytest.approx(true, rel=0.1)
    assert geometry.before_rounding(np.zeros(1), step, dim).tolist() == [0.0]
