"""The table behind a figure holds what was drawn, in the units of the axes, and nothing else."""

import base64
import csv
import gzip
import io

import matplotlib
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

from lib import figure_data

matplotlib.use("Agg")


def rows(table: bytes) -> list[dict[str, str]]:
    lines = [line for line in table.decode().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(io.StringIO("\n".join(lines))))


def column(found: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in found]


@pytest.fixture
def figure() -> Figure:
    return Figure()


def test_a_curve_and_a_line_across_the_panel(figure):
    ax = figure.subplots()
    ax.semilogy([1, 2, 3], [1.5, np.nan, 1e-9], label='one, "two"')
    ax.axvline(2.5, label="here")
    ax.set(xlabel="steps", ylabel="loss", title="A title")
    table = figure_data.of_matplotlib(figure)
    assert table.startswith(b"# panel 1: A title; x = steps; y = loss (log)\n")
    curve, line = rows(table)[:3], rows(table)[3:]
    assert {row["series"] for row in curve} == {'one, "two"'}
    assert [(row["x"], row["y"]) for row in curve] == [("1", "1.5"), ("2", ""), ("3", "1e-09")]
    assert [(row["series"], row["x"], row["y"]) for row in line] == [("here", "2.5", "")]


def test_bars_have_both_corners_and_the_names_on_the_axis(figure):
    ax = figure.subplots()
    ax.bar(["Thai", "Han"], [3, 5], label="dead")
    table = figure_data.of_matplotlib(figure)
    assert b"0 is Thai, 1 is Han" in table
    found = rows(table)
    assert {(row["mark"], row["series"]) for row in found} == {("bars", "dead")}
    assert column(found, "y2") == [3, 5]
    assert np.allclose((np.add(column(found, "x"), column(found, "x2"))) / 2, [0, 1])


def test_points_with_a_value_in_two_panels(figure):
    left, right = figure.subplots(1, 2)
    right.scatter([1, 2], [3, 4], c=[5, 6])
    left.scatter([0], [0])
    figure.colorbar(right.collections[0], ax=right)
    found = rows(figure_data.of_matplotlib(figure))
    assert [row["panel"] for row in found] == ["1", "2", "2"]
    assert [row["value"] for row in found] == ["", "5", "6"]


def test_many_points_have_five_digits_and_their_ids_all(figure):
    ids = np.arange(151_936.0)[-20_000:]
    figure.subplots().plot(ids, ids / 7, ".")
    last = rows(figure_data.of_matplotlib(figure))[-1]
    assert (last["x"], last["y"], last["mark"]) == ("151935", "21705", "points")


@pytest.mark.parametrize("origin", ["upper", "lower"])
def test_a_map_says_of_each_cell_where_it_stands(figure, origin):
    values = np.arange(6.0).reshape(2, 3)
    figure.subplots().imshow(values, origin=origin)
    found = rows(figure_data.of_matplotlib(figure))
    assert {(row["x"], row["y"]): row["value"] for row in found} == {
        (str(x), str(y)): f"{values[y, x]:g}" for x in range(3) for y in range(2)
    }


def test_a_mesh_a_histogram_steps_a_band_and_hexagons(figure):
    mesh, bars, steps, band, hexagons, lines = figure.subplots(2, 3).ravel()
    mesh.pcolormesh([0, 1, 2], [0, 1], [[7, 8]])
    bars.hist([1, 1, 2], bins=[0.5, 1.5, 2.5])
    steps.stairs([4, 5], [0, 1, 2], label="steps")
    band.fill_between([0, 1], [0, 0], [1, 2])
    hexagons.hexbin([0, 0, 1], [0, 0, 1], gridsize=3)
    lines.vlines([1, 2], 0, [3, 4])
    found = rows(figure_data.of_matplotlib(figure))

    def of(panel):
        return [row for row in found if row["panel"] == str(panel)]

    assert [(r["x"], r["value"]) for r in of(1)] == [("0.5", "7"), ("1.5", "8")]
    assert column(of(2), "y2") == [2, 1]
    assert column(of(3), "y") == [4, 5] and of(3)[0]["mark"] == "steps"
    assert {(r["x"], r["y"]) for r in of(4)} == {("0", "0"), ("1", "0"), ("0", "1"), ("1", "2")}
    assert sum(column([r for r in of(5) if r["value"]], "value")) == 3
    assert [(r["part"], r["y"]) for r in of(6)] == [("1", "0"), ("1", "3"), ("2", "0"), ("2", "4")]


def test_the_interactive_figures_of_plotly():
    packed = base64.b64encode(np.array([1.5, 2.5], np.float32)).decode()
    trace = {"name": "dead", "x": [1, 2], "y": {"dtype": "f4", "bdata": packed}}
    output = {"data": {figure_data.PLOTLY: {"data": [trace]}}}
    found = rows(figure_data.files_of("fig-room", [output])["fig-room.csv"])
    assert [(r["series"], r["x"], r["y"]) for r in found] == [
        ("dead", "1", "1.5"),
        ("dead", "2", "2.5"),
    ]


def test_a_kernel_keeps_the_table_of_a_figure_and_of_nothing_else(monkeypatch, figure):
    shell = InteractiveShell.instance()
    monkeypatch.setattr(figure_data, "get_ipython", lambda: shell)
    figure_data.in_kernel()
    try:
        figure.subplots().plot([1, 2], [3, 4])
        for formatter in shell.display_formatter.formatters.values():
            formatter.pop(Figure, None)  # as matplotlib's backend for notebooks does
        data, _ = shell.display_formatter.format(figure)
        found = figure_data.files_of("fig-a", [{"data": data}])
        assert found == {"fig-a.csv": figure_data.of_matplotlib(figure)}
        data, _ = shell.display_formatter.format("text")
        assert figure_data.files_of("fig-a", [{"data": data}]) == {}
    finally:
        InteractiveShell.clear_instance()


def kept(table: bytes) -> dict:
    return {"data": {figure_data.MIME: base64.b64encode(gzip.compress(table)).decode()}}


def test_large_tables_are_packed_and_several_numbered():
    small, large = b"a\n", b"a\n" * figure_data.PACKED
    assert figure_data.files_of("fig-a", [{"text": "said"}, kept(small)]) == {"fig-a.csv": small}
    found = figure_data.files_of("fig-a", [kept(small), kept(large)])
    assert list(found) == ["fig-a-1.csv", "fig-a-2.csv.gz"]
    assert gzip.decompress(found["fig-a-2.csv.gz"]) == large
    assert figure_data.links([], "x") == ""
    assert '[Data](x/a.csv){.data download="a.csv"}' in figure_data.links(["a.csv"], "x")
