"""What the executed notebooks of the scale in force tell: guards that fail, memory."""

import json
import re
from collections.abc import Iterator

from book import runner
from book.check.finding import Finding
from book.check.project import Project
from lib import scale
from lib.claims import FAILS, STANDS

MEMORY = 2e9  # bytes that a chapter may need below full scale

APART = re.compile(r"\n\s*\n|^\s*(?:[-*+]|\d+[.)])\s+|^#+ .*$", re.MULTILINE)  # paragraphs, items
SENTENCE = re.compile(r"(?:^|[.!?]\s+)([^.!?]*(?:[.!?](?!\s)[^.!?]*)*[.!?]?\s*)$")


def check(project: Project) -> Iterator[Finding]:
    """One finding a sentence that does not hold; pages that were not run say nothing."""
    for page in project.pages:
        path = runner.executed_path(page.name)
        try:
            executed = json.loads(path.read_text(encoding="utf-8"))
            cells = executed["cells"]
        except (OSError, ValueError, KeyError):
            continue
        memory = executed["metadata"].get("book", {}).get("memory", 0)
        if memory > MEMORY and scale.current() != "full":
            message = f"needs {memory / 1e9:.1f} GB of memory; {MEMORY / 1e9:.0f} are the limit"
            yield Finding(page.file, 1, "ran/memory", message, "read and keep less at a time")
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
