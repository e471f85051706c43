"""One page of a pressed book made again while the others stand, as a preview wants it."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from book import config
from book.config import Book
from lib import paths
from press import edition, pandoc, pdf, site
from press.edition import Leaf

COUNTS = re.compile(  # in Pandoc's JSON: a label, a term of the glossary, a work that is cited
    r'\["(?:fig|tbl|sec|term)-|\{#eq-|"citationId": "(?!(?:[Ff]ig|[Tt]bl|[Ss]ec|[Ee]q)-)'
)


def page(
    number: int,
    leaves: list[Leaf],
    out: Path = paths.BOOK,
    *,
    book: Book | None = None,
    root: Path = paths.ROOT,
) -> Leaf:
    """Press page `number` of the book at `out` from its executed notebook; the page as read.

    `leaves` are all pages as they were read before. Their numbers count, so that those of figures
    and references are right; the other pages and the index of the search stay as they are. Raises
    PressError; `out` then is what it was before.
    """
    book, old = book or config.load(root / "_quarto.yml"), leaves[number]
    notebooks = [(leaf.page, leaf.notebook) for leaf in leaves]
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        staging = Path(folder)
        new = edition.leaf(old.page, old.notebook, staging, root, notebooks)
        others = [_outline(leaf.blocks) for leaf in leaves]
        others[number] = new.blocks
        attributes = [edition.attributes(leaf.page) for leaf in leaves]
        divs = [pandoc.page_div(*pair) for pair in zip(others, attributes, strict=True)]
        shaped = pandoc.edition(divs, "html", root / book.bibliography, book.lang)
        known = [(leaf.page, leaf.notebook, leaf.book) for leaf in leaves]
        known[number] = (new.page, new.notebook, new.book)
        printed = pdf.file_name(book)
        download = printed if (out / printed).exists() else ""
        site.write_page(number, shaped, known, staging, book, download)
        shutil.copytree(staging, out, dirs_exist_ok=True, copy_function=shutil.move)
    return new


def _outline(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks of a page that count elsewhere, figures and tables without their content."""
    found = []
    for block in blocks:
        if block["t"] == "Div":
            attributes, content = block["c"]
            if attributes[0].startswith(("fig-", "tbl-")):
                found.append({"t": "Div", "c": [attributes, [{"t": "HorizontalRule"}]]})
            elif (inner := _outline(content)) or attributes[0]:
                found.append({"t": "Div", "c": [attributes, inner]})
        elif block["t"] == "Header" or COUNTS.search(json.dumps(block)):
            found.append(block)
    return found
