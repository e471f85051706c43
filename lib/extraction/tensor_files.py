"""Any matrix on disk: safetensors as a memory map, GGUF through its own package.

The `safetensors` library decides whether a file is sound. It gives no byte offsets, which a memory
map without a copy and a range read need, so these are read from the header that it has accepted.

A quantised row is not the released row: quantisation may merge rows, never split them, so a census
of a quantised matrix counts at least the holes' tokens of the other, and no lattice statement may
rest on it.
"""

import json
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors

from lib.extraction.catalogue import SpecimenError

METADATA = "__metadata__"  # key of a header that is no tensor
FIRST_READ = 1 << 16  # bytes: the header of most files comes with the first request
LIMIT = 25_000_000  # bytes of a header or an index; of the largest models: a few MB
MOST_NAMED = 8  # tensors that an error lists

# Storage dtypes: the dtype's name in the header -> the numpy dtype that holds its bits.
DTYPES = {
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: the bits, as uint16
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
} | {
    f"{kind}{8 * size}": np.dtype(f"<{kind.lower()}{size}")
    for kind in "IU"
    for size in (1, 2, 4, 8)
}

# Where checkpoints keep the matrix that makes the logits, the untied head before the embedding.
UNEMBEDDINGS = (
    "lm_head.weight",
    "output.weight",
    "embed_out.weight",
    "language_model.lm_head.weight",
    "model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "transformer.wte.weight",
    "wte.weight",
    "model.decoder.embed_tokens.weight",
    "embeddings.word_embeddings.weight",
    "bert.embeddings.word_embeddings.weight",
    "shared.weight",
)
HEADS = frozenset(UNEMBEDDINGS[:4])
EMBEDDINGS = frozenset({*UNEMBEDDINGS[4:], "gpt_neox.embed_in.weight", "token_embd.weight"})

GGUF_UNEMBEDDINGS = ("output.weight", "token_embd.weight")
GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # by kind
GGUF_TOKENIZER = "tokenizer.ggml."  # with which the names of what it says of its tokens begin
GGUF_STRING, GGUF_ARRAY = 8, 9  # kinds of values of any length
GGUF_NATIVE = ("F32", "F16", "BF16")  # types whose values stand by themselves

SINGLE = "model.safetensors"  # of a model's folder or repository
INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
              "vocab.txt", "vocab.json")  # of such a folder, the best first  # fmt: skip
