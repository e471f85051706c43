"""The house style: what a chapter that calls it can count on."""

import matplotlib as mpl
import pytest
from matplotlib import font_manager

from lib import paths, plots, show


@pytest.fixture(autouse=True)
def as_before():
    """Matplotlib's settings are those of before the test."""
    with mpl.rc_context():
        yield


def test_the_style_sets_size_colours_and_how_numbers_are_shown(monkeypatch):
    asked = []
    monkeypatch.setattr(show, "in_text", lambda: asked.append(True))
    plots.use_house_style()
    assert asked == [True] and mpl.rcParams["image.cmap"] == "inferno"
    assert mpl.rcParams["figure.dpi"] == mpl.rcParams["savefig.dpi"] == plots.DPI
    assert mpl.rcParams["figure.facecolor"] == plots.PAPER
    cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    assert len(set(cycle)) == 6 and set(cycle) <= set(plots.PALETTE.values())
    plots.use_house_style("viridis")
    assert mpl.rcParams["image.cmap"] == "viridis"


def test_labels_may_be_in_every_script_of_the_book():
    plots.use_house_style()
    families = mpl.rcParams["font.family"]
    shipped = {font.resolve() for font in (paths.DATA / "fonts").glob("*.[ot]tf")}
    found = {font_manager.findfont(family, fallback_to_default=False) for family in families[1:]}
    assert shipped and {font.name for font in shipped} == {f.rpartition("/")[2] for f in found}
    fonts = [font_manager.get_font(font) for font in found]
    for character in "กשا龍":
        assert any(font.get_char_index(ord(character)) for font in fonts), character
