"""Made of the whole book: figures with their data, tokens with their tables, citing, changes."""

import base64
import gzip
import json
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from book import lists
from book.config import Page
from lib import figure_data, paths

HERE = "chapters/reference/03-figures.qmd"
TABLE = """\
| rank | token id | token | distance |
|---:|---:|:---|---:|
| 1 | 2,142 | “ab\\|c” | 0.1 |
| 2 | 7 | � | 0.1 |
| 3 | – | none | 0.1 |
"""


def cell(label: str, **options):
    outputs = options.pop("outputs", [])
    quarto = {"label": label} | {name.replace("_", "-"): text for name, text in options.items()}
    return new_code_cell("x", metadata={"quarto": quarto}, outputs=outputs)


def shown(data: dict):
    return new_output("display_data", data=data)


@pytest.fixture
def notebooks(tmp_path) -> list[tuple[Page, Path]]:
    table = base64.b64encode(gzip.compress(b"x,y\n1,2\n")).decode()
    plotly = {"data": [{"x": [1], "y": [2]}], "layout": {}}
    cells = [
        new_markdown_cell("# A *title* {#sec-a}\n\nText."),
        cell(
            "fig-a",
            fig_cap="Norms, e.g. of\n rows. And more.",
            outputs=[shown({figure_data.MIME: table, "text/plain": "Figure"})],
        ),
        cell("fig-room", fig_cap="A room", outputs=[shown({figure_data.PLOTLY: plotly})]),
        new_markdown_cell('::: {.content-visible when-format="typst"}\n\nOn paper.'),
        cell("fig-paper", fig_cap="What cannot move"),
        new_markdown_cell(":::\n\nAgain on both."),
        cell("tbl-a", outputs=[shown({"text/markdown": TABLE})]),
        cell("tbl-b", outputs=[shown({"text/markdown": TABLE.replace("2,142", "9")})]),
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(new_notebook(cells=cells)))
    other = tmp_path / "other.ipynb"
    table = shown({"text/markdown": TABLE.replace("2,142", "11")})
    other.write_text(json.dumps(new_notebook(cells=[cell("tbl-other", outputs=[table])])))
    return [
        (Page("chapters/dynamics/02-a.qmd"), path),
        (Page("none.qmd"), tmp_path / "none"),
        (Page("chapters/reports/01-b.qmd", appendix=True), other),
    ]


def test_figures_have_number_sentence_and_data_in_each_edition(notebooks):
    text = lists.filled('before\n\n::: {.book-list of="figures"}\n:::\n', HERE, notebooks)
    assert text.startswith("before\n")
    pages, paper = text.split('when-format="typst"')
    assert "[A *title*](../dynamics/02-a.qmd)" in pages and "A *title*" in paper
    assert "- @fig-a: Norms, e.g. of rows." in pages and "And more" not in pages
    assert "[Data](../dynamics/02-a_files/fig-a.csv)" in pages and "Data" not in paper
    assert "- @fig-room: A room" in pages and "room" not in paper
    assert "- @fig-paper: What cannot move" in paper and "fig-paper" not in pages


def test_tokens_by_id_and_the_tables_that_name_them(notebooks):
    text = lists.filled('::: {.book-list of="tokens"}\n:::', HERE, notebooks)
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows == ["| 9 | ab\\|c | @tbl-b |", "| 2,142 | ab\\|c | @tbl-a |"]
    assert text.endswith("{#tbl-tokens-named}")


def test_the_citation_and_the_changes_are_those_of_the_project():
    cited = lists.filled('::: {.book-list of="citation"}\n:::', HERE, [])
    version = next(
        line.split()[1]
        for line in (paths.ROOT / "CITATION.cff").read_text().splitlines()
        if line.startswith("version:")
    )
    assert "@book{dead-tokens-" in cited and f"version {version}" in cited
    changes = lists.filled('::: {.book-list of="changes"}\n:::', HERE, [])
    assert f"### {version} {{.unnumbered}}" in changes and "# Changes" not in changes


def test_a_list_that_there_is_not():
    with pytest.raises(lists.ListError, match=r"a list of wishes\? There are figures"):
        lists.filled('::: {.book-list of="wishes"}\n:::', HERE, [])
    assert lists.filled("::: {.other}\n:::", HERE, []) == "::: {.other}\n:::"
