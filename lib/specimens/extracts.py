"""The extracts that are committed in data/specimens: real rows and numbers about every row."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lib import files, paths
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
    precision = "Q8_0" if quantised else description.dtype
    return Specimen(description, source, precision, None, arrays, facts)


def cut_unused(whole: Specimen, description: Description, ids: np.ndarray, path: Path) -> None:
    """Write rows `ids` (n,) of a whole F32 matrix, and the norm of every row, as an extract.

    The rows are kept as float16 bit patterns; SpecimenError if that would change a single number.
    This made data/specimens/minilm-l6-unused-f16.safetensors (see data/README.md).
    """
    rows = whole.values(ids)
    half = rows.astype(np.float16)
    if not (half.astype(np.float32) == rows).all():
        raise SpecimenError(f"{whole.id}: its rows are no float16 numbers; nothing was written")
    facts = {
        "model": description.model,
        "licence": description.licence,
        "tensor": description.tensor,
        "precision": "float32 whose values are all float16 numbers",
        "shape": [whole.rows, whole.dim],
        "tensor_sha256": description.sha256,
        "arrays": {
            "norm": "L2 norm of every row",
            "unused_ids/unused_bits": "the rows whose tokens are named [unused...], as float16 "
            "bit patterns, exact",
        },
    }
    arrays = {
        "norm": whole.norms.astype(np.float32),
        "unused_ids": ids.astype(np.int32),
        "unused_bits": half.view(np.uint16),
    }
    metadata = {"extract": json.dumps(facts, sort_keys=True)}
    files.write_atomically(path, lambda temporary: save_file(arrays, temporary, metadata))
