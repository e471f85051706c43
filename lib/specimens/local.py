"""Specimens on this machine: a .safetensors or .gguf file, or a model's folder, sharded or not."""

import json
from pathlib import Path

import numpy as np

from lib.specimens import gguf_file, safetensors_file
from lib.specimens.catalogue import Description
from lib.specimens.errors import SpecimenError
from lib.specimens.specimen import Specimen

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
INDEX_LIMIT = 25_000_000  # bytes


def is_path(name: str) -> bool:
    """Whether `name` means a file or folder and not an id of the catalogue."""
    path, _ = split(name)
    return path.exists() or path.suffix in (".safetensors", ".gguf") or len(path.parts) > 1


def split(name: str) -> tuple[Path, str | None]:
    """(path, tensor or None) of FILE or FILE:TENSOR; a file whose name has a colon comes first."""
    if not Path(name).exists() and ":" in name:
        path, tensor = name.split(":", 1) if name.count(":") == 1 else name.rsplit(":", 1)
        if path and tensor:
            return Path(path), tensor
    return Path(name), None


def read(name: str) -> Specimen:
    """The specimen in FILE, FILE:TENSOR or FOLDER[:TENSOR]. Raises SpecimenError."""
    path, tensor = split(name)
    if path.is_dir():
        path = file_in(path, tensor)
    if path.suffix == ".gguf":
        matrix, kind, dim, tensor = gguf_file.open_tensor(path, tensor)
    else:
        header = safetensors_file.read_header(path)
        tensor = safetensors_file.choose(header, tensor, str(path)).name
        matrix, kind = safetensors_file.open_tensor(path, tensor)
        if matrix.ndim != 2:
            raise SpecimenError(f"{path}: {tensor} has shape {matrix.shape}; name a matrix (:NAME)")
        dim = matrix.shape[1]
        if kind == "U16" and "provenance" in header.metadata:
            kind = "BF16"  # the book's own artefacts keep bfloat16 as uint16
    description = Description(
        id=path.stem,
        model=path.name,
        tensor=tensor,
        rows=len(matrix),
        dim=dim,
        dtype=kind,
        tokenizer=None,
        licence="unknown",
        sources=(),
    )
    source = f"{path}, {tensor}: {len(matrix):,} x {dim}, {kind}"
    return Specimen(description, source, kind, matrix)


def of_array(id: str, bits: np.ndarray, *, source: str, tokenizer: str | None = None) -> Specimen:
    """A specimen of (rows, dim) uint16 bfloat16 bits in memory: a matrix that this book trained."""
    if bits.ndim != 2 or bits.dtype != np.uint16:
        raise SpecimenError(f"{id}: a specimen is made of (rows, dim) uint16 bfloat16 bits")
    rows, dim = bits.shape
    description = Description(
        id=id,
        model=f"{id} (trained by this book)",
        tensor="W",
        rows=rows,
        dim=dim,
        dtype="BF16",
        tokenizer=tokenizer,
        licence="MIT",
        sources=(),
    )
    return Specimen(description, f"{id}, {rows:,} x {dim}: {source}", "BF16", bits)


def file_in(folder: Path, tensor: str | None) -> Path:
    """The file of a model's folder that holds `tensor` or its unembedding. Raises SpecimenError."""
    if (folder / SINGLE).exists():
        return folder / SINGLE
    if (folder / INDEX).exists():
        names = (tensor,) if tensor else safetensors_file.UNEMBEDDINGS
        return folder / shard_of(_read_index(folder / INDEX), names, str(folder / INDEX))
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise SpecimenError(f"{folder}: holds {len(files)} .safetensors files; name one of them")
    return files[0]


def shard_of(index: bytes, names: tuple[str, ...], where: str) -> str:
    """The file that a sharded model's index says holds the first of `names` that it knows.

    Raises SpecimenError on a malformed index, or one that points out of its folder.
    """
    try:
        table = json.loads(index)["weight_map"]
        shard = next(table[name] for name in names if name in table)
    except (ValueError, RecursionError, TypeError, KeyError):
        raise SpecimenError(f"{where}: is no valid index; fetch it again") from None
    except StopIteration:
        raise SpecimenError(f"{where}: names no tensor {names[0]!r}; check the name") from None
    if not isinstance(shard, str) or Path(shard).name != shard or shard.startswith("."):
        raise SpecimenError(f"{where}: names the file {shard!r}, which is not one of its own")
    return shard


def _read_index(path: Path) -> bytes:
    if path.stat().st_size > INDEX_LIMIT:
        raise SpecimenError(f"{path}: has {path.stat().st_size:,} bytes; it is no index")
    return path.read_bytes()
