"""All rules, by group."""

from collections.abc import Callable, Iterable
from pathlib import Path

from book.check import (
    chapters,
    citations,
    figures,
    files,
    inline,
    labels,
    layers,
    ledger,
    links,
    literals,
    parameters,
    project,
    quarto,
    yaml_files,
)
from book.check.finding import Finding

GROUPS: dict[str, Callable[[project.Project], Iterable[Finding]]] = {
    "yaml": yaml_files.check,
    "chapters": chapters.check,
    "parameters": parameters.check,
    "labels": labels.check,
    "citations": citations.check,
    "figures": figures.check,
    "inline": inline.check,
    "literals": literals.check,
    "quarto": quarto.check,
    "claims": ledger.check,
    "links": links.check,
    "files": files.check,
    "layers": layers.check,
}


def run(root: Path, only: Iterable[str] = ()) -> list[Finding]:
    """All findings of the project at `root`, sorted by file and line; `only` names groups."""
    read = project.load(Path(root).resolve())
    chosen = list(only) or list(GROUPS)
    return sorted({finding for group in chosen for finding in GROUPS[group](read)})
