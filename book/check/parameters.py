"""Parameters are literals, the scales name real ones, and no reader hides its generator's."""

import ast
from collections.abc import Iterator
from typing import Any

import yaml

from book.check.finding import Finding
from book.check.project import Page, Project
from book.check.prose import line_at
from book.parameters import Parameter, ParameterError, of
from lib import scale

SCALES = ("smoke", "full")  # the book scale is what the cells say
OWN = {"colormap", "seed"}  # how a chapter shows things, and its own random numbers
PLAIN = {"colormap", "seed"}  # names that say enough


def check(project: Project) -> Iterator[Finding]:
    """Findings on parameters cells and data/scales."""
    tables = {name: _table(project, name) for name in SCALES}
    for page in project.pages:
        yield from _literal(page)
    for name, table in tables.items():
        yield from _scale_file(project, name, table)
    for page in project.pages:
        for name in page.reads:
            generator = project.page(name)
            if generator is not None and generator is not page:
                yield from _shadow(page, generator)


def _table(project: Project, name: str) -> dict[str, Any]:
    try:
        table = yaml.safe_load(project.read(f"data/scales/{name}.yml"))
    except yaml.YAMLError:  # said by the group `yaml`
        return {}
    return table if isinstance(table, dict) else {}


def _literal(page: Page) -> Iterator[Finding]:
    cell = page.parameters_cell
    if cell is None:
        return
    if cell.tree is None:
        yield Finding(
            page.file,
            cell.line,
            "parameters/literal",
            "the parameters cell is not plain Python",
            "write `name = literal  # meaning, unit` lines only",
        )
        return
    values = page.parameters
    for node in cell.tree.body:
        simple = isinstance(node, ast.Assign) and len(node.targets) == 1
        name = node.targets[0].id if simple and isinstance(node.targets[0], ast.Name) else None
        line = page.line_of(cell.code) + node.lineno - 1
        if name not in values:
            yield Finding(
                page.file,
                line,
                "parameters/literal",
                f"`{ast.unparse(node)}` is not `name = literal`",
                "give a number, text, list or mapping and compute in a later cell",
            )
        elif name not in PLAIN and "#" not in cell.code.split("\n")[node.end_lineno - 1]:
            yield Finding(
                page.file,
                line,
                "parameters/comment",
                f"{name} does not say what it means",
                "add a comment with its meaning and unit",
            )


def _scale_file(project: Project, name: str, table: dict[str, Any]) -> Iterator[Finding]:
    file = f"data/scales/{name}.yml"
    text = project.read(file)
    for chapter, values in table.items():
        line = line_at(text, max(text.find(f"{chapter}:"), 0))
        page = project.page(str(chapter))
        if page is None:
            yield Finding(
                file,
                line,
                "parameters/scales",
                f"{chapter} is no chapter",
                "name it as under chapters/, without .qmd",
            )
            continue
        if not isinstance(values, dict):
            yield Finding(
                file,
                line,
                "parameters/scales",
                f"{chapter} does not map names to values",
                "write `name: value` lines below it",
            )
            continue
        known = _known(page, values)
        for name, value in values.items():
            if name not in known:
                message = f"{chapter} has no parameter {name!r}"
                mend = f"it has {', '.join(known) or 'none'}"
            elif value is not None and (problem := _problem(known[name], value)):
                message = f"{chapter}: {problem}"
                mend = "give what it may be (YAML reads 3e-4 as text: write 3.0e-4)"
            else:
                continue
            at = text.find(f"{name}:", max(text.find(f"{chapter}:"), 0))
            yield Finding(
                file, line_at(text, at) if at >= 0 else line, "parameters/scales", message, mend
            )


def _known(page: Page, values: dict[str, Any]) -> dict[str, Parameter]:
    """The page's parameters; none where its cell is not plain, as `_literal` says."""
    try:
        return of(page.parameters_cell.code, page.file, [values]) if page.parameters_cell else {}
    except scale.ScaleError:
        return {}


def _problem(parameter: Parameter, value: Any) -> str:
    """What is wrong with the value; empty where nothing is."""
    try:
        parameter.check(value)
    except ParameterError as error:
        return str(error)
    return ""


def _shadow(page: Page, generator: Page) -> Iterator[Finding]:
    """A reader finds its generator's parameters as they were: one of its own must not hide them."""
    for name in sorted(page.parameters.keys() & generator.parameters.keys() - OWN):
        message = f"{name} is a parameter of {generator.name} too, and hides it"
        mend = "read it as made.parameters, or give this one another name"
        yield Finding(
            page.file, page.line_of(f"\n{name} =") + 1, "parameters/shadow", message, mend
        )
