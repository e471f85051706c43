"""Figures have label, caption and alternative text; tables have label and caption."""

import ast
import re
from collections.abc import Iterator

from book.check.finding import Finding
from book.check.project import Cell, Page, Project
from book.check.prose import line_at

DRAWS = re.compile(r"^(plt\.(subplots|figure|subplot_mosaic)|go\.Figure|plotly\.\S*Figure)$")
TABULATES = re.compile(r"^(show\.table|claims\.(table|settled))$")
SHORTEST_ALT = 40  # characters: enough to say what kind of plot it is and what it shows
IMAGE = re.compile(
    r"!\[(?P<caption>[^\]]*)\]\((?P<target>[^)\s]+)[^)]*\)(?P<attributes>\{[^}]*\})?"
)
PIPE_RULE = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-+:?\s*)+\|?\s*$", re.MULTILINE)


def check(project: Project) -> Iterator[Finding]:
    """Findings on figures and tables."""
    for page in project.pages:
        for cell in page.cells:
            yield from _cell(page, cell)
        yield from _images(page)
        yield from _pipe_tables(page)


def _cell(page: Page, cell: Cell) -> Iterator[Finding]:
    is_figure, is_table = cell.label.startswith("fig-"), cell.label.startswith("tbl-")
    if not is_figure and any(DRAWS.match(name) for name in cell.called) and not _only_defines(cell):
        yield Finding(
            page.file,
            cell.line,
            "figures/label",
            "a cell draws a figure without `#| label: fig-...`",
            "give it a label, fig-cap and fig-alt",
        )
    if not is_table and _shows_table(cell):
        yield Finding(
            page.file,
            cell.line,
            "figures/table",
            "a cell shows a table without `#| label: tbl-...`",
            "give it a label and tbl-cap",
        )
    if is_figure:
        yield from _needs(page, cell, "fig-cap")
        yield from _needs(page, cell, "fig-alt")
        yield from _alt(page, cell)
    if is_table:
        yield from _needs(page, cell, "tbl-cap")


def _needs(page: Page, cell: Cell, option: str) -> Iterator[Finding]:
    value = cell.options.get(option)
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        yield Finding(
            page.file,
            cell.line,
            f"figures/{option}",
            f"{cell.label} has no {option}",
            f'write `#| {option}: "..."`',
        )


def _alt(page: Page, cell: Cell) -> Iterator[Finding]:
    alt, caption = (_plain(cell.options.get(name)) for name in ("fig-alt", "fig-cap"))
    if not alt:
        return
    if alt == caption or alt in caption:
        message, mend = "repeats its caption", "say what one sees, for who does not see it"
    elif len(alt) < SHORTEST_ALT:
        message, mend = f"has {len(alt)} characters", "say the kind of plot and what stands out"
    else:
        return
    message = f"the alternative text of {cell.label} {message}"
    yield Finding(page.file, cell.line, "figures/fig-alt", message, mend)


def _plain(value: object) -> str:
    words = " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return " ".join(words.lower().split()).rstrip(".")


def _only_defines(cell: Cell) -> bool:
    """Whether the cell only defines functions and imports, and so shows nothing itself."""
    quiet = (ast.FunctionDef, ast.Import, ast.ImportFrom)
    return all(isinstance(node, quiet) for node in (cell.tree.body if cell.tree else []))


def _shows_table(cell: Cell) -> bool:
    """Whether the last line of the cell is a call of plots.table or claims.table."""
    last = cell.tree.body[-1] if cell.tree and cell.tree.body else None
    if not (isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)):
        return False
    return bool(TABULATES.match(ast.unparse(last.value.func)))


def _images(page: Page) -> Iterator[Finding]:
    for match in IMAGE.finditer(page.prose):
        attributes = match.group("attributes") or ""
        alt = re.search(r"fig-alt=\"([^\"]*)\"", attributes)
        text = (alt.group(1) if alt else match.group("caption")).strip()
        if len(text) < SHORTEST_ALT:
            yield Finding(
                page.file,
                line_at(page.prose, match.start()),
                "figures/fig-alt",
                f"the image {match.group('target')} has no alternative text of use",
                'add `{fig-alt="..."}` after it',
            )


def _pipe_tables(page: Page) -> Iterator[Finding]:
    lines = page.text.split("\n")
    for match in PIPE_RULE.finditer(page.text):
        line = line_at(
            page.text, match.start() + len(match.group(0)) - len(match.group(0).lstrip())
        )
        if line < 2 or "|" not in lines[line - 2]:
            continue  # a rule, not the line below a header
        end = line
        while end < len(lines) and lines[end].strip():
            end += 1
        near = "\n".join([*lines[max(line - 5, 0) : line - 2], *lines[end - 1 : end + 4]])
        if not re.search(r"\{[^}]*#tbl-", near):
            yield Finding(
                page.file,
                line - 1,
                "figures/table",
                "a table in the text has no label and caption",
                "write `: Caption {#tbl-...}` below it",
            )
