"""Every chapter of the book, executed at smoke scale, generators first, shows what it says."""

import base64
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass

import nbformat
import pytest

from book import config, reader, runner, schedule
from lib import figure_data, paths

SCALE = "smoke"
PAGES = {page.name: page for page in config.load().pages}
SMALLEST, LARGEST = 600, 3_000_000  # width of a figure in pixels, size of its file in bytes
REPR = re.compile(r"^\s*[\[(]*<[\w.]+.* at 0x[0-9a-f]+|^(Text|BarContainer|array|tensor)\(")
EMPTY = re.compile(r"\b(?:nan|NaN|inf|None)\b")  # never a value that prose should show
ISSUED_BY_PLOTLY = "application/vnd.plotly.v1+json"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chapters")]


@dataclass(frozen=True)
class Run:
    """What `python -m lib run` said."""

    status: int
    said: str


@pytest.fixture(scope="module")
def whole_run() -> Run:
    """All chapters executed, in dependency order and side by side; current ones are reused."""
    environment = os.environ | {"BOOK_SCALE": SCALE}
    environment.pop("BOOK_GIVEN", None)
    answer = subprocess.run(
        [sys.executable, "-m", "lib", "run"],
        cwd=paths.ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    return Run(answer.returncode, answer.stdout + answer.stderr)


@pytest.fixture
def page(request, whole_run, monkeypatch) -> tuple[runner.Chapter, nbformat.NotebookNode]:
    """The chapter called by the test's parameter and its executed notebook."""
    monkeypatch.setenv("BOOK_SCALE", SCALE)
    chapter = runner.open_chapter(paths.ROOT / PAGES[request.param].source)
    failed = re.search(rf"^\s*{re.escape(chapter.name)}: FAILED", whole_run.said, re.MULTILINE)
    assert not failed, whole_run.said
    assert chapter.executed.exists(), whole_run.said
    return chapter, nbformat.read(chapter.executed, as_version=4)


def every_page(test):
    """The test, once for each page of the book."""
    return pytest.mark.parametrize("page", list(PAGES), indirect=True)(test)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Its code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def label(cell: nbformat.NotebookNode) -> str:
    """The label of a cell, "" without one."""
    return str(cell.metadata.get("quarto", {}).get("label") or "")


def shown(cell: nbformat.NotebookNode) -> set[str]:
    """MIME types of all that a cell displays."""
    return {kind for out in cell.outputs if "data" in out for kind in out.data}


def is_plotly(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell shows an interactive figure."""
    return any(kind == ISSUED_BY_PLOTLY or "html" in kind for kind in shown(cell))


def test_the_whole_book_runs(whole_run):
    assert whole_run.status == 0, whole_run.said


@pytest.fixture(scope="module")
def keys(whole_run) -> dict[str, str]:
    """What every chapter depends on, as it stands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_SCALE", SCALE)
        files = [paths.ROOT / page.source for page in PAGES.values()]
        return schedule.keys(schedule.read_all(files))


@every_page
def test_it_was_executed_as_it_stands_and_without_errors(page, keys):
    chapter, notebook = page
    assert notebook.metadata.book.key == keys[chapter.name]
    for cell in code_cells(notebook):
        assert cell.execution_count is not None or not cell.source.strip(), cell.source
        kinds = {out.output_type for out in cell.outputs}
        assert "error" not in kinds, cell.source


@every_page
def test_every_figure_cell_shows_a_figure_and_no_other_does(page):
    for cell in code_cells(page[1]):
        images = {kind for kind in shown(cell) if kind.startswith("image/")}
        if label(cell).startswith("fig-"):
            assert images or is_plotly(cell), f"{label(cell)} shows no figure"
            offered = figure_data.MIME in shown(cell) or is_plotly(cell)
            assert offered, f"{label(cell)} offers no data"
        else:
            assert not images, f"a figure without a label: {cell.source}"


@every_page
def test_figures_are_sharp_and_of_sane_size(page):
    for cell in code_cells(page[1]):
        for out in cell.outputs:
            image = (
                base64.b64decode(out.data["image/png"])
                if "image/png" in out.get("data", {})
                else b""
            )
            if image:
                width, _ = struct.unpack(">II", image[16:24])
                assert width >= SMALLEST, f"{label(cell)}: {width} pixels wide"
                assert len(image) <= LARGEST, f"{label(cell)}: {len(image) / 1e6:.1f} MB"


@every_page
def test_every_table_cell_shows_a_table(page):
    for cell in code_cells(page[1]):
        tables = [
            o.data["text/markdown"] for o in cell.outputs if "text/markdown" in o.get("data", {})
        ]
        if label(cell).startswith("tbl-"):
            assert tables and all("|" in table for table in tables), label(cell)
            rows = [line.replace("\\|", "").count("|") for line in tables[0].split("\n")]
            assert len(rows) > 2 and len(set(rows)) == 1, f"{label(cell)}: ragged or empty"


@every_page
def test_nothing_leaks_onto_the_page(page):
    for cell in code_cells(page[1]):
        for out in cell.outputs:
            assert out.get("name") != "stderr", f"{label(cell)} warns: {out.text}"
            data = out.get("data", {})
            if set(data) == {"text/plain"}:
                assert not REPR.match(data["text/plain"]), f"{label(cell)}: {data['text/plain']}"


@every_page
def test_every_inline_value_is_filled_in_and_finite(page):
    chapter, notebook = page
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    before = "\n".join(c.source for c in chapter.notebook.cells if c.cell_type == "markdown")
    before = reader.INLINE.sub(r"\1", before)
    assert not re.search(r"(^|[^`])`\{python\}[ \t]", text)
    assert len(EMPTY.findall(text)) == len(EMPTY.findall(before)), "a value is nan, inf or None"
