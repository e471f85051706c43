"""Boxes, zones and profiles of rows whose shape is known."""

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
