"""Hostile token texts in every place where text comes out: each shows itself and does nothing.

One page carries all of them (paragraph, list, table, caption, value in the text, printed output,
interactive figure, parameters), is pressed once, and is looked at as HTML, as PDF, as search index
and in Chromium. A form that did something would rename the page.
"""
# ruff: noqa: E501 (many cases a line)

import csv
import io
import json
import re
import shutil
import subprocess
import warnings
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup, Comment
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

from book.config import Book, Page
from lib import foreign, show
from lib.__main__ import main
from lib.analysis import report
from lib.extraction.reachability import Reach, Record
from lib.figure_data import PLOTLY
from press import edition
from tests.test_foreign import HOSTILE, random_texts

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("texts")]

OWNED = "document.title='OWNED'"
FORMS = [text.replace("alert(1)", OWNED) for text in HOSTILE]
TEXTS = FORMS + random_texts(40)
SHOWN = [foreign.visible(text) for text in TEXTS]
BOOK = Book("Texts", "", "", (Page("index.qmd"), Page("chapters/a/01-t.qmd", "A")), "r.bib")
PAGE = "chapters/a/01-t.html"


def bare(text: str) -> str:
    """The text without white space: where a line ends is the page's matter."""
    return re.sub(r"\s|\u00ad", "", text)


def cells():
    """The cells of the page, as the runner leaves them."""
    plain = [show.plain(text) for text in TEXTS]
    yield new_markdown_cell("# Texts {#sec-texts}\n\n" + "\n\n".join(f"p{t}p" for t in plain))
    yield new_markdown_cell(report.bullets([f"b{text}b" for text in TEXTS]).data)
    table = show.table([[i, f"t{text}t"] for i, text in enumerate(plain)], ["n", "text"])
    rows = new_output("display_data", {"text/markdown": table.data})
    options = {"label": "tbl-all", "tbl-cap": " ".join(f"c{t}c" for t in plain)}
    yield new_code_cell("1", metadata={"quarto": options}, outputs=[rows])
    said = new_output("stream", name="stdout", text="\n".join(f"o{text}o" for text in SHOWN))
    yield new_code_cell("print(1)", outputs=[said])
    named = {"data": [{"text": [foreign.in_html(t) for t in TEXTS], "name": "x"}], "layout": {}}
    alt = {"label": "fig-all", "fig-cap": "All.", "fig-alt": " ".join(SHOWN[: len(FORMS)])}
    yield new_code_cell(
        "2", metadata={"quarto": alt}, outputs=[new_output("display_data", {PLOTLY: named})]
    )


@pytest.fixture(scope="module")
def pressed(tmp_path_factory):
    """The folder of the pressed book of one page that carries all texts."""
    root = tmp_path_factory.mktemp("texts") / "50%25 %s {x} 'y'"  # a folder's name is foreign too
    root.mkdir()
    (root / "r.bib").write_text("")
    index = new_notebook(cells=[new_markdown_cell("# Index {.unnumbered}\n\nWords.")])
    page = new_notebook(cells=list(cells()))
    for one, name in ((index, "index"), (page, "a/01-t")):
        one.metadata.book = {"chapter": name, "kind": "page", "scale": "smoke"}
    page.metadata.book |= {"kind": "generator", "parameters": {"specimen": "".join(FORMS[:4])}}
    pairs = []
    for number, (one, entry) in enumerate(zip((index, page), BOOK.pages, strict=True)):
        path = root / f"{number}.ipynb"
        path.write_text(writes(one), encoding="utf-8", errors="surrogatepass")
        pairs.append((entry, path))
    edition.press(pairs, root / "_book", ("html", "pdf"), book=BOOK, root=root)
    return root / "_book"


@pytest.fixture
def noted(record_property):
    """Tell how many texts were seen at a place."""
    counts = f"{len(FORMS)} forms and {len(TEXTS) - len(FORMS)} random texts"
    return lambda place: record_property("cases", f"texts, {place}: {counts}")


def harmless(page: BeautifulSoup) -> None:
    """Nothing of a text has become an element, an attribute or a comment."""
    assert not page.main.find_all(["img", "iframe", "object", "embed", "form", "input"])
    for element in page.find_all(True):
        assert not [name for name in element.attrs if name.startswith("on")], element
        assert "javascript:" not in (element.get("href") or ""), element
    scripts = [s for s in page.find_all("script") if s.get("type") != "application/json"]
    assert not any("OWNED" in (script.string or "") for script in scripts)
    assert not [c for c in page.find_all(string=lambda s: isinstance(s, Comment)) if "script" in c]
    assert page.title.string == "Texts" or "OWNED" not in page.title.string


