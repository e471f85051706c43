"""Labels stand once in the book with the right prefix, and every reference finds one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from book.check.finding import Finding
from book.check.project import Page, Project
from book.check.prose import html_only, line_at

KINDS = ("fig", "tbl", "eq", "sec")
ATTRIBUTE = re.compile(r"^(?P<before>.*?)\{[^{}\n]*?#(?P<label>[\w:.-]+)[^{}\n]*\}", re.MULTILINE)
WELL_FORMED = re.compile(r"(fig|tbl|eq|sec)-[a-z0-9]+(-[a-z0-9]+)*")
REFERENCE = re.compile(r"(?<![\w\\])-?@((?:fig|tbl|eq|sec|lst|thm|lem|nte|tip|wrn)-[\w-]*\w)")
CAPTIONS = ("fig-cap", "tbl-cap", "fig-alt", "fig-subcap")


@dataclass(frozen=True)
class Label:
    """Where a label stands and what carries it."""

    name: str
    page: Page
    line: int
    kind: str  # the prefix that it must have: fig, tbl, eq, sec; "" for any


def labels_of(page: Page) -> Iterator[Label]:
    """Every label of a page that can be referred to, and the plain names of its cells."""
    # the prose keeps its mathematics, so that an equation can be told from a heading
    for match in ATTRIBUTE.finditer(page.text):
        before = match.group("before").strip()
        if before.startswith("#"):
            kind = "sec"
        elif before.startswith("!["):
            kind = "fig"
        elif before.startswith(": "):
            kind = "tbl"
        elif re.match(r":{3,}", before) or before:
            kind = ""
        else:
            kind = "eq"
        yield Label(match.group("label"), page, line_at(page.text, match.start("label")), kind)
    for cell in page.cells:
        if cell.label:
            yield Label(cell.label, page, cell.line, "cell")


def check(project: Project) -> Iterator[Finding]:
    """Findings on labels and cross-references."""
    labels = [label for page in project.pages for label in labels_of(page)]
    yield from _unique(labels)
    for label in labels:
        yield from _form(label)
    known: dict[str, Label] = {label.name: label for label in labels}
    for page in project.pages:
        yield from _references(page, known)


def _unique(labels: list[Label]) -> Iterator[Finding]:
    first: dict[str, Label] = {}
    for label in labels:
        # a cell's plain name needs to be unique on its own page only
        plain = not label.name.startswith(tuple(f"{kind}-" for kind in KINDS))
        key = f"{label.page.file}#{label.name}" if plain else label.name
        if key in first:
            other = first[key]
            yield Finding(
                label.page.file,
                label.line,
                "labels/unique",
                f"{label.name} stands already at {other.page.file}:{other.line}",
                "give it another name",
            )
        first.setdefault(key, label)


def _form(label: Label) -> Iterator[Finding]:
    prefix = label.name.partition("-")[0]
    if label.kind in KINDS and prefix != label.kind:
        message = f"{label.name} must begin with {label.kind}-"
    elif label.kind == "cell" and prefix in ("sec", "eq"):
        message = f"a cell's label cannot begin with {prefix}-"
    elif prefix in KINDS and not WELL_FORMED.fullmatch(label.name):
        message = f"{label.name} is not in lower case, digits and single hyphens"
    else:
        return
    yield Finding(label.page.file, label.line, "labels/form", message, "rename it")


def _references(page: Page, known: dict[str, Label]) -> Iterator[Finding]:
    hidden = html_only(page.text)
    used = [(m.group(1), line_at(page.text, m.start())) for m in REFERENCE.finditer(page.text)]
    for cell in page.cells:
        for option in CAPTIONS:
            text = str(cell.options.get(option) or "")
            used += [(match.group(1), cell.line) for match in REFERENCE.finditer(text)]
    for name, line in used:
        label = known.get(name)
        if label is None:
            yield Finding(
                page.file,
                line,
                "labels/resolves",
                f"@{name} is nowhere",
                "label it or mend the name",
            )
            continue
        html_label = any(label.line in lines for lines in html_only(label.page.text))
        if html_label and not any(line in lines for lines in hidden):
            yield Finding(
                page.file,
                line,
                "labels/html-only",
                f"@{name} is only in the HTML edition, the text that refers to it is in both",
                'put the sentence into a `::: {.content-visible when-format="html"}` too',
            )
