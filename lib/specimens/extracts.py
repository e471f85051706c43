"""The extracts that are committed in data/specimens: real rows and numbers about every row."""

import json

import numpy as np

from lib import paths
from lib.specimens import safetensors_file
from lib.specimens.catalogue import Description, Extract
from lib.specimens.errors import SpecimenError
from lib.specimens.specimen import Specimen


def read(description: Description, extract: Extract) -> Specimen:
    """The specimen as its committed extract has it. Raises SpecimenError."""
    path = paths.SPECIMENS / extract.file
    header = safetensors_file.read_header(path)
    try:
        facts = json.loads(header.metadata["extract"])
    except (KeyError, ValueError):
        raise SpecimenError(
            f"{path}: has no `extract` metadata; restore the committed file"
        ) from None
    if facts["shape"] != [description.rows, description.dim]:
        raise SpecimenError(f"{path}: is of shape {facts['shape']}; restore the committed file")
    arrays: dict[str, np.ndarray] = {}
    for name in header.entries:
        arrays[name], _ = safetensors_file.open_tensor(path, name)
    quantised = "dead_q" in arrays
    source = (
        f"{description.model}: extract data/specimens/{extract.file}, "
        f"{description.rows:,} x {description.dim}, "
        + ("8-bit Q8_0 rows" if quantised else f"{facts['precision']}")
    )
    return Specimen(description, source, "Q8_0" if quantised else "F16", None, arrays, facts)
