"""Artefacts: computed once, kept with their provenance, verified on every reading.

A *recipe* is a value that says what can be made: a frozen dataclass whose fields are the
parameters and whose `make` computes the arrays. The artefact's digest covers the parameters, the
code that the recipe reaches and the digests of its inputs; it stands in the file's name, so a
change of any of them asks for a new file and never overwrites an old one.

Tensors are kept as safetensors (bfloat16 as uint16 bits: float16 would merge distinct rows), films
as HDF5. How an artefact was made stands in its file, sealed against later changes: in a
safetensors file as the one metadata key `provenance` (with more than one key safetensors does not
always write the same bytes), beside an HDF5 file in a small JSON file. Nothing is ever unpickled.
"""

import dataclasses
import importlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import filelock
import numpy as np
import safetensors
import safetensors.numpy

from lib import digests, files, paths, scale

FORMAT = 2  # raised when the layout of artefact files changes
DIGEST_CHARACTERS = 16  # of the hexadecimal SHA-256, in file names
ABANDONED = 30 * 86_400.0  # seconds without a change of an unfinished artefact
KEY = "provenance"  # of a safetensors file's metadata
PACKAGES = ("torch", "numpy", "safetensors", "h5py", "tokenizers")  # that results depend on
# what hostile bytes lead to
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError)


class ArtifactError(RuntimeError):
    """An artefact cannot be written, or what is on disk is not what was written."""


class ArtifactMissing(ArtifactError):
    """A reader asked for an artefact that no generator has made yet (or that is stale)."""


class Recipe:
    """What can be made and kept; subclasses are frozen dataclasses.

    `make` returns tensors by name (NumPy or torch). With the suffix ".h5" it is called with the
    path of the file to write; if it is resumable, what an earlier, killed run left at that path is
    handed to it again.
    """

    name: ClassVar[str]  # names the folder and the file
    suffix: ClassVar[str] = ".safetensors"  # or ".h5"
    schema: ClassVar[int] = 1  # raise it when the meaning of the stored arrays changes
    resumable: ClassVar[bool] = False

    def make(self, *path: Path) -> dict[str, Any] | None:
        """Compute the arrays, or write the file at `path`."""
        raise TypeError(f"{type(self).__name__} does not say how it is made")

    def inputs(self) -> list[Path]:
        """Files that `make` reads: their digests are part of the artefact's."""
        return []

    def parameters(self) -> dict[str, Any]:
        """The fields as plain values, as they go into the digest and the provenance."""
        return digests.plain(self)

    def makers(self) -> tuple[Callable, ...]:
        """The code that the result depends on, with all that it reaches."""
        return (type(self),)

    @classmethod
    def restored(cls, parameters: Mapping[str, Any]) -> "Recipe":
        """The recipe with these plain parameters."""
        return cls(**parameters)


@dataclasses.dataclass(frozen=True, repr=False)
class Artifact:
    """One artefact on disk, already verified."""

    path: Path
    digest: str  # SHA-256 (hex) over recipe, parameters and inputs
    provenance: dict[str, Any]  # parameters, versions, seconds, sources, content digest

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """All arrays of a safetensors artefact by name; bfloat16 as uint16 bits."""
        if self.path.suffix != ".safetensors":
            raise ArtifactError(f"{self.path.name} is HDF5: open it with h5py at Artifact.path")
        return safetensors.numpy.load_file(self.path)

    def __getitem__(self, name: str) -> np.ndarray:
        """One of its arrays."""
        return self.tensors[name]

    @cached_property
    def recipe(self) -> Any:
        """The value that it was made from."""
        return class_of(self.provenance["kind"]).restored(self.provenance["parameters"])

    @property
    def seconds(self) -> float:
        """Seconds that it took to make."""
        return self.provenance["seconds"]

    def __repr__(self) -> str:
        """What was read and how it was made, in one line: what a notebook shows of it."""
        made = self.provenance
        return (
            f"read {self.path.name} ({size([self.path])}), made by {made['chapter']} "
            f"in {made['seconds']:.1f} s with torch {made['versions']['torch']}"
        )


