"""The book's one switch of size: BOOK_SCALE = smoke, book or full.

A chapter's parameters cell holds the *book* values. The other scales override them from
`data/scales/<scale>.yml`, chapter by chapter. A value given explicitly (papermill, `quarto -P`,
`python -m lib run -p`) differs from the literal in the cell and is left alone. What is given to a
reader but is a parameter of the generator that it reads reaches that generator's `settings`.
"""

import ast
import json
import os
from collections.abc import MutableMapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lib import files, paths

SCALES = ("smoke", "book", "full")
GIVEN = "BOOK_GIVEN"  # environment: comma-separated names that the caller set explicitly
UPSTREAM = "BOOK_UPSTREAM"  # environment: JSON, what was given of the generators that are read


class ScaleError(ValueError):
    """BOOK_SCALE or a scale file says something the book does not know."""


def current() -> str:
    """The scale in force: BOOK_SCALE of the environment, else "book". Raises ScaleError."""
    scale = os.environ.get("BOOK_SCALE", "book") or "book"
    if scale not in SCALES:
        raise ScaleError(f"BOOK_SCALE is {scale!r}; it must be one of {', '.join(SCALES)}")
    return scale


def is_changed() -> bool:
    """Whether parameters were given: then nothing of what runs belongs to the edition."""
    return bool(os.environ.get(GIVEN)) or any(json.loads(os.environ.get(UPSTREAM) or "{}").values())


def overrides(chapter: str, scale: str) -> dict[str, Any]:
    """Parameters of `chapter` ("part/NN-name") that `scale` changes; empty for "book"."""
    if scale == "book":
        return {}
    file = paths.SCALES / f"{scale}.yml"
    try:
        table = _table(file, file.stat().st_mtime_ns) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScaleError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    values = (table.get(chapter) or {}) if isinstance(table, dict) else None
    if not isinstance(values, dict):
        raise ScaleError(f"{file}: {chapter} must map parameter names to values")
    return values


@lru_cache(maxsize=16)
def _table(file: Path, _modified: int) -> Any:
    return files.read_yaml(file, noting=False)  # a chapter's own part of it is in its key


def settings(chapter: str) -> dict[str, Any]:
    """The parameters with which generator `chapter` is read: literals, scale, what was given."""
    given = json.loads(os.environ.get(UPSTREAM) or "{}").get(chapter, {})
    return {**literals(chapter), **overrides(chapter, current()), **given}


@lru_cache
def literals(chapter: str) -> dict[str, Any]:
    """The literal values of the chapter's parameters cell, read from its source."""
    source = (paths.CHAPTERS / f"{chapter}.qmd").read_text(encoding="utf-8")
    return parameter_literals(parameters_cell(source, chapter), chapter)


def parameters_cell(source: str, where: str | Path) -> str:
    """The source of the first code cell tagged `parameters`. Raises ScaleError if there is none."""
    cell: list[str] | None = None
    tagged = False
    for line in source.splitlines():
        if cell is None:
            if line.startswith("```{python}"):
                cell, tagged = [], False
        elif line.startswith("```"):
            if tagged:
                return "\n".join(cell)
            cell = None
        elif line.startswith("#|"):
            tagged = tagged or ("tags:" in line and "parameters" in line)
        else:
            cell.append(line)
    raise ScaleError(f"{where}: no code cell is tagged `parameters`")


def parameter_literals(code: str, where: str | Path) -> dict[str, Any]:
    """Names and values assigned in a parameters cell. Raises ScaleError on anything not literal."""
    values = {}
    try:
        nodes = ast.parse(code).body
    except SyntaxError as error:
        raise ScaleError(f"{where}: the parameters cell is not Python: {error.msg}") from error
    for node in nodes:
        if not (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
        ):
            raise ScaleError(f"{where}: the parameters cell may hold only `name = literal` lines")
        try:
            values[node.targets[0].id] = ast.literal_eval(node.value)
        except ValueError as error:
            name = node.targets[0].id
            raise ScaleError(f"{where}: parameter {name} is not a literal") from error
    return values


def apply(chapter: str, namespace: MutableMapping[str, Any]) -> dict[str, Any]:
    """Set the parameters of `chapter` in `namespace` to the current scale's values; returns them.

    A parameter that was given explicitly is kept: its name stands in BOOK_GIVEN, or its value is
    no longer the literal of the parameters cell, and then its name is put there.
    """
    scale = current()
    changed = overrides(chapter, scale)
    given = set(filter(None, os.environ.get(GIVEN, "").split(",")))
    for name, literal in literals(chapter).items():
        if namespace.get(name, literal) not in (literal, changed.get(name, literal)):
            given.add(name)
    os.environ[GIVEN] = ",".join(sorted(given))
    for name, value in changed.items():
        if name not in literals(chapter):
            raise ScaleError(f"data/scales/{scale}.yml: {chapter} has no parameter {name!r}")
        literal = literals(chapter)[name]
        if isinstance(value, str) and isinstance(literal, (int, float)):
            raise ScaleError(
                f"data/scales/{scale}.yml: {chapter}: {name} is the text {value!r}, not a number "
                "(YAML reads 3e-4 as text: write 3.0e-4)"
            )
        if name not in given and name in namespace:
            namespace[name] = value
    return {name: namespace[name] for name in literals(chapter) if name in namespace}
