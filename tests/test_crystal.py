"""Crystals: shapes, flips and quantisation, on rows and tables whose answer is known."""

import numpy as np
import pytest

from lib import lattice
from lib.analysis import crystal
from lib.analysis.crystal import Zone
from lib.analysis.graph import Adjacency


def test_the_box_counts_steps_values_and_exponents():
    bits = np.array(
        [[0x3F80, 0x0001, 0x3C00], [0x3F82, 0x8001, 0x3C00], [0x3F7F, 0x0001, 0x3C00]], "u2"
    )
    found = crystal.box(bits)
    assert found.extent.tolist() == [3, 2, 0]
    assert found.diversity.tolist() == [3, 2, 1]
    assert found.mantissa_only.tolist() == [False, False, True]
    assert found.constant == 1 and found.log10_cells == pytest.approx(np.log10(12))


def test_float16_has_ten_bits_of_mantissa():
    half = np.array([[1.0], [1.5], [1.9]], dtype=np.float16).view(np.uint16)
    assert crystal.box(half, mantissa_bits=10).mantissa_only.all()
    assert not crystal.box(half, mantissa_bits=7).mantissa_only.any()


def test_zones_by_radius():
    found = crystal.zones(np.array([0, 1, 2, 5, 7, 9.0]), core=1, inner=2, outer=5, oort=7)
    assert found.tolist() == [Zone.CORE, Zone.CORE, Zone.HALO, Zone.OORT, Zone.OORT, Zone.FIELD]
    with pytest.raises(ValueError, match="ascend"):
        crystal.zones(np.zeros(1), core=3, inner=2, outer=5, oort=7)


def test_profile_per_e_fold():
    rows, density = crystal.profile(np.array([1.5, 1.6, 3.0]), np.array([1.0, np.e, np.e**3]))
    assert rows.tolist() == [2, 1] and density == pytest.approx([2, 0.5])


def test_portrait_of_a_rounded_gaussian_cloud_is_complete_and_independent():
    rng = np.random.default_rng(42)
    centre = rng.choice([-1, 1], 64).astype(np.float32) * rng.uniform(0.26, 0.49, 64).astype("f4")
    step = lattice.ulp(lattice.round_nearest(centre))
    centre = centre + step * rng.uniform(-0.5, 0.5, 64).astype(np.float32)
    rows = centre + np.float32(3e-5) * rng.standard_normal((200, 64)).astype(np.float32)
    found = crystal.portrait(lattice.round_nearest(rows), rng=rng, trials=50)
    assert found.rows == found.populations.sum() == 200
    assert 1 < found.distinct < 200 and 1 <= found.holes <= found.distinct
    assert found.box.extent.max() == 1 and found.graphs[Adjacency.NEIGHBOUR].is_complete
    assert abs(found.surprise) < 4
    mean, spread = crystal.expected_varying(rows)
    assert 0 < spread < mean**0.5 and abs(found.varying - mean) < 4 * spread


def test_portrait_of_rows_that_flip_together_is_not_independent():
    rng = np.random.default_rng(42)
    bits = np.full((300, 8), 0x3C40, np.uint16)
    bits[:100] += 1
    bits[100:150, :4] += 1
    found = crystal.portrait(bits, rng=rng, trials=50)
    assert found.distinct == 3 and found.surprise < -10 and found.dependent_pairs == 1
    alone = crystal.portrait(bits[:1], rng=rng, trials=5)
    assert alone.varying == 0 and np.isnan(alone.dependent_pairs) and len(alone.independent) == 0
    many = crystal.portrait(
        np.arange(64, dtype=np.uint16).reshape(32, 2), rng=rng, trials=5, largest=31
    )
    assert many.distinct == 32 and many.graphs == {}


def test_constant_dimensions_and_what_centring_does_to_them():
    values = np.array(
        [[1.0, 2.0, 0.001], [1.0, 2.015625, 0.001], [1.0, 2.0, 0.00100708]], np.float32
    )
    bits = lattice.round_nearest(values)
    assert crystal.constant_dimensions(bits) == 1
    assert crystal.constant_dimensions(bits, np.zeros(3)) == 1
    assert (
        crystal.constant_dimensions(bits, np.array([0, 0, 1e6])) == 2
    )  # merged by the subtraction


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


def test_round_trips_tell_the_format():
    x = np.random.default_rng(42).normal(size=4000).astype(np.float32)
    brain = lattice.value(lattice.round_nearest(x))
    half = x.astype(np.float16).astype(np.float32)
    assert crystal.survivors(brain)["bfloat16"] == 1
    assert crystal.survivors(half)["float16"] == 1
    assert 0.05 < crystal.survivors(half)["bfloat16"] < 0.25  # three bits too many: 1/8
    assert max(crystal.survivors(x).values()) < 0.01


def test_gaps_are_steps():
    values = lattice.value(np.arange(0x3F80, 0x3FC0, dtype=np.uint16))
    length, count = crystal.gaps(np.concatenate([values, values]))
    assert length.tolist() == [2.0**-7] and count.tolist() == [63]


def test_half_precision_is_rounded_once():
    bits = np.arange(0x7C00, dtype=np.uint16)
    expected = lattice.round_nearest(bits.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(crystal.half_precision(bits), expected)


def test_the_spread_is_recovered_from_which_dimensions_vary():
    rng = np.random.default_rng(42)
    step = 2.0 ** rng.integers(-28, -12, 4000)
    width = 3e-7
    varies = rng.random(step.size) < np.minimum(1, width / step)
    fit = crystal.fit_spread(step, varies, rng=rng, trials=200)
    assert fit.low < width < fit.high and fit.p_value > 0.01
    assert fit.classes[:, 1].sum() == step.size and fit.classes[:, 2].sum() == varies.sum()
    wrong = rng.random(step.size) < 0.1  # no relation to the step
    assert crystal.fit_spread(step, wrong, rng=rng, trials=200).p_value < 0.01
    with pytest.raises(ValueError, match="some dimensions vary"):
        crystal.fit_spread(step, np.zeros(step.size, bool), rng=rng)
