"""Matrices that this book trained: the last state of a run, kept as an artefact of its own.

A generator chapter keeps them (`lib.training.kept`), and they are found again by what their
provenance says, so that nothing here knows how a model is trained.
"""

from dataclasses import replace
from pathlib import Path

from lib import artifacts, paths, provenance, scale
from lib.specimens.catalogue import Description, Trained
from lib.specimens.errors import SpecimenError
from lib.specimens.specimen import Specimen

RECIPE = "specimen"  # name of the artefacts


def find(id: str) -> Path | None:
    """The newest artefact that holds specimen `id` as trained at the scale in force, or None."""
    files = sorted((paths.ARTIFACTS / RECIPE).glob(f"{RECIPE}-*.safetensors"), key=_written)
    return next((file for file in reversed(files) if _is(id, file)), None)


def read(description: Description, source: Trained) -> Specimen:
    """The specimen out of its artefact. Raises SpecimenError naming the command that makes it."""
    file = find(description.id)
    if file is None:
        raise SpecimenError(
            f"{description.id}: not trained here yet at scale {scale.current()}; "
            f"run `python -m lib run chapters/{source.chapter}.qmd`"
        )
    try:
        made = artifacts.verify(file)
    except artifacts.ArtifactError as error:
        raise SpecimenError(f"{description.id}: {error}; delete it and train again") from None
    bits = artifacts.Artifact(file, made["digest"], made).tensors["W"]
    rows, dim = bits.shape
    found = replace(description, rows=rows, dim=dim, revision=made["parameters"]["film"])
    line = (
        f"{description.model}: whole matrix {rows:,} x {dim}, BF16, the last frame of "
        f"{found.revision}, trained by {made['chapter']}"
    )
    return Specimen(found, line, "BF16", bits, {}, made)


def _is(id: str, file: Path) -> bool:
    try:
        said = provenance.read(file)["parameters"]
        return said["id"] == id and said["scale"] == scale.current()
    except (provenance.Damaged, KeyError):
        return False


def _written(file: Path) -> int:
    return file.stat().st_mtime_ns
