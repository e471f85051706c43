"""A model as its owner names it: of all its files the one or two matrices, config and tokenizer.

MODEL is an id of the catalogue, a file (.safetensors[:TENSOR], .gguf), a folder as Hugging Face's
libraries write it, or the id of a repository on the hub. What is missing is said in a line each.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lib import files, generators, paths
from lib.artifacts import ArtifactError
from lib.extraction import catalogue, families, fetching, specimens, tensor_files
from lib.extraction.catalogue import Description, SpecimenError, Trained
from lib.extraction.specimens import Specimen
from lib.extraction.tensor_files import EMBEDDINGS, HEADS, INDEX, LIMIT, SINGLE


@dataclass(frozen=True)
class Model:
    """What of a model can be read here."""

    name: str
    specimen: Specimen  # the matrix that makes the logits, or what there is of it
    inputs: Specimen | None  # the matrix of the input rows, where it is one of its own
    tied: bool | None  # None: nothing says it
    tokenizer: str | None  # a name or a path for `confined.records`
    spelled: tuple[str, ...] = ()  # tokens as a GGUF file spells them, where no pipeline is known
    missing: tuple[str, ...] = ()  # a line for each thing that could not be had


def open(name: str, tokenizer: str = "", revision: str = "main") -> Model:
    """The model of this name; `revision` is of a repository on the hub, whose files are fetched.

    Raises SpecimenError where there is no matrix at all.
    """
    if name in catalogue.ROLES or any(name == known.id for known in catalogue.CATALOGUE):
        found = _of_catalogue(name)
    else:
        path, tensor = specimens.split(name)
        if path.exists() or not fetching.is_repository(str(path)):
            found = _of_path(path.resolve().name, path, tensor)
        else:
            path = fetching.fetch_model(str(path), tensor, revision)
            found = _of_path(name, path, tensor)
    if not tokenizer:
        return found
    others = tuple(line for line in found.missing if "--tokenizer" not in line)
    return replace(found, tokenizer=tokenizer, missing=others)


def _of_catalogue(name: str) -> Model:
    specimen = specimens.open(name)
    description, lines = specimen.description, []
    is_input = not description.tied and description.tensor in EMBEDDINGS
    if not (description.tied or is_input):
        lines.append("the input matrix, which is another, is not in the catalogue")
    tied, tokenizer = description.tied, description.tokenizer or _trained_with(description)
    if tokenizer is None:
        lines.append("the book has no tokenizer for it: give one with --tokenizer")
    inputs = specimen if is_input else None
    return Model(description.model, specimen, inputs, tied, tokenizer, (), tuple(lines))


def _trained_with(description: Description) -> str | None:
    """The tokenizer of a model that a chapter of this book trained, if it kept its world."""
    for source in description.sources:
        if isinstance(source, Trained):
            with suppress(ArtifactError):
                data = bytes(generators.load(source.chapter)["world"]["tokenizer"])
                path = paths.ARTIFACTS / "tokenizers" / f"{hashlib.sha256(data).hexdigest()}.json"
                files.write_atomically(path, partial(Path.write_bytes, data=data))
                return str(path)
    return None


def _of_path(name: str, path: Path, tensor: str | None) -> Model:
    specimen = specimens.open(f"{path}:{tensor}" if tensor else str(path))
    folder, lines = (path if path.is_dir() else path.parent), []
    specimen = _with_provenance(specimen, name)
    names, spelled = _names(path)
    config = {} if path.suffix == ".gguf" else _config(folder, lines)
    heads, embeddings = names & HEADS, sorted(names & EMBEDDINGS)
    says = config.get("text_config", {}).get("tie_word_embeddings")
    says = config.get("tie_word_embeddings", says)
    tied = bool(says) if heads and embeddings else None
    if not (heads or embeddings):
        lines.append("no tensor has a usual name: whether there are two matrices is not known")
    elif tied is None and says is False:
        lines.append("the configuration speaks of two matrices, and only one of them is here")
    elif tied is None:
        tied = True if embeddings else None
    inputs = None
    if tied is False and specimen.description.tensor in embeddings:
        inputs = specimen
    elif tied is False and embeddings:
        inputs = specimens.open(f"{path}:{embeddings[0]}")
    tokenizer = _tokenizer(path if path.suffix == ".gguf" else folder, lines, spelled)
    return Model(name, specimen, inputs, tied, tokenizer, tuple(spelled), tuple(lines))


def _with_provenance(specimen: Specimen, name: str) -> Specimen:
    """The specimen with what its file, if it was fetched, says of its origin."""
    file = getattr(specimen.matrix, "filename", None)
    try:
        facts = tensor_files.origin_of(Path(file)) if file and "gguf" not in str(file) else {}
    except SpecimenError:
        facts = {}
    source = specimen.source
    if facts:
        size = f"{specimen.rows:,} x {specimen.dim}, {specimen.precision}"
        source = f"{name}: {size}, from {facts['source']}"
    named = replace(specimen.description, model=name)
    return replace(specimen, description=named, source=source, facts=facts)


def _names(path: Path) -> tuple[set[str], list[str]]:
    """The names of a model's tensors, and what tokens a GGUF file spells. Raises SpecimenError."""
    if path.is_dir() and (path / INDEX).exists() and not (path / SINGLE).exists():
        return set(json.loads((path / INDEX).read_bytes()).get("weight_map", {})), []
    file = tensor_files.file_in(path, None) if path.is_dir() else path
    if file.suffix == ".gguf":
        spelled = tensor_files.gguf_tokenizer(file).get("tokens") or []
        return tensor_files.gguf_names(file), spelled
    return set(tensor_files.read_header(file).entries), []


def _config(folder: Path, lines: list[str]) -> dict[str, Any]:
    """config.json of a folder; {} and a line where there is none that can be read."""
    path = folder / "config.json"
    if not path.exists():
        lines.append("no config.json: whether the matrices are tied is judged by the tensors alone")
        return {}
    try:
        config = json.loads(path.read_bytes()[:LIMIT])
        if not isinstance(config, dict) or not isinstance(config.get("text_config", {}), dict):
            raise ValueError("it is no object of names and values")
        return config
    except (OSError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        lines.append(f"config.json cannot be read ({why}): ties are judged by the tensors alone")
        return {}


def _tokenizer(path: Path, lines: list[str], spelled: list[str]) -> str | None:
    """Where the tokenizer of a GGUF file or of a folder is kept; None and a line if nowhere."""
    found = families.find(path)
    if found is not None and (spelled or found.suffix != ".gguf"):
        return str(found)
    wanted = "no tokenizer.json" if found is None else "no vocabulary in the file"
    lines.append(f"{wanted}: rows have numbers and no names; give one with --tokenizer")
    return None