def size(files: Iterable[Path]) -> str:
    """Size of `files` together, for people."""
    count = sum(file.stat().st_size for file in files)
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.0f} kB"


def cached(recipe: Recipe, chapter: str) -> Artifact:
    """The artefact of `recipe`: read if it is there, else made once, on behalf of `chapter`.

    Two processes asking at once compute once; what is there is read from a folder that cannot be
    written, too. Raises files.FileError if it cannot be written; the maker's own errors pass
    through.
    """
    identity, digest = identify(recipe)
    path = path_of(recipe, digest)
    with suppress(ArtifactError):
        return opened(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(path.name + ".lock")).acquire()
    except OSError as error:
        raise files.unwritable(path, error) from error
    with lock:
        with suppress(ArtifactError):  # made meanwhile
            return opened(path)
        _make(recipe, path, identity | {"digest": digest, "chapter": chapter})
        return opened(path)


def clear() -> None:
    """Remove what killed processes left in the artefacts' folder.

    Temporary files; and unfinished artefacts that nobody has gone on with for ABANDONED seconds and
    nobody makes now: most often their code has changed since, and nobody will.
    """
    files.clear(paths.ARTIFACTS)
    for note in paths.ARTIFACTS.glob("*/.*-partial.begun"):
        partial = note.with_suffix(".h5")
        left = [partial, *partial.parent.glob(f"{partial.name}.*"), note]
        name = partial.stem.removeprefix(".").removesuffix("-partial")
        lock = filelock.FileLock(note.with_name(f"{name}.h5.lock"))
        ages = (files.untouched(path) for path in left if path.exists())
        if min(ages, default=0.0) > ABANDONED:  # default: another process has just removed it
            with suppress(OSError, filelock.Timeout), lock.acquire(timeout=0):
                for path in left:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def every() -> list[Path]:
    """All finished artefact files on disk, sorted by name."""
    names = ("[!.]*/[!.]*.safetensors", "[!.]*/[!.]*.h5")
    return sorted(path for name in names for path in paths.ARTIFACTS.glob(name))


# ----------------------------------------------------------------------------- identity


def identify(recipe: Recipe) -> tuple[dict[str, Any], str]:
    """What goes into the provenance of the recipe's artefact, and the digest of that."""
    try:
        inputs = [digests.of_file(files.checked(file)) for file in recipe.inputs()]
    except OSError as error:
        raise ArtifactError(f"cannot read the input {error.filename}: {error.strerror}") from error
    identity = {
        "format": FORMAT,
        "name": recipe.name,
        "kind": kind_of(recipe),
        "schema": recipe.schema,
        "parameters": recipe.parameters(),
        "source": digests.of_maker(*recipe.makers()),
        "inputs": inputs,
    }
    return identity, digests.of_value(identity)


def path_of(recipe: Recipe, digest: str) -> Path:
    """Where the artefact of `recipe` with this digest lies, or will lie."""
    folder = paths.ARTIFACTS / recipe.name
    return folder / f"{recipe.name}-{digest[:DIGEST_CHARACTERS]}{recipe.suffix}"


