"""Quantised matrices: one tensor of a GGUF file through the gguf package, labelled as what it is.

A quantised row is not the released row: quantisation may merge rows, never split them, so a census
of one counts at least the holes' tokens of the other, and no lattice statement may rest on it.
"""

from pathlib import Path

import numpy as np

from lib.specimens.errors import SpecimenError

UNEMBEDDINGS = ("output.weight", "token_embd.weight")
NATIVE = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def open_tensor(path: Path, tensor: str | None = None) -> tuple[np.ndarray, str, int, str]:
    """(rows as a memory map, type such as "Q8_0", dim, tensor name): a matrix of a GGUF file.

    Rows of a quantised type are (rows, bytes) uint8 blocks. Raises SpecimenError.
    """
    from gguf import GGUFReader  # slow to import

    try:
        tensors = {t.name: t for t in GGUFReader(path).tensors}
    except OSError as error:
        raise SpecimenError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    except Exception as error:  # the package raises whatever a broken file leads to
        raise SpecimenError(f"{path}: is no sound GGUF file ({error}); download it again") from None
    names = [tensor] if tensor else [name for name in UNEMBEDDINGS if name in tensors]
    if not names or names[0] not in tensors:
        held = ", ".join(list(tensors)[:6])
        raise SpecimenError(f"{path}: has no tensor {tensor or UNEMBEDDINGS}; it holds {held} …")
    found = tensors[names[0]]
    if len(found.shape) != 2:
        raise SpecimenError(f"{path}: {found.name} is no matrix; append :NAME of another tensor")
    kind = found.tensor_type.name
    dim, rows = (int(n) for n in found.shape)  # GGUF counts the fastest dimension first
    data = np.asarray(found.data)
    if kind in NATIVE:
        return data.view(NATIVE[kind]).reshape(rows, dim), kind, dim, found.name
    return data.reshape(rows, -1).view(np.uint8), kind, dim, found.name


def dequantise(blocks: np.ndarray, kind: str) -> np.ndarray:
    """(n, dim) float32 values of (n, bytes) uint8 blocks of a GGUF type. Raises SpecimenError."""
    from gguf import GGMLQuantizationType, quants

    try:
        return quants.dequantize(np.ascontiguousarray(blocks), GGMLQuantizationType[kind])
    except (KeyError, NotImplementedError):
        raise SpecimenError(
            f"rows of type {kind} cannot be dequantised; use another file"
        ) from None
