"""The HTML edition: every page through the template, and the files that pages share."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import Executor
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat

from book.config import Book, Page
from lib import figure_data
from press import pandoc, pdf
from press.pandoc import ASSETS, PressError

# what the search index leaves out
UNREAD = "annotation, .cell-code, .header-section-number, .footnote-back"
SHARED = ("book.css", "book.js")
NOTED = ("papermill", "execution")  # metadata: times, and the whole input once more
PLOTLY_MARK = 'class=\\"plotly-figure\\"'  # as it stands in JSON, see weave
KINDS = {
    "generator": "Generator: this chapter computes and keeps what others read.",
    "analyser": "Analyser: this chapter loads what was computed, looks and measures.",
}


def root_of(page: Page) -> str:
    """The way from a page to the book's first folder: "" or "../../"."""
    return "../" * (len(PurePosixPath(page.url).parts) - 1)


def write(
    shaped: dict[str, Any],
    pages: list[tuple[Page, Path, dict]],
    folder: Path,
    book: Book,
    *,
    with_pdf: bool,
    pool: Executor,
) -> None:
    """Write all pages of the shaped document, with assets and search, into `folder`.

    `pages` gives for each page its executed notebook and that notebook's `metadata.book`.
    """
    download = pdf.file_name(book) if with_pdf or (folder / pdf.file_name(book)).exists() else ""

    def one(number: int) -> bool:
        return write_page(number, shaped, pages, folder, book, download)

    with_plotly = any(list(pool.map(one, range(len(pages)))))
    assets(folder, with_plotly)
    records = json.dumps(pandoc.plain(shaped["meta"]["search"]), ensure_ascii=False)
    (folder / "assets" / "search.js").write_text(f"bookTexts({records});\n", encoding="utf-8")
    _index(folder)


def write_page(
    number: int,
    shaped: dict[str, Any],
    pages: list[tuple[Page, Path, dict]],
    folder: Path,
    book: Book,
    download: str,
) -> bool:
    """Write one page of the shaped document into `folder`; whether it shows a plotly figure.

    `download` is the name of the PDF beside the pages, if there is one.
    """
    here, notebook, ran = pages[number]
    named = [entry[0] for entry in pages]
    facts = pandoc.plain(shaped["meta"]["pages"])
    blocks = pandoc.div_blocks(shaped["blocks"][number])
    meta = _meta(number, named, facts, book) | {
        "download": download,
        "notebook": f"{PurePosixPath(here.source).stem}.ipynb",
        "plotly": PLOTLY_MARK in json.dumps(blocks),
        "about": _about(here, ran, named, facts),
    }
    target = folder / here.url
    target.write_text(pandoc.html_page(blocks, meta, here.source), encoding="utf-8")
    _offer(notebook, target.with_suffix(".ipynb"))
    return meta["plotly"]


def _offer(executed: Path, target: Path) -> None:
    """The executed notebook for download, without what papermill noted of its run and without the
    data of its figures, which have files of their own.
    """
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(figure_data.MIME, None)
    for metadata in (notebook.metadata, *(cell.metadata for cell in notebook.cells)):
        for name in NOTED:
            metadata.pop(name, None)
    nbformat.write(notebook, target)


def _meta(number: int, pages: list[Page], facts: list[dict], book: Book) -> dict[str, Any]:
    """What the template needs: titles, neighbours and the sidebar's groups of pages."""
    here, fact = pages[number], facts[number]

    def entry(i: int) -> dict[str, Any]:
        return {
            "url": pages[i].url,
            "title": facts[i]["title"],
            "number": facts[i]["number"],
            "current": i == number,
        }

    def group_of(i: int) -> str:
        return "Appendices" if pages[i].appendix else pages[i].part or ""

    groups = []
    for title, members in groupby(range(len(pages)), key=group_of):
        entries = [entry(i) for i in members]
        is_open = number == 0 or any(e["current"] for e in entries)
        groups.append({"title": title, "pages": entries, "open": is_open})
    meta = {
        "lang": book.lang,
        "book-title": book.title,
        "subtitle": book.subtitle,
        "author": book.author,
        "description": book.description,
        "pagetitle": fact["title"],
        "chapter": fact["number"],
        "part": group_of(number),
        "root": root_of(here),
        "cover": number == 0,
        "groups": groups,
    }
    if number > 0:
        meta["previous"] = entry(number - 1)
    if number + 1 < len(pages):
        meta["next"] = entry(number + 1)
    if book.repository:
        meta["source"] = f"{book.repository}/blob/main/{here.source}"
    return meta


def _about(here: Page, ran: dict, pages: list[Page], facts: list[dict]) -> dict[str, Any]:
    """How a page was made: its kind, scale, given parameters and the chapters it reads."""
    if ran.get("kind") not in KINDS:
        return {}
    named = {page.name: (page.url, fact["title"]) for page, fact in zip(pages, facts, strict=True)}
    reads = [
        {"url": named[name][0], "title": named[name][1]}
        for name in ran.get("reads") or []
        if name in named
    ]
    given = [
        {"name": name, "value": repr(value)}
        for name, value in (ran.get("parameters") or {}).items()
    ]
    return {
        "kind": ran["kind"],
        "explained": KINDS[ran["kind"]],
        "file": here.source,
        "scale": ran.get("scale", ""),
        "reads": reads,
        "given": given,
    }


def assets(folder: Path, with_plotly: bool) -> None:
    """Style, script, fonts, and plotly only if a page shows an interactive figure."""
    target = folder / "assets"
    shutil.copytree(pdf.FONTS, target / "fonts", ignore=shutil.ignore_patterns("*.md"))
    for name in SHARED:
        shutil.copyfile(ASSETS / name, target / name)
    if with_plotly:
        spec = find_spec("plotly")
        if spec is None or not spec.submodule_search_locations:
            raise PressError("a page shows a plotly figure and plotly is missing; run make setup")
        package = Path(spec.submodule_search_locations[0])
        shutil.copyfile(package / "package_data" / "plotly.min.js", target / "plotly.min.js")


def _index(folder: Path) -> None:
    """Let Pagefind read the finished pages; its index goes to `folder`/pagefind."""
    answer = subprocess.run(
        [sys.executable, "-m", "pagefind", "--site", str(folder), "--exclude-selectors", UNREAD],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode or not (folder / "pagefind" / "pagefind.js").is_file():
        raise PressError(f"the search index: {(answer.stderr or answer.stdout).strip()[-400:]}")
