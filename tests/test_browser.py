"""The pressed pages in a real browser: search answers, figures turn, nothing asks the network."""

import json
import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import made_book
import pytest
from bs4 import BeautifulSoup

from lib.book import press

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("press")]

NORMS, TWO = made_book.BOOK.pages[1].url, made_book.BOOK.pages[2].url
PHONE = 390  # CSS pixels

# Loads every page in a frame as wide as a phone and writes down how wide its content is.
HARNESS = """<!DOCTYPE html><title>phone</title>
<link rel="icon" href="data:,"><pre id="widths"></pre><script>
const urls = %s;
Promise.all(urls.map((url) => new Promise((resolve) => {
  const frame = document.createElement("iframe");
  frame.style.cssText = "width: %dpx; height: 800px; border: 0";
  frame.onload = () => resolve([url, frame.contentDocument.documentElement.scrollWidth]);
  frame.src = url;
  document.body.append(frame);
}))).then((widths) => {
  document.getElementById("widths").textContent = JSON.stringify(Object.fromEntries(widths));
});
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    if found:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail("no Chromium: in CI the browser's test must run (apt-get install chromium)")
    pytest.skip("no Chromium on PATH: apt-get install chromium to run the browser's test")


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("browsed")
    press.press(made_book.write(root), root / "_book", ("html",), book=made_book.BOOK, root=root)
    pages = json.dumps([page.url for page in made_book.BOOK.pages])
    (root / "_book" / "phone.html").write_text(HARNESS % (pages, PHONE))
    return root / "_book"


class Recorder(SimpleHTTPRequestHandler):
    """Serves the book and notes (path, status) of every request.

    The policy lets a page load nothing from elsewhere; the browser reports every attempt to us.
    """

    seen: list[tuple[str, int]]
    policy = (
        "default-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' data: blob:; report-uri /violation"
    )

    def __init__(self, *args, seen, **kwargs):
        self.seen = seen
        super().__init__(*args, **kwargs)

    def end_headers(self):
        self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()

    def do_POST(self):
        self.seen.append((self.rfile.read(int(self.headers["Content-Length"])).decode(), 403))
        self.send_response(204)
        self.end_headers()

    def log_request(self, code="-", size="-"):
        self.seen.append((self.path, int(code)))

    def log_message(self, *args):
        pass


@pytest.fixture
def served(book):
    """(address, requests seen) of a server on the loopback interface."""
    seen: list[tuple[str, int]] = []
    handler = partial(Recorder, seen=seen, directory=str(book))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def browse(chromium: str, url: str, tmp_path: Path) -> BeautifulSoup:
    """The page's DOM after its scripts have run, with no name but the loopback address known."""
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=20000",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--dump-dom",
        url,
    ]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return BeautifulSoup(answer.stdout, "html.parser")


def check_requests(seen):
    assert seen
    assert [(path, status) for path, status in seen if status >= 400] == []


def test_search_finds_a_word_and_nothing_fails(chromium, served, tmp_path):
    address, seen = served
    dom = browse(chromium, f"{address}/{TWO}?q=zanzibar", tmp_path)
    hits = [a["href"] for a in dom.select(".search-hits a")]
    assert hits and all(NORMS in hit for hit in hits)
    assert dom.select_one(".search-hits mark").string == "zanzibar"
    assert any("/pagefind/" in path for path, _ in seen)  # the index, not the plain scan
    check_requests(seen)


def test_search_works_from_the_disk(chromium, book, tmp_path):
    dom = browse(chromium, f"{(book / 'index.html').as_uri()}?q=zanzibar", tmp_path)
    hits = [a["href"] for a in dom.select(".search-hits a")]
    assert [hit.rpartition("/_book/")[2] for hit in hits] == [f"{NORMS}#what-we-learnt"]
    nothing = browse(chromium, f"{(book / 'index.html').as_uri()}?q=quagga", tmp_path)
    assert not nothing.select(".search-hits a")
    assert "quagga" in nothing.select_one(".search-note").string


def test_interactive_figure_is_drawn_without_the_network(chromium, served, tmp_path):
    address, seen = served
    dom = browse(chromium, f"{address}/{TWO}", tmp_path)
    drawn = dom.select_one("#fig-turn .js-plotly-plot .main-svg")
    assert drawn is not None
    assert "turn me" in dom.select_one("#fig-turn .gtitle").get_text()
    assert dom.select("h2 a.anchor")
    check_requests(seen)


def test_no_page_is_wider_than_a_phone(chromium, served, tmp_path):
    address, seen = served
    dom = browse(chromium, f"{address}/phone.html", tmp_path)
    widths = json.loads(dom.select_one("#widths").string)
    assert set(widths) == {page.url for page in made_book.BOOK.pages}
    assert {url: width for url, width in widths.items() if width > PHONE} == {}
    check_requests(seen)


def test_requests_elsewhere_would_be_noticed(chromium, book, served, tmp_path):
    address, seen = served
    (book / "leak.html").write_text('<img src="https://example.org/x.png">')
    browse(chromium, f"{address}/leak.html", tmp_path)
    assert any("example.org" in path and status == 403 for path, status in seen)
