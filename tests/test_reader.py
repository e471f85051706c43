"""A .qmd file becomes a notebook, with every option, tag, line and inline value in its place."""

import textwrap

import nbformat
import pytest
from nbformat.v4 import new_output

from book import reader
from book.reader import ChapterError

CHAPTER = """\
---
kind: analyser
reads: [one/01-make]
---

# A {#sec-a}

Words.

```{python}
#| tags: [parameters]
steps = 50
```

```{python}
#| label: fig-a
#| fig-cap: "A: `x`, $y$ and # all the rest"
#| layout-ncol: 2

draw()
```

Between `{python} one_str` and `{python}  two_str `.

```text
`not` a cell
```

~~~~{python}
after = 1
~~~~
"""


def write(tmp_path, text):
    """A chapter of `text`."""
    file = tmp_path / "a.qmd"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def notebook(tmp_path):
    """The chapter above as a notebook."""
    return reader.read(write(tmp_path, CHAPTER))


def test_text_and_cells_come_in_order(notebook):
    kinds = [(c.cell_type, c.source.split("\n")[0]) for c in notebook.cells]
    assert kinds == [
        ("markdown", "# A {#sec-a}"),
        ("code", "steps = 50"),
        ("code", "draw()"),
        ("code", "# the values of the expressions in the text below"),
        ("markdown", "Between `{python} one_str` and `{python}  two_str `."),
        ("code", "after = 1"),
    ]
    nbformat.validate(notebook)


def test_options_tags_and_front_matter_are_metadata(notebook):
    assert notebook.metadata.book.front == {"kind": "analyser", "reads": ["one/01-make"]}
    assert notebook.cells[1].metadata.tags == ["parameters"]
    assert notebook.cells[2].metadata.quarto == {
        "label": "fig-a",
        "fig-cap": "A: `x`, $y$ and # all the rest",
        "layout-ncol": 2,
    }


def test_lines_are_those_of_the_file(notebook):
    lines = CHAPTER.split("\n")
    for cell in notebook.cells:
        if "line" in cell.metadata:
            first = cell.source.split("\n")[0]
            at = lines[cell.metadata.line - 1]
            assert at == first or (cell.cell_type == "code" and at.startswith("#|"))


def test_a_fence_that_is_no_cell_stays_text(notebook):
    assert "```text\n`not` a cell\n```" in notebook.cells[4].source


def test_the_same_source_gives_the_same_notebook(tmp_path):
    file = write(tmp_path, CHAPTER)
    assert nbformat.writes(reader.read(file)) == nbformat.writes(reader.read(file))


def test_a_longer_fence_shows_a_shorter_one(tmp_path):
    text = "# A\n\n````markdown\n```{python}\nx = 1\n```\n````\n\n```{python}\ny = 1\n```\n"
    cells = reader.read(write(tmp_path, text)).cells
    assert [(c.cell_type, c.metadata.line) for c in cells] == [("markdown", 1), ("code", 10)]
    assert cells[1].source == "y = 1"


def test_blank_lines_do_not_shift_lines(tmp_path):
    cells = reader.read(write(tmp_path, "\n\n\n# A\n\n```{python}\n\n\nx = 1\n```\n")).cells
    assert [c.metadata.line for c in cells] == [4, 9]


def test_a_page_without_front_matter_or_cells(tmp_path):
    notebook = reader.read(write(tmp_path, "# References\n\n---\n\nend\n"))
    assert notebook.metadata.book.front == {}
    assert [c.source for c in notebook.cells] == ["# References\n\n---\n\nend"]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("---\nkind: a\nreads: ]\n---\n# A\n", 3, "expected"),
        ("---\nkind: a\n# A\n", 1, "never closed"),
        ("---\n- a\n---\n# A\n", 2, "key: value"),
        ("# A\n\n```{python}\nx = 1\n", 4, "never closed"),
        ("# A\n\n```{python}\n#| label: ]\nx = 1\n```\n", 4, "expected"),
        ("# A\n\n```{python}\n#| label\nx = 1\n```\n", 4, "key: value"),
        ("# A\n\n```{python}\n#| echo: true\nx = 1\ny = (\n```\n", 6, "not Python"),
        ("# A\n\n```{python}\n%matplotlib inline\n```\n", 4, "not Python"),
    ],
)
def test_a_malformed_chapter_names_file_and_line(text, line, says, tmp_path):
    with pytest.raises(ChapterError, match=says) as error:
        reader.read(write(tmp_path, text))
    assert f"a.qmd:{line}:" in str(error.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.qmd").write_bytes(b"# \xff\xfe")
    for name in ("a.qmd", "gone.qmd"):
        with pytest.raises(ChapterError, match=name):
            reader.read(tmp_path / name)


def filled(tmp_path, text, values):
    """The text of a chapter whose inline cell showed `values` (mime bundles)."""
    notebook = reader.read(write(tmp_path, text))
    for cell in notebook.cells:
        if reader.INLINE_TAG in cell.metadata.get("tags", []):
            cell.outputs = [new_output("display_data", {reader.INLINE_MIME: values})]
    reader.fill(notebook, reader.inline_values(notebook))
    assert all(reader.INLINE_TAG not in c.metadata.get("tags", []) for c in notebook.cells)
    return notebook.cells[0].source


def shown(value, **more):
    """What the kernel displays of a value."""
    return {"text/plain": repr(value), "text": str(value)} | more


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (shown(13), "13"),
        (shown("1.5 × 10⁻⁹"), "1\\.5 × 10⁻⁹"),
        (shown("a*b_c [d](e)"), "a\\*b\\_c \\[d\\]\\(e\\)"),
        (shown("it's <b> $x$ ~"), "it\\'s \\<b\\> \\$x\\$ \\~"),
        (shown("$x$", **{"text/markdown": "$x$"}), "$x$"),
    ],
)
def test_inline_values_are_shown_as_quarto_shows_them(value, text, tmp_path):
    assert filled(tmp_path, "`{python} v`, that is (`{python} v`).\n", [value, value]) == (
        f"{text}, that is ({text})."
    )


@pytest.mark.parametrize("bare", ["np.float64(0.37)", "tensor(3)", "torch.Size([3])"])
def test_bare_array_scalars_are_refused(bare, tmp_path):
    with pytest.raises(ChapterError, match="format it"):
        filled(tmp_path, "`{python} v`\n", [{"text/plain": bare, "text": "0.37"}])


def test_an_expression_without_a_value_is_refused(tmp_path):
    with pytest.raises(ChapterError, match="two_str"):
        filled(tmp_path, "`{python} one_str` `{python} two_str`\n", [shown(1)])


def test_a_print_in_the_inline_cell_does_no_harm(tmp_path):
    notebook = reader.read(write(tmp_path, "`{python} v`\n"))
    notebook.cells[0].outputs = [
        new_output("stream", name="stdout", text="noise\n"),
        new_output("display_data", {reader.INLINE_MIME: [shown(5)]}),
    ]
    assert reader.fill(notebook, reader.inline_values(notebook)).cells[0].source == "5"


def test_double_backticks_show_an_inline_expression(tmp_path):
    text = textwrap.dedent("Write ``{python} x`` so.\n")
    assert [c.cell_type for c in reader.read(write(tmp_path, text)).cells] == ["markdown"]
