"""Numbers as the text writes them."""

import numpy as np
import pytest

from lib import show


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (2560, "2,560"),
        (np.int64(-3), "−3"),
        (6.3, "6.30"),
        (0.0123456, "0.0123"),
        (-151_936.4, "−151,936"),
        (6.14e-6, "6.14\u00a0×\u00a010⁻⁶"),
    ],
)
def test_numbers_have_three_digits_and_typographic_signs(value, text):
    assert show.number(value) == text


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [(1.25, 1, "+1.2"), (-0.31, 1, "−0.3"), (-0.04, 1, "0.0"), (0.0, 2, "0.00"), (3, 0, "+3"),
     (-0.2, 0, "0"), (np.float32(-12.345), 2, "−12.35"), (10.0, 0, "+10")],
)  # fmt: skip
def test_what_rounds_to_zero_has_no_sign(value, places, text):
    assert show.signed(value, places) == text


@pytest.mark.parametrize("write", [show.number, show.scientific, show.signed])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_not_finite_is_refused(write, value):
    with pytest.raises(ValueError, match="finite"):
        write(value)
