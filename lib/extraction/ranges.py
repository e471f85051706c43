"""Read a byte range of a remote file: into one reused buffer, onward after a cut, checked.

A server may count wrongly or change the file in the middle, and no hub publishes a digest of a
range. So a request after a cut repeats the last bytes that came, all answers must carry one ETag,
and what has arrived is read a second time in a few places, in ranges that begin elsewhere.

`huggingface_hub` finds the file; the bytes come through the standard library's HTTP client, whose
`readinto` fills a caller's buffer without a copy, which the hub's own reader does not offer:
`benchmarks/hub.py` shows this one 6.5 times as fast as fsspec's HfFileSystem.
"""

import http.client
import io
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import urlsplit

from lib import progress
from lib.extraction.catalogue import SpecimenError

BUFFER = 1 << 20  # bytes read at a time: large enough to be fast, small enough for the cache
TIMEOUT = 30.0  # seconds without a byte
PATIENCE = 6  # failures in a row, none of which brought a byte, before giving up
BACKOFF = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between them
LONGEST_WAIT = 120.0  # seconds; a server that asks for more is not waited for
OVERLAP = 256  # bytes that a request repeats of those that came before
AGAIN = 8  # places of a range that are read a second time
OTHERS = "the server sent other bytes the second time; use another HF_ENDPOINT, or fetch again"
RETRIED = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Remote:
    """A remote file as it was found: every read is held to its size."""

    name: str  # for messages
    url: str
    size: int  # bytes
    version: str  # what must not change between two attempts: commit and etag, or the like
    headers: Mapping[str, str] = field(default_factory=dict)  # a token, if the host may see it
    etag: str = ""  # as the hub gives it: of a whole file its digest
    answered: set[str] = field(default_factory=set, compare=False)  # the answers' ETags: one


class BytesDiffer(SpecimenError):
    """The server sends other bytes than it sent before: nothing that came from it is believed."""


class RangeRefused(SpecimenError):
    """The server will not serve the bytes; `status` says why. Trying again does not help."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def find(url: str, name: str) -> Remote:
    """The file at a plain address. Raises SpecimenError."""
    request = urllib.request.Request(url, method="HEAD", headers={"Accept-Encoding": "identity"})
    try:
        with _OPENER.open(request, timeout=TIMEOUT) as response:
            size = response.headers.get("Content-Length", "")
            version = response.headers.get("ETag") or response.headers.get("Last-Modified")
            url = response.url
    except urllib.error.HTTPError as error:
        error.close()
        refusal = _refusal(name, error)
        if isinstance(refusal, _Temporary):
            refusal = SpecimenError(f"{name}: {url} answers with {refusal}: try later")
        raise refusal from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise SpecimenError(f"{name}: cannot be had: {url} is not reachable ({reason})") from None
    if not size.isdigit() or not version:
        raise SpecimenError(f"{name}: {url} gives no size or no version; fetch again later")
    return Remote(name, url, int(size), version, answered={_tag(response)} - {""})


def read_bytes(remote: Remote, start: int, stop: int) -> bytes:
    """Bytes start..stop-1, for short ranges. Raises SpecimenError."""
    sink = io.BytesIO()
    read_range(remote, start, stop, sink, quiet=True)
    return sink.getvalue()


def read_range(
    remote: Remote,
    start: int,
    stop: int,
    sink: BinaryIO,
    *,
    before: bytes = b"",
    quiet: bool = False,
) -> None:
    """Write bytes start..stop-1 of the remote file to `sink`, going on where a cut left off.

    Everything written is consecutive, so after an error the sink's length says where to resume:
    `before` are then the bytes that came before `start`, and the server must send the last of them
    again. Raises BytesDiffer, RangeRefused or SpecimenError; OSErrors of the sink (a full disk)
    pass through.
    """
    at, failures, before = start, 0, before[-OVERLAP:]
    shown = {"total": stop - start, "desc": remote.name, "unit": "B", "unit_scale": True}
    with nullcontext() if quiet else progress.bar(**shown) as bar:
        while at < stop:
            begun, trouble = at, _Temporary("the connection was cut")
            try:
                for piece in _pieces(remote, at, stop, before):
                    write_all(sink, piece)
                    at += len(piece)
                    before = (before + piece[-OVERLAP:])[-OVERLAP:]
                    if bar is not None:
                        bar.update(len(piece))
            except _Temporary as error:
                trouble = error
            failures = 0 if at > begun else failures + 1
            if failures >= PATIENCE:
                raise SpecimenError(
                    f"{remote.name}: gave up after {PATIENCE} attempts ({trouble}); "
                    "run the same command again to go on from here"
                )
            if failures or trouble.pause:
                time.sleep(trouble.pause or BACKOFF[min(failures, len(BACKOFF)) - 1])


def read_again(remote: Remote, start: int, stop: int, known: Callable[[int, int], bytes]) -> None:
    """Hold the bytes start..stop-1 that came, `known(start, stop)`, to a second reading of a few.

    And the file's first bytes to a range that begins one later. Raises BytesDiffer.
    """
    length = min(OVERLAP, stop - start)
    places = {start + (stop - start - length) * i // (AGAIN - 1) for i in range(AGAIN)}
    first = read_bytes(remote, 0, length)
    same = first[1:] == read_bytes(remote, 1, length) and all(
        read_bytes(remote, at, at + length) == known(at, at + length) for at in sorted(places)
    )
    if not same:
        raise BytesDiffer(f"{remote.name}: {OTHERS}")


class _Temporary(Exception):
    """Worth another try after `pause` seconds (None: as you like)."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


