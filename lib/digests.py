"""Digests: what parameters, a source tree, a file or arrays *are*, in 64 characters."""

import ast
import dataclasses
import enum
import functools
import hashlib
import importlib.util
import inspect
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lib import imports, paths

FURNITURE = (
    *("artifacts", "claims", "digests", "files", "imports", "paths", "plots", "progress"),
    *("provenance", "scale"),
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class DigestError(ValueError):
    """A value has no well-defined digest (not plain, not finite, no source)."""


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


def of_source(modules: Iterable[str], function: Callable | None = None) -> str:
    """SHA-256 (hex) over the code of `modules`, of all of `lib` that they import, and `function`.

    A package stands for every file in it. Comments, docstrings and layout do not count, nor do the
    modules that keep and show results (FURNITURE): they cannot change what is computed.
    """
    files: set[Path] = set()
    for module in modules:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise DigestError(f"there is no module {module} to take the source of")
        origin = Path(spec.origin)
        files |= {origin} if origin.name != "__init__.py" else set(origin.parent.rglob("*.py"))
    furniture = {paths.LIB / f"{name}.py" for name in FURNITURE}
    digest = hashlib.sha256()
    for file in sorted(set(imports.of_files(files)) - furniture):
        digest.update(file.name.encode() + b"\0" + _code(file.read_text(encoding="utf-8")))
    if function is not None:
        digest.update(_code(textwrap.dedent(inspect.getsource(function))))
    return digest.hexdigest()


@functools.lru_cache
def _code(source: str) -> bytes:
    """The syntax tree of `source` without docstrings, as bytes."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, DOCUMENTED):
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del body[0]
    return ast.dump(tree).encode()


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes of `arrays`, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
