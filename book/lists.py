"""Made of the whole book when it is rendered: lists of its figures and of the tokens that it names,
how to cite it, and what has changed.

A page asks for one with an empty div, `::: {.book-list of="figures"}`. What takes its place is
Markdown, made from the executed notebooks that are there, CITATION.cff and CHANGELOG.md, so either
edition numbers and links it.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from book.config import Page
from lib import figure_data, files, paths

WANTED = re.compile(r'^(:{3,}) \{\.book-list of="(\w+)"\}\s*\n\1[ \t]*$', re.MULTILINE)
TITLE = re.compile(r"\A\s*# (.+?)\s*(?:\{[^{}]*\})?\s*$", re.MULTILINE)
SENTENCE = re.compile(r".+?[.!?](?=\s+[A-Z@$*]|$)", re.DOTALL)
FENCE = re.compile(r"^:::+.*$", re.MULTILINE)  # opens or closes a div
CELLS = re.compile(r"(?<!\\)\|")  # what divides a row of a table
IDS, TOKEN = ("id", "token id"), "token"  # heads of the columns that name a token
NAMED = "Tokens that a table of a chapter names with their ids in Qwen's vocabulary."

Notebooks = Iterable[tuple[Page, Path]]


class ListError(ValueError):
    """A page asks for a list that there is not."""


def filled(markdown: str, source: str, notebooks: Notebooks) -> str:
    """The text of the page `source` with the lists that it asks for, made from `notebooks`.

    `source` is the path from the project's root. Raises ListError.
    """

    def made(match: re.Match) -> str:
        if match.group(2) not in MAKERS:
            raise ListError(f"{source}: a list of {match.group(2)}? There are {', '.join(MAKERS)}")
        return MAKERS[match.group(2)](source, notebooks)

    return WANTED.sub(made, markdown)


def figures(source: str, notebooks: Notebooks) -> str:
    """Every figure by chapter, its number, the first sentence of its caption, and its data."""
    pages, paper = [], []
    for page, cells in _read(notebooks):
        found, fence = [], ""
        for cell in cells:
            if cell["cell_type"] == "markdown":
                fence = (FENCE.findall("".join(cell["source"])) or [fence])[-1]
            options, outputs = _options(cell), cell.get("outputs", [])
            label = str(options.get("label") or "")
            if not label.startswith("fig-"):
                continue
            caption = " ".join(str(options.get("fig-cap") or "").split())
            sentence = SENTENCE.match(caption)
            said = f"- @{label}: {sentence.group() if sentence else caption}"
            folder = _seen_from(source, page.source).removesuffix(".qmd") + "_files"
            links = figure_data.links(figure_data.names_of(label, outputs), folder)
            on_pages_only = any(figure_data.PLOTLY in out.get("data", {}) for out in outputs)
            on_paper_only = 'when-format="typst"' in fence
            on_page = "" if on_paper_only else f"{said} {links}".strip()
            found.append((on_page, "" if on_pages_only else said))
        title = f"[{_title(cells)}]({_seen_from(source, page.source)})"
        for said, parts in zip(zip(*found, strict=True), (pages, paper), strict=False):
            if any(said):
                parts.append("\n".join([title, "", *filter(None, said)]))
    return _gated("html", pages) + "\n\n" + _gated("typst", paper)


def tokens(source: str, notebooks: Notebooks) -> str:
    """A table of the tokens that tables of chapters name, by id, with the tables.

    Appendices are left out: a report names tokens of its own vocabulary.
    """
    named: dict[int, tuple[str, list[str]]] = {}
    for _, cells in _read((page, path) for page, path in notebooks if not page.appendix):
        for cell in cells:
            label = str(_options(cell).get("label") or "")
            for out in cell.get("outputs", []) if label.startswith("tbl-") else ():
                text = "".join(out.get("data", {}).get("text/markdown", ""))
                for id, token in _named_in(text):
                    places = named.setdefault(id, (token, []))[1]
                    if label not in places:
                        places.append(label)
    rows = [
        f"| {id:,} | {token} | {', '.join('@' + label for label in places)} |"
        for id, (token, places) in sorted(named.items())
    ]
    table = ["| id | token | where |", "|---:|:---|:---|", *rows]
    return "\n".join([*table, "", f": {NAMED} {{#tbl-tokens-named}}"])


def citation(_source: str, _notebooks: Notebooks) -> str:
    """The book as BibTeX, from CITATION.cff."""
    about = files.read_yaml(paths.ROOT / "CITATION.cff")
    authors = " and ".join(f"{{{author['name']}}}" for author in about["authors"])
    year, note = str(about["date-released"])[:4], f"version {about['version']}"
    fields = {"author": authors, "title": about["title"], "year": year, "note": note}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join(["```bibtex", f"@book{{dead-tokens-{year},", *lines, "}", "```"])


def changes(_source: str, _notebooks: Notebooks) -> str:
    """CHANGELOG.md, its versions as sections of the page."""
    text = (paths.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = text[text.index("\n## ") :]
    return re.sub(r"^## (.*)$", r"### \1 {.unnumbered}", versions, flags=re.MULTILINE).strip()


MAKERS = {"figures": figures, "tokens": tokens, "citation": citation, "changes": changes}


def _named_in(table: str) -> Iterator[tuple[int, str]]:
    """Id and token (Markdown) of each row of a pipe table that has a column of either."""
    lines = [[cell.strip() for cell in CELLS.split(line)[1:-1]] for line in table.splitlines()]
    heads = lines[0] if lines else []
    column = next((heads.index(name) for name in IDS if name in heads), None)
    if column is None or TOKEN not in heads:
        return
    for row in lines[2:]:
        id, token = row[column].replace(",", ""), row[heads.index(TOKEN)].strip("“” ")
        if id.isdigit() and token.strip("\ufffd –"):
            yield int(id), token


def _read(notebooks: Notebooks) -> Iterator[tuple[Page, list[dict[str, Any]]]]:
    """The cells of each executed notebook that is there."""
    for page, path in notebooks:
        if path.is_file():
            yield page, json.loads(path.read_text(encoding="utf-8"))["cells"]


def _options(cell: dict[str, Any]) -> dict[str, Any]:
    return cell["metadata"].get("quarto", {})


def _title(cells: list[dict[str, Any]]) -> str:
    texts = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    found = TITLE.match(next(texts, ""))
    return found.group(1) if found else ""


def _seen_from(source: str, target: str) -> str:
    return PurePosixPath(os.path.relpath(target, PurePosixPath(source).parent)).as_posix()


def _gated(edition: str, blocks: list[str]) -> str:
    body = "\n\n".join(blocks)
    return f':::: {{.content-visible when-format="{edition}"}}\n\n{body}\n\n::::'
