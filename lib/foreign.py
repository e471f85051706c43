"""Text from outside (a token, a tensor's name, a path) made safe where it comes out.

A token may be `<img src=x onerror=...>`, an escape sequence of a terminal, a formula of a
spreadsheet or a mark that turns the reading direction. One function for each place that shows text;
nothing else in the book writes foreign text there. All of them show the same signs: a character
that one cannot see, or that changes how its neighbours are read, as `visible` writes it.
"""

import html
import json
import re
from typing import Any

# control characters, marks of direction, line separators, a stray byte-order mark, half surrogates
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|$^~@'\"&:=])")  # what Markdown may take for markup
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins to compute


def visible(text: str) -> str:
    """The text for a terminal: what one cannot see as a sign (␛) or its code point (⟨U+202E⟩)."""
    return UNSEEN.sub(_sign, text)


def _sign(match: re.Match) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def markdown(text: str) -> str:
    """The text as Markdown that shows just this text, in a paragraph or a table's cell."""
    return MARKUP.sub(r"\\\1", visible(text))


def in_html(text: str) -> str:
    """The text for HTML, between tags or in a quoted attribute."""
    return html.escape(visible(text))


def in_script(value: Any) -> str:
    """JSON that may stand inside <script>: nothing in it ends the element or opens a comment."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def in_sheet(text: str) -> str:
    """The text for a cell of a CSV file: no program takes it for a formula."""
    text = visible(text)
    return "'" + text if text.startswith(FORMULA) else text


def in_figure(text: str) -> str:
    """The text for a label of a figure: none of its dollars begins a formula."""
    return visible(text).replace("$", r"\$")
