"""Weave an executed notebook into Pandoc Markdown, its pictures into files beside the page.

The Markdown is what Quarto's authors write by hand: `::: {#fig-x}` divs whose last paragraph is the
caption, `content-visible` divs for what only one edition shows. The Lua filters give it numbers and
shape, so that a figure from a cell and a figure from the text are the same thing to them.
"""

import base64
import json
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from lib import figure_data, foreign, paths

WIDGET = "application/vnd.jupyter.widget"
IMAGES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and cursor moves of a terminal
HIDDEN_TAGS = {"remove-cell", "inline"}
INCH = 0.0254  # metres; PNG files state their density in dots per metre


class WeaveError(ValueError):
    """An executed notebook that cannot become a page; the message names file and mend."""


@dataclass(frozen=True)
class Woven:
    """A page as Markdown, and the files that it shows."""

    markdown: str
    files: dict[str, bytes]  # name -> content, to be written into the page's own folder of files
    book: dict[str, Any]  # the notebook's `metadata.book`: kind, reads, scale, parameters


def weave(notebook_path: Path, folder: str) -> Woven:
    """The page of an executed notebook; `folder` is where its Markdown expects `files`.

    Raises WeaveError if the notebook is missing, damaged, not executed or holds an error.
    """
    try:
        notebook = nbformat.read(notebook_path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError as error:
        raise WeaveError(
            f"{notebook_path}: no such file; run the chapter first (python -m lib run)"
        ) from error
    except (OSError, ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise WeaveError(
            f"{notebook_path}: not a notebook ({reason}); delete it and run the chapter again"
        ) from error
    files: dict[str, bytes] = {}
    pieces = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown":
            pieces.append(cell.source)
        elif cell.cell_type == "code":
            for output in cell.outputs:
                if output.output_type == "error":
                    raise WeaveError(
                        f"{notebook_path}: cell {number} holds an error ({output.ename}: "
                        f"{output.evalue}); mend the chapter and run it again"
                    )
            pieces += _cell(cell, f"cell-{number}", folder, files)
    return Woven("\n\n".join(pieces) + "\n", files, dict(notebook.metadata.get("book", {})))


def _cell(cell: NotebookNode, name: str, folder: str, files: dict[str, bytes]) -> Iterable[str]:
    """A code cell: its code, folded, then its outputs; labelled outputs become figure or table."""
    options = cell.metadata.get("quarto", {})
    tags = set(cell.metadata.get("tags", []))
    if options.get("include") is False or tags & HIDDEN_TAGS:
        return
    label = str(options.get("label") or "")
    if options.get("echo", True) is not False and cell.source.strip():
        yield _code(cell.source, options, tags)
    if options.get("output", True) is False:
        return
    if options.get("output") == "asis":
        yield "".join(o.text for o in cell.outputs if o.output_type == "stream")
        return
    texts, shown = [], []
    several = sum(output.output_type != "stream" for output in cell.outputs) > 1
    for output in _joined(cell.outputs):
        if output.output_type == "stream":
            if not (output.name == "stderr" and options.get("warning", True) is False):
                texts.append(_said(output.text, output.name))
        else:
            stem = f"{label or name}-{len(shown) + 1}" if several else label or name
            shown += _display(output.data, stem, folder, files, options)
    yield from texts
    if not shown:
        return
    if label.startswith(("fig-", "tbl-")):
        caption = options.get("fig-cap" if label.startswith("fig-") else "tbl-cap") or ""
        caption = " ".join(str(caption).split())
        tables = figure_data.files_of(label, cell.outputs) if label.startswith("fig-") else {}
        files.update(tables)
        caption = f"{caption} {figure_data.links(tables, folder)}".strip()
        yield _div(f"#{label}", _layout(shown, options), caption)
    else:
        yield _div(".cell-display", _layout(shown, options))


def _code(source: str, options: dict, tags: set[str]) -> str:
    """A div `.cell-code` whose attributes tell the filter whether and how to fold it."""
    summary = options.get("code-summary") or "Code"
    fold = options.get("code-fold", True)
    if "parameters" in tags:
        summary, fold = options.get("code-summary") or "Parameters", options.get("code-fold", False)
    if "injected-parameters" in tags:
        summary, fold = "Parameters given for this run", False
    state = {True: "true", False: "false"}.get(fold, str(fold))
    kind = " .parameters" if tags & {"parameters", "injected-parameters"} else ""
    attributes = f'.cell-code{kind} fold="{state}" summary="{_attribute(summary)}"'
    return _div(attributes, _fence(source, ".python"))


def _joined(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Outputs with neighbouring pieces of one stream put together."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == "stream" == last.output_type and last.name == output.name:
            last.text += output.text
        else:
            joined.append(NotebookNode(output))
    return joined


def _display(
    data: dict, stem: str, folder: str, files: dict[str, bytes], options: dict
) -> list[str]:
    """One rich output as Markdown; what only HTML can show gets a sibling for the PDF."""
    if any(mime.startswith(WIDGET) for mime in data):
        return []  # alive only in Jupyter; its text/plain says nothing
    picture = _picture(data, stem, folder, files, options)
    if figure_data.PLOTLY in data:
        figure = foreign.in_script(
            {key: data[figure_data.PLOTLY].get(key) for key in ("data", "layout")}
        )
        alt = _attribute(options.get("fig-alt") or "").replace("<", "&lt;")
        html = (
            f'<div class="plotly-figure" role="group" aria-label="{alt}">'
            f'<script type="application/json">{figure}</script></div>'
        )
        still = picture or "*An interactive figure: see the pages of this book in a browser.*"
        return [_only("html", _raw(html)), _only("typst", still)]
    if "text/markdown" in data:
        return [_text(data["text/markdown"])]
    if picture:
        return [picture]
    if "text/html" in data:
        still = _said(_text(data["text/plain"])) if "text/plain" in data else ""
        return [_only("html", _raw(_text(data["text/html"]))), _only("typst", still)]
    if "text/latex" in data:
        return [_text(data["text/latex"])]
    if "text/plain" in data:
        return [_said(_text(data["text/plain"]))]
    return []


def _picture(data: dict, stem: str, folder: str, files: dict[str, bytes], options: dict) -> str:
    """The Markdown of the first image type there is, its bytes put into `files`; "" if none."""
    for mime, ending in IMAGES.items():
        if mime in data:
            text = _text(data[mime])
            content = text.encode() if ending == "svg" else base64.b64decode(text)
            file = f"{stem}.{ending}"
            files[file] = content
            size = png_size(content) if ending == "png" else None
            width = f" width={size[0] / size[2]:.2f}in" if size else ""
            alt = _attribute(options.get("fig-alt") or "")
            return f'![]({folder}/{file}){{alt="{alt}"{width}}}'
    return ""


def png_size(content: bytes) -> tuple[int, int, float] | None:
    """Width and height in pixels, density in dots per inch (96 if unstated); None if no PNG."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 33:
        return None
    width, height = struct.unpack(">II", content[16:24])
    at = content.find(b"pHYs", 0, 4096)
    if at > 0:
        per_metre, _, unit = struct.unpack(">IIB", content[at + 4 : at + 13])
        if unit == 1 and per_metre:
            return width, height, per_metre * INCH
    return width, height, 96.0


def _layout(blocks: list[str], options: dict) -> str:
    """Several pictures side by side where the options ask for it, with their sub-captions."""
    captions = [str(caption) for caption in options.get("fig-subcap") or []]
    if captions:
        letters = "abcdefghijklmnopqrstuvwxyz"
        blocks = [
            f"{block}\n\n*({letters[i]})* {' '.join(captions[i].split())}"
            if i < len(captions)
            else block
            for i, block in enumerate(blocks)
        ]
    columns = _columns(len(blocks), options)
    if columns == 1 and not captions:
        return "\n\n".join(blocks)
    cells = "\n\n".join(_div(".panel", block) for block in blocks)
    return _div(f'.layout columns="{columns}"', cells)


def _columns(count: int, options: dict) -> int:
    """How many of `count` pictures stand side by side, by Quarto's three ways of saying it."""
    if options.get("layout-nrow"):
        return -(-count // int(options["layout-nrow"]))
    layout = options.get("layout")
    if isinstance(layout, str):
        layout = json.loads(layout)
    if isinstance(layout, list) and layout:
        return max(len(row) if isinstance(row, list) else 1 for row in layout)
    return int(options.get("layout-ncol") or 1)


def _div(attributes: str, *blocks: str) -> str:
    """A fenced div with more colons than any inside it."""
    body = "\n\n".join(block for block in blocks if block)
    colons = max((len(run) for run in re.findall(r"^:{3,}", body, re.MULTILINE)), default=2) + 1
    return f"{':' * colons} {{{attributes}}}\n\n{body}\n\n{':' * colons}"


def _only(edition: str, body: str) -> str:
    return _div(f'.content-visible when-format="{edition}"', body) if body else ""


def _fence(text: str, attributes: str = "") -> str:
    """A code block with a fence longer than any run of backticks in `text`."""
    ticks = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, ticks + 1)
    opening = f"{fence} {{{attributes}}}" if attributes else fence
    return f"{opening}\n{text.rstrip()}\n{fence}"


def _said(text: str, stream: str = "stdout") -> str:
    """Printed text; a line or two may wrap, longer output keeps its columns and scrolls.

    The classes stand on a div: on the code block itself Pandoc would take them for languages, and
    searching all it knows for one of that name costs most of a second a page.
    """
    text = _clean(text).rstrip()
    wraps = " .wraps" if text.count("\n") < 3 else ""
    return _div(f".cell-output .{stream}{wraps}", _fence(text))


def _raw(html: str) -> str:
    ticks = max((len(run) for run in re.findall(r"`+", html)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence} {{=html}}\n{html}\n{fence}"


def _attribute(text: str) -> str:
    """`text` on one line, safe inside double quotes of a Markdown attribute."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace('"', "&quot;")


def _text(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value)


def _clean(text: str) -> str:
    """Terminal text fit to print: no colours, no machine's paths, progress bars at their end."""
    lines = ANSI.sub("", text).replace(f"{paths.ROOT}/", "").split("\n")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)
