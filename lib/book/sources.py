"""What a chapter depends on: the `lib` files it imports, directly or not, and the data it may read.

Quarto's own cache sees only the chapter's text. An executed chapter is reused here only while its
text, its parameters, every `lib` file it reaches, the committed data and the chapters whose
artefacts it reads are unchanged.
"""

import ast
import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from lib import digests, paths

DATA_FOLDERS = ("corpora", "qwen3", "specimens")


def closure(code: str) -> list[Path]:
    """All files of `lib` that `code` imports, directly or through other files of `lib`, sorted."""
    seen: set[Path] = set()
    waiting = list(_imports(code))
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting.extend(_imports_of(file, file.stat().st_mtime_ns))
    return sorted(seen)


@lru_cache(maxsize=1024)
def _imports_of(file: Path, _modified: int) -> tuple[Path, ...]:
    return tuple(_imports(file.read_text(encoding="utf-8")))


def _imports(code: str) -> set[Path]:
    found: set[Path] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        for name in names:
            found |= _files(name)
    return found


def _files(module: str) -> set[Path]:
    """The file of a `lib` module and the __init__ files above it; empty for anything else."""
    words = module.split(".")
    if words[0] != "lib":
        return set()
    files = set()
    for depth in range(1, len(words) + 1):
        base = paths.ROOT.joinpath(*words[:depth])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                files.add(file)
    return files


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


@lru_cache(maxsize=1024)
def _of_file(file: Path, _modified: int, _size: int) -> str:
    return digests.of_file(file)


def chapter_key(text: str, code: str, parameters: dict, overrides: dict, reads: list[str]) -> str:
    """SHA-256 (hex) of everything that may change what a chapter shows.

    `text` is the chapter's source, `code` its cells, `parameters` those given by the caller,
    `overrides` those of the scale, `reads` the keys of the chapters whose artefacts it loads.
    """
    machinery = [paths.LIB / "book" / name for name in ("reader.py", "runner.py")]
    files = sorted({*closure(code), *machinery})
    identity = {
        "text": text,
        "parameters": parameters,
        "scale": overrides,
        "reads": reads,
        "lib": {str(f.relative_to(paths.ROOT)): digests.of_file(f) for f in files},
        "data": data_digest(),
        "versions": {name: version(name) for name in ("torch", "numpy", "matplotlib")},
    }
    if paths.LIB / "claims.py" in files:
        identity["claims"] = digests.of_file(paths.CLAIMS)
    return digests.of_value(identity)
