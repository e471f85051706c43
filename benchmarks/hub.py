"""How fast are the hub's range reads, against a plain socket and against fsspec's reader?

    python -m benchmarks.hub

A server on loopback, in a process of its own, holds a 0.78 GB matrix between two other tensors. The
plain socket receives the same bytes into one buffer and forgets them; the book's reader writes them
to a file. fsspec's reader is huggingface_hub's own HfFileSystem: in its default blocks, and in one
read of the whole tensor. Four alternating rounds; every reader's bytes are checked once.
"""

import hashlib
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import safetensors.numpy

from lib import paths
from lib.extraction import catalogue, fetching, ranges, store
from lib.extraction.tensor_files import Entry
from tests.loopback_hub import Hub, serving

ROWS, DIM = 151_936, 2_560
ROUNDS = 4
REPO, FILE, TENSOR = "someone/model", "model.safetensors", "model.embed_tokens.weight"
BLOCK = 5 * 2**20  # fsspec's default


def checkpoint(path: Path) -> None:
    """A file with the matrix (as uint16; its meaning does not matter here) between two others."""
    other = np.zeros((2_560, 2_560), np.float32)
    W = np.random.default_rng(42).integers(0, 2**16, (ROWS, DIM), dtype=np.uint16)
    safetensors.numpy.save_file({"a": other, TENSOR: W, "z": other}, path)


def serve(path: Path, address: "multiprocessing.Queue[str]") -> None:
    """Serve `path` until the parent ends this process."""
    with serving(Hub({REPO: {FILE: path}})) as running:
        address.put(running.address)
        time.sleep(3_600)


def by_socket(remote: ranges.Remote, entry: Entry, folder: Path) -> None:
    """Receive the range into one buffer, over and over."""
    parts = urlsplit(remote.url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
            f"Range: bytes={entry.start}-{entry.stop - 1}\r\n\r\n".encode()
        )
        buffer = memoryview(bytearray(ranges.BUFFER))
        got = 0
        while count := connection.recv_into(buffer):
            got += count
    assert got > entry.nbytes


def by_book(remote: ranges.Remote, entry: Entry, folder: Path) -> None:
    """The book's reader, straight to a file."""
    with (folder / "book").open("wb", buffering=0) as sink:
        ranges.read_range(remote, entry.start, entry.stop, sink, quiet=True)


def by_fsspec(entry: Entry, folder: Path, block: int) -> None:
    """HfFileSystem, `block` bytes a read, to a file."""
    from huggingface_hub import HfFileSystem

    system = HfFileSystem(endpoint=fetching.endpoint(), skip_instance_cache=True)
    with (
        system.open(f"{REPO}/{FILE}", "rb") as source,
        (folder / "fsspec").open("wb", buffering=0) as sink,
    ):
        source.seek(entry.start)
        left = entry.nbytes
        while left:
            piece = source.read(min(block, left))
            sink.write(piece)
            left -= len(piece)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Print seconds and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint(folder / FILE)
        address: multiprocessing.Queue[str] = multiprocessing.Queue()
        server = multiprocessing.Process(target=serve, args=(folder / FILE, address), daemon=True)
        server.start()
        os.environ["HF_ENDPOINT"] = address.get(timeout=30)
        _, remote, entry = fetching.locate(catalogue.Hub(REPO, TENSOR))
        ways: dict[str, Callable[[], None]] = {
            "plain socket, bytes forgotten": lambda: by_socket(remote, entry, folder),
            "the book, to a file": lambda: by_book(remote, entry, folder),
            "fsspec, default blocks, to a file": lambda: by_fsspec(entry, folder, BLOCK),
            "fsspec, one read, to a file": lambda: by_fsspec(entry, folder, entry.nbytes),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for label, way in ways.items():
                for file in ("book", "fsspec"):
                    (folder / file).unlink(missing_ok=True)
                start = time.perf_counter()
                way()
                seconds[label].append(time.perf_counter() - start)
        by_book(remote, entry, folder)
        by_fsspec(entry, folder, BLOCK)
        assert sha256(folder / "book") == sha256(folder / "fsspec")
        paths.FETCHED = folder / "fetched"
        description = catalogue.Description(
            "bench", REPO, TENSOR, ROWS, DIM, "U16", None, "none", sources=()
        )
        start = time.perf_counter()
        store.verify(fetching.fetch_from_hub(description, catalogue.Hub(REPO, TENSOR)))
        whole = time.perf_counter() - start
        server.terminate()
    ours = min(seconds["the book, to a file"])
    print(f"{entry.nbytes / 1e9:.2f} GB over loopback, {ROUNDS} alternating rounds")
    for label, taken in seconds.items():
        best = min(taken)
        rounds = ", ".join(f"{s:.2f}" for s in taken)
        print(f"{label:34} {rounds} s   {entry.nbytes / best / 1e9:5.2f} GB/s  "
              f"{best / ours:5.2f} x the book's")  # fmt: skip
    print(f"a whole fetch: found, read, hashed, renamed, hashed again: {whole:.2f} s")


if __name__ == "__main__":
    main()
