"""Explorers: pages of the book that a reader can play with, in plain HTML and JavaScript.

An explorer is a script of explorers/ with the data it needs, one element that asks nobody for
anything: it works from a file and without a network. Large data are deflated and unpacked by the
browser. A chapter shows one where only HTML is made, beside a figure for the PDF.
"""

import base64
import zlib
from typing import Any

import numpy as np
from IPython.display import HTML

from lib import files, foreign, paths

FOLDER = paths.ROOT / "explorers"
SHARED = ("common.js", "lattice.js")


def shown(name: str, label: str, data: dict[str, Any]) -> HTML:
    """The explorer `name`; `label` names it for who cannot see it. `data` are plain JSON values."""
    return HTML(element(name, label, data))


def element(name: str, label: str, data: dict[str, Any]) -> str:
    """The HTML of `shown`: an element with style, data and script inside."""
    style = _source("explorer.css") + _source(f"{name}.css")
    script = "\n".join(_source(file) for file in (*SHARED, f"{name}.js"))
    return (
        f'<section class="explorer" id="explorer-{name}" aria-label="{foreign.in_html(label)}">'
        f"<style>\n{style}</style><noscript><p>This explorer needs JavaScript.</p></noscript>"
        f'<script type="application/json">{foreign.in_script(data)}</script>'
        "<script>(() => {\n"
        "const root = document.currentScript.parentElement;\n"
        'const data = JSON.parse(root.querySelector("script").textContent);\n'
        f"{script}}})();</script></section>"
    )


def packed(array: np.ndarray) -> str:
    """The array's bytes in their order, deflated, in base64: what `unpack` of common.js undoes."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def film(frames: np.ndarray) -> str:
    """Patterns (frames, rows, components) uint16, packed: each row's path as its changes in time.

    The first frame, then differences modulo 2^16; all low bytes before all high ones.
    """
    changes = np.diff(frames, axis=0, prepend=np.zeros_like(frames[:1]))
    by_row = np.ascontiguousarray(np.moveaxis(changes, 0, -1), "<u2")
    return packed(by_row.reshape(-1, 1).view(np.uint8).T)


def _source(file: str) -> str:
    """The text of a file of FOLDER; whoever shows it depends on it."""
    path = FOLDER / file
    return path.read_text(encoding="utf-8") if files.is_here(path) else ""
