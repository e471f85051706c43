"""The house of `lib`: arrows point down, rooms are small, what is public says what it does."""

import ast
from collections.abc import Iterator

from lib.book.check.finding import Finding
from lib.book.check.project import Project, dotted

FLOORS = (  # from the ground; a room imports only from the floors below its own
    ("paths",),
    ("lattice", "digests", "files", "progress", "scale"),
    ("provenance",),
    ("artifacts", "plots"),
    ("claims",),
    ("tokens",),
    ("specimens",),  # a specimen brings its tokenizer
    ("survey", "training"),
    ("dynamics", "formation"),
)
BESIDE = ("book", "cli", "__main__", "__init__")  # the machinery; no science may know it
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SCIENCE = {room for rooms in FLOORS[5:] for room in rooms} | {"lattice"}
LONGEST = 300  # lines of a module
PROPERTIES = {"property", "cached_property", "functools.cached_property"}
OVERRIDES = {"forward", "backward"}  # torch's own names, documented by torch


def check(project: Project) -> Iterator[Finding]:
    """Findings on the modules of lib."""
    for file in project.files:
        if file.startswith("lib/") and file.endswith(".py"):
            source = project.read(file)
            lines = source.count("\n")
            if lines > LONGEST:
                message = f"{lines} lines, more than {LONGEST}"
                yield Finding(
                    file, 1, "layers/length", message, "split it where it does two things"
                )
            try:
                tree = ast.parse(source)
            except SyntaxError as error:
                message = f"not Python: {error.msg}"
                yield Finding(file, error.lineno or 1, "layers/python", message, "mend it")
                continue
            yield from _imports(file, tree)
            yield from _docstrings(file, tree)


def _imports(file: str, tree: ast.Module) -> Iterator[Finding]:
    room = file.split("/")[1].removesuffix(".py")
    if room not in FLOOR_OF and room not in BESIDE:
        message = f"the room {room} stands on no floor"
        yield Finding(
            file, 1, "layers/floor", message, "add it to FLOORS in lib/book/check/layers.py"
        )
        return
    for target, line in _imported_rooms(file, tree):
        if target == room:
            continue
        if room in FLOOR_OF and target in BESIDE:
            message = f"lib.{room} imports lib.{target}: science knows no machinery"
        elif room == "book" and (target in SCIENCE or target == "cli"):
            message = f"lib.book imports lib.{target}: the machinery knows no science"
        elif room in FLOOR_OF and FLOOR_OF.get(target, -1) >= FLOOR_OF[room]:
            message = f"lib.{room} imports lib.{target}, which is not on a floor below"
        else:
            continue
        yield Finding(file, line, "layers/down", message, "move what is shared to a lower floor")


def _imported_rooms(file: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # relative: count up from this file's folder
                above = file.split("/")[: -node.level]
                names = [
                    ".".join([*above, *(node.module or alias.name).split(".")][:3])
                    for alias in node.names
                ]
            elif node.module == "lib":
                names = [f"lib.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        for name in dict.fromkeys(names):
            words = name.split(".")
            if words[0] == "lib" and len(words) > 1:
                yield words[1], node.lineno


def _docstrings(file: str, tree: ast.Module) -> Iterator[Finding]:
    if tree.body and not ast.get_docstring(tree):
        mend = "begin it with a docstring"
        yield Finding(file, 1, "layers/docstring", "the module does not say what it is", mend)
    for node, name in _public(tree):
        if not ast.get_docstring(node):
            mend = "say shapes, dtypes, units and errors in one"
            yield Finding(file, node.lineno, "layers/docstring", f"{name} has no docstring", mend)


def _public(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, str]]:
    """Public functions, classes and methods; a property's name says what it is."""
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name[0] == "_":
            continue
        yield node, node.name
        for method in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(method, ast.FunctionDef) and method.name[0] != "_":
                decorators = {dotted(decorator) for decorator in method.decorator_list}
                if not decorators & PROPERTIES and method.name not in OVERRIDES:
                    yield method, f"{node.name}.{method.name}"
