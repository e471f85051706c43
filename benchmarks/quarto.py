"""Quarto's whole book with Jupyter's engine and with ours: `python -m benchmarks.quarto`.

Renders HTML and PDF from two clean clones of HEAD, one engine after the other, for alternating
rounds would take a day, and ours once more with nothing changed. Needs Quarto on the PATH and, at
smoke scale, most of an hour in which nothing else should run. Prints seconds by the clock and of
the processor and the ratio, and looks whether every page has the same words, but for run times and
for what our engine adds: links to the data of figures, and parameters that are not folded away.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bs4 import BeautifulSoup

from lib import paths, scale

WAYS = {"jupyter": ["--profile", "jupyter"], "ours": [], "ours again": []}
TIMES = re.compile(r"\d[\d.,]*\s*(?:s|ms|min|seconds|minutes|GB|MB)\b")


def rendered(project: Path, options: list[str], size: str) -> tuple[float, float]:
    """Seconds by the clock and of the processor that `quarto render` takes in a clone."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"BOOK_SCALE": size, "QUARTO_PYTHON": sys.executable}
    with (project.parent / "log.txt").open("a") as log:
        command = ["quarto", "render", *options]
        subprocess.run(command, cwd=project, env=environment, stdout=log, stderr=log, check=True)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def words(book: Path) -> dict[str, str]:
    """What a reader of each page of a rendered book sees, times and sizes of memory left out."""
    found = {}
    for file in sorted(book.rglob("*.html")):
        page = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser").find("main")
        if page is None:
            continue
        for node in page.select("script, style, summary, .figure-data"):
            node.decompose()
        found[str(file.relative_to(book))] = TIMES.sub("", " ".join(page.get_text().split()))
    return found


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
            clocks[way], processor = rendered(project, WAYS[way], args.scale)
            print(f"{way}: {clocks[way]:,.0f} s, {processor:,.0f} s of the processor", flush=True)
            books[way] = words(project / "_book")
    if {"jupyter", "ours"} <= books.keys():
        print(f"{clocks['jupyter'] / clocks['ours']:.1f} x")
        theirs, ours = books["jupyter"], books["ours"]
        assert theirs.keys() == ours.keys(), theirs.keys() ^ ours.keys()
        others = [page for page in ours if ours[page] != theirs[page]]
        print(f"{len(ours) - len(others)} of {len(ours)} pages have the same words", *others)


if __name__ == "__main__":
    main()
