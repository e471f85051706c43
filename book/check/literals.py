"""No result is typed: numbers in running text come out of cells.

A heuristic, on the running text and the captions of every page, mathematics, code and link targets
left out. It flags

* percentages, and numbers with a decimal point,
* whole numbers of three or more digits,

and lets pass what is a name or a definition rather than a result: powers of two and their
neighbours (128, 65,535), one digit and noughts (100, 5000), years (1790, 2021), numbers that are
part of a name (Qwen2.5-Coder-0.5B, bf16, Qwen3-4B-Instruct-2507), and numbers after a word that
makes them a name (section 3.2, Python 3.11, id 151,643). Numbers in words, and whole numbers below
a hundred, are not seen. What else is a definition goes into `data/allowed-literals.yml`:

    - {chapter: lattice/01-anatomy, text: "0.37", reason: "the length in the sources' own example"}

with `chapter: all` for the whole book; an entry that nothing needs any more is a finding too.
"""

import re
from collections.abc import Iterator

import yaml

from book.check.finding import Finding
from book.check.project import Page, Project
from book.check.prose import ATTRIBUTES, blank, line_at

ALLOWED = "data/allowed-literals.yml"
NUMBER = re.compile(
    r"(?<![\w.,/^_@#])(?<![\w)]-)"  # not inside a name
    r"(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\d+)"
    r"(?P<percent>\s?(?:%|percent\b|per cent\b))?"
    r"(?![\d]|[,.]\d|[A-Z]\b|-?[A-Za-z]+\d|[-_][A-Za-z]+\d|/\w)"
)
NAMING = re.compile(
    r"\b(?:ids?|version|Python|Quarto|Pandoc|torch|PyTorch|NumPy|Unicode|UTF|section|chapter|part"
    r"|equation|figure|table|page|line|seed|notebook|Qwen|Llama|GPT|ISO|RFC|IEEE)[\s-]$",
    re.IGNORECASE,
)
CAPTIONS = ("fig-cap", "tbl-cap", "fig-alt", "fig-subcap")


def check(project: Project) -> Iterator[Finding]:
    """Findings on numbers typed in prose and captions, and on allowances nobody needs."""
    allowances = _allowances(project)
    yield from _malformed(project, allowances)
    used: set[tuple[str, str]] = set()
    for page in project.pages:
        allowed = {text for chapter, text, _ in allowances if chapter in ("all", page.name)}
        for text, line in typed(page):
            if text in allowed:
                used |= {("all", text), (page.name, text)}
                continue
            yield Finding(
                page.file,
                line,
                "literals/typed",
                f"the number {text} is typed",
                f"compute it and show it inline, or say in {ALLOWED} why it is a definition",
            )
    for chapter, text, line in allowances:
        if (chapter, text) not in used:
            yield Finding(
                ALLOWED, line, "literals/unused", f"nothing in {chapter} says {text}", "delete it"
            )


def typed(page: Page) -> Iterator[tuple[str, int]]:
    """Numbers typed in a page's text and captions, with their lines."""
    text = ATTRIBUTES.sub(blank, page.text)
    text = re.sub(r"\[[^\]\n]*@[^\]\n]*\]", blank, text)  # citations with their pages
    for number, position in _numbers(text):
        yield number, line_at(text, position)
    for cell in page.cells:
        for option in CAPTIONS:
            caption = re.sub(r"\$[^$]*\$|`[^`]*`", blank, str(cell.options.get(option) or ""))
            for number, _ in _numbers(caption):
                yield number, cell.line


def _numbers(text: str) -> Iterator[tuple[str, int]]:
    for match in NUMBER.finditer(text):
        number, percent = match.group("number"), match.group("percent")
        before = text[max(0, match.start() - 24) : match.start()]
        if NAMING.search(before):
            continue
        if percent or not _passes(number):
            yield match.group(0).strip(), match.start()


def _passes(number: str) -> bool:
    if "." in number:
        return False
    digits = number.replace(",", "")
    value = int(digits)
    if len(digits) < 3 or digits.rstrip("0") in "123456789":
        return True
    if "," not in number and len(digits) == 4 and 1700 <= value <= 2100:
        return True
    return any(n > 0 and n & (n - 1) == 0 for n in (value - 1, value, value + 1))


def _allowances(project: Project) -> list[tuple[str, str, int]]:
    """Chapter, text and line of every allowance."""
    source = project.read(ALLOWED)
    try:
        entries = yaml.safe_load(source) or []
    except yaml.YAMLError:  # said by the group `yaml`
        return []
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            text = str(entry.get("text", ""))
            at = source.find(text) if text else 0
            found.append((str(entry.get("chapter", "")), text, line_at(source, max(at, 0))))
    return found


def _malformed(project: Project, allowances: list[tuple[str, str, int]]) -> Iterator[Finding]:
    try:
        entries = yaml.safe_load(project.read(ALLOWED)) or []
    except yaml.YAMLError:
        return
    if not isinstance(entries, list):
        yield Finding(ALLOWED, 1, "literals/allowance", "it is no list", "write one entry a line")
        return
    for entry in entries:
        keys = set(entry) if isinstance(entry, dict) else set()
        values = list(entry.values()) if isinstance(entry, dict) else []
        if keys != {"chapter", "text", "reason"} or not all(
            isinstance(value, str) and value.strip() for value in values
        ):
            yield Finding(
                ALLOWED,
                1,
                "literals/allowance",
                f"{entry!r} is no allowance",
                'write {chapter: ..., text: "...", reason: "..."}',
            )
