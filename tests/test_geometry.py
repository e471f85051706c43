"""Lengths, distances and axes: against plain float64 arithmetic and known answers."""

import numpy as np
import pytest
import torch

from lib import lattice
from lib.analysis import geometry

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
    assert np.allclose(geometry.norms(bits), np.linalg.norm(values, axis=1), rtol=1e-14)
    assert np.allclose(geometry.distances(bits, point), np.linalg.norm(values - point, axis=1))
    assert geometry.distances(bits, point)[7] == 0
    assert np.allclose(geometry.centroid(bits), values.mean(axis=0), rtol=1e-12)


def test_one_lattice_step_is_measured_exactly(rng):
    bits = np.repeat(bf16(rng.normal(size=(1, 64)) * 0.02), 2, axis=0)
    bits[1, 5] += 1
    step = abs(float(lattice.value(bits)[1, 5]) - float(lattice.value(bits)[0, 5]))
    found = geometry.distances(bits, lattice.value(bits)[0].astype(np.float64))
    assert found.tolist() == [0.0, step]


def test_blocks_cover_every_row_once_in_order(rng):
    rows = rng.normal(size=(101, 16))
    parts = list(geometry.blocks(rows, block_bytes=8 * 16 * 10))
    assert [part.start for part, _ in parts] == list(range(0, 101, 10))
    assert np.array_equal(np.concatenate([values for _, values in parts]), rows)


def test_covariance_and_axes_agree_with_numpy(rng):
    rows = (rng.normal(size=(900, 12)) * np.arange(1, 13) + 5).astype(np.float32)
    cov = geometry.covariance(rows)
    assert np.allclose(cov, np.cov(rows.astype(float).T, bias=True), rtol=1e-5, atol=1e-5)
    found = geometry.principal_axes(cov, 3)
    values, vectors = np.linalg.eigh(np.cov(rows.astype(float).T, bias=True))
    assert np.allclose(found.variances, values[::-1][:3], rtol=1e-5)
    assert np.allclose(np.abs(np.diag(found.axes.T @ vectors[:, ::-1][:, :3])), 1, atol=1e-5)
    assert found.trace == pytest.approx(values.sum(), rel=1e-5)


def test_covariance_far_from_the_origin_does_not_cancel(rng):
    rows = rng.normal(size=(2000, 8)) * 1e-4 + 100.0
    exact = np.cov(rows.T, bias=True)
    assert np.allclose(geometry.covariance(rows), exact, rtol=1e-4, atol=1e-4 * exact.max())


def test_axes_have_one_sign_whatever_the_solver_gave(rng):
    axes = np.linalg.qr(rng.normal(size=(30, 4)))[0]
    fixed = geometry.fix_signs(axes)
    assert np.array_equal(fixed, geometry.fix_signs(axes * [-1, 1, -1, -1]))
    assert (fixed[np.abs(fixed).argmax(axis=0), range(4)] > 0).all()


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
        list(geometry.blocks(rows))


def test_a_point_of_another_width_is_refused():
    with pytest.raises(geometry.GeometryError, match="5 components"):
        geometry.distances(np.zeros((3, 5)), np.zeros(4))


def crowd(rng, dim=64):
    """A tight ball far from the origin, with twins, among ordinary rows: float32 rows."""
    ball = rng.normal(size=dim) * 0.04 + rng.normal(size=(80, dim)) * 1e-6
    ball[10:30] = ball[10]
    return np.concatenate([ball, rng.normal(size=(400, dim)) * 0.06]).astype(np.float32)


