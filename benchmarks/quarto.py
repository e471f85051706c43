"""Quarto's whole book with Jupyter's engine and with ours: `python -m benchmarks.quarto`.

Renders HTML and PDF from two clean clones of HEAD, one engine after the other, for alternating
rounds would take a day, and ours once more with nothing changed. Needs Quarto on the PATH and, at
smoke scale, most of an hour in which nothing else should run. Prints seconds by the clock and their
ratio, and of every page the words that differ, but for run times, sizes of files and links to the
data of figures. The lists of the whole book (figures, tokens, changes) are ours alone.
"""

import argparse
import difflib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bs4 import BeautifulSoup

from lib import paths, scale

WAYS = {"jupyter": ["--profile", "jupyter"], "ours": [], "ours again": []}
TIMES = re.compile(r"\d[\d.,]*\s*(?:s|ms|min|seconds|minutes|GB|MB|kB)\b")


def rendered(project: Path, options: list[str], size: str) -> float:
    """Seconds by the clock that `quarto render` takes in a clone."""
    start = time.perf_counter()
    environment = os.environ | {"BOOK_SCALE": size, "QUARTO_PYTHON": sys.executable}
    with (project.parent / "log.txt").open("a") as log:
        command = ["quarto", "render", *options]
        subprocess.run(command, cwd=project, env=environment, stdout=log, stderr=log, check=True)
    return time.perf_counter() - start


def words(book: Path) -> dict[str, list[str]]:
    """What a reader of each page of a rendered book sees, times and sizes of memory left out."""
    found = {}
    for file in sorted(book.rglob("*.html")):
        page = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser").find("main")
        if page is None:
            continue
        for node in page.select("script, style, summary, .figure-data"):
            node.decompose()
        text = " ".join(page.get_text().split())
        found[str(file.relative_to(book))] = TIMES.sub("", text).split()
    return found


def differences(theirs: list[str], ours: list[str]) -> list[str]:
    """Where two pages say something else, each time what the one says and what the other."""
    matcher = difflib.SequenceMatcher(None, theirs, ours, autojunk=False)
    return [
        f"{' '.join(theirs[a:b])[:80]!r} against {' '.join(ours[c:d])[:80]!r}"
        for what, a, b, c, d in matcher.get_opcodes()
        if what != "equal"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=scale.SCALES, default="smoke")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    clocks, books = {}, {}
    with TemporaryDirectory() as folder:
        for way in args.ways:
            project = Path(folder) / way.split()[0] / "the book"
            if not project.exists():
                subprocess.run(["git", "clone", "-q", paths.ROOT, project], check=True)
            clocks[way] = rendered(project, WAYS[way], args.scale)
            print(f"{way}: {clocks[way]:,.0f} s", flush=True)
            books[way] = words(project / "_book")
    if {"jupyter", "ours"} <= books.keys():
        print(f"{clocks['jupyter'] / clocks['ours']:.1f} x")
        theirs, ours = books["jupyter"], books["ours"]
        assert theirs.keys() == ours.keys(), theirs.keys() ^ ours.keys()
        others = {page: differences(theirs[page], ours[page]) for page in ours}
        print(f"{sum(not found for found in others.values())} of {len(ours)} pages are the same")
        for page, found in others.items():
            print(*(f"{page}: {one}" for one in found), sep="\n", end="\n" * bool(found))


if __name__ == "__main__":
    main()
