"""The code in chapters: ruff reads it too, it fits the page, and it assembles no sentences."""

import ast
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat

from book import reader
from book.check.finding import Finding
from book.check.project import Cell, Page, Project

WIDTH = 100  # characters of a line: what a page shows without scrolling
TEXT = 20  # characters: a longer text is part of a sentence, not a word
IGNORED = "E402,E501,I001,B018,B905,E703,RUF001,RUF002,RUF003,RUF015,PTH,SIM"  # of ruff's rules
NAMES = '["display", "get_ipython"]'  # that a kernel has from the start


def check(project: Project) -> Iterator[Finding]:
    """Findings on the code cells of all pages."""
    for page in project.pages:
        for cell in page.cells:
            yield from _lines(page, cell)
            yield from _sentences(page, cell)
    yield from _ruff(project)


def first_line(page: Page, line: int) -> int:
    """The line of the file in which the code of the cell at `line` begins, below its options."""
    lines = page.source.split("\n")
    while line <= len(lines) and (lines[line - 1].startswith("#|") or not lines[line - 1].strip()):
        line += 1
    return line


def _lines(page: Page, cell: Cell) -> Iterator[Finding]:
    for number, line in enumerate(cell.code.split("\n"), start=first_line(page, cell.line)):
        if len(line) > WIDTH:
            message = f"{len(line)} characters, more than {WIDTH}"
            yield Finding(page.file, number, "cells/width", message, "break the line")


def _sentences(page: Page, cell: Cell) -> Iterator[Finding]:
    """Prose is written where it is read: a cell computes values and chooses no words."""
    start = first_line(page, cell.line) - 1
    for node in ast.walk(cell.tree) if cell.tree else ():
        if isinstance(node, ast.IfExp) and any(map(_is_text, (node.body, node.orelse))):
            message = "the cell chooses between texts"
            mend = "write the sentence in the text and guard it: `{python} holds(condition)`"
            yield Finding(page.file, start + node.lineno, "cells/chosen", message, mend)
        stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        if stored and node.id.endswith("_str"):
            message = f"{node.id} is a number made into a text"
            mend = "name the value and show it inline, in another form with show.percent(…)"
            yield Finding(page.file, start + node.lineno, "cells/text", message, mend)


def _is_text(node: ast.expr) -> bool:
    is_text = isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return is_text and len(ast.unparse(node)) > TEXT


def _ruff(project: Project) -> Iterator[Finding]:
    """What ruff says of the cells, the inline expressions counted as uses."""
    pages = [page for page in project.pages if page.cells]
    with tempfile.TemporaryDirectory() as folder:
        starts: dict[str, tuple[Page, list[int]]] = {}
        for number, page in enumerate(pages):
            try:
                notebook = reader.read(project.root / page.file)
            except reader.ChapterError:  # said by the group `yaml`
                continue
            path = Path(folder) / f"{number}.ipynb"
            nbformat.write(notebook, path)
            lines = [first_line(page, cell.metadata.get("line", 1)) for cell in notebook.cells]
            starts[path.name] = (page, lines)
        options = ["--quiet", "--output-format=json", "--extend-ignore", IGNORED, "--no-cache"]
        config = project.root / "pyproject.toml"
        options += ["--config", str(config)] if config.is_file() else []
        options += ["--config", f"builtins = {NAMES}", folder]
        answer = subprocess.run(
            [sys.executable, "-m", "ruff", "check", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            found = json.loads(answer.stdout)
        except ValueError:
            message = " ".join(answer.stderr.split())[-200:] or "ruff does not answer"
            yield Finding("pyproject.toml", 1, "cells/ruff", message, "make setup")
            return
    for one in found:
        page, lines = starts[Path(one["filename"]).name]
        at = lines[one["cell"] - 1] + one["location"]["row"] - 1
        yield Finding(page.file, at, f"cells/{one['code']}", one["message"], "mend the cell")
