"""Values as the text shows them: every form, and the display that inline values take."""

from types import SimpleNamespace

import numpy as np
import pypandoc
import pytest
from IPython.core.formatters import DisplayFormatter

from lib import show


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (2560, "2,560"),
        (np.int64(-3), "−3"),
        (np.uint16(65_535), "65,535"),
        (6.3, "6.30"),
        (0.0123456, "0.0123"),
        (-151_936.4, "−151,936"),
        (6.14e-6, "6.14\u00a0×\u00a010⁻⁶"),
        (np.float32(-2.5e7), "−2.50\u00a0×\u00a010⁷"),
    ],
)
def test_numbers_have_three_digits_and_typographic_signs(value, text):
    assert show.number(value) == text


FORMS = [
    (show.number, (0.01234, 2), "0.012"),
    (show.number, (1234.5, 5), "1,234.5"),
    (show.fixed, (1234.567,), "1,234.57"),
    (show.percent, (0.123,), "12\u00a0%"),
    (show.percent, (np.float32(-0.5), 1), "−50.0\u00a0%"),
    (show.scientific, (1.5e-9,), "1.5\u00a0×\u00a010⁻⁹"),
    (show.scientific, (-123456.0, 4), "−1.235\u00a0×\u00a010⁵"),
    (show.signed, (1.25,), "+1.2"),
    (show.signed, (-0.31,), "−0.3"),
    (show.signed, (-0.04,), "0.0"),  # what rounds to zero has no sign
    (show.signed, (0.0, 2), "0.00"),
    (show.signed, (3, 0), "+3"),
    (show.signed, (-0.2, 0), "0"),
    (show.signed, (np.float32(-12.345), 2), "−12.35"),
    (show.power_of_two, (2.0**-133,), "2⁻¹³³"),
    (show.power_of_two, (1,), "2⁰"),
    (show.listed, ([1000, 0.5, "x"],), "1,000, 0.500, x"),
]


@pytest.mark.parametrize(("form", "arguments", "text"), FORMS)
def test_another_form_is_asked_for_by_name(form, arguments, text):
    assert form(*arguments) == text


@pytest.mark.parametrize("form", [show.number, show.scientific, show.signed, show.fixed,
                                  show.percent])  # fmt: skip
@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), -float("inf")])
def test_a_figure_that_is_not_finite_is_refused(form, value):
    with pytest.raises(ValueError, match="finite"):
        form(value)


def test_what_is_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match="power of two"):
        show.power_of_two(5.96e-5)


NASTY = [
    "a*b_c [d](e)", "# one", "1. two", "- three", "+ four", "$x$ ~s~ ^t^", "<b> &amp; @key",
    'it\'s "so"... and --- then', "`code` ``", "| a | b |", "\\ \\n {.x}", "![x](y)", "~~gone~~",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_a_plain_text_is_shown_as_it_is(text):
    """Pandoc reads back just this text: nothing in it is markup."""
    options = ["--wrap=none"]
    read = pypandoc.convert_text(show.plain(text), "json", "markdown", extra_args=options)
    words = pypandoc.convert_text(read, "plain", "json", extra_args=options).strip()
    assert words == text and '"Str"' in read and "RawInline" not in read
    assert "Header" not in read and "List" not in read


def test_a_table_has_a_rule_and_says_nothing_by_markup_of_its_cells():
    rows = [["a|b", 1234, 0.5], ["two\nlines", -3, "~ 7"]]
    assert show.table(rows, ["name", "n", "x"]).data.split("\n") == [
        "| name | n | x |",
        "|:---|---:|---:|",
        "| a\\|b | 1,234 | 0.500 |",
        "| two lines | −3 | ~ 7 |",
    ]
    assert show.table(rows, ["name", "n", "x"], "lcr").data.split("\n")[1] == "|:---|:---:|---:|"
    assert show.table([], ["a", "b"]).data.split("\n") == ["| a | b |", "|---:|---:|"]
    with pytest.raises(ValueError, match="zip"):
        show.table([[1, 2], [3]], ["a", "b"])


def test_the_kernel_shows_values_as_the_house_writes_them(monkeypatch):
    kernel = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(show, "get_ipython", lambda: kernel)
    show.in_text()

    def shown(value):
        return kernel.display_formatter.format(value)[0].get("text/markdown")

    for value in (2560, np.int64(2560), np.uint16(2560)):
        assert shown(value) == "2,560"
    for value in (0.0123456, np.float64(0.0123456), np.float32(0.0123456)):
        assert shown(value) == "0.0123"
    assert (shown(True), shown(False)) == ("yes", "no")
    assert shown("a_b") == "a\\_b" and shown(show.percent(0.5)) == "50\u00a0%"
    assert shown([1]) is None
    monkeypatch.setattr(show, "get_ipython", lambda: None)
    show.in_text()  # outside a kernel there is nothing to do
