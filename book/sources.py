"""What a chapter depends on besides the data it reads: its code, and what that reaches of `lib`.

Quarto's own cache sees only the chapter's text. An executed chapter is reused here only while its
code, its parameters, what it reaches of `lib`, the files of data/ that it read and the chapters
whose artefacts it reads are unchanged. Its prose may change: it is filled into what was executed.
"""

import json
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version

from lib import digests, files, paths

MACHINERY = ("reader", "runner")  # modules of this package that decide what a notebook holds


@lru_cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numpy", "matplotlib")}


def reached(codes: Iterable[str]) -> dict[str, str]:
    """Of each piece of chapters' code the digest of itself and of all that it reaches in lib.

    To find that out takes seconds, so it is kept for as long as no file of lib changes.
    """
    modules = {str(p.relative_to(paths.LIB)): digests.of_file(p) for p in paths.LIB.rglob("*.py")}
    lib = digests.of_value([sys.version, modules])
    memory = paths.EXECUTED / "reached.json"
    try:
        kept = json.loads(memory.read_text(encoding="utf-8"))
        known = dict(kept["reached"]) if kept["lib"] == lib else {}
    except (OSError, ValueError, LookupError, TypeError):
        known = {}
    names = {code: digests.of_value(code) for code in codes}
    missing = {code: name for code, name in names.items() if name not in known}
    if missing:
        known |= {name: digests.of_cells(code)[0] for code, name in missing.items()}
        text = json.dumps({"lib": lib, "reached": known}, indent=0)
        files.write_atomically(memory, lambda path: path.write_text(text, encoding="utf-8"))
    return {code: known[name] for code, name in names.items()}


def chapter_key(code: str, lib: str, overrides: dict, reads: list[str]) -> str:
    """SHA-256 (hex) of everything but data that may change what a chapter computes.

    `code` are its cells and the expressions in its text, `lib` the digest of what they reach (see
    `reached`), `overrides` the parameters of the scale, `reads` the keys of the chapters whose
    artefacts it loads.
    """
    identity = {
        "code": code,
        "scale": overrides,
        "reads": reads,
        "lib": lib,
        "book": [digests.of_file(paths.ROOT / "book" / f"{name}.py") for name in MACHINERY],
        "versions": _versions(),
    }
    return digests.of_value(identity)
