"""The first use of a term on a page is a link to the glossary, and nothing else is."""

import re

import pytest
from bs4 import BeautifulSoup

from book import config
from lib import paths
from press import pandoc
from tests import made_book

GLOSSARY = """\
# Glossary {#sec-glossary .unnumbered}

[black hole]{#term-hole also="hole; holes"}
:   Rows that are one row, as in a census.

[census]{#term-census}
:   A count of holes.
"""

PAGE = """\
# A census {#sec-page}

A [census](https://example.org) and `census`. Two (black holes), then a black hole, a hole and a
Census; a wormhole and a black
box.

## No hole

[A hole in the sidebar]{.hidden}

| hole |
|------|
| hole |
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, BeautifulSoup]:
    root = tmp_path_factory.mktemp("glossary")
    (root / "references.bib").write_text(made_book.BIBLIOGRAPHY)
    sources = {"page": PAGE, "other": PAGE.replace("sec-page", "sec-other"), "glossary": GLOSSARY}
    divs = [
        pandoc.page_div(
            pandoc.read(text, name), {"source": f"{name}.qmd", "name": name, "url": f"{name}.html"}
        )
        for name, text in sources.items()
    ]
    shaped = pandoc.edition(divs, "html", root / "references.bib", "en")
    return {
        name: BeautifulSoup(
            pandoc.html_page(pandoc.div_blocks(div), {"pagetitle": name}, name), "html.parser"
        ).article
        for name, div in zip(sources, shaped["blocks"], strict=True)
    }


@pytest.mark.parametrize("name", ["page", "other"])
def test_the_first_use_on_each_page_is_a_link(pages, name):
    links = pages[name].select("a.term")
    assert [(a.get_text(), a["href"]) for a in links] == [
        ("black holes", "glossary.html#term-hole"),
        ("Census", "glossary.html#term-census"),
    ]
    assert "Two (black holes), then a black hole" in " ".join(pages[name].get_text().split())


def test_the_glossary_does_not_link_to_itself(pages):
    assert pages["glossary"].find(id="term-hole").name == "span"
    assert not pages["glossary"].select("a.term")


def test_the_filter_knows_where_the_books_glossary_is():
    filter_ = (paths.ROOT / "book" / "quarto" / "glossary.lua").read_text()
    [name] = re.findall(r'^local GLOSSARY = "(.+)"$', filter_, re.MULTILINE)
    assert f"{name}.qmd" in {page.source for page in config.load().pages}
