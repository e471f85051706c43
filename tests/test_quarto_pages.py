"""What a page must not have, in either edition: escapes, inline code that was not rendered, a wish
for the network, a link to nowhere. Looks at what is here: executed notebooks and _book."""

import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from book import config
from lib import paths

SLIP = re.compile(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\{python\}")
LOST = re.compile(
    r"Unable to display output"
)  # Quarto's word for a kind of output it does not know
SCRIPT = re.compile(r"<script.*?</script>", re.DOTALL)  # data and code of an explorer: no words
ELSEWHERE = re.compile(r"url\(\s*[\"']?(?:https?:)?//|@import\s+[\"'](?:https?:)?//")
SPOKEN = ("alt", "title", "aria-label", "content")  # attributes that a reader may hear or see
ASKED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NOTEBOOKS = [
    file
    for page in config.load().pages
    for file in sorted(paths.EXECUTED.glob(f"*/{page.name}.ipynb"))
]
BUILT = sorted(paths.BOOK.rglob("*.html"))
STYLES = paths.ROOT / "book" / "quarto"


def read(file: Path) -> BeautifulSoup:
    return BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")


def shown(file: Path) -> list[str]:
    """What readers of an executed notebook see as text: its Markdown and its cells' tables."""
    found = []
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type == "markdown":
            found.append(re.sub(r"^(```+|~~~+).*?^\1", "", cell.source, flags=re.DOTALL | re.M))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found += [data[kind] for kind in ("text/markdown", "text/html") if kind in data]
    return found


def slips(page: BeautifulSoup) -> list[str]:
    """Escapes and unrendered code in a page's words, its code and its mathematics left out."""
    lost = LOST.findall(page.get_text())
    for node in page.find_all(["script", "style", "pre", "annotation", "template"]):
        node.decompose()
    heard = [node[where] for where in SPOKEN for node in page.find_all(True, **{where: True})]
    return lost + [found for text in (page.get_text(), *heard) for found in SLIP.findall(text)]


def name(file: Path) -> str:
    root = paths.EXECUTED if file.is_relative_to(paths.EXECUTED) else paths.BOOK
    return str(file.relative_to(root))


@pytest.mark.parametrize(
    "words",
    [
        r"<p>8.7\xa0×\xa010⁻¹</p>",
        "<td>as <code>{python} rest_str</code> says</td>",
        r'<img alt="of \u2212 one" src="a.png">',
        "<pre>Unable to display output for mime type(s): a/b</pre>",
    ],
)
def test_a_slip_would_be_seen(words):
    page = f"<html><body><pre>{{python}} shown</pre>{words}<p>8.7 × 10⁻¹</p></body></html>"
    assert slips(BeautifulSoup(page, "html.parser"))
    assert not slips(BeautifulSoup(page.replace(words, ""), "html.parser"))


def test_what_is_no_slip_is_none():
    assert not SLIP.search("8.7 × 10⁻¹ of $\\xi_0$, $\\upsilon$ and `python -m lib`")
    assert ELSEWHERE.search('@import "https://fonts.example/css";')
    assert not ELSEWHERE.search('src: url("../../data/fonts/a.woff2")')


@pytest.mark.skipif(not (paths.BOOK / "index.html").exists(), reason="no whole book is built here")
def test_every_page_of_the_book_is_among_the_built():
    assert {page.url for page in config.load().pages} <= {name(file) for file in BUILT}


@pytest.mark.parametrize("file", NOTEBOOKS, ids=name)
def test_executed_pages_show_values(file):
    texts = [SCRIPT.sub("", text) for text in shown(file) if "plotly" not in text]
    assert not [found.group() for text in texts if (found := SLIP.search(text))]


@pytest.mark.parametrize("file", BUILT, ids=name)
def test_built_pages_show_values_and_need_no_network(file):
    page = read(file)
    asked = [
        node[where]
        for tag, where in ASKED.items()
        for node in page.find_all(tag, **{where: re.compile(r"^(?:https?:)?//")})
        if node.get("rel") != ["canonical"]
    ]
    assert not asked
    assert not [style.text[:200] for style in page("style") if ELSEWHERE.search(style.text)]
    assert not slips(page)


@pytest.mark.parametrize("file", sorted(paths.BOOK.glob("*.pdf")), ids=name)
def test_the_pdf_shows_values(file):
    if not shutil.which("pdftotext"):
        pytest.skip("no pdftotext")
    text = subprocess.run(["pdftotext", file, "-"], capture_output=True, text=True).stdout
    assert len(text) > 10_000
    assert not SLIP.findall(text) + LOST.findall(text)


def test_links_inside_the_built_book_arrive():
    pages = {file.resolve(): read(file) for file in BUILT}
    names = {file: {tag["id"] for tag in page.find_all(id=True)} for file, page in pages.items()}
    lost = []
    for file, page in pages.items():
        for link in page.find_all("a", href=True):
            address, fragment = urldefrag(link["href"])
            if re.match(r"[a-z]+:|//", address):
                continue
            target = (file.parent / unquote(address)).resolve() if address else file
            target = target / "index.html" if target.is_dir() else target
            known = fragment in ("", "top") or fragment in names.get(target, {fragment})
            if not target.exists() or not known:
                lost.append(f"{name(file)}: {link['href']}")
    assert not lost


def test_built_style_sheets_need_no_network():
    sheets = paths.BOOK.rglob("*.css")
    assert not [name(f) for f in sheets if ELSEWHERE.search(f.read_text(encoding="utf-8"))]


def test_quarto_is_told_to_stay_off_the_network():
    html = yaml.safe_load((paths.ROOT / "_quarto.yml").read_text())["format"]["html"]
    assert html["html-math-method"] == "mathml"
    for theme, sheet in ((theme, paths.ROOT / files[-1]) for theme, files in html["theme"].items()):
        assert re.search(r"^\$web-font-path: false;", sheet.read_text(), re.M), theme
    assert not [f.name for f in STYLES.iterdir() if ELSEWHERE.search(f.read_text())]