def kind_of(value: Any) -> str:
    """The name of the value's class, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def class_of(kind: str) -> Any:
    """The class of the library that `kind_of` named. Raises ArtifactError for any other."""
    module, _, name = kind.rpartition(".")
    if module.split(".")[0] != "lib":
        raise ArtifactError(f"{kind} is no class of the library")
    return getattr(importlib.import_module(module), name)


# ----------------------------------------------------------------------------- making, reading


def _make(recipe: Recipe, path: Path, identity: dict[str, Any]) -> None:
    """Compute the artefact and write it to `path`; `identity` and more is its provenance."""
    partial = path.with_name(f".{path.stem}-partial{path.suffix}")  # HDF5, until it is whole
    note = partial.with_suffix(".begun")
    if not recipe.resumable:
        partial.unlink(missing_ok=True)
    changed = ", changed" if os.environ.get(scale.GIVEN) else ""
    earlier = _begin(partial, note) if recipe.resumable else 0.0
    started = time.perf_counter()
    try:
        made = recipe.make(partial) if recipe.suffix == ".h5" else recipe.make()
        provenance = identity | {
            "scale": scale.current() + changed,  # "changed": the caller gave parameters of his own
            "seconds": round(earlier + time.perf_counter() - started, 3),
            "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        }
        if recipe.suffix == ".h5":
            text = _sealed(provenance, digests.of_file(partial))
            files.write_atomically(beside(path), lambda p: p.write_text(text))
            files.replace(partial, path)
            note.unlink(missing_ok=True)
        else:
            arrays = {name: _as_numpy(value) for name, value in made.items()}
            named = {KEY: _sealed(provenance, digests.of_arrays(arrays))}
            files.write_atomically(path, lambda p: safetensors.numpy.save_file(arrays, p, named))
    except Exception as error:
        if not recipe.resumable:
            partial.unlink(missing_ok=True)
        if files.is_full(error) and not isinstance(error, files.FileError):
            raise files.unwritable(path, error) from error
        raise


def _begin(partial: Path, note: Path) -> float:
    """Note that an attempt begins; the seconds of earlier ones, up to the last they left behind."""
    left = [file for name in ("", "*/*") for file in partial.parent.glob(f"{partial.name}{name}")]
    try:
        begun, spent = map(float, note.read_text().split())
        spent += max(0.0, max(file.stat().st_mtime for file in left) - begun)
    except (OSError, ValueError):  # this is the first attempt, or nothing is left
        spent = 0.0
    files.write_atomically(note, lambda path: path.write_text(f"{time.time()} {spent}"))
    return spent


def _as_numpy(value: Any) -> np.ndarray:
    """A contiguous array; torch tensors too, bfloat16 as uint16 bits."""
    if hasattr(value, "detach"):
        import torch

        value = value.detach().cpu()
        value = (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).numpy()
    array = np.asarray(value, order="C")
    if array.dtype.hasobject:
        raise ArtifactError("an artefact holds arrays of numbers, not Python objects")
    return array


def opened(path: Path) -> Artifact:
    """The artefact at `path`, held to its name, its seal and the digest of its contents.

    Raises ArtifactError if it is missing or damaged.
    """
    try:
        made = _provenance(path)
        artifact = Artifact(path, str(made["digest"]), made)
        is_tensors = path.suffix == ".safetensors"
        content = digests.of_arrays(artifact.tensors) if is_tensors else digests.of_file(path)
    except (OSError, *MALFORMED) as error:
        raise ArtifactError(f"{path} is damaged or no artefact of this book ({error})") from error
    if not artifact.digest.startswith(path.stem.rpartition("-")[2]):
        raise ArtifactError(f"{path} was made from something else than its name says")
    if content != made["content"]:
        raise ArtifactError(f"{path} is damaged: its contents do not match their digest")
    return artifact


# ----------------------------------------------------------------------------- provenance


def _sealed(provenance: dict[str, Any], content: str) -> str:
    """`provenance` with the digest of the file's contents and a digest of itself, as JSON."""
    return json.dumps(sealed(provenance | {"content": content}), sort_keys=True)


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a digest of itself."""
    return record | {"seal": digests.of_value(record)}


def unsealed(record: dict[str, Any]) -> dict[str, Any]:
    """The record without its seal, which must be right: one of MALFORMED otherwise."""
    found = {key: value for key, value in record.items() if key != "seal"}
    if record["seal"] != digests.of_value(found):
        raise ValueError("it was changed after it was written")
    return found


def _provenance(path: Path) -> dict[str, Any]:
    """The provenance of the artefact at `path`, held to its seal."""
    if path.suffix == ".h5":
        text = beside(path).read_text(encoding="utf-8")
    else:
        with safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {})[KEY]
    return unsealed(json.loads(text))


def beside(path: Path) -> Path:
    """The JSON file with the provenance of the HDF5 file at `path`."""
    return path.with_name(path.name + ".json")
