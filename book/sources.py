"""What a chapter depends on besides the data it reads: its code, and what that reaches of `lib`.

Quarto's own cache sees only the chapter's text. An executed chapter is reused here only while its
code, its parameters, what it reaches of `lib`, the files of data/ that it read and the chapters
whose artefacts it reads are unchanged. Its prose may change: it is filled into what was executed.
"""

from functools import lru_cache
from importlib.metadata import version

from lib import digests, paths

MACHINERY = ("reader", "runner")  # modules of this package that decide what a notebook holds


@lru_cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numpy", "matplotlib")}


def chapter_key(code: str, overrides: dict, reads: list[str]) -> str:
    """SHA-256 (hex) of everything but data that may change what a chapter computes.

    `code` are its cells and the expressions in its text, `overrides` the parameters of the scale,
    `reads` the keys of the chapters whose artefacts it loads.
    """
    lib, _ = digests.of_cells(code)
    identity = {
        "code": code,
        "scale": overrides,
        "reads": reads,
        "lib": lib,
        "book": [digests.of_file(paths.ROOT / "book" / f"{name}.py") for name in MACHINERY],
        "versions": _versions(),
    }
    return digests.of_value(identity)
