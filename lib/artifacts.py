"""Artefacts: computed once, kept with their provenance, verified on every reading.

A *recipe* says how an artefact is made: its name, the function that makes it, the `lib` modules
whose source it depends on, and the generator chapter that calls it. The artefact's digest covers
the recipe's schema and sources, the parameters and the digests of the inputs; it stands in the
file's name, so a change of any of them asks for a new file and never overwrites an old one.

Tensors are kept as safetensors (bfloat16 as uint16 bits: float16 would merge distinct rows),
trajectories as HDF5. Nothing is ever unpickled.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import safetensors
import safetensors.numpy

from lib import digests, files, paths, provenance

FORMAT = 1  # raised when the layout of artefact files changes
DIGEST_CHARACTERS = 16  # of the hexadecimal SHA-256, in file names


class ArtifactError(RuntimeError):
    """An artefact cannot be written, or what is on disk is not what was written."""


class ArtifactMissing(ArtifactError):
    """An analyser asked for an artefact that no generator has made yet (or that is stale)."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one kind of artefact is made.

    `make(**params)` returns tensors by name (NumPy or torch). With `suffix=".h5"` it is called as
    `make(path, **params)` and writes the HDF5 file itself; if it is `resumable`, what an earlier,
    killed run left at that path is handed to it again.
    """

    name: str  # names the folder and the file
    make: Callable[..., Any]
    modules: tuple[str, ...]  # lib modules or packages whose source the result depends on
    chapter: str  # generator chapter, e.g. "dynamics/01-train": named when the artefact is missing
    schema: int = 1  # raise it when the meaning of the stored arrays changes
    suffix: str = ".safetensors"  # or ".h5"
    resumable: bool = False


@dataclasses.dataclass(frozen=True)
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

    @property
    def summary(self) -> str:
        """One line for a chapter's load cell: what was read, how it was made."""
        made = self.provenance
        return (
            f"read {self.path.name} ({size([self.path])}), made by {made['chapter']} "
            f"in {made['seconds']:.1f} s with torch {made['versions'].get('torch', '?')}"
        )


def size(files: Iterable[Path]) -> str:
    """Size of `files` together, for people."""
    count = sum(file.stat().st_size for file in files)
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.0f} kB"


def cached(recipe: Recipe, params: Mapping[str, Any], inputs: Iterable = ()) -> Artifact:
    """The artefact of `recipe` at `params`: read if it is there, else made once.

    `inputs` are files (Path) or other artefacts that the maker reads. Two processes asking at once
    compute once. Raises files.FileError if it cannot be written; the maker's own errors pass
    through.
    """
    params, identity, digest = _identify(recipe, params, inputs)
    path = _path(recipe, digest)
    with _locked(path):
        if path.exists():
            try:
                return _open(path, digest)
            except ArtifactError:
                path.unlink()  # damaged: made again below
        return _make(recipe, params, identity, digest, path)


def load(recipe: Recipe, params: Mapping[str, Any], inputs: Iterable = ()) -> Artifact:
    """The artefact of `recipe` at `params`, never computed here.

    Raises ArtifactMissing, with the command that makes it, if it is absent or stale, and
    ArtifactError if the file on disk is damaged.
    """
    params, _, digest = _identify(recipe, params, inputs)
    path = _path(recipe, digest)
    command = command_for(recipe, params)
    if not path.exists():
        why = "stale (its sources or inputs changed)" if _older(recipe, params) else "missing"
        raise ArtifactMissing(f"artefact {recipe.name} is {why}; make it with\n  {command}")
    try:
        return _open(path, digest)
    except ArtifactError as error:
        raise ArtifactError(f"{error}; make it again with\n  {command}") from error


def command_for(recipe: Recipe, params: Mapping[str, Any]) -> str:
    """The command line that makes the artefact of `recipe` at `params`."""
    words = ["python -m lib run", f"chapters/{recipe.chapter}.qmd"]
    known = _chapter_parameters(recipe.chapter)
    for name, value in params.items():  # a list under the name of a number is another thing
        if name in known and known[name] != value and type(known[name]) is type(value):
            words.append(f"-p {name}={value}")
    return " ".join(words)


def verify(path: Path) -> dict[str, Any]:
    """The provenance of the artefact file at `path`; raises ArtifactError if it is damaged."""
    return _open(path, None).provenance


def every() -> list[Path]:
    """All artefact files on disk, sorted by name."""
    if not paths.ARTIFACTS.exists():
        return []
    kinds = (".safetensors", ".h5")
    return sorted(p for p in paths.ARTIFACTS.rglob("*") if p.suffix in kinds and p.name[0] != ".")


# ----------------------------------------------------------------------------- identity