MERGES = "merges.txt"  # without which vocab.json is nothing
TOKENIZER_SETTINGS = ("tokenizer_config.json", "added_tokens.json")


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
    """A sound header: every tensor's bytes lie in the file, end to end, none overlapping."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int


def open_tensor(path: str | Path, tensor: str | None = None) -> tuple[np.ndarray, str]:
    """(array, dtype name): one tensor as a read-only memory map; BF16 comes as its uint16 bits.

    Without `tensor` the file's unembedding is taken: its only matrix, or a well-known name.
    Raises SpecimenError on a missing, malformed or ambiguous file.
    """
    entry = choose(read_header(path), tensor, str(path))
    if entry.nbytes == 0:
        raise SpecimenError(f"{path}: tensor {short(entry.name)!r} is empty; name another tensor")
    array = np.memmap(path, DTYPES[entry.dtype], mode="r", offset=entry.start, shape=entry.shape)
    return array, entry.dtype


def read_header(path: str | Path, where: str = "") -> Header:
    """The header of a safetensors file, called `where` in errors. Raises SpecimenError."""
    path, where = Path(path), where or str(path)
    _regular(path)
    try:
        with path.open("rb") as file, safetensors.safe_open(path, "numpy"):
            length = int.from_bytes(file.read(8), "little")
            table = json.loads(file.read(length), object_pairs_hook=_once)
    except (safetensors.SafetensorError, ValueError) as error:
        reason = short(" ".join(str(error).split()), 200)
        raise SpecimenError(
            f"{where}: is no sound safetensors file ({reason}); fetch or save it again"
        ) from None
    except OSError as error:
        raise SpecimenError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    metadata, start = table.pop(METADATA, {}), 8 + length
    entries = {
        name: Entry(
            name, one["dtype"], tuple(one["shape"]), *(start + o for o in one["data_offsets"])
        )
        for name, one in table.items()
    }
    return Header(entries, metadata, start)


def _regular(path: Path) -> None:
    """Raise SpecimenError unless a file can be read to its end: a pipe or a device cannot."""
    if not path.exists():
        raise SpecimenError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise SpecimenError(f"{path}: is no regular file; copy it to one")


def header_elsewhere(read: Callable[[int, int], bytes], size: int, where: str) -> Header:
    """The header of a file of `size` bytes that is not here; `read(start, stop)` gives its bytes.

    The library is shown a sparse file of the same size. Raises SpecimenError.
    """
    first = read(0, min(FIRST_READ, size))
    needed = 8 + int.from_bytes(first[:8], "little")
    if len(first) < needed <= min(size, LIMIT):
        first += read(len(first), needed)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "header.safetensors"
            with path.open("wb") as file:
                file.write(first[:needed])
                file.truncate(size)
            return read_header(path, where)
    except OSError as error:
        why = f"no temporary file can be written ({error.strerror}); free some space, or set TMPDIR"
        raise SpecimenError(f"{where}: {why}") from None


def choose(header: Header, tensor: str | None, where: str) -> Entry:
    """The entry named `tensor`, or the unembedding if none is named. Raises SpecimenError."""
    shapes = {name: entry.shape for name, entry in header.entries.items()}
    entry = header.entries[_meant(tensor, UNEMBEDDINGS, shapes, where)]
    if entry.dtype not in DTYPES:
        raise SpecimenError(
            f"{where}: {short(entry.name)!r} is {entry.dtype}; this book reads {', '.join(DTYPES)}"
        )
    return entry


def _meant(
    tensor: str | None, known: tuple[str, ...], shapes: Mapping[str, Sequence[int]], where: str
) -> str:
    """`tensor`, else the first of the `known` names, else the only matrix. Raises SpecimenError."""
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    candidates = [tensor] if tensor else [*known, *matrices[: len(matrices) == 1]]
    for name in candidates:
        if name in shapes:
            return name
    said = "which tensor? append :NAME of"
    if tensor:
        said = f"has no tensor {short(tensor)!r}; there is"
    names = matrices or list(shapes)
    listed = ", ".join(repr(short(name)) for name in names[:MOST_NAMED]) or "none"
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    raise SpecimenError(f"{where}: {said} {listed}{more}")


def short(name: str, most: int = 80) -> str:
    """A name or a reason as far as a line has room for it: a file may hold one of a megabyte."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _once(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object, each of whose keys stands once: readers differ in which of two they take."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key stands twice in its header")
    return table


def open_gguf(path: Path, tensor: str | None = None) -> tuple[np.ndarray, str, int, str]:
    """(rows as a memory map, type such as "Q8_0", dim, tensor name): a matrix of a GGUF file.

    Rows of a quantised type are (rows, bytes) uint8 blocks. Raises SpecimenError.
    """
    tensors = {t.name: t for t in _gguf(path).tensors}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    found = tensors[_meant(tensor, GGUF_UNEMBEDDINGS, shapes, str(path))]
    if len(found.shape) != 2:
        raise SpecimenError(
            f"{path}: {short(found.name)!r} is no matrix; append :NAME of another tensor"
        )
    kind = found.tensor_type.name
    dim, rows = (int(n) for n in found.shape)  # GGUF counts the fastest dimension first
    data = np.asarray(found.data).reshape(rows, -1)
    return data.view(DTYPES[kind] if kind in GGUF_NATIVE else np.uint8), kind, dim, found.name


def gguf_names(path: Path) -> set[str]:
    """The names of the tensors of a GGUF file. Raises SpecimenError."""
    return {tensor.name for tensor in _gguf(path).tensors}


def gguf_tokenizer(path: Path) -> dict[str, Any]:
    """What a GGUF file says of its tokenizer: model, pre, tokens, scores, token_type, merges, ...

    The names are the format's, after "tokenizer.ggml."; bytes that are no UTF-8 become U+FFFD.
    Raises SpecimenError.
    """
    return {
        key.removeprefix(GGUF_TOKENIZER): _contents(field)
        for key, field in _gguf(path).fields.items()
        if key.startswith(GGUF_TOKENIZER)
    }


