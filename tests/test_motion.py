"""Motion of a cloud: each reading against a case whose answer is known, or by brute force."""

import numpy as np
import pytest
import torch

from lib import lattice
from lib.analysis import motion
from lib.training import films
from tests import oracles
from tests.small import DEAD, FILMED


def test_moves_by_segments_are_the_moves_of_the_whole(film):
    whole = motion.moves(films.read(film, "W", rows=DEAD))
    pieces = motion.moves_of_film(film, DEAD)
    for name in ("l1", "l2", "linf", "weight", "wide"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


def test_plus_and_minus_zero_are_one_place():
    frames = np.array([0x0000, 0x8000, 0x0001, 0x0001], np.uint16)[:, None, None]
    assert motion.moves(frames).still.tolist() == [1, 0, 1]


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
    vectors[4] = 0
    units = motion.unit(vectors)
    some = np.linalg.norm(units, axis=1)
    assert motion.mean_cosine(units.sum(0), some) == pytest.approx(oracles.coherence(vectors))
    small = np.geomspace(1e-16, 1e-11, 9)[:, None] * vectors  # some shorter than torch's floor
    floored = torch.nn.functional.normalize(torch.from_numpy(small), dim=1).numpy()
    lengths = np.linalg.norm(floored, axis=1)
    assert 0 < lengths[0] < lengths[3] < 1
    wanted = oracles.coherence(small, floor=1e-12)
    assert motion.mean_cosine(floored.sum(0), lengths) == pytest.approx(wanted, rel=1e-9)
    assert np.isnan(motion.mean_cosine(np.ones(4), np.array([0.0, 1.0])))


def test_alignment_through_a_film(film):
    along = motion.alignment_of_film(film, DEAD)
    grads = lattice.value(films.read(film, "W.grad", slice(1, None), DEAD))
    assert len(along.norm) == FILMED.steps
    for step in (0, 100, 159):
        assert along.coherence[step] == pytest.approx(oracles.coherence(grads[step]))
        assert along.norm[step] == pytest.approx(np.linalg.norm(grads[step], axis=1).mean())


def test_the_account_of_the_radius_sums_and_splits():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(9, 40, 5)).cumsum(0)
    seen = motion.shell([frames])
    np.testing.assert_allclose(seen.walk + seen.memory + seen.origin, seen.growth, atol=1e-9)
    place = frames - frames.mean(1, keepdims=True)
    squares = (place**2).sum(-1).mean(1)
    np.testing.assert_allclose(seen.growth, squares - squares[0], atol=1e-9)
    outwards = (np.diff(place, axis=0) * motion.unit(place[:-1])).sum(-1)
    np.testing.assert_allclose(seen.radial, (outwards**2).mean(1))
    np.testing.assert_allclose(np.diff(seen.walk), (seen.length**2).mean(1))


def test_the_shell_of_a_movie_is_that_of_its_frames(film):
    whole = motion.shell([lattice.value(films.read(film, "W", rows=DEAD))])
    pieces = motion.shell(lattice.value(frames) for _, frames in films.pieces(film, DEAD))
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(pieces, name), values, 1e-9, 1e-12, err_msg=name)


def test_straight_motion_is_memory_and_a_pull_is_origin():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(200, 8))
    away = rng.normal(size=(200, 8))
    away -= away.mean(0)
    straight = motion.shell([start + np.arange(11)[:, None, None] * 0.1 * away])
    assert straight.memory[-1] == pytest.approx(9 * straight.walk[-1])  # |10 v|^2 - 10 |v|^2
    assert np.nanmin(straight.persistence) == pytest.approx(1)
    pulled = motion.shell([start * 0.9 ** np.arange(6)[:, None, None]])
    assert pulled.origin[-1] < 0
    assert pulled.radial.sum() == pytest.approx(pulled.walk[-1])


def test_a_simulated_walk_follows_the_formula():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(500, 32)).astype(np.float32)
    length = np.full((20, 500), 0.5)
    walks = motion.simulate_walks(start, length, walks=3, rng=rng)
    distance = np.linalg.norm(start, axis=1)
    expected = motion.null_drift(length, np.broadcast_to(distance, length.shape), 32).sum(0).mean()
    assert walks[:, 0] == pytest.approx(distance.mean())
    assert np.abs(walks[:, -1] - walks[:, 0] - expected).max() < 0.2 * expected
    seen = motion.shell([start + np.zeros((2, 1, 1), np.float32)])
    assert seen.walk[-1] == 0
