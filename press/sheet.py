"""One executed notebook as a sheet of its own: an HTML file that needs no other, and a PDF."""

import tempfile
from dataclasses import replace
from pathlib import Path

from book import config
from book.config import Page
from lib import files, paths
from press import edition, pandoc, pdf, site


def press(notebook: Path, html: Path, printed: Path, *, about: str) -> None:
    """Make the files `html` and `printed` of an executed notebook; `about` is what it is about.

    Raises PressError; then neither file has changed.
    """
    book = replace(config.load(), title="Field report", subtitle=about)
    page = Page("report.qmd")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        leaf = edition.leaf(page, notebook, made, paths.ROOT)
        div = pandoc.page_div(leaf.blocks, edition.attributes(page))
        bibliography = paths.ROOT / book.bibliography
        shaped = {n: pandoc.edition([div], n, bibliography, book.lang) for n in ("html", "typst")}
        site.assets(made, with_plotly=False)
        blocks = pandoc.div_blocks(shaped["html"]["blocks"][0])
        meta = {"lang": book.lang, "book-title": book.title, "subtitle": about}
        text = pandoc.sheet(blocks, meta | {"pagetitle": f"{book.title}: {about}"}, made)
        pages = pdf.write(shaped["typst"], made, book).read_bytes()
    files.write_atomically(html, lambda path: path.write_text(text, encoding="utf-8"))
    files.write_atomically(printed, lambda path: path.write_bytes(pages))
