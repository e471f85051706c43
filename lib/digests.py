"""Digests: what parameters, code, a file or arrays *are*, in 64 characters.

The digest of code is that of the definitions it reaches: a function, the functions, classes and
constants of `lib` that it names, those that these name, and so on. What lies beside them in the
same module does not count, nor do comments, docstrings and layout, so an artefact is made again
when something that made it has changed, and at no other time.
"""

import ast
import dataclasses
import enum
import functools
import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib import paths

# modules that keep and show results: they cannot change what is computed
PRESENTATION = frozenset(
    f"lib.{name}"
    for name in ("artifacts", "claims", "digests", "files", "paths", "plots", "progress", "scale")
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
WHOLE = "*"  # in place of a definition's name: all of the module

Place = tuple[str, str]  # a module of lib and the name of one of its definitions, or WHOLE


class DigestError(ValueError):
    """A value has no well-defined digest (not plain, not finite, no source)."""


# ----------------------------------------------------------------------------- values


def plain(value: Any) -> Any:
    """`value` as plain JSON types; dataclasses and enums by their contents."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise DigestError(f"parameter value {value!r} is no plain number, text, list or mapping")


def of_value(value: Any) -> str:
    """SHA-256 (hex) of a plain value's canonical JSON. Raises DigestError on NaN and infinity."""
    try:
        text = json.dumps(plain(value), sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise DigestError(f"parameters must be finite and plain: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes of `arrays`, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# ----------------------------------------------------------------------------- code


def of_maker(*makers: Callable) -> str:
    """SHA-256 (hex) of functions or classes and of all that they reach in `lib`.

    What only keeps and shows results (PRESENTATION) is left out.
    """
    own, start = [], set()
    for maker in makers:
        if maker.__module__.startswith("lib."):
            start.add((maker.__module__, maker.__qualname__.split(".")[0]))
        else:  # of a test or a script: its own text, and what of lib it names
            tree = _parsed(textwrap.dedent(inspect.getsource(maker)))
            own.append(ast.dump(tree))
            around = inspect.getsource(sys.modules[maker.__module__])
            start |= set(_places(tree, _imported(_parsed(around))))
    return _digest(own, _closure(start, PRESENTATION))


def of_cells(code: str) -> tuple[str, set[Place]]:
    """SHA-256 (hex) of a chapter's code and of all that it reaches in `lib`; and what that is."""
    tree = _parsed(code)
    places = _closure(set(_places(tree, _imported(tree))), frozenset())
    return _digest([ast.dump(tree)], places), places


def _digest(own: Iterable[str], places: Iterable[Place]) -> str:
    digest = hashlib.sha256()
    for text in own:
        digest.update(text.encode())
    source = functools.cache(_source)  # each module is looked at once
    for module, name in sorted(places):
        digest.update(f"{module}.{name}|{source(module).text(name)}|".encode())
    return digest.hexdigest()


def _closure(start: set[Place], beyond: frozenset[str]) -> set[Place]:
    """Everything that the definitions `start` reach, without the modules `beyond`."""
    seen: set[Place] = set()
    look = functools.cache(_source)  # at each module once
    waiting = [place for place in start if place[0] not in beyond]
    while waiting:
        module, name = waiting.pop()
        source = look(module)
        names = source.names if name == WHOLE else {name, ""}  # "" is what runs on import
        for found in names & source.names:
            if (module, found) not in seen:
                seen.add((module, found))
                waiting += [place for place in source.reaches(found) if place[0] not in beyond]
    return seen


class Source(NamedTuple):
    """A module of lib: its definitions, of each its syntax tree as text, and what it names."""

    names: Set[str]
    text: Callable[[str], str]
    reaches: Callable[[str], tuple[Place, ...]]


def _source(module: str) -> Source:
    file = _file(module)
    return _read(module, file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _read(module: str, file: Path, _modified: int) -> Source:
    tree = _parsed(file.read_text(encoding="utf-8"))
    known = {name: (module, name) for node in tree.body for name in _names(node)}
    known |= _imported(tree)
    nodes: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        for name in _names(node):
            nodes.setdefault(name, []).append(node)

    @functools.cache
    def text(name: str) -> str:
        return "".join(ast.dump(node) for node in nodes[name])

    @functools.cache
    def reaches(name: str) -> tuple[Place, ...]:
        return tuple(place for node in nodes[name] for place in _places(node, known))

    return Source(nodes.keys(), text, reaches)


def _names(node: ast.stmt) -> list[str]:
    """The names that a statement of a module defines or changes; "" for none."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return []
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    named = [n for target in targets if target for n in ast.walk(target)]
    return [n.id for n in named if isinstance(n, ast.Name)] or [""]


def _imported(tree: ast.AST) -> dict[str, Place]:
    """What the names that `tree` imports from lib stand for; a module is (module, WHOLE)."""
    known: dict[str, Place] = {}
    for node in _blocks(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
            for alias in node.names:
                name, inner = alias.asname or alias.name, f"{node.module}.{alias.name}"
                known[name] = (inner, WHOLE) if _exists(inner) else (node.module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "lib":
                    known[alias.asname or "lib"] = (alias.name if alias.asname else "lib", WHOLE)
    return known


def _places(tree: ast.AST, known: Mapping[str, Place]) -> Iterator[Place]:
    """The definitions of lib that a piece of code names. `module.name` is one, `module` is all."""
    if isinstance(tree, ast.arg):  # annotations of arguments compute nothing
        return
    if isinstance(tree, ast.Attribute):
        words, base = [], tree
        while isinstance(base, ast.Attribute):
            words.insert(0, base.attr)
            base = base.value
        if isinstance(base, ast.Name) and base.id in known:
            module, name = known[base.id]
            while name == WHOLE and words and _exists(f"{module}.{words[0]}"):
                module = f"{module}.{words.pop(0)}"
            yield (module, words[0]) if name == WHOLE and words else (module, name)
            return
    if isinstance(tree, ast.Name):
        if tree.id in known:
            yield known[tree.id]
        return
    for field, child in ast.iter_fields(tree):
        if field == "returns":
            continue
        for node in child if isinstance(child, list) else [child]:
            if isinstance(node, ast.AST):
                yield from _places(node, known)


def _parsed(code: str) -> ast.Module:
    """The syntax tree of `code`, without docstrings."""
    tree = ast.parse(code)
    for node in _blocks(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


def _blocks(tree: ast.AST) -> Iterator[ast.AST]:
    """The tree and every statement in it, each before what is in it."""
    yield tree
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        children = getattr(tree, name, None)
        for node in children if isinstance(children, list) else ():
            yield from _blocks(node)


def _exists(module: str) -> bool:
    """Whether there is a module of lib of this name."""
    return module.split(".")[0] == "lib" and _file(module).is_file()


def _file(module: str) -> Path:
    base = paths.ROOT.joinpath(*module.split("."))
    file = base.with_suffix(".py")
    return file if file.is_file() else base / "__init__.py"
