"""What a chapter depends on: the definitions of `lib` that it reaches, and the data it may read.

Quarto's own cache sees only the chapter's text. An executed chapter is reused here only while its
code, its parameters, what it reaches of `lib`, the committed data and the chapters whose artefacts
it reads are unchanged. Its prose may change: it is filled into what was executed.
"""

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from lib import digests, paths

DATA_FOLDERS = ("corpora", "qwen3", "specimens")


def data_digest() -> str:
    """SHA-256 (hex) over the committed data and the names and sizes of fetched matrices."""
    digest = hashlib.sha256()
    for folder in DATA_FOLDERS:
        for file in sorted((paths.DATA / folder).rglob("*")):
            if not file.is_file() or file.suffix in (".lock", ".part"):
                continue
            stat = file.stat()
            digest.update(str(file.relative_to(paths.DATA)).encode())
            if file.is_relative_to(paths.FETCHED):
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
            else:
                digest.update(_of_file(file, stat.st_mtime_ns, stat.st_size).encode())
    return digest.hexdigest()


def _of(file: Path) -> str:
    stat = file.stat()
    return _of_file(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _of_file(file: Path, _modified: int, _size: int) -> str:
    return digests.of_file(file)


@lru_cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numpy", "matplotlib")}


def chapter_key(code: str, overrides: dict, reads: list[str], data: str) -> str:
    """SHA-256 (hex) of everything that may change what a chapter computes.

    `code` are its cells and the expressions in its text, `overrides` the parameters of the scale,
    `reads` the keys of the chapters whose artefacts it loads, `data` the `data_digest`.
    """
    lib, reached = digests.of_cells(code)
    identity = {
        "code": code,
        "scale": overrides,
        "reads": reads,
        "lib": lib,
        "book": [_of(paths.ROOT / "book" / f"{name}.py") for name in ("reader", "runner")],
        "data": data,
        "versions": _versions(),
    }
    if any(module == "lib.claims" for module, _ in reached):
        identity["claims"] = _of(paths.CLAIMS)
    return digests.of_value(identity)
