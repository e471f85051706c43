"""`open(id)`: the best of a specimen that is at hand, and a line that says which it was."""

from dataclasses import replace

from lib.specimens import catalogue, extracts, local, planted, safetensors_file, store
from lib.specimens.catalogue import Description
from lib.specimens.errors import SpecimenError
from lib.specimens.specimen import Specimen


def open(id: str) -> Specimen:
    """The specimen `id`: its whole matrix if fetched, else its committed extract.

    `id` is one of the catalogue, or a path: FILE.safetensors[:TENSOR], FILE.gguf, a model's folder.
    Raises SpecimenError where nothing is at hand, with the command that fetches it.
    """
    if local.is_path(id):
        return local.read(id)
    description = catalogue.find(id)
    if store.path_of(id).exists():
        return _fetched(description)
    for source in description.sources:
        if isinstance(source, catalogue.Extract):
            return extracts.read(description, source)
        if isinstance(source, catalogue.Planted):
            return planted.read(description, source)
    raise SpecimenError(f"{id}: not at hand; run `python -m lib fetch {id}`")


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
