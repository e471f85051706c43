"""`open(id)`: the best of a specimen that is at hand, and a line that says which it was."""

from dataclasses import replace

from lib.specimens import (
    catalogue,
    extracts,
    local,
    planted,
    roles,
    safetensors_file,
    store,
    trained,
)
from lib.specimens.catalogue import Description
from lib.specimens.errors import SpecimenError
from lib.specimens.specimen import Specimen


def open(id: str) -> Specimen:
    """The specimen `id`: its whole matrix if fetched, else its committed extract.

    `id` is one of the catalogue, a role ("subject": the book's model if it is here, else the real
    one that is), or a path: FILE.safetensors[:TENSOR], FILE.gguf, a model's folder.
    Raises SpecimenError where nothing is at hand, with the command that fetches it.
    """
    if id in roles.ROLES:
        found = _of_catalogue(catalogue.find(roles.resolve(id)))
        return replace(found, source=found.source + roles.remark(id))
    if local.is_path(id):
        return local.read(id)
    return _of_catalogue(catalogue.find(id))


def _of_catalogue(description: Description) -> Specimen:
    """The whole matrix if it was fetched, else the first source that is here already."""
    if store.path_of(description.id).exists():
        return _fetched(description)
    for source in description.sources:
        if isinstance(source, catalogue.Extract):
            return extracts.read(description, source)
        if isinstance(source, catalogue.Planted):
            return planted.read(description, source)
        if isinstance(source, catalogue.Trained):
            return trained.read(description, source)
    raise SpecimenError(
        f"{description.id}: not at hand; run `python -m lib fetch {description.id}`"
    )


def _fetched(description: Description) -> Specimen:
    """The whole matrix out of the store; an extract of the same precision lends its arrays."""
    path = store.path_of(description.id)
    matrix, dtype = safetensors_file.open_tensor(path)
    if matrix.shape != (description.rows, description.dim):
        raise SpecimenError(f"{path}: has shape {matrix.shape}; delete it and fetch it again")
    record = store.provenance(path)
    source = f"{description.model}: whole matrix {len(matrix):,} x {description.dim}, {dtype}, " \
             f"from {record['source']}"  # fmt: skip
    specimen = Specimen(description, source, dtype, matrix, {}, record)
    for extract in description.sources:
        if isinstance(extract, catalogue.Extract):
            lent = extracts.read(description, extract)
            if lent.precision == dtype:
                return replace(specimen, arrays=lent.arrays, facts={**lent.facts, **record})
    return specimen
