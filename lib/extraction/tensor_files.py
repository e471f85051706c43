"""Read safetensors files that nobody vouches for: strict header, then a memory map, no copy.

The format: 8 bytes little-endian header length, a JSON header, the tensors' bytes. The checks
follow the format's own rules (https://github.com/huggingface/safetensors#format); the package's
reader gives no byte offsets, which a memory map and a range read need.

Quantised matrices: one tensor of a GGUF file through the gguf package, labelled as what it is.

A quantised row is not the released row: quantisation may merge rows, never split them, so a census
of one counts at least the holes' tokens of the other, and no lattice statement may rest on it.

Quantised rows back to numbers: GGUF's Q8_0 blocks.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.extraction.catalogue import SpecimenError

HEADER_LIMIT = 25_000_000  # bytes; real headers of the largest models are a few MB
RANK_LIMIT = 16
METADATA = "__metadata__"


# Storage dtypes: the dtype's name in the header -> the numpy dtype that holds its bits.
DTYPES = {
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: the bits, as uint16
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "BOOL": np.dtype("u1"),
}


# Where checkpoints keep the matrix that makes the logits, the untied head before the embedding.
UNEMBEDDINGS = (
    "lm_head.weight",
    "output.weight",
    "embed_out.weight",
    "model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "transformer.wte.weight",
    "wte.weight",
    "model.decoder.embed_tokens.weight",
    "embeddings.word_embeddings.weight",
    "bert.embeddings.word_embeddings.weight",
)


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: where its bytes stand, counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """A checked header: every tensor's bytes lie in the file, end to end, none overlapping."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int


def open_tensor(path: str | Path, tensor: str | None = None) -> tuple[np.ndarray, str]:
    """(array, dtype name): one tensor as a read-only memory map; BF16 comes as its uint16 bits.

    Without `tensor` the file's unembedding is taken: its only matrix, or a well-known name.
    Raises SpecimenError on a missing, malformed or ambiguous file.
    """
    path = Path(path)
    entry = choose(read_header(path), tensor, str(path))
    if entry.nbytes == 0:
        raise SpecimenError(f"{path}: tensor {entry.name!r} is empty; name another tensor")
    array = np.memmap(path, DTYPES[entry.dtype], mode="r", offset=entry.start, shape=entry.shape)
    return array, entry.dtype


def read_header(path: str | Path) -> Header:
    """The checked header of a safetensors file. Raises SpecimenError."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = header_length(file.read(8), size, str(path))
            raw = file.read(length)
    except FileNotFoundError:
        raise SpecimenError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise SpecimenError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    return parse_header(raw, size, str(path))


def header_length(first8: bytes, file_size: int, where: str) -> int:
    """Bytes of the JSON header, from the file's first 8 bytes. Raises SpecimenError."""
    if len(first8) < 8:
        raise _damaged(where, f"it has {len(first8)} bytes, too few for a safetensors file")
    length = int.from_bytes(first8, "little")
    if length > HEADER_LIMIT:
        raise _damaged(where, f"its header claims {length:,} bytes, over {HEADER_LIMIT:,}")
    if 8 + length > file_size:
        raise _damaged(where, f"its header claims {length:,} bytes, the file ends before that")
    return length


def parse_header(raw: bytes, file_size: int, where: str) -> Header:
    """Check the JSON header `raw` of a file of `file_size` bytes. Raises SpecimenError."""
    data_start = 8 + len(raw)
    table = _json(raw, where)
    metadata = table.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(where, "its __metadata__ is not a map of strings")
    entries = {name: _entry(name, value, data_start, where) for name, value in table.items()}
    reached = data_start
    for entry in sorted(entries.values(), key=lambda e: (e.start, e.stop)):
        if entry.start < reached:
            raise _damaged(where, f"tensor {entry.name!r} overlaps the one before it")
        if entry.start > reached:
            raise _damaged(where, f"{entry.start - reached:,} bytes before {entry.name!r} are lost")
        reached = entry.stop
    if reached > file_size:
        raise _damaged(where, f"it is truncated: {file_size:,} bytes of {reached:,}")
    if reached < file_size:
        raise _damaged(where, f"{file_size - reached:,} bytes follow its last tensor")
    return Header(entries, metadata, data_start)


