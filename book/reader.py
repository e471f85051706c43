"""Read a chapter: a .qmd file becomes an nbformat notebook, and its text keeps its holes.

A .qmd file is Pandoc Markdown with `{python}` fences whose first lines may be options (`#| key:
value`). Text may hold inline expressions, `{python} expression` between single backticks; as in
Quarto they are evaluated where they stand, so each Markdown cell that has some is preceded by a
small hidden cell, tagged `inline`, that displays their values. `fill` puts the values in.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from lib import files, foreign

INLINE = re.compile(r"(^|[^`])`\{python\}[ \t]([^`]+)`", re.MULTILINE)
INLINE_MIME = "application/vnd.book.inline+json"
INLINE_TAG = "inline"
FENCE = re.compile(r"^(`{3,}|~{3,})(.*)$")


class ChapterError(ValueError):
    """A chapter's source cannot be read; the message names the file and the line."""


@dataclass(frozen=True)
class Block:
    """A stretch of a chapter's source: text, or one code cell."""

    kind: str  # "markdown" or "code"
    source: str
    line: int  # of its first line in the file, from 1


def read(path: Path) -> NotebookNode:
    """The chapter at `path` as a notebook, front matter under `metadata.book.front`.

    Code cells carry their options in `metadata.quarto` and their tags in `metadata.tags`.
    Raises ChapterError naming file and line if the source is malformed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChapterError(f"cannot read {path}: {error}") from error
    front, body, first_line = split_front_matter(text, path)
    cells = []
    for block in split_blocks(body, path, first_line):
        if block.kind == "code":
            cells.append(_code_cell(block, path))
        else:
            expressions = [match.group(2).strip() for match in INLINE.finditer(block.source)]
            if expressions:
                cells.append(_inline_cell(expressions))
            cells.append(_cell("markdown", block.source, {"line": block.line}))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:03d}"  # stable: the same source gives the same notebook
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "book": {"front": front},
    }
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return nbformat.from_dict(notebook)


def split_front_matter(text: str, path: Path) -> tuple[dict[str, Any], str, int]:
    """The YAML front matter (maybe empty), the rest, and the line number where the rest starts."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}, text, 1
    for end, line in enumerate(lines[1:], start=1):
        if line.strip() in ("---", "..."):
            front = _yaml("\n".join(lines[1:end]), path, 2)
            if not isinstance(front, dict):
                raise ChapterError(f"{path}:2: the front matter must be `key: value` lines")
            return front, "\n".join(lines[end + 1 :]), end + 2
    raise ChapterError(f"{path}:1: the front matter is never closed with ---")


def split_blocks(body: str, path: Path, first_line: int = 1) -> list[Block]:
    """Text and code cells in order. A `{python}` fence opens a cell; other fences are text."""
    blocks: list[Block] = []
    buffer: list[str] = []
    start = first_line
    fence, in_cell = "", False

    def flush(kind: str, line: int) -> None:
        blank = next((i for i, text in enumerate(buffer) if text), 0)  # lines that strip takes off
        source = "\n".join(buffer).strip("\n")
        if source.strip() or kind == "code":
            blocks.append(Block(kind, source, line + blank))
        buffer.clear()

    for number, line in enumerate(body.splitlines(), start=first_line):
        match = FENCE.match(line)
        if not fence and match:
            fence, info = match.group(1), match.group(2).strip()
            if re.fullmatch(r"\{python\}", info):
                flush("markdown", start)
                in_cell, start = True, number + 1
                continue
        elif fence and match and match.group(1).startswith(fence) and not match.group(2).strip():
            fence = ""
            if in_cell:
                flush("code", start)
                in_cell, start = False, number + 1
                continue
        if not buffer:
            start = number
        buffer.append(line)
    if fence:
        raise ChapterError(f"{path}:{start}: a fence {fence} is opened and never closed")
    flush("markdown", start)
    return blocks


