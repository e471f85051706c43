"""axe-core finds nothing amiss on any page, by day and by night, on a desk and on a phone.

Looks at a made book, at the book that is built here by whichever edition, and at another whose
folder RENDERED_BOOK names. What is folded is opened first: a reader will open it too.
"""

import json
import os
import queue
import subprocess
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import pytest

from lib import paths
from press import edition
from tests import made_book
from tests.test_browser import DESK, PHONE, Recorder, Served, chromium  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.browser]

AXE = files("axe_playwright_python") / "axe.min.js"
A_PAGE = 120  # seconds that one page may take on a busy machine
BOOKS = {"built": paths.BOOK, "given": Path(os.environ.get("RENDERED_BOOK") or "none")}
HERE = {name: folder for name, folder in BOOKS.items() if (folder / "index.html").is_file()}
PART = slice(None)
COLOURS = "color-contrast"
LOOKS = {  # theme, width, what axe is told: colours by day and by night, all else on desk and phone
    "day": ("light", DESK, {}),
    "night": ("dark", DESK, {"runOnly": [COLOURS]}),
    "phone": ("light", PHONE, {"rules": {COLOURS: {"enabled": False}}}),
}

# Shows one page after the other in a frame, lets axe look at it, and sends back what it finds.
HARNESS = """<!DOCTYPE html><title>harness</title><link rel="icon" href="data:,">
<iframe style="width: %(width)dpx; height: 900px; border: 0"></iframe><script>
const frame = document.querySelector("iframe"), dark = "%(theme)s" === "dark";
localStorage.setItem("theme", "%(theme)s"); // the press; then Quarto
localStorage.setItem("quarto-color-scheme", dark ? "alternate" : "default");
function event(target, name) {
  return new Promise((done) => target.addEventListener(name, done, { once: true }));
}
const rest = (ms) => new Promise((done) => setTimeout(done, ms));
async function look(url) {
  frame.src = url;
  await event(frame, "load");
  const page = frame.contentDocument;
  for (const fold of page.querySelectorAll("details")) fold.open = true;
  for (const fold of page.querySelectorAll("main .collapse")) fold.classList.add("show");
  const script = page.createElement("script");
  script.src = "/axe.min.js";
  page.head.append(script);
  await event(script, "load");
  await rest(400); // observers, and transitions of colour
  const options = { resultTypes: ["violations"], ...%(options)s };
  const { violations } = await frame.contentWindow.axe.run(page, options);
  return violations.flatMap((rule) => rule.nodes.map((node) =>
    `${rule.id}: ${node.html.slice(0, 160)} (${node.any.map((why) => why.message).join("; ")})`));
}
(async () => {
  for (const url of %(urls)s) {
    const found = await look(url).catch((error) => [`harness: ${error}`]);
    await fetch("/seen", { method: "POST", body: JSON.stringify({ url, found }) });
  }
})();
</script>"""


class WithAxe(Recorder):
    """Serves the book, and axe to each of its pages."""

    def do_GET(self):
        if self.path != "/axe.min.js":
            super().do_GET()
            return
        script = AXE.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript")
        self.send_header("Content-Length", str(len(script)))
        self.end_headers()
        self.wfile.write(script)


def amiss(chromium: str, book: Path, look: str, profile: Path) -> list[str]:  # noqa: F811
    """What axe finds on the pages of a book, a line each."""
    theme, width, options = LOOKS[look]
    pages = sorted(book.rglob("*.html"))[PART]
    urls = [f"/{page.relative_to(book).as_posix()}" for page in pages]
    values = {"urls": json.dumps(urls), "theme": theme, "width": width}
    page = HARNESS % (values | {"options": json.dumps(options)})
    found = []
    with ThreadingHTTPServer(("127.0.0.1", 0), WithAxe) as server:
        served = Served(f"http://127.0.0.1:{server.server_port}", chromium, profile)
        server.RequestHandlerClass = partial(
            WithAxe, requests=served.requests, answers=served.answers, directory=str(book)
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [*served.command, f"{served.address}/harness/{quote(page, safe='')}"]
        log = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=log, stderr=log) as browser:
            try:
                for _ in urls:
                    seen = served.answers.get(timeout=A_PAGE)
                    found += [f"{seen['url']}: {line}" for line in seen["found"]]
            except queue.Empty:
                pytest.fail(f"no answer within {A_PAGE} s; so far {found}")
            finally:
                browser.kill()
        server.shutdown()
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("looked-at")
    edition.press(made_book.write(root), root / "_book", ("html",), book=made_book.BOOK, root=root)
    return root / "_book"


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_is_amiss_on_a_made_book(chromium, made, look, tmp_path):  # noqa: F811
    assert amiss(chromium, made, look, tmp_path) == []


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", HERE)
def test_nothing_is_amiss_on_any_page(chromium, name, look, tmp_path):  # noqa: F811
    found = amiss(chromium, HERE[name], look, tmp_path)
    assert not found, "\n".join([f"{len(found)} places", *found[:60]])


def test_what_is_amiss_would_be_found(chromium, tmp_path):  # noqa: F811
    book = tmp_path / "spoilt"
    book.mkdir()
    (book / "index.html").write_text(
        '<!DOCTYPE html><html lang="en"><title>x</title><main><h1>A</h1>'
        '<p style="color: #999; background: #fff">faint</p>'
        '<pre style="width: 9rem; overflow: auto">a line that is much wider than its box</pre>'
        "<table><tr><th></th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table></main>"
    )
    found = amiss(chromium, book, "day", tmp_path / "profile")
    rules = {line.split(": ")[1] for line in found}
    assert rules == {"color-contrast", "scrollable-region-focusable", "empty-table-header"}
