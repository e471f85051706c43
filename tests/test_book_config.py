"""The pages, parts and titles that _quarto.yml lists."""

import pytest

from book import config
from book.config import Page
from lib import paths


def test_the_book_has_the_pages_of_its_configuration():
    book = config.load()
    assert book.pages[0] == Page("index.qmd") and book.pages[0].url == "index.html"
    assert all((paths.ROOT / page.source).is_file() for page in book.pages)
    norms = next(page for page in book.pages if page.name == "discovery/01-norms")
    assert (norms.part, norms.appendix) == ("Discovery", False)
    assert norms.url == "chapters/discovery/01-norms.html"
    assert next(page for page in book.pages if page.name == "appendix/01-claims").appendix
    assert book.parts[0] == "Discovery" and len(set(book.parts)) == len(book.parts)


GOOD = "book: {title: T, chapters: [index.qmd]}\nbibliography: b.bib\n"
BAD = {
    "book: [": "not valid YAML",
    "project: {}": "needs a `book:` section",
    GOOD.replace("index", "other"): "must be index.qmd",
    GOOD.replace("[index.qmd]", "[index.qmd, index.qmd]"): "index.qmd is listed twice",
    GOOD.replace("[index.qmd]", "index.qmd"): "must be a list",
    GOOD.replace("[index.qmd]", "[index.qmd, {part: p.qmd}]"): "must be a title, not a file",
    GOOD.replace("[index.qmd]", "[index.qmd, 7]"): "holds 7; expected a .qmd file",
    GOOD.replace("title: T, ", ""): "`title:` is missing",
    GOOD.replace("b.bib", "[a.bib, b.bib]"): "must be one line of text",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_configuration_gets_one_line(text, tmp_path):
    path = tmp_path / "_quarto.yml"
    with pytest.raises(config.ConfigError, match="no such file"):
        config.load(path)
    path.write_text(GOOD.replace("[index.qmd]", "[index.qmd, {part: P, chapters: []}]"))
    assert config.load(path).pages == (Page("index.qmd"),) and config.load(path).parts == ()
    path.write_text(text)
    with pytest.raises(config.ConfigError) as caught:
        config.load(path)
    assert BAD[text] in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
