"""The pressed pages in a real browser: search answers, figures turn, nothing asks the network."""

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from bs4 import BeautifulSoup

from press import edition
from tests import made_book

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("press")]

NORMS, TWO = made_book.BOOK.pages[1].url, made_book.BOOK.pages[2].url
PHONE, DESK = 390, 1280  # CSS pixels
PATIENCE = 90  # seconds, for a busy machine

# Shows a page in a frame, waits until `ready` (a selector) is there, and sends back what it sees.
HARNESS = """<!DOCTYPE html><title>harness</title><link rel="icon" href="data:,">
<iframe src="%(url)s" style="width: %(width)dpx; height: 900px; border: 0"></iframe><script>
const frame = document.querySelector("iframe");
(function look() {
  const page = frame.contentDocument;
  if (page && page.readyState === "complete" && page.querySelector("%(ready)s")) {
    const seen = { html: page.documentElement.outerHTML, width: page.documentElement.scrollWidth };
    fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
  } else setTimeout(look, 50);
})();
</script>"""


class Recorder(SimpleHTTPRequestHandler):
    """Serves the book and notes (path, status) of every request.

    The policy lets a page load nothing from elsewhere; the browser reports every attempt to us.
    """

    policy = (
        "default-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' data: blob:; report-uri /violation"
    )

    def __init__(self, *args, requests, answers, **kwargs):
        self.requests, self.answers = requests, answers
        super().__init__(*args, **kwargs)

    def end_headers(self):
        self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()

    def do_GET(self):
        if not self.path.startswith("/harness/"):
            super().do_GET()
            return
        page = unquote(self.path.removeprefix("/harness/")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/seen":
            self.answers.put(json.loads(body))
        else:
            self.requests.append((f"forbidden: {body}", 403))
        self.send_response(204)
        self.end_headers()

    def log_request(self, code="-", size="-"):
        self.requests.append((self.path, int(code)))

    def log_message(self, *args):
        pass


class Served:
    """The book on the loopback interface, and a browser to look at it with."""

    def __init__(self, address: str, program: str, profile: Path):
        self.address = address
        self.command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--window-size=1400,1000",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}",
        ]
        self.requests: list[tuple[str, int]] = []
        self.answers: queue.Queue = queue.Queue()

    def visit(self, url: str, ready: str, width: int = DESK) -> tuple[BeautifulSoup, int]:
        """The DOM and the content's width (CSS pixels) once the selector `ready` matches."""
        page = HARNESS % {"url": f"/{url}", "ready": ready, "width": width}
        target = f"{self.address}/harness/{quote(page, safe='')}"
        log = subprocess.DEVNULL
        with subprocess.Popen([*self.command, target], stdout=log, stderr=log) as browser:
            try:
                seen = self.answers.get(timeout=PATIENCE)
            except queue.Empty:
                pytest.fail(f"{url}: no {ready} after {PATIENCE} s")
            finally:
                browser.kill()
        return BeautifulSoup(seen["html"], "html.parser"), seen["width"]

    def failed(self) -> list[tuple[str, int]]:
        """Requests that found nothing, or went elsewhere."""
        assert self.requests
        return [(path, status) for path, status in self.requests if status >= 400]


def said(node) -> str:
    return " ".join(node.get_text().split())


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI") == "true":
        pytest.fail("no Chromium: in CI the browser's tests must run (apt-get install chromium)")
    pytest.skip("no Chromium on PATH: apt-get install chromium to run the browser's tests")


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("browsed")
    edition.press(made_book.write(root), root / "_book", ("html",), book=made_book.BOOK, root=root)
    return root / "_book"


@pytest.fixture
def served(chromium, book, tmp_path) -> Iterator[Served]:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        served = Served(f"http://127.0.0.1:{server.server_port}", chromium, tmp_path / "profile")
        server.RequestHandlerClass = partial(
            Recorder, requests=served.requests, answers=served.answers, directory=str(book)
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield served
        server.shutdown()


def test_search_finds_a_word_and_nothing_fails(served):
    dom, _ = served.visit(f"{TWO}?q=ideograph", ready=".search-hits a")
    hits = [a["href"] for a in dom.select(".search-hits a")]
    assert hits == [f"/{NORMS}#sec-norms-background"]
    assert said(dom.select_one(".hit-page")) == "The length of a row"
    assert said(dom.select_one(".hit-title")) == "Background"
    assert dom.select_one(".search-hits mark").string == "ideograph"
    assert any("/pagefind/" in path for path, _ in served.requests)  # the index, not the scan
    assert served.failed() == []


def test_search_works_from_the_disk(chromium, book, tmp_path):
    def hits(word: str) -> BeautifulSoup:
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += [f"--user-data-dir={tmp_path / word}", "--virtual-time-budget=30000"]
        command += ["--dump-dom", f"{(book / 'index.html').as_uri()}?q={word}"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        return BeautifulSoup(answer.stdout, "html.parser").find("dialog", class_="search")

    found = [a["href"].rpartition("/_book/")[2] for a in hits("zanzibar").select("a")]
    assert found == [f"{NORMS}#what-we-learnt"]
    nothing = hits("quagga")
    assert not nothing.select("a") and "quagga" in nothing.select_one(".search-note").string


def test_interactive_figure_is_drawn_without_the_network(served):
    dom, _ = served.visit(TWO, ready="#fig-turn .js-plotly-plot .main-svg .gtitle")
    assert "turn me" in dom.select_one("#fig-turn .gtitle").get_text()
    assert dom.select("h2 a.anchor")
    assert served.failed() == []


@pytest.mark.parametrize("page", made_book.BOOK.pages[::2], ids=lambda page: page.name)
def test_no_page_is_wider_than_a_phone(served, page):
    _, width = served.visit(page.url, ready="article h1", width=PHONE)
    assert width <= PHONE
    assert served.failed() == []


def test_requests_elsewhere_would_be_noticed(book, served):
    (book / "leak.html").write_text('<p>x</p><img src="https://example.org/x.png">')
    served.visit("leak.html", ready="p")
    assert any("example.org" in path and status == 403 for path, status in served.failed())
