"""Tests of independence on tables whose answer is known."""

import numpy as np
import pytest

from lib.analysis import crystal


def all_combinations(bits):
    return np.array([[i >> b & 1 for b in range(bits)] for i in range(2**bits)])


def test_states_number_the_values_of_each_column():
    assert crystal.states(np.array([[5, -1], [5, 7], [9, -1]])).tolist() == [[0, 0], [0, 1], [1, 0]]


def test_independent_flips_look_independent():
    table = all_combinations(3)
    populations = np.full(8, 100)
    assert all(
        p.chi2 == 0 and p.cramer == 0 and p.combinations == 4
        for p in crystal.pairs(table, populations)
    )
    null = crystal.product(table, populations, rng=np.random.default_rng(42), trials=50)
    assert (null.distinct == 8).all() and null.largest.shape == (50, 4)


def test_one_flip_that_determines_another_is_seen():
    table = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]])
    by_dims = {(p.left, p.right): p for p in crystal.pairs(table, np.array([40, 30, 20, 10]))}
    assert by_dims[0, 1].cramer == pytest.approx(1) and by_dims[0, 1].p < 1e-10
    assert by_dims[0, 1].combinations == 2 < by_dims[0, 2].combinations
    hand = np.array([[40, 20], [30, 10]])
    expected = hand.sum(1, keepdims=True) * hand.sum(0) / 100
    assert by_dims[0, 2].chi2 == pytest.approx(((hand - expected) ** 2 / expected).sum())
    null = crystal.product(
        table, np.array([40, 30, 20, 10]), rng=np.random.default_rng(1), trials=20
    )
    assert (null.distinct > 4).all()


def test_shattering_counts_the_dimensions_of_a_cloud():
    assert crystal.shattered(all_combinations(3)) == 3
    line = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])  # walls crossed one by one
    assert crystal.shattered(line) == 1
    plane = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert crystal.shattered(plane) == 2
    assert crystal.shattered(np.array([[0], [1], [2]])) == 0  # no dimension with two states


def test_a_line_of_descent_is_consistent_and_a_cube_is_not():
    line = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    assert crystal.consistency(line) == 1
    assert sorted(crystal.tree(line).edges) == [(0, 1), (1, 2), (2, 3)]
    cube = all_combinations(3)
    assert crystal.consistency(cube) == pytest.approx(3 / 7)
    null = crystal.consistency_null(line, rng=np.random.default_rng(0), trials=30)
    assert len(null) == 30 and null.mean() < 1


def test_a_line_cut_by_walls_has_one_cell_more_than_walls():
    table = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    populations = np.array([40, 30, 20, 10])
    rng = np.random.default_rng(42)
    assert (crystal.low_rank(table, populations, 1, rng=rng, trials=20) == 4).mean() > 0.9
    plane = crystal.low_rank(table, populations, 2, rng=rng, trials=20)
    assert plane.max() <= 8 and plane.mean() > 4.5
