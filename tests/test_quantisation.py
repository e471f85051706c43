"""The evidence of quantisation, on values whose lattice is known."""

import numpy as np
import pytest

from lib import lattice, show
from lib.analysis import crystal


def test_powers_of_two_are_spelled_and_others_refused():
    assert show.power_of_two(2.0**-133) == "2⁻¹³³" and show.power_of_two(1) == "2⁰"
    with pytest.raises(ValueError, match="power of two"):
        show.power_of_two(5.96e-5)
    assert show.bits(0xBEBD) == "1 01111101 0111101"


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
