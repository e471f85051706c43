"""Weaving: an executed notebook becomes Markdown that Pandoc reads as it was meant."""

import base64

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lib import paths
from press import pandoc, weave
from tests import made_book


def woven(tmp_path, *cells) -> str:
    path = tmp_path / "x.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return weave.weave(path, "x_files").markdown


def test_printed_text_cannot_break_out_of_its_block(tmp_path):
    text = "```\n:::\n# not a heading\n````\n"
    stream = new_output("stream", name="stdout", text=text)
    markdown = woven(tmp_path, new_code_cell("f()", outputs=[stream]))
    blocks = pandoc.read(markdown, "x")
    assert [b["t"] for b in blocks] == ["Div", "Div"]
    inner = blocks[1]["c"][1]
    assert [b["t"] for b in inner] == ["CodeBlock"] and inner[0]["c"][1] == text.rstrip()


def test_paths_of_the_machine_are_not_printed(tmp_path):
    stream = new_output("stream", name="stdout", text=f"wrote {paths.DATA / 'x.h5'}\n")
    markdown = woven(tmp_path, new_code_cell("f()", outputs=[stream]))
    assert "wrote data/x.h5" in markdown and str(paths.ROOT) not in markdown


def test_richest_form_of_an_output_is_shown(tmp_path):
    both = new_output(
        "execute_result", execution_count=1, data={"text/html": "<b>B</b>", "text/plain": "plain B"}
    )
    widget = new_output(
        "display_data",
        data={"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "bar"},
    )
    markdown = woven(tmp_path, new_code_cell("f()", outputs=[both, widget]))
    html, typst = markdown.split('when-format="typst"')
    assert "<b>B</b>" in html and "plain B" not in html
    assert "plain B" in typst and "<b>B</b>" not in typst
    assert "bar" not in markdown


def test_size_of_a_picture():
    width, height, density = weave.png_size(base64.b64decode(made_book.png()))
    assert (width, height) == (1200, 600) and round(density) == 200
    assert weave.png_size(b"GIF89a") is None and weave.png_size(b"\x89PNG\r\n\x1a\n") is None


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({"layout-ncol": 3}, 3),
        ({"layout-nrow": 2}, 2),
        ({"layout": [[1, 1], [1]]}, 2),
        ({"layout": "[[1,1,1]]"}, 3),
        ({}, 1),
    ],
)
def test_pictures_stand_side_by_side_as_quarto_says(options, columns):
    assert weave._columns(3, options) == columns