def split_options(source: str, path: Path, line: int) -> tuple[dict[str, Any], str]:
    """The options of a code cell (`#| key: value`) and its code without them."""
    lines = source.splitlines()
    count = 0
    while count < len(lines) and lines[count].startswith("#|"):
        count += 1
    text = "\n".join(item[2:].removeprefix(" ") for item in lines[:count])
    options = _yaml(text, path, line) if text.strip() else {}
    if not isinstance(options, dict):
        raise ChapterError(f"{path}:{line}: cell options must be `#| key: value` lines")
    return options, "\n".join(lines[count:]).strip("\n")


def inline_values(notebook: NotebookNode) -> list[dict[str, str]]:
    """What the inline expressions of an executed notebook came to, in the order of the text."""
    cells = [cell for cell in notebook.cells if INLINE_TAG in cell.metadata.get("tags", [])]
    shown = [out.get("data", {}) for cell in cells for out in cell.outputs]  # a print has none
    return [value for data in shown for value in data.get(INLINE_MIME, [])]


def fill(notebook: NotebookNode, values: list[dict[str, str]]) -> NotebookNode:
    """Put `values` in the place of the inline expressions and drop the cells that computed them.

    As Quarto does it: Markdown objects as they are, strings escaped, numbers by their repr.
    Raises ChapterError if a value was not computed or shows a NumPy scalar's repr.
    """
    queue = iter(values)
    kept = [cell for cell in notebook.cells if INLINE_TAG not in cell.metadata.get("tags", [])]
    for cell in kept:
        if cell.cell_type == "markdown":
            cell.source = INLINE.sub(partial(_value, queue=queue), cell.source)
    notebook.cells = kept
    return notebook


def _value(match: re.Match, queue: Iterator[dict[str, str]]) -> str:
    """The text that replaces one inline expression."""
    return match.group(1) + _shown(match, queue)


def _shown(match: re.Match, queue: Iterator[dict[str, str]]) -> str:
    expression = match.group(2).strip()
    data = next(queue, None)
    if data is None:
        raise ChapterError(f"the inline expression {expression!r} has no value: run the chapter")
    if "text/markdown" in data:
        return data["text/markdown"]
    text = data.get("text/plain", "")
    if text[:1] in "'\"" and text[:1] == text[-1:]:
        return foreign.markdown(data["text"])
    if re.match(r"(np|numpy|torch|tensor)\b", text):
        raise ChapterError(f"the inline expression {expression!r} shows {text}: format it first")
    return text


def _cell(kind: str, source: str, metadata: dict[str, Any]) -> dict[str, Any]:
    run = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "source": source, "metadata": metadata} | run


def _code_cell(block: Block, path: Path) -> dict[str, Any]:
    options, code = split_options(block.source, path, block.line)
    try:
        ast.parse(code)
    except SyntaxError as error:
        first = block.line + block.source.count("\n") - code.count("\n")
        line = first + (error.lineno or 1) - 1
        raise ChapterError(f"{path}:{line}: the cell is not Python: {error.msg}") from error
    tags = options.pop("tags", [])
    tags = [tags] if isinstance(tags, str) else list(tags)
    return _cell("code", code, {"quarto": options, "tags": tags, "line": block.line})


def _inline_cell(expressions: list[str]) -> dict[str, Any]:
    listed = "".join(f"    {expression},\n" for expression in expressions)
    code = (
        "# the values of the expressions in the text below\n"
        f"display({{'{INLINE_MIME}': [\n"
        "    {k: v for k, v in get_ipython().display_formatter.format(value)[0].items()\n"
        "     if k in ('text/plain', 'text/markdown')} | {'text': str(value)}\n"
        f"    for value in (\n{listed}    )]}}, raw=True)"
    )
    return _cell("code", code, {"quarto": {"include": False}, "tags": [INLINE_TAG]})


def _yaml(text: str, path: Path, line: int) -> Any:
    try:
        return yaml.load(text, Loader=files.YAML_LOADER) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = line + (mark.line if mark else 0)
        raise ChapterError(f"{path}:{at}: {getattr(error, 'problem', error)}") from error
