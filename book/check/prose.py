"""Blank out what is no prose, keeping every line where it is."""

import re
from collections.abc import Iterator

from book import reader

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\s*\n).)+?)(?<!`)\1(?!`)", re.DOTALL)
DISPLAY_MATH = re.compile(r"\$\$.*?\$\$", re.DOTALL)
MATH = re.compile(r"(?<![\\$\w])\$(?=[^\s$])(?:[^$\\]|\\.)*?(?<=\S)\$(?!\d)", re.DOTALL)
TARGET = re.compile(r"(?<=\])\([^()\s]*(?:\s+\"[^\"]*\")?\)|<https?://[^>]*>|https?://\S+")
ATTRIBUTES = re.compile(r"\{[^{}\n]*\}")


def blank(match: re.Match) -> str:
    """As many spaces as the match has characters, line ends kept."""
    return re.sub(r"[^\n]", " ", match.group(0))


def mask(text: str) -> str:
    """`text` without comments, code, mathematics and link targets; same length, same lines."""
    for pattern in (COMMENT, CODE, DISPLAY_MATH, MATH, TARGET):
        text = pattern.sub(blank, text)
    return text


def without_fences(text: str) -> str:
    """`text` with fenced blocks that are no cells (listings, examples) blanked, fences kept."""
    fence, lines = "", []
    for line in text.split("\n"):
        match = reader.FENCE.match(line)
        if not fence and match:
            fence = match.group(1)
            lines.append(line)
        elif fence and match and match.group(1).startswith(fence) and not match.group(2).strip():
            fence = ""
            lines.append(line)
        else:
            lines.append("" if fence else line)
    return "\n".join(lines)


def line_at(text: str, position: int) -> int:
    """The line, from 1, of a position in `text`."""
    return text.count("\n", 0, position) + 1


def divs(text: str) -> Iterator[tuple[int, int, str]]:
    """The fenced divs of a page: first line, last line and what stands after the colons.

    A div that is never closed reaches to the end of the page; a close without an opening is
    reported as a div with the line twice and the words "unopened".
    """
    stack: list[tuple[int, str]] = []
    last = text.count("\n") + 1
    for number, line in enumerate(text.split("\n"), start=1):
        match = re.match(r"^\s{0,3}:{3,}\s*(.*?)\s*:*\s*$", line)
        if not match:
            continue
        if match.group(1):
            stack.append((number, match.group(1)))
        elif stack:
            start, words = stack.pop()
            yield start, number, words
        else:
            yield number, number, "unopened"
    for start, words in stack:
        yield start, last + 1, words


def html_only(text: str) -> list[range]:
    """The line ranges of divs that only the HTML edition shows."""
    return [
        range(start, end + 1)
        for start, end, words in divs(text)
        if "content-visible" in words and re.search(r"when-format=[\"']?html", words)
    ]