def _pieces(remote: Remote, start: int, stop: int, before: bytes) -> Iterator[memoryview]:
    """Ask once, for `before` too; yield each piece from `start` on, until the connection is cut."""
    left = stop - start
    buffer = memoryview(bytearray(min(BUFFER, left)))
    with _ask(remote, start - len(before), stop) as response:
        try:
            repeated = response.read(len(before)) if before else b""
        except (OSError, http.client.HTTPException):
            return
        if len(repeated) < len(before):
            return
        if repeated != before:
            raise BytesDiffer(f"{remote.name}: {OTHERS}")
        while left:
            try:
                count = response.readinto(buffer[: min(len(buffer), left)])
            except (OSError, http.client.HTTPException):
                return
            if not count:
                return
            left -= count
            yield buffer[:count]


def write_all(sink: BinaryIO, piece: memoryview) -> None:
    """Write the whole of `piece`: an unbuffered file may take less than it was given."""
    while piece:
        piece = piece[sink.write(piece) :]


def _ask(remote: Remote, start: int, stop: int) -> http.client.HTTPResponse:
    """A response that holds exactly the bytes asked for. Raises _Temporary, RangeRefused."""
    headers = {
        **remote.headers,
        "Range": f"bytes={start}-{stop - 1}",
        "Accept-Encoding": "identity",
    }
    request = urllib.request.Request(remote.url, headers=headers)
    try:
        response = _OPENER.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(remote.name, error) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Temporary(str(getattr(error, "reason", error)) or type(error).__name__) from None
    if wrong := _wrong(response, remote, start, stop):
        response.close()
        raise SpecimenError(f"{remote.name}: {wrong}")
    return response


def _refusal(name: str, error: urllib.error.HTTPError) -> Exception:
    if error.code in RETRIED:
        after = error.headers.get("Retry-After", "")
        pause = float(after) if after.isdigit() else None
        if pause and pause > LONGEST_WAIT:
            return SpecimenError(
                f"{name}: the server asks to wait {pause:,.0f} s (status {error.code}); "
                "run the same command again then"
            )
        return _Temporary(f"status {error.code}", pause)
    what = {
        401: "access is refused: set HF_TOKEN to a token that may read it",
        403: "access is refused: set HF_TOKEN and accept the model's licence on its page",
        404: "the server has no such file: check the repository and its revision",
        416: "the server has a shorter file than it announced: fetch again",
    }.get(error.code, f"the server answers with status {error.code}: try later")
    return RangeRefused(f"{name}: {what}", error.code)


def _wrong(response: http.client.HTTPResponse, remote: Remote, start: int, stop: int) -> str | None:
    """What is wrong with a successful response, or None."""
    size = remote.size
    if response.status != 206:
        return (
            f"the server ignores byte ranges and would send all {size:,} bytes; use another "
            "HF_ENDPOINT, or download the file and give its path"
        )
    sent, expected = response.headers.get("Content-Range"), f"bytes {start}-{stop - 1}/{size}"
    if sent != expected:
        return (
            f"the server sent {sent or 'no range'!r} where {expected!r} was asked for; the file "
            "changed or the server is broken: fetch again"
        )
    length = response.headers.get("Content-Length", str(stop - start))
    if length != str(stop - start):
        return f"the server announces {length} bytes of {stop - start}: fetch again"
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return "the server compresses ranges: use another HF_ENDPOINT"
    remote.answered.update({_tag(response)} - {""})
    if len(remote.answered) > 1:
        return f"it changed while it was read ({', '.join(sorted(remote.answered))}): fetch again"
    return None


def _tag(response: http.client.HTTPResponse) -> str:
    return bare(response.headers.get("ETag", ""))


def bare(etag: str) -> str:
    """An ETag without its quotes and the mark of a weak one."""
    return etag.strip().removeprefix("W/").strip('"')


class _SameHostToken(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but shows the token to no other host."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            new.remove_header("Authorization")
        return new


_OPENER = urllib.request.build_opener(_SameHostToken)