def choose(header: Header, tensor: str | None, where: str) -> Entry:
    """The entry named `tensor`, or the unembedding if none is named. Raises SpecimenError."""
    if tensor is not None:
        if tensor in header.entries:
            return header.entries[tensor]
        raise SpecimenError(f"{where}: has no tensor {tensor!r}; it holds {_names(header.entries)}")
    for name in UNEMBEDDINGS:
        if name in header.entries:
            return header.entries[name]
    matrices = [name for name, entry in header.entries.items() if len(entry.shape) == 2]
    if len(matrices) == 1:
        return header.entries[matrices[0]]
    raise SpecimenError(
        f"{where}: which tensor? append :NAME, one of {_names(matrices or header.entries)}"
    )


def _json(raw: bytes, where: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("a key stands twice in it")
        return table

    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        reason = str(error) if "twice" in str(error) else "it is no valid JSON"
        raise _damaged(where, f"its header cannot be read: {reason}") from None
    if not isinstance(table, dict):
        raise _damaged(where, "its header is no JSON object")
    return table


def _entry(name: str, value: Any, data_start: int, where: str) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(where, f"tensor {name!r} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise SpecimenError(f"{where}: tensor {name!r} has dtype {dtype!r}; this book reads "
                            f"{', '.join(DTYPES)}")  # fmt: skip
    if not _counts(shape) or len(shape) > RANK_LIMIT:
        raise _damaged(where, f"tensor {name!r} has no valid shape")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(where, f"tensor {name!r} has no valid data_offsets")
    need = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != need:
        raise _damaged(
            where, f"tensor {name!r} of shape {shape} and dtype {dtype} needs {need:,} "
            f"bytes but its offsets span {offsets[1] - offsets[0]:,}"
        )  # fmt: skip
    return Entry(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _counts(value: Any) -> bool:
    """A list of non-negative integers below 2**63 (booleans are not integers here)."""
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)


def _names(names: Any, most: int = 8) -> str:
    names = list(names)
    if not names:
        return "none"
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + rest


def _damaged(where: str, reason: str) -> SpecimenError:
    return SpecimenError(f"{where}: {reason}; fetch or save the file again")


GGUF_UNEMBEDDINGS = ("output.weight", "token_embd.weight")
GGUF_NATIVE = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def open_gguf(path: Path, tensor: str | None = None) -> tuple[np.ndarray, str, int, str]:
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
    names = [tensor] if tensor else [name for name in GGUF_UNEMBEDDINGS if name in tensors]
    if not names or names[0] not in tensors:
        held = ", ".join(list(tensors)[:6])
        raise SpecimenError(
            f"{path}: has no tensor {tensor or GGUF_UNEMBEDDINGS}; it holds {held} …"
        )
    found = tensors[names[0]]
    if len(found.shape) != 2:
        raise SpecimenError(f"{path}: {found.name} is no matrix; append :NAME of another tensor")
    kind = found.tensor_type.name
    dim, rows = (int(n) for n in found.shape)  # GGUF counts the fastest dimension first
    data = np.asarray(found.data)
    if kind in GGUF_NATIVE:
        return data.view(GGUF_NATIVE[kind]).reshape(rows, dim), kind, dim, found.name
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


Q8_BLOCK = 32  # values that share one scale


def dequantise_q8_0(scale_bits: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(n, dim) float32 from scale_bits (n, dim/32) uint16 float16-bits and q (n, dim) int8.

    value = scale * q, block by block: exactly what llama.cpp computes. Raises ValueError on shapes.
    """
    rows, dim = q.shape
    if scale_bits.shape != (rows, dim // Q8_BLOCK) or dim % Q8_BLOCK:
        raise ValueError(f"scales {scale_bits.shape} do not belong to quants {q.shape}")
    scale = scale_bits.view(np.float16).astype(np.float32)
    return (q.reshape(rows, -1, Q8_BLOCK).astype(np.float32) * scale[:, :, None]).reshape(rows, dim)


SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
INDEX_LIMIT = 25_000_000  # bytes


def file_in(folder: Path, tensor: str | None) -> Path:
    """The file of a model's folder that holds `tensor` or its unembedding. Raises SpecimenError."""
    if (folder / SINGLE).exists():
        return folder / SINGLE
    if (folder / INDEX).exists():
        names = (tensor,) if tensor else UNEMBEDDINGS
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


def origin_of(path: Path) -> dict[str, str]:
    """A fetched file's own words: specimen, source, version, sha256. Raises SpecimenError."""
    metadata = read_header(path).metadata
    try:
        return json.loads(metadata["provenance"])
    except (KeyError, ValueError):
        raise SpecimenError(f"{path}: says nothing of its origin; fetch it again") from None
