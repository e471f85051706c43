"""A hub on loopback: a real HTTP server with ranges, redirects, tokens, and faults on demand.

It speaks as much of the Hugging Face hub as `lib.extraction.fetching` and huggingface_hub's own
file system need: HEAD and GET of /REPO/resolve/REVISION/FILE, and the two API calls of the latter.
"""

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lib.extraction import ranges

COMMIT = "c0ffee" + "0" * 34


def quick_and_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick clock for tries again, and no token of the person who runs the tests."""
    monkeypatch.setattr(ranges, "BACKOFF", (0.0,) * 5)
    monkeypatch.setattr(ranges, "TIMEOUT", 2.0)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")


# A fault handles one GET of a file's body in place of the server: fault(handler, file, start, stop)
Fault = Callable[["Handler", Path, int, int], None]


@dataclass
class Hub:
    """What the server holds and what was asked of it."""

    repos: dict[str, dict[str, Path]]  # repository -> file name -> file
    faults: list[Fault | None] = field(default_factory=list)  # for the next GETs, in order
    head_errors: dict[str, tuple[int, str]] = field(default_factory=dict)  # repo -> status, code
    token: str | None = None  # required on the hub itself, and never to be shown to the CDN
    redirect: str | None = None  # address of another server that delivers the bodies
    log: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    etag: str | None = None  # overrides the files' digests
    address: str = ""

    def ranges(self) -> list[str]:
        """Range headers of the GETs so far."""
        return [range_ for method, _, range_, _ in self.log if method == "GET" and range_]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.note()
        repo, file = self.find()
        if file is None or not self.allowed():
            return None
        self.send_response(302 if self.hub.redirect else 200)
        self.common(repo, file)
        if self.hub.redirect:
            self.send_header("Location", self.hub.redirect + self.path)
            self.send_header("X-Linked-Size", str(file.stat().st_size))
            self.send_header("X-Linked-ETag", self.hub.etag or etag(file))
            self.send_header("Content-Length", "0")
        else:
            self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()

    def do_GET(self) -> None:
        self.note()
        if self.path.startswith("/api/"):
            return self.api()
        repo, file = self.find()
        if file is None or not self.allowed():
            return None
        size = file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        fault = self.hub.faults.pop(0) if self.hub.faults else None
        if fault is not None:
            return fault(self, file, start, stop)
        self.send_response(206 if asked else 200)
        self.common(repo, file)
        self.part(size, start, stop)
        self.body(file, start, stop)

    def part(self, size: int, start: int, stop: int) -> None:
        """The headers of a range."""
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()

    def body(self, file: Path, start: int, stop: int) -> None:
        self.wfile.flush()
        with file.open("rb") as source:
            self.connection.sendfile(source, start, stop - start)

    def cut(self) -> None:
        """End the connection in the middle of a response."""
        self.close_connection = True
        self.connection.shutdown(2)

    def refuse(self, status: int, code: str = "", **headers: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def note(self) -> None:
        self.hub.log.append(
            (self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization"))
        )

    def allowed(self) -> bool:
        """Whether the request carries the token the hub asks for."""
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.refuse(401, "GatedRepo")
            return False
        return True

    def find(self) -> tuple[str, Path | None]:
        """(repository, file); answers the request itself where there is none."""
        match = re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", self.path)
        repo = match[1] if match else ""
        if repo in self.hub.head_errors:
            self.refuse(*self.hub.head_errors[repo])
        elif repo not in self.hub.repos:
            self.refuse(404, "RepoNotFound")
        elif match[3] not in self.hub.repos[repo]:
            self.refuse(404, "EntryNotFound")
        else:
            return repo, self.hub.repos[repo][match[3]]
        return repo, None

    def common(self, repo: str, file: Path) -> None:
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", self.hub.etag or etag(file))
        self.send_header("Accept-Ranges", "bytes")

    def api(self) -> None:
        """The calls that huggingface_hub's file system makes before it reads."""
        tree = re.fullmatch(r"/api/models/(.+?)/tree/[^/?]+.*", self.path)
        if tree:
            return self.answer(self.listing(tree[1], list(self.hub.repos[tree[1]])))
        info = re.fullmatch(r"/api/models/([^/]+/[^/?]+)(/revision/.+)?(\?.*)?", self.path)
        if info and info[1] in self.hub.repos:
            return self.answer({"id": info[1], "sha": COMMIT, "siblings": [], "tags": []})
        self.answer({"error": "not here"}, 404)

    def listing(self, repo: str, names: list[str]) -> list[dict]:
        """The files of a repository as the API lists them."""
        files = {name: self.hub.repos[repo][name] for name in names if name in self.hub.repos[repo]}
        return [
            {"type": "file", "path": n, "size": f.stat().st_size, "oid": etag(f).strip('"')}
            for n, f in files.items()
        ]

    def do_POST(self) -> None:
        self.note()
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        match = re.fullmatch(r"/api/models/(.+?)/paths-info/.+", self.path)
        if not match:
            return self.answer({"error": "not here"}, 404)
        asked = json.loads(body)["paths"] if body.startswith(b"{") else []
        self.answer(self.listing(match[1], asked))

    def answer(self, value, status: int = 200) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def etag(file: Path) -> str:
    """A quoted etag: the SHA-256 of the file, as the hub gives it of large ones."""
    return f'"{_sha256(file, file.stat().st_mtime_ns)}"'


@lru_cache
def _sha256(file: Path, _modified: int) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


class Server(ThreadingHTTPServer):
    """Quiet about clients that hang up: the tests hang up on purpose."""

    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub, serving on a free port of loopback; `hub.address` says where."""
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = Server(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
