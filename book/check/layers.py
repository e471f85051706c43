"""The house of `lib`: arrows point down, rooms are small, what is public says what it does."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

from book.check.finding import Finding
from book.check.project import Project, dotted

LONGEST = 520  # lines of a module: more cannot be read in one go
SLOW = (
    "torch",
    "scipy",
    "networkx",
    "numba",
)  # too slow to import before a command line can answer
Chains = dict[str, tuple[str, ...]]  # module -> how it reaches a slow package
PROPERTIES = {"property", "cached_property", "functools.cached_property"}
OVERRIDES = {"forward", "backward"}  # torch's own names, documented by torch


def check(project: Project) -> Iterator[Finding]:
    """Findings on the modules of lib."""
    known: Chains = {}
    yield from _floors(project)
    for file in project.files:
        if file.startswith(("lib/", "book/", "press/")) and file.endswith(".py"):
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
            yield from _docstrings(file, tree)
            yield from _bars(file, tree)
            if file in ("lib/cli.py", "book/cli.py", "lib/__main__.py"):
                yield from _start(project, file, tree, known)


def _floors(project: Project) -> Iterator[Finding]:
    """Arrows that run up, by the contracts that pyproject.toml has for import-linter."""
    if not (project.root / "pyproject.toml").is_file() or "tool.importlinter" not in project.read(
        "pyproject.toml"
    ):
        return
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    answer = subprocess.run(
        [*command, "--no-cache"], cwd=project.root, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        for line in answer.stdout.splitlines():
            if match := re.match(r"-\s+(\S+) -> (\S+) \(l\.(\d+)", line):
                source, target, number = match.groups()
                file = source.replace(".", "/") + ".py"
                message = f"{source} imports {target}: that arrow runs up"
                mend = "move what is shared to a lower floor"
                yield Finding(file, int(number), "layers/down", message, mend)
        if "BROKEN" not in answer.stdout:
            message = " ".join((answer.stderr or answer.stdout).split())[-200:]
            yield Finding("pyproject.toml", 1, "layers/contracts", message, "mend the contracts")


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
        if name.startswith(("lib.", "book.")) and name not in known:
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
