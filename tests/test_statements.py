"""The filter that marks sentences whose guard fails (book/quarto/statements.lua)."""

import json

import pytest

from lib.claims import FAILS, STANDS, holds
from press import pandoc
from tests import made_book

TITLE = "What does not hold here"
LISTED = "these sentences fail"
GUARDS = {True: STANDS, False: FAILS}


def marked(text: str, page: bool = True) -> str:
    """HTML of a page's Markdown after the filter: in a book's Div, or alone as Quarto gives it."""
    blocks = pandoc.read(text, "x.qmd")
    if page:
        blocks = [pandoc.page_div(blocks, {"source": "x.qmd"})]
    arguments = ["--from", "json", "--to", "html", "--wrap=none"]
    arguments += ["--lua-filter", str(pandoc.STATEMENTS)]
    return pandoc.run(arguments, json.dumps(pandoc.document(blocks, {})), "x.qmd")


def test_the_guards_are_what_a_chapter_prints():
    assert (holds(1 < 2).data, holds(2 < 1).data) == (STANDS, FAILS)


@pytest.mark.parametrize("page", [True, False])
def test_the_sentence_before_a_failing_guard_is_marked_and_listed(page):
    text = f"# T {{#t}}\n\nAll is well. The *rows*\ngrow.{FAILS} More follows.\n\nThe end."
    html = marked(text, page)
    sentence = "The <em>rows</em> grow."
    assert html.count(sentence) == 2  # where it stands, and in the list
    assert (
        f'All is well. <span class="failing-sentence">{sentence}</span> <span class="fails">'
        in (html.replace("\n", " "))
    )
    assert html.index("<h1") < html.index(TITLE) < html.index("All is well")
    assert html.count("callout-warning") == 1 and "More follows." in html


@pytest.mark.parametrize("text", ["A holds." + STANDS + " B.", "Nothing guarded.", "# T\n\n- A."])
def test_without_a_failing_guard_the_page_stays_as_it_is(text):
    html = marked(text)
    assert TITLE not in html and "failing" not in html
    assert marked(text, page=False) == pandoc.run(["--to", "html", "--wrap=none"], text, "x.qmd")


@pytest.mark.parametrize("first", [True, False])
def test_a_sentence_begins_after_the_guard_before_it(first):
    html = marked(f"# T\n\nRows are many.{GUARDS[first]} They grow.{FAILS}")
    assert html.count("They grow.") == 2 and "<li>They grow.</li>" in html
    assert html.count("<li>Rows are many.</li>") == (not first)


def test_guards_within_a_sentence_do_not_end_it():
    html = marked(f"# T\n\nWell. It makes 3{STANDS}; another, 5.{FAILS}")
    assert html.count("; another, 5.") == 2 and "<li>It makes 3" in html
    alone = marked(f"# T\n\n{FAILS.strip()} Text.")
    assert "Text." in alone and "failing-sentence" not in alone


def test_a_sentence_ends_where_its_block_does():
    html = marked(f"# T\n\nOne without an end\n\n- two{FAILS}\n- three")
    assert "<li>two</li>" in html and "<li>One" not in html


def test_a_page_lists_its_own_sentences_only():
    pages = [f"# One\n\nA.{FAILS}", "# Two\n\nB."]
    divs = [pandoc.page_div(pandoc.read(text, "x"), {"source": "x"}) for text in pages]
    arguments = ["--from", "json", "--to", "html", "--lua-filter", str(pandoc.STATEMENTS)]
    html = pandoc.run(arguments, json.dumps(pandoc.document(divs, {})), "x")
    assert html.count(TITLE) == 1 and html.index(TITLE) < html.index("<h1>Two")


@pytest.mark.parametrize("name", ["html", "typst"])
def test_both_editions_of_the_press_show_it(name, tmp_path):
    bibliography = tmp_path / "references.bib"
    bibliography.write_text(made_book.BIBLIOGRAPHY)
    blocks = pandoc.read(f"# T {{#sec-t}}\n\nWell. It grows.{FAILS}", "index.qmd")
    div = pandoc.page_div(blocks, {"source": "index.qmd", "url": "index.html", "name": "index"})
    shaped = pandoc.edition([div], name, bibliography, "en")
    if name == "typst":
        shown = pandoc.typst(shaped)
    else:
        shown = pandoc.html_page(shaped["blocks"], {"title": "T"}, "index.qmd")
    assert shown.count("It grows.") == 2 and TITLE in shown and LISTED in " ".join(shown.split())
    assert "does not hold here" in shown.replace(TITLE, "")


def test_chapters_in_one_document_list_each_its_own_below_its_title():
    html = marked(f"# A\n\nOne grows.{FAILS}\n\n# B\n\nFine.\n\n# C\n\nThree.{FAILS}", page=False)
    a, b, c = (html.index(f">{name}</h1>") for name in "ABC")
    assert html.count(TITLE) == 2 and TITLE not in html[b:c]
    assert "<li>One grows.</li>" in html[a:b] and "<li>Three.</li>" in html[c:]
