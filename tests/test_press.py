"""The press: a made book of five pages is pressed once, then read back with a parser."""

import json
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from book import config
from book.config import Book, Page
from lib import paths
from press import edition, pandoc, pdf, preview, weave
from press.pandoc import PressError
from tests import made_book

pytestmark = pytest.mark.xdist_group("press")

URLS = [page.url for page in made_book.BOOK.pages]
NORMS, TWO, MORE = URLS[1], URLS[2], URLS[4]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A project folder whose book has been pressed."""
    root = tmp_path_factory.mktemp("project")
    edition.press(made_book.write(root), root / "_book", book=made_book.BOOK, root=root)
    return root


@pytest.fixture(scope="module")
def book(root) -> Path:
    return root / "_book"


@pytest.fixture(scope="module")
def pages(book) -> dict[str, BeautifulSoup]:
    return {
        url: BeautifulSoup((book / url).read_text(encoding="utf-8"), "html.parser") for url in URLS
    }


def said(node) -> str:
    return " ".join(node.get_text(" ").replace("\u00a0", " ").split())


def written(node) -> str:
    return " ".join(node.get_text().replace("\u00a0", " ").split())


# ---------------------------------------------------------------- HTML


def test_pages_lie_where_quarto_would_put_them(book):
    assert {str(p.relative_to(book)) for p in book.rglob("*.html")} == set(URLS)


def test_chapters_sections_and_appendices_are_numbered(pages):
    def numbers(url):
        return [said(n) for n in pages[url].select("article .header-section-number")]

    assert numbers("index.html") == numbers("references.html") == []
    assert numbers(NORMS) == ["1", "1.1", "1.2"]
    assert numbers(TWO) == ["2", "2.1"]
    assert numbers(MORE) == ["A"]
    assert pages[NORMS].title.string.startswith("1 The length of a row")


def test_captions_carry_numbers_by_chapter(pages):
    captions = [written(c) for url in URLS for c in pages[url].find_all("figcaption")]
    assert captions == [
        "Figure 1.1: Norms of all rows.",
        "Table 1.1: Some rows.",
        "Figure 1.2: Two panels.",
        "Figure 2.1: Turn it. Data",
        "Figure 2.2: Still.",
        "Table A.1: A table of the text.",
    ]
    spike = pages[NORMS].find(id="fig-spike")
    assert spike.name == "figure" and spike.figcaption.em.string == "all"
    assert pages[NORMS].find(id="tbl-rows").find("table") is not None
    panels = [written(p) for p in pages[NORMS].select("#fig-pair .panel p")]
    assert panels == ["(a) left", "(b) right"]


def test_references_name_and_reach_their_targets(pages):
    first = pages[NORMS].find("h1").find_next("p")
    links = {written(a): a["href"] for a in first.find_all("a")}
    assert links["Figure 1.1"] == links["Plate 1.1"] == "#fig-spike"
    assert links["Figure 1.2"] == "#fig-pair"
    assert links["Table 1.1"] == "#tbl-rows"
    assert links["Equation 1.1"] == links["1.1"] == "#eq-norm"
    assert links["Chapter 2"] == f"../../{TWO}#sec-two"
    across = {written(a): a["href"] for a in pages[TWO].find("h1").find_next("p").find_all("a")}
    assert across["Section 1.1"] == f"../../{NORMS}#sec-norms-background"
    assert across["Appendix A"] == f"../../{MORE}#sec-more"
    assert across["Figure 2.1"] == "#fig-turn"
    back = pages[NORMS].find("a", string="the preface")
    assert back["href"] == "../../index.html#preface"


def test_equations_are_mathml_and_numbered_where_labelled(pages):
    page = pages[NORMS]
    equation = page.find(id="eq-norm")
    assert said(equation.select_one(".equation-number")) == "(1.1)"
    assert equation.find("math")["display"] == "block"
    assert len(page.select("math[display=block]")) == 2
    assert len(page.select(".equation-number")) == 1
    assert "{#eq-norm}" not in page.get_text()
    glued = page.select_one("span.nobreak")  # no line begins with the comma after a formula
    assert glued.find("math") is not None and glued.get_text().endswith(",")


def test_citations_agree_over_the_whole_book(pages):
    for url, key, year in ((NORMS, "made-2024-first", "2024a"), (TWO, "made-2024-second", "2024b")):
        link = pages[url].select_one(f'a[href="../../references.html#ref-{key}"]')
        assert year in said(link)
    entries = pages["references.html"].select("#refs .csl-entry")
    assert [entry["id"] for entry in entries] == [
        "ref-knuth-1984-texbook", "ref-made-2024-first", "ref-made-2024-second",
    ]  # fmt: skip
    assert not pages[NORMS].select(".csl-entry")


def test_every_link_inside_the_book_arrives(book, pages):
    ids = {url: {n["id"] for n in page.find_all(id=True)} for url, page in pages.items()}
    count = 0
    for url, page in pages.items():
        for link in page.find_all("a", href=True):
            href, anchor = urldefrag(link["href"])
            if "://" in href:
                continue
            target = (book / url).parent / unquote(href) if href else book / url
            assert target.resolve().is_file(), (url, link["href"])
            if anchor:
                where = str(target.resolve().relative_to(book.resolve()))
                assert unquote(anchor) in ids[where], (url, link["href"])
            count += 1
    assert count > 50


def test_nothing_on_a_page_needs_the_network(book, pages):
    for url, page in pages.items():
        loaded = [n["src"] for n in page.find_all(src=True)]
        loaded += [n["href"] for n in page.find_all("link", href=True)]
        for target in loaded:
            if target.startswith("data:"):
                continue
            assert ((book / url).parent / target).resolve().is_file(), (url, target)
    for sheet in (book / "assets").glob("*.css"):
        for target in re.findall(r"url\(([^)]+)\)", sheet.read_text()):
            assert (sheet.parent / target).is_file(), target


def test_every_page_has_the_contents_and_its_neighbours(pages):
    for number, url in enumerate(URLS):
        page, up = pages[url], "../" * url.count("/")
        sidebar = page.find("nav", class_="sidebar")
        assert [a["href"] for a in sidebar.select("li a")] == [up + u for u in URLS]
        assert [a["href"] for a in sidebar.select("[aria-current=page]")] == [up + url]
        parts = [said(s) for s in sidebar.find_all("summary")]
        assert parts == ["Discovery", "The lattice", "Appendices"]
        previous, following = page.select_one("a[rel=prev]"), page.select_one("a[rel=next]")
        assert (previous and previous["href"]) == (up + URLS[number - 1] if number else None)
        last = number == len(URLS) - 1
        assert (following and following["href"]) == (None if last else up + URLS[number + 1])
        assert page.select_one(f'a[href="{up}A-Made-Book.pdf"]')
        assert page.html["lang"] == "en"


def test_figures_have_alt_text_and_their_printed_size(book, pages):
    images = [(url, img) for url in URLS for img in pages[url].find_all("img")]
    assert len(images) == 4
    assert all(img["alt"] for _, img in images)
    assert pages[NORMS].select_one("#fig-spike img")["alt"] == 'A line that climbs, "steeply".'
    url, image = images[0]
    assert image["style"] == "width:6in"  # 1,200 pixels at 200 dots per inch
    assert (book / url).with_name("01-norms_files").joinpath("fig-spike.png").is_file()


def test_code_is_folded_shown_or_hidden_as_the_chapter_says(pages):
    page = pages[NORMS]
    assert [said(s) for s in page.select(".code-fold > summary")] == ["Imports", "Code", "Code"]
    parameters = page.select_one(".parameters")
    assert parameters.find("details") is None and "seed" in said(parameters)
    assert parameters.select_one("code .op")  # highlighted
    text = page.get_text()
    assert "secret()" not in text and "quiet()" not in text and "hush" not in text
    outputs = [said(o) for o in page.select(".cell-output")]
    assert outputs == ["read 3 rows", "100%|###| done"]


def test_editions_see_their_own_text(pages):
    text = pages[NORMS].get_text()
    assert "Only on the pages." in text and "Only on paper." not in text


def test_callouts_have_titles_and_fold(pages):
    note, tip = pages[NORMS].select(".callout")
    assert said(note.select_one(".callout-title")) == "A remark"
    assert "龍" in note.get_text() and "六" in note.get_text()
    assert said(tip.find("summary")) == "Folded away" and not tip.details.has_attr("open")
    assert "1.2 Folded" not in said(pages[NORMS])


def test_plotly_is_local_and_only_where_it_is_shown(book, pages):
    loading = [u for u in URLS if pages[u].select('script[src$="plotly.min.js"]')]
    assert loading == [TWO]
    assert (book / "assets" / "plotly.min.js").stat().st_size > 1_000_000
    figure = json.loads(pages[TWO].select_one("#fig-turn script").string)
    assert (
        figure["data"][0]["name"] == "</script>" and figure["layout"]["title"]["text"] == "turn me"
    )
    assert pages[TWO].select_one("#fig-turn .plotly-figure")["aria-label"] == "Two points."
    offered = pages[TWO].select_one("#fig-turn figcaption a.data")
    table = (book / TWO).parent / offered["href"]
    assert offered["download"] == "fig-turn.csv" and "</script>,,1,3" in table.read_text()


def test_a_page_says_how_it_was_made(book, pages):
    about = said(pages[NORMS].select_one(".about"))
    assert "Generator" in about and "seed = 43" in about and "smoke" in about
    reads = pages[TWO].select_one(".about dl a[href*='01-norms.html']")
    assert said(reads) == "The length of a row"
    assert not pages["references.html"].select(".about")
    offered = pages[NORMS].select_one(".about a[download]")["href"]
    notebook = nbformat.read((book / NORMS).parent / offered, as_version=4)
    assert notebook.metadata.book.chapter == "discovery/01-norms"
    noted = {name for part in (notebook, *notebook.cells) for name in part.metadata}
    assert "book" in noted and not noted & {"papermill", "execution"}


def test_search_reads_the_pages_and_has_texts_for_the_disk(book):
    assert (book / "pagefind" / "pagefind.js").is_file()
    assert list((book / "pagefind" / "fragment").iterdir())
    script = (book / "assets" / "search.js").read_text(encoding="utf-8")
    records = json.loads(script.removeprefix("bookTexts(").removesuffix(");\n"))
    found = [r["url"] for r in records if "zanzibar" in r["text"]]
    assert found == [f"{NORMS}#what-we-learnt"]
    assert not any("import numpy" in r["text"] for r in records)


# ---------------------------------------------------------------- PDF


def test_pdf_has_its_pages(book):
    content = (book / "A-Made-Book.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
    # cover, contents, preface, 3 part pages, references, 2 + 1 + 1 pages of chapters
    assert len(re.findall(rb"/Type */Page\b", content)) == 11
    assert len(re.findall(rb"/Subtype */Image\b", content)) >= 2


def test_pdf_numbers_only_what_it_shows(root):
    divs = []
    for page in made_book.BOOK.pages:
        woven = weave.weave(root / "executed" / f"{page.name}.ipynb", "files")
        blocks = pandoc.read(woven.markdown, page.source)
        divs.append(pandoc.page_div(blocks, edition.attributes(page)))
    shaped = pandoc.edition(divs, "typst", root / "references.bib", "en")
    source = pandoc.typst(shaped)
    still = source.index("<fig-still>")
    assert "Figure~2.1" in source[still - 300 : still] and "fig-turn" not in source
    assert "Only on paper." in source and "Only on the pages." not in source
    assert 'numbering: (..) => "A"' in source and '#part("Appendices")' in source
    assert 'set math.equation(numbering: (..) => "(1.1)")' in source and "<eq-norm>" in source
    assert 'alt: "A line that climbs, \\"steeply\\"."' in source
    assert "secret()" not in source and "seed = 42" in source
    assert "import numpy" not in source and "plot(row)" not in source  # folded on the pages


def test_a_folded_callout_keeps_its_parameters_on_paper(tmp_path):
    made = [
        new_markdown_cell(TITLE + '::: {.callout-note collapse="true" title="Set-up"}'),
        new_code_cell("steps = 3", metadata={"tags": ["parameters"]}),
        new_code_cell("import numpy", metadata={"quarto": {"code-fold": False}}),
        new_markdown_cell(":::"),
        new_code_cell("spoken_of()", metadata={"quarto": {"code-fold": "show"}}),
        new_code_cell("value()"),
    ]
    pairs, book = one_page(tmp_path, *made)
    [[page, path]] = pairs
    blocks = pandoc.read(weave.weave(path, "files").markdown, page.source)
    div = pandoc.page_div(blocks, edition.attributes(page))
    source = pandoc.typst(pandoc.edition([div], "typst", tmp_path / book.bibliography, book.lang))
    assert "steps = 3" in source and "spoken_of()" in source
    assert "import numpy" not in source and "value()" not in source


def test_no_character_of_the_pdf_is_a_box(tmp_path, monkeypatch):
    none, mark = "\U000f5678", "\U000f1234"  # for private use: no font has them
    assert pdf.lacking(f"plain, кä龍กא {none}{mark}{none} and “more”") == {none, mark}
    assert pdf.lacking("plain") == pdf.lacking("龍") == set()
    pairs, book = one_page(tmp_path, new_markdown_cell(f"{TITLE}A {none} and `{mark}`."))
    texts = []
    monkeypatch.setattr(pdf.Path, "unlink", lambda self: texts.append(self.read_text()))
    edition.press(pairs, tmp_path / "_book", ("pdf",), book=book, root=tmp_path)
    assert "A U+F5678 and `U+F1234`" in texts[0] and not pdf.lacking(texts[0])


def test_the_book_has_a_letter_for_every_character_of_its_pages():
    here = [f for page in config.load().pages for f in paths.EXECUTED.glob(f"*/{page.name}.ipynb")]
    seen = set()
    for file in here:
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            seen.update("".join(cell["source"]))
            for out in cell.get("outputs", []):
                shown = out.get("data", {})
                seen.update("".join(shown.get("text/markdown", "")), "".join(out.get("text", "")))
    by_quarto = (paths.ROOT / "book" / "quarto" / "paper.lua").read_text(encoding="utf-8")
    replaced = {int(code, 16) for code in re.findall(r"\[(0x[0-9a-f]+)\] = true", by_quarto)}
    missing = {ord(sign) for sign in pdf.lacking("".join(seen))}
    assert not {f"U+{code:04X}" for code in missing - replaced if code < 0x20000}


# ---------------------------------------------------------------- what goes wrong


def one_page(root: Path, *cells, source="index.qmd") -> tuple[list, Book]:
    """A book of one page made of `cells`, on disk."""
    (root / "references.bib").write_text(made_book.BIBLIOGRAPHY)
    path = root / "one.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    page = Page(source)
    return [(page, path)], Book("One", "", "", (page,), "references.bib")


TITLE = "# One {#sec-one}\n\n"
SPOILT = {
    "reference": ("See @fig-nowhere.", r"index\.qmd: @fig-nowhere refers to nothing"),
    "label twice": ("## A {#sec-one}\n", r"index\.qmd: label sec-one is used twice"),
    "citation": ("As [@nobody-1900] says.", r"nobody-1900 not found"),
    "anchor": ("[x](#nowhere)", r"index\.qmd: links to #nowhere"),
    "page": ("[x](chapters/none.qmd)", r"index\.qmd: links to chapters/none\.qmd"),
    "picture": ("![x](none.png)", r"index\.qmd: picture none\.png: no such file"),
    "far picture": ("![x](https://example.org/x.png)", r"picture https.*use a file of the project"),
    "mathematics": ("$$ \\frac{a $$", r"index\.qmd: .*TeX math"),
    "shortcode": ("{{< pagebreak >}}", r"index\.qmd: Quarto shortcodes"),
    "stray label": ("Text {#fig-x} more.", r"index\.qmd: the label \{#fig-x\}"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_one_clear_error_names_file_and_mend(name, tmp_path):
    text, message = SPOILT[name]
    pairs, book = one_page(tmp_path, new_markdown_cell(TITLE + text))
    out = tmp_path / "_book"
    out.mkdir()
    (out / "index.html").write_text("the old book")
    with pytest.raises(PressError, match=message):
        edition.press(pairs, out, ("html",), book=book, root=tmp_path)
    assert (out / "index.html").read_text() == "the old book"
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"_book", "._book.lock", "one.ipynb", "references.bib"}


def test_all_problems_are_told_at_once(tmp_path):
    pairs, book = one_page(tmp_path, new_markdown_cell("No heading, @fig-a, @tbl-b."))
    with pytest.raises(PressError) as caught:
        edition.press(pairs, tmp_path / "_book", ("pdf",), book=book, root=tmp_path)
    assert len(str(caught.value).splitlines()) == 3


def test_notebooks_that_are_not_there_damaged_or_failed(tmp_path):
    pairs, book = one_page(tmp_path, new_markdown_cell(TITLE))
    path = pairs[0][1]

    def pressing(message):
        with pytest.raises(PressError, match=message):
            edition.press(pairs, tmp_path / "_book", book=book, root=tmp_path)

    path.write_text('{"cells": [')
    pressing(r"one\.ipynb: not a notebook .* run the chapter again")
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    nbformat.write(new_notebook(cells=[new_code_cell("1/0", outputs=[error])]), path)
    pressing(r"one\.ipynb: cell 1 holds an error \(ValueError: no\)")
    path.unlink()
    pressing(r"one\.ipynb: no such file; run the chapter first")
    with pytest.raises(PressError, match="choose of html, pdf"):
        edition.press(pairs, tmp_path / "_book", ("epub",), book=book, root=tmp_path)
    with pytest.raises(PressError, match="no page was given"):
        edition.press([], tmp_path / "_book", book=book, root=tmp_path)
    (tmp_path / "references.bib").unlink()
    pressing(r"references\.bib: no such file; mend `bibliography:`")
    assert not (tmp_path / "_book").exists()


def test_one_format_leaves_the_other_alone(tmp_path):
    pairs, book = one_page(tmp_path, new_markdown_cell(TITLE + "One."))
    out = tmp_path / "_book"
    edition.press(pairs, out, ("pdf",), book=book, root=tmp_path)
    assert [p.name for p in out.iterdir()] == ["One.pdf"]
    pdf = (out / "One.pdf").read_bytes()
    edition.press(pairs, out, ("html",), book=book, root=tmp_path)
    assert (out / "One.pdf").read_bytes() == pdf
    assert 'href="One.pdf"' in (out / "index.html").read_text()
    html = (out / "index.html").read_bytes()
    edition.press(pairs, out, ("pdf",), book=book, root=tmp_path)
    assert (out / "index.html").read_bytes() == html
    assert out.stat().st_mode & 0o777 == 0o755


def test_pictures_of_the_text_come_along(tmp_path):
    folder = tmp_path / "chapters" / "a"
    folder.mkdir(parents=True)
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    (folder / "drawing.svg").write_text(svg)
    cell = new_markdown_cell(TITLE + "![A square.](drawing.svg){#fig-square fig-alt='Square'}")
    pairs, book = one_page(tmp_path, cell, source="chapters/a/01-one.qmd")
    edition.press(pairs, tmp_path / "_book", book=book, root=tmp_path)
    page = tmp_path / "_book" / "chapters" / "a" / "01-one.html"
    figure = BeautifulSoup(page.read_text(), "html.parser").find(id="fig-square")
    assert figure.img["src"] == "drawing.svg" and (page.parent / "drawing.svg").is_file()
    assert figure.img["alt"] == "Square"
    assert written(figure.figcaption) == "Figure 1.1: A square."


# ---------------------------------------------------------------- one page made again


def test_a_page_made_again_is_as_the_whole_book_would_have_it(tmp_path):
    notebooks = made_book.write(tmp_path)
    given = {"book": made_book.BOOK, "root": tmp_path}
    leaves = edition.press(notebooks, tmp_path / "_book", ("html",), **given)
    for number, (page, file) in enumerate(notebooks):
        changed = nbformat.read(file, as_version=4)
        changed.cells.append(new_markdown_cell("It ends with @sec-norms and @knuth-1984-texbook."))
        nbformat.write(changed, file)
        leaves[number] = preview.page(number, leaves, tmp_path / "_book", **given)
        edition.press(notebooks, tmp_path / "whole", ("html",), **given)
        alone, whole = (tmp_path / folder / page.url for folder in ("_book", "whole"))
        assert "It ends with" in alone.read_text() and alone.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("._book-*"))
