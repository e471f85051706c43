"""Explorers: pages of the book that a reader can play with, in plain HTML and JavaScript.

An explorer is a script of explorers/ with the data it needs, one element that asks nobody for
anything: it works from a file and without a network. Large data are deflated and unpacked by the
browser. A chapter shows one where only HTML is made, beside a figure for the PDF.
"""

import base64
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import HTML

from lib import files, foreign, paths
from lib.analysis import census, charts, qwen3, sky
from lib.extraction.reachability import CLASSES, Reach, Record
from lib.extraction.specimens import Specimen
from lib.extraction.vocabulary import Vocabulary

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


# ---------------------------------------------------------------- the explorer of tokens
BYTES = 256  # tokens of a single byte, which come first
DEGREES = 2  # of the sky in one step of the packed places
UNIT = 1e-3  # of a packed norm
TOLD = (Reach.COMPLETED, Reach.INCOMPLETE, Reach.UNBUILT, Reach.UNDECIDED)  # by Python alone


def tokens(words: Vocabulary, found: Sequence[Record]) -> dict[str, Any]:
    """A byte-level rank vocabulary and what is known of each id, packed.

    A token is kept as the pair of tokens that merging joins to it. Raises ValueError where the
    first BYTES tokens are not the bytes, or another token has no such pair.
    """
    ids, count = words.ids, len(words.tokens)
    pairs = np.full((2, count - BYTES), -1, np.int32)
    for token, id in ids.items():
        if id >= BYTES and len(halves := _built(token, id, ids)) == 2:
            pairs[:, id - BYTES] = [ids[part] for part in halves]
    if {len(token or b"") for token in words.tokens[:BYTES]} != {1} or (pairs < 0).any():
        raise ValueError(f"{words.name}: the tokens are not bytes and pairs of tokens")
    planes = pairs.view(np.uint8).reshape(2, -1, 4)[..., :3].transpose(0, 2, 1)
    by_script = ["no token" if r.reach is Reach.PHANTOM else r.script for r in found]
    scripts = [name for name, _ in Counter(by_script).most_common()]
    told = [r for r in found if r.reach in TOLD or r.witness not in (None, r.text)]
    return {
        "count": count,
        "rows": len(found),
        "bytes": [token[0] for token in words.tokens[:BYTES]],
        "pairs": packed(planes),
        "added": {id: text for id, text in words.added.items() if text},
        "pattern": "|".join(map(in_javascript, words.patterns)),
        "classes": [str(reach) for reach in CLASSES],
        "dead": [reach.dead for reach in CLASSES],
        "reach": packed(np.array([CLASSES.index(r.reach) for r in found], np.uint8)),
        "scripts": scripts,
        "script": packed(np.array([scripts.index(name) for name in by_script], np.uint8)),
        "notes": {r.id: foreign.visible(r.evidence) for r in told},
    }


def _built(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    """What merging makes of a token's bytes while itself and all of higher rank are unknown."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        joined = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
        best = min(joined)
        if best >= rank:
            break
        at = joined.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def in_javascript(pattern: str) -> str:
    """A pre-tokenizer's expression as JavaScript reads it with the flag u.

    White space is Unicode's there too, and a group that ignores case is spelled out.
    """

    def both_cases(match: re.Match) -> str:
        spelled = re.sub(r"[a-z]", lambda c: f"[{c[0]}{c[0].upper()}]", match[1])
        return f"(?:{spelled.replace('[sS]', '[sSſ]')})"  # the long s is an s in any case

    spelled = re.sub(r"\(\?i:(.*?)\)", both_cases, pattern)
    return spelled.replace(r"\s", r"\p{White_Space}").replace(r"\S", r"\P{White_Space}")


def rows(matrix: Specimen) -> dict[str, Any]:
    """Norm, direction and identical rows of every row of a matrix, packed and rounded."""
    view, count = sky.observe(charts.chart(matrix).projection), census.of(matrix)
    unit = max(UNIT, float(matrix.norms.max()) / 65_535)  # the longest is to fit in sixteen bits
    east, north = view.longitude + 180, view.latitude + 90
    places = np.stack([east, north]) // DEGREES
    return {
        "name": matrix.description.model,
        "rows": matrix.rows,
        "unit": unit,
        "norms": packed(np.rint(matrix.norms / unit).astype("<u2")),
        "degrees": DEGREES,
        "sky": packed(places.astype(np.uint8)),
        "holes": packed(np.stack([count.in_holes, count.group[count.in_holes]]).astype("<i4")),
    }


def printed() -> dict[str, Any]:
    """What was printed of the rows of Qwen3-4B: who lies in a hole, and where that is known."""
    holes = qwen3.membership()
    return {
        "name": "Qwen/Qwen3-4B-Instruct-2507",
        "populations": [population for population, _ in holes],
        "known": {int(id): rank for rank, (_, ids) in enumerate(holes, 1) for id in ids},
        "holes": packed(qwen3.hole_ids().astype("<i4")),
        "singles": packed(qwen3.singleton_ids().astype("<i4")),
    }


def _source(file: str) -> str:
    """The text of a file of FOLDER; whoever shows it depends on it."""
    path = FOLDER / file
    files.is_here(path)  # noted
    return path.read_text(encoding="utf-8")
