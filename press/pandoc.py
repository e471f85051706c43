"""Pandoc as the press uses it: Markdown -> one numbered and cited document -> HTML pages or Typst.

Documents are Pandoc's JSON, kept as plain dictionaries; all shaping is done by the Lua filters in
`assets/filters`. Errors and the warnings that spoil a page are raised as PressError.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pypandoc

from lib import paths

ASSETS = Path(__file__).resolve().parent / "assets"
FILTERS = ASSETS / "filters"
STATEMENTS = paths.ROOT / "book" / "quarto" / "statements.lua"  # the same in both editions
GLOSSARY = STATEMENTS.with_name("glossary.lua")
READER = ("--from=markdown+table_attributes", "--columns=100000")  # no table gets fixed widths
SPOILING = ("Could not convert TeX math", "Could not fetch resource", "Citeproc:", "not found")


class PressError(RuntimeError):
    """The book cannot be pressed; the message names the file and the mend. The old book stays."""


@lru_cache
def program() -> str:
    """The Pandoc that pypandoc carries, else the one on PATH. Raises PressError if neither is."""
    carried = Path(pypandoc.__file__).parent / "files" / "pandoc"
    if os.access(carried, os.X_OK):
        return str(carried)  # not asked for its version: a failed answer would hand over to PATH's
    try:
        return str(pypandoc.get_pandoc_path())
    except OSError as error:
        raise PressError("no Pandoc here; pip install pypandoc-binary (make setup)") from error


def run(arguments: list[str], text: str, source: str) -> str:
    """Pandoc's output for `text`; `source` is whom to blame. Raises PressError."""
    answer = subprocess.run(
        [program(), *arguments],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    complaints = [line for line in answer.stderr.splitlines() if line.strip()]
    if answer.returncode:
        raise PressError(f"{source}: Pandoc failed: {' '.join(complaints)[:600]}")
    for complaint in complaints:
        if any(phrase in complaint for phrase in SPOILING):
            raise PressError(f"{source}: {complaint.removeprefix('[WARNING] ')}")
    return answer.stdout


def _address(path: Path) -> str:
    """A file's path where Pandoc takes addresses too: it decodes them."""
    return str(path).replace("%", "%25")


def read(markdown: str, source: str) -> list[dict[str, Any]]:
    """The blocks of a page's Markdown."""
    return json.loads(run([*READER, "--to", "json"], markdown, source))["blocks"]


def edition(pages: list[dict], name: str, bibliography: Path, lang: str) -> dict[str, Any]:
    """The whole book as one document, numbered, resolved, cited and shaped for one edition.

    `pages` are Divs from `page_div`; `name` is "html" or "typst". The metadata hold `pages` (title
    and number of each) and, for html, `search`. Raises PressError with every problem, one a line.
    """
    book = document(
        pages,
        {
            "edition": name,
            "bibliography": _address(bibliography),
            "link-citations": True,
            "lang": lang,
        },
    )
    arguments = ["--from", "json", "--to", "json"]
    arguments += ["--lua-filter", str(STATEMENTS), "--lua-filter", str(GLOSSARY)]
    arguments += ["--lua-filter", str(FILTERS / "crossref.lua"), "--citeproc"]
    arguments += ["--lua-filter", str(FILTERS / f"{name}.lua")]
    shaped = json.loads(run(arguments, json.dumps(book), f"the book ({name})"))
    problems = plain(shaped["meta"].get("problems", {"t": "MetaList", "c": []}))
    if problems:
        raise PressError("\n".join(dict.fromkeys(problems)))
    return shaped


def html_page(blocks: list[dict], meta: dict[str, Any], source: str) -> str:
    """One page of the HTML edition through the template; math is MathML."""
    arguments = ["--from", "json", "--to", "html5", "--mathml", "--standalone", "--wrap=none"]
    arguments += ["--toc", "--toc-depth=3", "--email-obfuscation=none"]
    arguments += ["--template", _address(ASSETS / "page.html")]
    return run(arguments, json.dumps(document(blocks, meta)), source)


def sheet(blocks: list[dict], meta: dict[str, Any], folder: Path) -> str:
    """A page that needs no other file: pictures, style and fonts of `folder` are inside it."""
    arguments = ["--from", "json", "--to", "html5", "--mathml", "--standalone", "--wrap=none"]
    arguments += ["--toc", "--toc-depth=3", "--email-obfuscation=none", "--embed-resources"]
    arguments += ["--template", _address(ASSETS / "sheet.html"), "--resource-path", str(folder)]
    return run(arguments, json.dumps(document(blocks, meta)), str(meta["pagetitle"]))


def typst(shaped: dict[str, Any]) -> str:
    """The body of the PDF edition as Typst source."""
    arguments = ["--from", "json", "--to", "typst-citations", "--wrap=none"]
    arguments += ["--syntax-highlighting=idiomatic"]
    return run(arguments, json.dumps(shaped), "the book (typst)")


@lru_cache
def api_version() -> tuple[int, ...]:
    """The version of Pandoc's document model, which every JSON document must state."""
    return tuple(
        json.loads(run(["--from", "markdown", "--to", "json"], "", "pandoc"))["pandoc-api-version"]
    )


def document(blocks: list[dict], meta: dict[str, Any]) -> dict[str, Any]:
    """A Pandoc document of `blocks` with plain values as metadata."""
    return {
        "pandoc-api-version": list(api_version()),
        "meta": {key: _meta(value) for key, value in meta.items()},
        "blocks": blocks,
    }


def page_div(blocks: list[dict], attributes: dict[str, str]) -> dict[str, Any]:
    """A page of the book: a Div of class `page`; empty attributes are left out."""
    pairs = [[key, value] for key, value in attributes.items() if value]
    return {"t": "Div", "c": [["", ["page"], pairs], blocks]}


def div_blocks(div: dict[str, Any]) -> list[dict]:
    """The blocks inside a Div."""
    return div["c"][1]


def images(tree: Any) -> Iterator[str]:
    """The targets of all images in a document or a part of one."""
    if isinstance(tree, dict):
        if tree.get("t") == "Image":
            yield tree["c"][2][0]
        yield from images(tree.get("c"))
    elif isinstance(tree, list):
        for item in tree:
            yield from images(item)


def plain(meta: dict[str, Any]) -> Any:
    """A metadata value without Pandoc's wrapping: text, truth, list or dictionary."""
    kind, content = meta["t"], meta.get("c")
    if kind == "MetaList":
        return [plain(item) for item in content]
    if kind == "MetaMap":
        return {key: plain(item) for key, item in content.items()}
    return content


def _meta(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"t": "MetaBool", "c": value}
    if isinstance(value, dict):
        return {"t": "MetaMap", "c": {key: _meta(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return {"t": "MetaList", "c": [_meta(item) for item in value]}
    return {"t": "MetaString", "c": str(value)}
