"""Sentences whose guard fails in the executed notebooks of the scale in force."""

import json
import re
from collections.abc import Iterator

from book import runner
from book.check.finding import Finding
from book.check.project import Project
from lib.claims import FAILS, STANDS

APART = re.compile(r"\n\s*\n|^\s*(?:[-*+]|\d+[.)])\s+|^#+ .*$", re.MULTILINE)  # paragraphs, items
SENTENCE = re.compile(r"(?:^|[.!?]\s+)([^.!?]*(?:[.!?](?!\s)[^.!?]*)*[.!?]?\s*)$")


def check(project: Project) -> Iterator[Finding]:
    """One finding a sentence that does not hold; pages that were not run say nothing."""
    for page in project.pages:
        path = runner.executed_path(page.name)
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        except (OSError, ValueError, KeyError):
            continue
        for cell in cells:
            text = "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
            before, mark, rest = text.partition(FAILS)
            while mark:
                words = APART.split(before.replace(STANDS, " "))[-1]
                sentence = " ".join(SENTENCE.search(words).group(1).split())
                line = cell["metadata"].get("line", 1) + before.count("\n")
                message = f"does not hold: {sentence[:160]}"
                mend = "look at the numbers, then at the sentence"
                yield Finding(page.file, line, "ran/holds", message, mend)
                following, mark, rest = rest.partition(FAILS)
                before += following