def _identify(
    recipe: Recipe, params: Mapping[str, Any], inputs: Iterable
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Plain parameters, the identity that goes into the provenance, and its digest."""
    identity = {
        "format": FORMAT,
        "name": recipe.name,
        "schema": recipe.schema,
        "parameters": digests.plain(params),
        "source": digests.of_source(recipe.modules, recipe.make),
        "inputs": [_input_digest(item) for item in inputs],
    }
    return dict(params), identity, digests.of_value(identity)


def _input_digest(item: "Artifact | Path | str") -> str:
    if isinstance(item, Artifact):
        return item.digest
    try:
        return digests.of_file(Path(item))
    except OSError as error:
        raise ArtifactError(f"cannot read the input {item}: {error.strerror}") from error


def _path(recipe: Recipe, digest: str) -> Path:
    folder = paths.ARTIFACTS / recipe.name
    return folder / f"{recipe.name}-{digest[:DIGEST_CHARACTERS]}{recipe.suffix}"


def _chapter_parameters(chapter: str) -> dict[str, Any]:
    from lib import scale  # only to word an error: keeps this module free of chapters

    try:
        return {**scale.literals(chapter), **scale.overrides(chapter, scale.current())}
    except (OSError, scale.ScaleError):
        return {}


def _scale() -> str:
    """The scale in force, with "changed" where the caller gave parameters of his own."""
    from lib import scale  # only to note it: as above

    return scale.current() + (", changed" if os.environ.get(scale.GIVEN) else "")


def _older(recipe: Recipe, params: Mapping[str, Any]) -> bool:
    """Whether an artefact of the same name and parameters was made from other sources."""
    for path in (paths.ARTIFACTS / recipe.name).glob(f"{recipe.name}-*{recipe.suffix}"):
        try:
            if provenance.read(path)["parameters"] == digests.plain(params):
                return True
        except provenance.Damaged:
            continue
    return False


# ----------------------------------------------------------------------------- making, reading


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of an artefact's file, made with its folder."""
    lock = filelock.FileLock(path.with_name(path.name + ".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise files.unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _make(recipe: Recipe, params: dict, identity: dict, digest: str, path: Path) -> Artifact:
    partial = path.with_name(f".{path.stem}-partial{path.suffix}")
    if not recipe.resumable:
        partial.unlink(missing_ok=True)
    started = time.perf_counter()
    try:
        if recipe.suffix == ".h5":
            recipe.make(partial, **params)
        else:
            tensors = {name: _as_numpy(value) for name, value in recipe.make(**params).items()}
    except Exception as error:
        if not recipe.resumable:
            partial.unlink(missing_ok=True)
        if files.is_full(error):
            raise files.unwritable(path, error) from error
        raise
    made = identity | {
        "chapter": recipe.chapter,
        "digest": digest,
        "scale": _scale(),
        "seconds": round(time.perf_counter() - started, 3),
        "seed": identity["parameters"].get("seed"),
        "versions": provenance.versions(),
    }
    try:
        if recipe.suffix == ".h5":
            text = provenance.sealed(made, digests.of_file(partial))
            files.write_atomically(provenance.beside(path), lambda p: p.write_text(text))
        else:
            text = provenance.sealed(made, digests.of_arrays(tensors))
            safetensors.numpy.save_file(tensors, partial, metadata={provenance.KEY: text})
        files.replace(partial, path)
    except (OSError, safetensors.SafetensorError, files.FileError) as error:
        if not recipe.resumable:
            partial.unlink(missing_ok=True)
        if isinstance(error, files.FileError):
            raise
        raise files.unwritable(path, error) from error
    return _open(path, digest)


def _as_numpy(value: Any) -> np.ndarray:
    """A contiguous array; torch tensors too, bfloat16 as uint16 bits."""
    if hasattr(value, "detach"):
        import torch

        value = value.detach().cpu().contiguous()
        value = value.view(torch.uint16) if value.dtype == torch.bfloat16 else value
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise ArtifactError("an artefact holds arrays of numbers, not Python objects")
    return array if array.flags.c_contiguous else array.copy()


def _open(path: Path, digest: str | None) -> Artifact:
    try:
        made = provenance.read(path)
        artifact = Artifact(path, made["digest"], made)
        is_tensors = path.suffix == ".safetensors"
        content = digests.of_arrays(artifact.tensors) if is_tensors else digests.of_file(path)
    except (OSError, *provenance.MALFORMED) as error:
        raise ArtifactError(f"{path} is damaged or no artefact of this book ({error})") from error
    if digest is not None and artifact.digest != digest:
        raise ArtifactError(f"{path} was made from something else than its name says")
    if content != made["content"]:
        raise ArtifactError(f"{path} is damaged: its contents do not match their digest")
    return artifact
