"""Which files of `lib` a piece of code reaches: through its imports, and theirs."""

import ast
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from lib import paths


def of_code(code: str) -> list[Path]:
    """All files of `lib` that `code` imports, directly or through other files of `lib`, sorted."""
    return _closure(_imports(code))


def of_files(files: Iterable[Path]) -> list[Path]:
    """`files` and all files of `lib` that they import, directly or not, sorted."""
    return _closure(set(files))


def _closure(start: set[Path]) -> list[Path]:
    seen: set[Path] = set()
    waiting = list(start)
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
