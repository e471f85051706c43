"""Boxes, zones and profiles of rows whose shape is known."""

import numpy as np
import pytest

from lib.survey import crystal
from lib.survey.crystal import Zone


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
