"""Motion of a cloud: each reading against a case whose answer is known, or by brute force."""

import numpy as np
import pytest
import torch

from lib import lattice
from lib.analysis import motion
from lib.training import films
from tests.small import DEAD, FILMED


def test_moves_by_segments_are_the_moves_of_the_whole(film):
    whole = motion.moves_of(films.read(film, "W", rows=DEAD))
    pieces = motion.moves_of_film(film, DEAD)
    for name in ("l1", "l2", "linf", "weight"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


def test_plus_and_minus_zero_are_one_place():
    frames = np.array([0x0000, 0x8000, 0x0001, 0x0001], np.uint16)[:, None, None]
    assert motion.moved(frames)[:, 0, 0].tolist() == [False, True, False]


def test_bulk_and_thermal_sum_exactly():
    frames = np.random.default_rng(0).normal(size=(7, 50, 6))
    cloud = motion.cloud(frames)
    np.testing.assert_allclose(cloud.bulk + cloud.thermal, cloud.speed, rtol=1e-12)
    distance = np.linalg.norm(frames - frames.mean(1, keepdims=True), axis=-1)
    np.testing.assert_allclose(cloud.radius, distance.mean(1))


def test_mean_squared_length_is_centroid_and_cloud():
    frames = np.random.default_rng(0).normal(size=(4, 30, 6)) + 2
    seen = motion.cloud(frames)
    np.testing.assert_allclose(seen.norm, np.linalg.norm(frames, axis=-1).mean(1))
    squares = (frames**2).sum(-1).mean(1)
    np.testing.assert_allclose((seen.centroid**2).sum(1) + seen.rms**2, squares)


def test_a_walk_in_random_directions_follows_its_null():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4000, 32))
    step = rng.normal(size=(4000, 32))
    step *= 0.6 / np.linalg.norm(step, axis=1, keepdims=True)
    cloud = motion.cloud(np.stack([start, start + step]))
    spread = 0.6 / 32**0.5 / 4000**0.5
    assert cloud.null[0] > 10 * spread  # the bias is there to be seen
    assert abs(cloud.outward[0] - cloud.null[0]) < 4 * spread


def test_coherence_is_the_mean_cosine_of_pairs():
    vectors = np.random.default_rng(0).normal(size=(9, 5)) + 1
    pairs = [motion.cosine(vectors[i], vectors[j]) for i in range(9) for j in range(i)]
    assert motion.coherence(vectors) == pytest.approx(np.mean(pairs))
    assert motion.coherence(np.ones((3, 4))) == pytest.approx(1)
    assert np.isnan(motion.coherence(np.zeros((3, 4))))
    small = 1e-15 * vectors  # torch's own measure of vectors shorter than its floor
    units = torch.nn.functional.normalize(torch.from_numpy(small), dim=1).numpy()
    pairs = [units[i] @ units[j] for i in range(9) for j in range(i)]
    assert motion.coherence(small, 1e-12) == pytest.approx(np.mean(pairs), rel=1e-9)
    assert motion.coherence(small) == pytest.approx(motion.coherence(vectors))


def test_epochs_of_a_drawn_breath():
    radius = np.array([1.0, 0.99, 0.98, 0.985, 0.99, 1.2, 1.3, 1.31])
    found = motion.epochs(radius)
    assert (found.inhale, found.sneeze, found.dip, found.winter) == (2, 5, 0.98, None)
    assert found.inhales
    frozen = np.array([0, 0, 0.5, 0.89, 0.9, 1, 1])
    assert motion.epochs(radius, frozen).winter == 5
    assert motion.epochs(radius, frozen / 2).winter is None


def test_alignment_through_a_film(film):
    along = motion.alignment_of_film(film, DEAD)
    grads = lattice.value(films.read(film, "W.grad", slice(1, None), DEAD))
    assert len(along.norm) == FILMED.steps
    for step in (0, 100, 159):
        assert along.coherence[step] == pytest.approx(motion.coherence(grads[step]))
        assert along.norm[step] == pytest.approx(np.linalg.norm(grads[step], axis=1).mean())


def test_the_account_of_the_radius_sums_and_splits():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(9, 40, 5)).cumsum(0)
    seen = motion.shell_of(frames)
    np.testing.assert_allclose(seen.walk + seen.memory + seen.origin, seen.growth, atol=1e-9)
    place = frames - frames.mean(1, keepdims=True)
    squares = (place**2).sum(-1).mean(1)
    np.testing.assert_allclose(seen.growth, squares - squares[0], atol=1e-9)
    np.testing.assert_allclose(seen.radial + seen.tangential, (seen.length**2).mean(1))
    np.testing.assert_allclose(seen.radius, motion.cloud(frames).radius)


def test_the_shell_of_a_movie_is_that_of_its_frames(film):
    whole = motion.shell_of(lattice.value(films.read(film, "W", rows=DEAD)))
    pieces = motion.shell_of_film(film, DEAD)
    for name in ("length", "radial", "tangential", "persistence", "radius", "walk", "growth"):
        np.testing.assert_allclose(
            getattr(whole, name), getattr(pieces, name), rtol=2e-4, atol=1e-7, err_msg=name
        )


def test_straight_motion_is_memory_and_a_pull_is_origin():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(200, 8))
    away = rng.normal(size=(200, 8))
    away -= away.mean(0)
    straight = motion.shell_of(start + np.arange(11)[:, None, None] * 0.1 * away)
    assert straight.memory[-1] == pytest.approx(9 * straight.walk[-1])  # |10 v|^2 - 10 |v|^2
    assert np.nanmin(straight.persistence) == pytest.approx(1)
    pulled = motion.shell_of(start * 0.9 ** np.arange(6)[:, None, None])
    assert pulled.origin[-1] < 0
    assert pulled.radial_share == pytest.approx(1)


def test_a_simulated_walk_follows_the_formula():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(500, 32)).astype(np.float32)
    length = np.full((20, 500), 0.5)
    walks = motion.simulate_walks(start, length, walks=3, rng=rng)
    distance = np.linalg.norm(start, axis=1)
    expected = motion.null_drift(length, np.broadcast_to(distance, length.shape), 32).sum(0).mean()
    assert walks[:, 0] == pytest.approx(distance.mean())
    assert np.abs(walks[:, -1] - walks[:, 0] - expected).max() < 0.2 * expected
    seen = motion.shell_of(start + np.zeros((2, 1, 1), np.float32))
    assert seen.walk[-1] == 0
