"""A small made book for the press's tests: executed notebooks without running a kernel."""

import base64
import io
from pathlib import Path

import matplotlib
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from book.config import Book, Page

matplotlib.use("Agg")

BIBLIOGRAPHY = """
@book{knuth-1984-texbook, author = {Knuth, Donald E.}, title = {The TeXbook}, year = {1984},
  publisher = {Addison-Wesley}}
@misc{made-2024-first, author = {Made, Ann}, title = {First}, year = {2024}}
@misc{made-2024-second, author = {Made, Ann}, title = {Second}, year = {2024}}
"""

INDEX = """# Preface {.unnumbered}

A book to be pressed. It begins with @sec-norms and leans on @knuth-1984-texbook.
"""

NORMS = """# The *length* of a row {#sec-norms}

A spike stands in @fig-spike; @tbl-rows lists rows; see @eq-norm and [-@eq-norm], and @sec-two in
the next part, [@fig-spike; @fig-pair], [Plate @fig-spike]. Made [@made-2024-first] was first.

## Background {#sec-norms-background}

$$ \\lVert w \\rVert = \\sqrt{\\sum_i w_i^2} $$ {#eq-norm}

With $x$, an equation without number: $$ a + b = c $$

::: {.callout-note title="A remark"}
Thai กา, Hebrew של, Arabic من, Han 龍 and a compatibility ideograph 六.
:::

::: {.callout-tip collapse="true"}
## Folded away

Hidden at first.
:::

::: {.content-visible when-format="html"}
Only on the pages.
:::

::: {.content-visible when-format="typst"}
Only on paper.
:::

## What we learnt

A footnote.[^1] Back to [the preface](../../index.qmd).

[^1]: With the word zanzibar in it.
"""

TWO = """# Second chapter {#sec-two}

The first figure of this chapter is @fig-turn where it can be turned. Read @sec-norms-background
and @made-2024-second and the appendix, @sec-more.

## What we learnt

Nothing yet.
"""

APPENDIX = """# More {#sec-more}

| a | b |
|---|--:|
| x | 1 |

: A table of the text. {#tbl-text}

See @tbl-text, and what is wide: a table, a formula, a word, code.

| one | two | three | four | five | six | seven | eight | nine | ten | eleven |
|-----|-----|-------|------|------|-----|-------|-------|------|-----|--------|
| a-long-cell-without-a-break | b-long-cell-without-a-break | c | d | e | f | g | h | i | j | k |

$$ a_1 + a_2 + a_3 + a_4 + a_5 + a_6 + a_7 + a_8 + a_9 + a_{10} + a_{11} + a_{12} + a_{13} = b $$

Awordthatislongerthananyscreenofaphoneandhasnoplacewhereitcouldbebrokenintotwolinesbyanyone.

```python
x = "a line of code that is a good deal longer than the screen of a phone is wide, as they are"
```
"""


def png() -> str:
    """A small figure as base64, 200 dots per inch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), dpi=200)
    axes = figure.subplots()
    axes.plot([0, 1, 2], [0, 1, 4])
    axes.set(xlabel="norm", ylabel="tokens")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _code(source, outputs, tags=(), **options):
    metadata = {"tags": list(tags), "quarto": {k.replace("_", "-"): v for k, v in options.items()}}
    return new_code_cell(source, metadata=metadata, outputs=outputs)


def _show(**data):
    return new_output("display_data", data={k.replace("__", "/"): v for k, v in data.items()})


def notebooks() -> dict[str, nbformat.NotebookNode]:
    """Executed notebooks by page name."""
    picture = _show(image__png=png(), text__plain="<Figure size 1200x600>")
    table = _show(text__markdown="| token | id |\n|:--|--:|\n| `กา` | 7 |", text__plain="Markdown")
    head, tail = NORMS.split("## What we learnt")
    plotly = new_output(
        "display_data",
        data={
            "application/vnd.plotly.v1+json": {
                "data": [{"type": "scatter", "x": [1, 2], "y": [3, 4], "name": "</script>"}],
                "layout": {"title": {"text": "turn me"}},
            }
        },
    )
    norms = [
        new_markdown_cell(head),
        _code("seed = 42  # of everything", [], tags=["parameters"]),
        _code("import numpy as np", [], label="setup", code_summary="Imports"),
        _code(
            "plot(row)",
            [
                new_output("stream", name="stdout", text="read 3 rows\n"),
                new_output("stream", name="stderr", text="10%\r100%|###| \x1b[31mdone\x1b[0m\n"),
                picture,
            ],
            label="fig-spike",
            fig_cap="Norms of *all* rows.",
            fig_alt='A line that climbs, "steeply".',
        ),
        _code("secret()", [table], label="tbl-rows", tbl_cap="Some rows.", echo=False),
        _code(
            "pair()",
            [picture, picture],
            label="fig-pair",
            fig_cap="Two panels.",
            fig_subcap=["left", "right"],
            fig_alt="Twice the same line.",
            layout_ncol=2,
        ),
        _code("quiet()", [new_output("stream", name="stdout", text="hush")], include=False),
        new_markdown_cell("## What we learnt" + tail),
    ]
    gate = '::: {.content-visible when-format="html"}\n'
    two = [
        new_markdown_cell(TWO.replace("is @fig-turn", "is [@fig-turn]{.content-visible "
                                      'when-format="html"} seen')),
        new_markdown_cell(gate),
        _code("turn()", [plotly], label="fig-turn", fig_cap="Turn it.", fig_alt="Two points."),
        new_markdown_cell(":::"),
        _code("still()", [picture], label="fig-still", fig_cap="Still.", fig_alt="A line."),
        new_markdown_cell("Here is @fig-still."),
    ]  # fmt: skip
    texts = {
        "index": [new_markdown_cell(INDEX)],
        "discovery/01-norms": norms,
        "lattice/01-two": two,
        "references": [new_markdown_cell("# References {.unnumbered}\n\n::: {#refs}\n:::")],
        "appendix/01-more": [new_markdown_cell(APPENDIX)],
    }
    made = {}
    for name, cells in texts.items():
        made[name] = new_notebook(cells=cells)
        made[name].metadata.book = {"chapter": name, "kind": "page", "scale": "smoke"}
        for part in (made[name], *cells):  # as papermill leaves them
            part.metadata.papermill = {"start_time": "2026-11-30T20:18:12+00:00"}
    made["discovery/01-norms"].metadata.book |= {"kind": "generator", "parameters": {"seed": 43}}
    made["lattice/01-two"].metadata.book |= {"kind": "analyser", "reads": ["discovery/01-norms"]}
    return made


BOOK = Book(
    title="A Made Book",
    subtitle="for tests",
    author="Nobody",
    pages=(
        Page("index.qmd"),
        Page("chapters/discovery/01-norms.qmd", "Discovery"),
        Page("chapters/lattice/01-two.qmd", "The lattice"),
        Page("references.qmd"),
        Page("chapters/appendix/01-more.qmd", appendix=True),
    ),
    bibliography="references.bib",
)


def write(root: Path) -> list[tuple[Page, Path]]:
    """Write the bibliography and the notebooks under `root`; the pairs that the press takes."""
    (root / "references.bib").write_text(BIBLIOGRAPHY)
    pairs = []
    for page in BOOK.pages:
        path = root / "executed" / f"{page.name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebooks()[page.name], path)
        pairs.append((page, path))
    return pairs