def test_the_page_shows_every_text(pressed, noted):
    page = BeautifulSoup((pressed / PAGE).read_text("utf-8"), "html.parser")
    harmless(page)
    texts = {name: {bare(node.get_text()) for node in page.select(f"main {name}")}
             for name in ("p", "li", "td")}  # fmt: skip
    caption = bare(page.select_one("#tbl-all").get_text())
    printed = bare(page.select_one(".cell-output").get_text())
    for text in map(bare, SHOWN):
        assert f"p{text}p" in texts["p"] and f"b{text}b" in texts["li"]
        assert f"t{text}t" in texts["td"] and f"c{text}c" in caption
        assert f"o{text}o" in printed
    figure = json.loads(page.select_one("#fig-all script").string)
    seen = [BeautifulSoup(f"<p>{text}</p>", "html.parser") for text in figure["data"][0]["text"]]
    assert [one.get_text() for one in seen] == SHOWN
    assert all(len(one.find_all(True)) == 1 for one in seen)
    assert "".join(FORMS[:4]) in page.select_one(".about").get_text()
    for place in ("paragraph", "list", "table", "caption", "printed output", "plotly", "alt text"):
        noted(place)


def test_the_pdf_shows_every_text(pressed, noted):
    if not shutil.which("pdftotext"):
        pytest.skip("no pdftotext")
    command = ["pdftotext", "-layout", pressed / "Texts.pdf", "-"]
    said = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    # a sign that no font has is set as its code point, and a long line in pieces: signs of ASCII
    # decide, code points left out
    plain = lambda text: re.sub(r"U\+[0-9A-F]{4,6}|[^\x21-\x7e]", "", text)  # noqa: E731
    ascii_only = plain(re.sub(r"\s+", "", bare(said)))
    for text in FORMS:
        wanted = plain(foreign.visible(text))
        assert f"p{wanted}p" in ascii_only or f"b{wanted}b" in ascii_only, text
    noted("PDF")


def test_the_search_index_holds_texts_and_no_markup(pressed, noted):
    script = (pressed / "assets" / "search.js").read_text("utf-8")
    records = json.loads(script.removeprefix("bookTexts(").removesuffix(");\n"))
    whole = bare(" ".join(record["text"] for record in records))
    for text in map(bare, SHOWN):
        assert f"p{text}p" in whole
    noted("search index")


@pytest.mark.browser
def test_a_browser_does_nothing_with_them(pressed, noted, tmp_path):
    """The page, and what the search shows of it, in Chromium; opened from the disk."""
    browser = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
    if browser is None:
        pytest.skip("no Chromium")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND", "--timeout=20000",
               "--virtual-time-budget=15000", f"--user-data-dir={tmp_path}", "--dump-dom"]  # fmt: skip
    for query in ("", "?q=img", "?q=script"):
        address = f"{(pressed / PAGE).as_uri()}{query}"
        said = subprocess.run([*command, address], capture_output=True, timeout=120).stdout.decode()
        page = BeautifulSoup(said, "html.parser")
        assert "OWNED" not in page.title.string and not page.select("img[onerror]")
        if not query:
            shown = {bare(node.get_text()) for node in page.select("main td")}
            assert {f"t{bare(text)}t" for text in SHOWN} <= shown
        else:
            assert page.select(".search-hits a"), "the search found nothing"
    noted("browser"), noted("search in the browser")


def test_labels_of_figures_are_no_formulas(noted):
    matplotlib.use("Agg")
    figure = plt.figure()
    for number, text in enumerate(TEXTS):
        figure.text(0.1, number / len(TEXTS), f"f{foreign.in_figure(text)}f")
    file = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # signs that the font does not have
        figure.savefig(file, format="svg")
    plt.close(figure)
    tree = ElementTree.fromstring(file.getvalue())
    drawn = {bare("".join(node.itertext())) for node in tree.iter() if node.tag.endswith("}text")}
    assert {f"f{bare(text)}f" for text in SHOWN} <= drawn
    noted("figure")


def test_sheets_and_json(noted, tmp_path):
    sheet = io.StringIO()
    csv.writer(sheet).writerows([[foreign.in_sheet(text)] for text in TEXTS])
    for [cell], text in zip(csv.reader(io.StringIO(sheet.getvalue())), SHOWN, strict=True):
        assert cell.lstrip("'") == text.lstrip("'") and cell[:1] not in ("=", "+", "-", "@")
    noted("CSV")
    records = [Record(i, Reach.ADDED, b"", text, text, text) for i, text in enumerate(TEXTS)]
    for record in records:
        line = json.dumps(record.as_dict())
        assert "\n" not in line and json.loads(line)["text"] == record.text
        assert json.loads(foreign.in_script(record.text)) == record.text
    noted("JSON"), noted("JSON in a script")


def test_the_terminal_shows_signs(capsys, noted):
    for text in TEXTS:
        assert main(["census", f"/nowhere/{text}"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1
        assert said.removesuffix("\n").isprintable() or not re.search(
            r"[\x00-\x1f\x7f-\x9f]", said[:-1]
        )
    noted("terminal")
