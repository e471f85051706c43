"""All rules, by group."""

from collections.abc import Callable, Iterable
from pathlib import Path

from book.check import (
    cells,
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
    ran,
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
    "cells": cells.check,
    "literals": literals.check,
    "quarto": quarto.check,
    "claims": ledger.check,
    "links": links.check,
    "files": files.check,
    "layers": layers.check,
}


AFTER: dict[str, Callable[[project.Project], Iterable[Finding]]] = {"ran": ran.check}


def run(root: Path, only: Iterable[str] = (), *, ran: bool = False) -> list[Finding]:
    """All findings of the project at `root`, sorted by file and line; `only` names groups.

    `ran`: instead, the sentences that do not hold in what was executed at the scale in force.
    """
    read = project.load(Path(root).resolve())
    rules = AFTER if ran else GROUPS
    chosen = list(rules) if ran else list(only) or list(GROUPS)
    return sorted({finding for group in chosen for finding in rules[group](read)})