def test_float32_products_merge_rows_that_differ_and_ours_do_not(rng):
    ball = crowd(rng)[:80]
    true = geometry.exact_distances(ball, ball)
    fast = torch.cdist(torch.from_numpy(ball), torch.from_numpy(ball)).numpy()
    differ = true > 0
    assert differ.sum() == 80 * 79 - 20 * 19  # twenty twins
    assert (np.abs(fast[differ] / true[differ] - 1) > 0.5).mean() > 0.5  # the pitfall is real here
    plain = np.sqrt(((ball[:, None].astype(float) - ball[None].astype(float)) ** 2).sum(-1))
    assert np.allclose(true, plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize("k", [1, 3, 25])
def test_nearest_equals_brute_force_even_in_a_tight_ball(rng, k):
    rows = crowd(rng)
    itself = np.arange(len(rows))
    found = geometry.nearest(rows, rows, k, skip=itself)
    every = geometry.exact_distances(rows, rows)
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
    every = np.sort(geometry.exact_distances(queries, rows), axis=1)
    assert np.array_equal(found.distances, every[:, :4])


def test_nearest_refuses_more_neighbours_than_rows():
    with pytest.raises(geometry.GeometryError, match="cannot give"):
        geometry.nearest(np.zeros((2, 3)), np.zeros((2, 3)), 2, skip=np.arange(2))


def test_the_error_bound_holds_and_is_not_absurd(rng):
    a, b = rng.normal(size=(60, 896)), rng.normal(size=(70, 896))
    a2, b2 = (a**2).sum(1), (b**2).sum(1)
    product = (a.astype(np.float32) @ b.astype(np.float32).T).astype(float)
    error = np.abs((a2[:, None] + b2 - 2 * product) - geometry.exact_distances(a, b) ** 2)
    bound = geometry.error_bound(a2, b2, 896)
    assert (error <= bound).all()
    assert bound.max() < 1e-3 * (a2.max() + b2.max())


def test_pairs_are_of_two_rows_and_measured_as_numpy_would(rng):
    rows = rng.normal(size=(40, 9))
    pairs = geometry.random_pairs(40, 5000, rng=rng)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert set(pairs.ravel()) == set(range(40))
    a, b = rows[pairs[:, 0]], rows[pairs[:, 1]]
    assert np.allclose(geometry.pair_distances(rows, pairs), np.linalg.norm(a - b, axis=1))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.allclose(geometry.pair_cosines(rows, pairs), cosine)


def test_a_zero_row_has_no_direction():
    with pytest.raises(geometry.GeometryError, match="no direction"):
        geometry.pair_cosines(np.zeros((2, 3)), np.array([[0, 1]]))


def test_controls_keep_what_they_should_and_lose_the_rest(rng):
    rows = rng.normal(size=(500, 20)) + np.arange(20)
    shuffled = geometry.shuffled_rows(rows, rng=rng)
    assert np.array_equal(np.sort(shuffled, axis=0), np.sort(rows, axis=0))
    assert not np.array_equal(shuffled, rows)
    gaussian = geometry.gaussian_rows(rows, rng=rng)
    assert (gaussian**2).mean() == pytest.approx((rows**2).mean(), rel=0.05)
    assert abs(gaussian.mean()) < 0.1 * rows.mean()


def test_counts_within_a_radius(rng):
    near = np.array([0.0, 1.0, 1.0, 2.0])
    assert geometry.counts_within(near, np.array([0.0, 0.5, 1.0, 3.0])).tolist() == [1, 1, 3, 4]
    two = np.array([[0.0, 1.0], [2.0, np.inf]])
    weighted = geometry.counts_within(two, np.array([1.5, 2.5]), np.array([1.0, 10.0]))
    assert weighted.tolist() == [5.5, 6.0]


def test_shell_density_of_an_even_ball_is_even(rng):
    points = rng.uniform(-1, 1, size=(200_000, 3))
    density = geometry.shell_density(np.linalg.norm(points, axis=1), np.linspace(0.2, 1, 9))
    assert np.allclose(density, 200_000 / 8, rtol=0.1)
    line = geometry.shell_density(np.array([0.1, 0.2, 0.6]), np.array([0.0, 0.5, 1.0]), dim=1)
    assert line.tolist() == [2, 1]  # both sides count
    with pytest.raises(geometry.GeometryError, match="896 dimensions"):
        geometry.shell_density(np.ones(3), np.array([0.0, 1.0]), dim=896)


@pytest.mark.parametrize("spread", [2e-7, 1e-5, 2e-4, 1e-3])
def test_rounding_is_undone_on_average(rng, spread):
    row, step, dim = rng.normal(size=4000) * 0.01, 2e-4, 4000
    moved = row + rng.normal(size=(200, dim)) * spread
    seen = np.linalg.norm(step * (np.round(moved / step) - np.round(row / step)), axis=1)
    true = np.sqrt(np.mean((moved - row) ** 2) * dim)
    square = np.sqrt(np.mean(seen**2))  # the relation is one of mean squares
    assert geometry.before_rounding(square, step, dim) == pytest.approx(true, rel=0.1)
    assert geometry.before_rounding(np.zeros(1), step, dim).tolist() == [0.0]


def test_the_causal_metric_makes_the_cloud_round(rng):
    rows = rng.normal(size=(5000, 10)) * np.arange(1, 11)
    cov, mean = np.cov(rows.T, bias=True), rows.mean(axis=0)
    seen = geometry.causal_metric(cov, mean, ridge=0).coordinates(rows)
    assert np.allclose(np.cov(seen.T, bias=True), np.eye(10), atol=1e-9)


def test_the_causal_metric_does_not_see_how_logits_are_written(rng):
    rows, change = rng.normal(size=(400, 6)), rng.normal(size=(6, 6))
    products = []
    for w in (rows, rows @ change):
        seen = geometry.causal_metric(np.cov(w.T, bias=True), w.mean(axis=0), ridge=0).coordinates(
            w
        )
        products.append(seen @ seen.T)
    assert np.allclose(products[0], products[1], atol=1e-8)


def test_a_flat_cloud_needs_a_ridge(rng):
    cov = np.diag([1.0, 1.0, 0.0])
    with pytest.raises(geometry.GeometryError, match="larger ridge"):
        geometry.causal_metric(cov, np.zeros(3), ridge=0)
    assert geometry.causal_metric(cov, np.zeros(3), ridge=0.1).condition < 20
