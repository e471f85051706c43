"""Crystals: shapes, flips and quantisation, on rows and tables whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from lib import lattice
from lib.analysis import crystal
from lib.analysis.graph import Adjacency


def test_portrait_of_a_rounded_gaussian_cloud_is_complete_and_independent():
    rng = np.random.default_rng(42)
    centre = rng.choice([-1, 1], 64).astype(np.float32) * rng.uniform(0.26, 0.49, 64).astype("f4")
    step = lattice.ulp(lattice.round_nearest(centre))
    centre = centre + step * rng.uniform(-0.5, 0.5, 64).astype(np.float32)
    rows = centre + np.float32(3e-5) * rng.standard_normal((200, 64)).astype(np.float32)
    found = crystal.portrait(lattice.round_nearest(rows), rng=rng, trials=50)
    assert found.populations.sum() == 200
    assert 1 < found.unique < 200 and 1 <= found.holes <= found.unique
    assert found.linf == 1 and found.graphs[Adjacency.NEIGHBOUR].is_complete
    assert abs(found.surprise) < 4


def test_portrait_of_rows_that_flip_together_is_not_independent(monkeypatch):
    rng = np.random.default_rng(42)
    bits = np.full((300, 8), 0x3C40, np.uint16)
    bits[:100] += 1
    bits[100:150, :4] += 1
    found = crystal.portrait(bits, rng=rng, trials=50)
    assert found.unique == 3 and found.surprise < -10 and found.dependent_pairs == 1
    alone = crystal.portrait(bits[:1], rng=rng, trials=5)
    assert (
        alone.varying == 0 and np.isnan(alone.dependent_pairs) and len(alone.independent.holes) == 0
    )
    monkeypatch.setattr(crystal, "MOST", 31)
    many = crystal.portrait(np.arange(64, dtype=np.uint16).reshape(32, 2), rng=rng, trials=5)
    assert many.unique == 32 and many.graphs == {}


def all_combinations(bits):
    return np.array([[i >> b & 1 for b in range(bits)] for i in range(2**bits)])


def test_states_number_the_values_of_each_column():
    assert crystal.states(np.array([[5, -1], [5, 7], [9, -1]])).tolist() == [[0, 0], [0, 1], [1, 0]]


def test_independent_flips_look_independent():
    table = all_combinations(3)
    populations = np.full(8, 100)
    tests = crystal.pairs(table, populations)
    assert all(p.p == 1 and p.cramer == 0 and p.combinations == 4 for p in tests)
    null = crystal.product(table, populations, rng=np.random.default_rng(42), trials=50)
    assert (null.distinct == 8).all() and (null.holes == 8).all()
    assert null.largest.shape == (50, 4)
    assert (np.diff(null.largest) <= 0).all() and (null.largest[:, 0] >= 100).all()


def test_one_flip_that_determines_another_is_seen():
    table = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]])
    by_dims = {(p.left, p.right): p for p in crystal.pairs(table, np.array([40, 30, 20, 10]))}
    assert by_dims[0, 1].cramer == pytest.approx(1) and by_dims[0, 1].p < 1e-10
    assert by_dims[0, 1].combinations == 2 < by_dims[0, 2].combinations
    hand = np.array([[40, 20], [30, 10]])
    expected = hand.sum(1, keepdims=True) * hand.sum(0) / 100
    chi2 = ((hand - expected) ** 2 / expected).sum()
    assert by_dims[0, 2].cramer == pytest.approx(np.sqrt(chi2 / 100))
    assert by_dims[0, 2].p == pytest.approx(stats.chi2.sf(chi2, 1))
    rng = np.random.default_rng(1)
    null = crystal.product(table, np.array([40, 30, 20, 10]), rng=rng, trials=20)
    assert (null.distinct > 4).all()


def test_half_precision_is_rounded_once():
    bits = np.arange(0x7C00, dtype=np.uint16)
    expected = lattice.round_nearest(bits.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(crystal.half_precision(bits), expected)


def test_the_rows_that_coincide_in_an_independent_cloud_lie_above_their_shuffles():
    """Leaving out single rows cannot make independent dimensions look tied: rather the contrary."""
    rng = np.random.default_rng(42)
    table = (rng.random((600, 10)) < rng.uniform(0.02, 0.4, 10)).astype(int)
    rows, populations = np.unique(table, axis=0, return_counts=True)
    held = populations > 1
    assert np.sum(~held) > 0 and held.sum() > 20
    whole = crystal.product(rows, populations, rng=rng, trials=30)
    assert abs(whole.surprise(held.sum())) < 4
    assert (whole.single == whole.distinct - whole.holes).all()
    chosen = crystal.product(rows[held], populations[held], rng=rng, trials=30)
    assert chosen.surprise(held.sum()) > 1
    assert np.isnan(crystal.product(rows[:1], np.array([5]), rng=rng, trials=3).surprise(1))
