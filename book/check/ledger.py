"""The ledger of claims agrees with the chapters: each claim has one, each verdict has its claim."""

import ast
from collections.abc import Iterator
from typing import Any

import yaml

from book.check.finding import Finding
from book.check.project import Page, Project, dotted
from book.check.prose import line_at

LEDGER = "data/claims.yaml"
NEEDED = ("id", "part", "claim", "source", "printed", "check", "chapter")
NAMING = ("claims.settled", "claims.table")


def check(project: Project) -> Iterator[Finding]:
    """Findings on data/claims.yaml and on the chapters that settle its claims."""
    source = project.read(LEDGER)
    try:
        entries = yaml.safe_load(source) or []
    except yaml.YAMLError:  # said by the group `yaml`
        return
    known: set[str] = set()
    for entry in entries if isinstance(entries, list) else [entries]:
        id = entry.get("id") if isinstance(entry, dict) else None
        line = line_at(source, max(source.find(f"id: {id}"), 0))
        lacking = [name for name in NEEDED if not isinstance(entry, dict) or name not in entry]
        if lacking:
            message = f"a claim without {', '.join(lacking)}"
            yield Finding(LEDGER, line, "claims/fields", message, "say what was claimed and where")
            continue
        if id in known:
            message = f"the id {id} stands twice"
            yield Finding(LEDGER, line, "claims/unique", message, "give the second another id")
        known.add(str(id))
        yield from _settled(project, entry, line)
    for page in project.pages:
        for name, line in _named(page):
            if name not in known:
                mend = f"mend the id or add the claim to {LEDGER}"
                yield Finding(page.file, line, "claims/known", f"{name} is no claim", mend)


def _settled(project: Project, entry: dict[str, Any], line: int) -> Iterator[Finding]:
    page = project.page(str(entry["chapter"]))
    if page is None:
        message = f"{entry['id']} is settled by {entry['chapter']}, which is no chapter"
        yield Finding(LEDGER, line, "claims/chapter", message, "name the chapter that settles it")
    elif not any(str(entry["id"]) in _texts(cell.tree) for cell in page.cells):
        message = f"{entry['chapter']} never names the claim {entry['id']}"
        yield Finding(
            LEDGER, line, "claims/chapter", message, "settle it there with claims.settled"
        )


def _texts(tree: ast.Module | None) -> set[str]:
    """All text constants in a cell."""
    nodes = ast.walk(tree) if tree else ()
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def _named(page: Page) -> Iterator[tuple[str, int]]:
    """Ids that a page gives as plain text to claims.settled or claims.table, with their lines."""
    for cell in page.cells:
        for node in ast.walk(cell.tree) if cell.tree else ():
            if isinstance(node, ast.Call) and dotted(node.func) in NAMING and node.args:
                first = node.args[0]
                items = first.elts if isinstance(first, (ast.List, ast.Tuple)) else [first]
                items = first.keys if isinstance(first, ast.Dict) else items
                for item in items:
                    if isinstance(item, ast.Constant) and isinstance(item.value, str):
                        yield item.value, cell.line