def _contents(field: Any) -> Any:
    """The value of a field of a GGUF file: a number, a text, or a list of either."""
    parts = [field.parts[at] for at in field.data]
    if field.types[-1].name == "STRING":
        values = [bytes(part).decode("utf-8", "replace") for part in parts]
    else:
        values = np.concatenate(parts).tolist() if parts else []
    return values if field.types[0].name == "ARRAY" else values[0]


def _gguf(path: Path) -> Any:
    """The package's reader of a file that was walked through before. Raises SpecimenError."""
    _regular(path)
    return _gguf_read(path, path.stat().st_size, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # tokens and merges are read one by one: seconds
def _gguf_read(path: Path, size: int, changed: int) -> Any:
    from gguf import GGUFReader  # slow to import

    try:
        with path.open("rb") as file:
            _walk_gguf(file, size)
        return GGUFReader(path)
    except OSError as error:
        raise SpecimenError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    except Exception as error:  # the package raises whatever a broken file leads to
        reason = short(" ".join(str(error).split()), 200)
        raise SpecimenError(
            f"{path}: is no sound GGUF file ({reason}); download it again"
        ) from None


def _walk_gguf(file: BinaryIO, size: int) -> None:
    """Raise ValueError where a GGUF file's metadata claim more than its `size` bytes can hold.

    The package would follow such a claim for hours.
    """
    order = "<"

    def number(kind: str) -> int:
        return struct.unpack(order + kind, file.read(struct.calcsize(order + kind)))[0]

    def skip(length: int) -> None:
        if length > size - file.tell():
            raise ValueError(f"claims {length:,} bytes at {file.tell():,} of {size:,}")
        file.seek(length, 1)

    def value(kind: int, depth: int = 0) -> None:
        if kind in GGUF_SIZES:
            skip(GGUF_SIZES[kind])
        elif kind == GGUF_STRING:
            skip(number("Q"))
        elif kind == GGUF_ARRAY and depth < 4:
            inner, count = number("I"), number("Q")
            if inner in GGUF_SIZES:
                return skip(count * GGUF_SIZES[inner])
            if 8 * count > size - file.tell():
                raise ValueError(f"claims an array of {count:,} in {size:,} bytes")
            for _ in range(count):
                value(inner, depth + 1)
        else:
            raise ValueError(f"has a value of unknown kind {kind}")

    try:
        file.seek(4)  # after the magic number, which the package checks
        if number("I") > 0xFFFF:  # the version, of which there are three
            order = ">"
        tensors, pairs = number("Q"), number("Q")
        if 24 * tensors > size or 12 * pairs > size:
            raise ValueError(f"claims {tensors:,} tensors and {pairs:,} values in {size:,} bytes")
        for _ in range(pairs):
            skip(number("Q"))
            value(number("I"))
    except struct.error:
        raise ValueError("ends in its metadata") from None


def dequantise(blocks: np.ndarray, kind: str) -> np.ndarray:
    """(n, dim) float32 values of (n, bytes) uint8 blocks of a GGUF type. Raises SpecimenError."""
    from gguf import GGMLQuantizationType, quants

    try:
        return quants.dequantize(np.ascontiguousarray(blocks), GGMLQuantizationType[kind])
    except (KeyError, NotImplementedError):
        raise SpecimenError(
            f"rows of type {kind} cannot be dequantised; use another file"
        ) from None


def file_in(folder: Path, tensor: str | None) -> Path:
    """The file of a model's folder that holds `tensor` or its unembedding. Raises SpecimenError."""
    if (folder / SINGLE).exists():
        return folder / SINGLE
    index = folder / INDEX
    if index.exists():
        if index.stat().st_size > LIMIT:
            raise SpecimenError(f"{index}: has {index.stat().st_size:,} bytes; it is no index")
        return folder / shard_of(
            index.read_bytes(), (tensor,) if tensor else UNEMBEDDINGS, str(index)
        )
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


def origin_of(path: Path) -> dict[str, str]:
    """A fetched file's own words: specimen, source, version, sha256. Raises SpecimenError."""
    metadata = read_header(path).metadata
    try:
        record = json.loads(metadata["provenance"])
        return record | {"source": str(record["source"])}
    except (KeyError, TypeError, ValueError, RecursionError):
        raise SpecimenError(f"{path}: says nothing of its origin; fetch it again") from None
