"""The house of `lib`: arrows point down, rooms are small, what is public says what it does."""

import ast
from collections.abc import Iterator

from book.check.finding import Finding
from book.check.project import Project, dotted

FLOORS = (  # from the ground; a room imports only from the floors below its own
    ("paths",),
    ("imports", "compiled"),
    ("kernels",),
    ("lattice", "digests", "files", "progress", "scale"),
    ("provenance",),
    ("artifacts", "plots"),
    ("claims",),
    ("fullruns",),
    ("tokens",),
    ("specimens",),  # a specimen brings its tokenizer
    ("survey", "training"),
    ("dynamics", "formation"),
)
BESIDE = ("book", "cli", "__main__", "__init__")  # the machinery; no science may know it
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SCIENCE = {room for rooms in FLOORS[6:] for room in rooms} | {"compiled", "kernels", "lattice"}
SLOW = (
    "torch",
    "scipy",
    "networkx",
    "numba",
)  # too slow to import before a command line can answer
Chains = dict[str, tuple[str, ...]]  # module -> how it reaches a slow package
LONGEST = 300  # lines of a module
PROPERTIES = {"property", "cached_property", "functools.cached_property"}
OVERRIDES = {"forward", "backward"}  # torch's own names, documented by torch


def check(project: Project) -> Iterator[Finding]:
    """Findings on the modules of lib."""
    known: Chains = {}
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
            yield from _bars(file, tree)
            if file.startswith("lib/cli/"):
                yield from _start(project, file, tree, known)


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
            message = f"book imports lib.{target}: the machinery knows no science"
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


def _bars(file: str, tree: ast.Module) -> Iterator[Finding]:
    """Bars that reach the page: tqdm itself, or its warning about missing widgets."""
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if any(name.split(".")[0] == "tqdm" for name in names) and file != "lib/progress.py":
            message = "tqdm here prints its warnings onto the page"
            yield Finding(file, node.lineno, "layers/bars", message, "use lib.progress.bar")


def _start(project: Project, file: str, tree: ast.Module, known: Chains) -> Iterator[Finding]:
    """What `python -m lib --help` would import before it answers, since it reads every verb."""
    for node in tree.body:
        chain = _chain_of(project, node, known)
        if chain:
            message = f"every command would first import {' -> '.join(chain)}"
            mend = "import it inside the function that needs it"
            yield Finding(file, node.lineno, "layers/start", message, mend)


def _chain_of(project: Project, node: ast.stmt, known: Chains) -> tuple[str, ...]:
    """The chain of modules by which one top-level import reaches a slow package; () if none."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
        return ()
    for name in names:
        if name.split(".")[0] in SLOW:
            return (name,)
        if name.startswith("lib.") and name not in known:
            known[name] = ()  # also ends circles
            file = next((f for f in _module_files(name) if f in project.files), None)
            body = ast.parse(project.read(file)).body if file else []
            chains = (_chain_of(project, inner, known) for inner in body)
            known[name] = next((chain for chain in chains if chain), ())
        if known.get(name):
            return (name, *known[name])
    return ()


def _module_files(name: str) -> tuple[str, str]:
    path = name.replace(".", "/")
    return f"{path}.py", f"{path}/__init__.py"


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
