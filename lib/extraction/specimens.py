"""Specimens: one unembedding matrix each, as far as it is at hand.

`open(id)` gives the best of a specimen that is here (the whole matrix if it was fetched, else its
committed extract, else what a chapter of this book trained), with a line that says which it was.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lib import artifacts, files, generators, paths, scale
from lib.extraction import catalogue, planted, store, tensor_files
from lib.extraction.catalogue import Description, Extract, Planted, SpecimenError, Trained

CHUNK = 4_096  # rows turned into numbers at a time
TRAINED = "specimen"  # under which a generator chapter keeps the last matrix of a film


@dataclass(frozen=True)
class Specimen:
    """One matrix W (rows x dim) as far as it is at hand.

    `matrix` is the whole W in its stored dtype, memory-mapped (BF16: its uint16 bits), or None
    where only an extract is at hand. `arrays` holds an extract's arrays by name. `precision` says
    what a row at hand is: BF16, F16, F32 as stored, or a GGUF type such as Q8_0 where it was
    quantised (a quantised matrix is (rows, bytes) uint8 blocks).
    """

    description: Description
    source: str  # one line: what was read, and from where
    precision: str
    matrix: np.ndarray | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # what the file says of itself

    @property
    def id(self) -> str:
        return self.description.id

    @property
    def rows(self) -> int:
        return self.description.rows

    @property
    def dim(self) -> int:
        return self.description.dim

    @property
    def is_full(self) -> bool:
        """Whether the whole W is at hand, every row with its own bits."""
        return self.matrix is not None

    @property
    def bits(self) -> np.ndarray:
        """(rows, dim) unsigned integers: the whole W as stored, no copy. Raises SpecimenError."""
        whole = self._whole()
        return whole.view(f"u{whole.itemsize}")

    def values(self, ids: slice | np.ndarray | Iterable[int]) -> np.ndarray:
        """(n, dim) float32: rows `ids` of the whole W, exactly. Raises SpecimenError if absent."""
        ids = ids if isinstance(ids, slice) else np.asarray(ids)
        return to_float32(np.asarray(self._whole()[ids]), self.precision)

    def chunks(self) -> Iterable[tuple[slice, np.ndarray]]:
        """(slice, (n, dim) float32) over the whole W, CHUNK rows at a time."""
        for start in range(0, self.rows, CHUNK):
            part = slice(start, min(start + CHUNK, self.rows))
            yield part, self.values(part)

    def array(self, name: str) -> np.ndarray:
        """The extract's array `name`, as stored. Raises SpecimenError listing those there are.

        Of every row: norm; dist (rows,) float32, L2 distance to the extract's reference; projection
        (rows, 3) float32, uncentred, on the principal axes 1..3; row_group (rows,) int32, the id of
        the first row with identical stored bytes. Of all: axes (dim, 6) float32, one a column; mean
        (dim,) float32. `facts` says more of each, and of those that hold some rows' bits.
        """
        if name in self.arrays:
            return self.arrays[name]
        held = ", ".join(self.arrays) or "no extract"
        raise SpecimenError(
            f"{self.id}: no array {name!r} at hand ({self.source}); it holds {held}"
        )

    @cached_property
    def norms(self) -> np.ndarray:
        """(rows,) float64: L2 norm of every row, from the extract or computed in float64 from W."""
        if not self.is_full:
            return self.array("norm").astype(np.float64)
        norms = np.empty(self.rows)
        for part, values in self.chunks():
            norms[part] = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        return norms

    @property
    def dead_ids(self) -> np.ndarray:
        """(n,) int32: ids of the extract's dead ball (for Whisper: its core)."""
        return self.array("dead_ids" if "dead_ids" in self.arrays else "core_ids")

    @property
    def live_ids(self) -> np.ndarray:
        """(n,) int32: ids of the extract's random sample of other rows."""
        return self.array("live_ids" if "live_ids" in self.arrays else "sample_ids")

    @cached_property
    def dead_rows(self) -> np.ndarray:
        """(n, dim) float32: the rows `dead_ids`, dequantised where the extract is quantised."""
        return self._extracted("dead", "core")

    @cached_property
    def live_rows(self) -> np.ndarray:
        """(n, dim) float32: the rows `live_ids`, dequantised where the extract is quantised."""
        return self._extracted("live", "sample")

    @cached_property
    def tokens(self) -> Any:
        """The vocabulary that names the rows. Raises SpecimenError if there is none."""
        if self.description.tokenizer is None:
            raise SpecimenError(
                f"{self.id}: the book has no tokenizer for {self.description.model}"
            )
        from lib.extraction import vocabulary  # same floor: only needed when rows are named

        return vocabulary.open(self.description.tokenizer, self.rows)

    def _whole(self) -> np.ndarray:
        if self.matrix is None:
            raise SpecimenError(
                f"{self.id}: only an extract is at hand ({self.source}); "
                f"run `python -m lib fetch {self.id}` for the whole matrix"
            )
        return self.matrix

    def _extracted(self, quantised: str, exact: str) -> np.ndarray:
        if f"{quantised}_q" not in self.arrays:
            return to_float32(self.array(f"{exact}_bits"), "F16")
        scales, quants = self.array(f"{quantised}_scale"), self.array(f"{quantised}_q")
        parts = [part.reshape(*scales.shape, -1).view(np.uint8) for part in (scales, quants)]
        return to_float32(np.concatenate(parts, axis=2).reshape(len(scales), -1), "Q8_0")


def to_float32(stored: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values of an array as stored under `dtype` (BF16 and F16 may be uint16 bits)."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        return stored.view(np.float16).astype(np.float32)
    if dtype in ("F32", "F64"):
        return stored.astype(np.float32, copy=False)
    if dtype.startswith(("Q", "IQ", "TQ", "MXFP")):
        return tensor_files.dequantise(stored, dtype)
    raise SpecimenError(f"{dtype} rows are not read as numbers here; use BF16, F16 or F32")


def open(id: str) -> Specimen:
    """The specimen `id`: its whole matrix if fetched, else its committed extract.

    `id` is one of the catalogue, a role ("subject": the book's model if it is here, else the real
    one that is), or a path: FILE.safetensors[:TENSOR], FILE.gguf, a model's folder.
    Raises SpecimenError where nothing is at hand, with the command that fetches it.
    """
    if id in catalogue.ROLES:
        found = _of_catalogue(catalogue.find(catalogue.resolve(id)))
        return replace(found, source=found.source + catalogue.remark(id))
    path, tensor = split(id)
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, a folder that is closed
        why = f"{tensor_files.short(id)}: cannot be read ({error.strerror}); check the path"
        raise SpecimenError(why) from None
    if there or path.suffix in (".safetensors", ".gguf") or len(path.parts) > 1:
        return _of_path(path, tensor)
    return _of_catalogue(catalogue.find(id))


def here(description: Description) -> str:
    """What of a specimen is here: whole, unproven, damaged, extract, made, trained, no."""
    path = catalogue.fetched_file(description.id)
    if files.is_here(path):
        try:
            return "whole" if store.is_proven(store.opened(path)["sha256"]) else "unproven"
        except SpecimenError:
            return "damaged"
    for source in description.sources:
        if isinstance(source, Extract):
            return "extract"
        if isinstance(source, Planted):
            return "made"
        if isinstance(source, Trained) and trained(source):
            return "trained"
    return "no"


def _of_catalogue(description: Description) -> Specimen:
    """The whole matrix if it was fetched, else the first source that is here already."""
    if files.is_here(catalogue.fetched_file(description.id)):
        return _fetched(description)
    for source in description.sources:
        if isinstance(source, Extract):
            return read_extract(description, source)
        if isinstance(source, Planted):
            return _planted(description, source)
        if isinstance(source, Trained):
            return _trained(description, source)
    raise SpecimenError(
        f"{description.id}: not at hand; run `python -m lib fetch {description.id}`"
    )


def _fetched(description: Description) -> Specimen:
    """The whole matrix out of the store; an extract of the same precision lends its arrays."""
    path = catalogue.fetched_file(description.id)
    record = store.opened(path)
    matrix, dtype = tensor_files.open_tensor(path)
    if matrix.shape != (description.rows, description.dim):
        raise SpecimenError(f"{path}: has shape {matrix.shape}; delete it and fetch it again")
    size = f"{len(matrix):,} x {description.dim}, {dtype}"
    source = f"{description.model}: whole matrix {size}, from {record['source']}"
    specimen = Specimen(description, source, dtype, matrix, {}, record)
    for extract in description.sources:
        if isinstance(extract, Extract):
            lent = read_extract(description, extract)
            if lent.precision == dtype:
                return replace(specimen, arrays=lent.arrays, facts={**lent.facts, **record})
    return specimen


def split(name: str) -> tuple[Path, str | None]:
    """(path, tensor or None) of FILE or FILE:TENSOR; a file whose name has a colon comes first."""
    path, _, tensor = name.rpartition(":")
    with suppress(OSError):  # too long for a file's name: a tensor's
        if Path(name).exists():
            return Path(name), None
    return (Path(path), tensor) if path and tensor else (Path(name), None)


def _of_path(path: Path, tensor: str | None) -> Specimen:
    """The specimen in a file or a model's folder. Raises SpecimenError."""
    if path.is_dir():
        path = tensor_files.file_in(path, tensor)
    if path.suffix == ".gguf":
        matrix, kind, dim, tensor = tensor_files.open_gguf(path, tensor)
    else:
        if path.absolute().is_relative_to(paths.FETCHED) and path.is_file():
            store.opened(path)
        header = tensor_files.read_header(path)
        tensor = tensor_files.choose(header, tensor, str(path)).name
        matrix, kind = tensor_files.open_tensor(path, tensor)
        if matrix.ndim != 2:
            name = tensor_files.short(tensor)
            raise SpecimenError(f"{path}: {name} has shape {matrix.shape}; name a matrix (:NAME)")
        dim = matrix.shape[1]
        if kind == "U16" and "provenance" in header.metadata:
            kind = "BF16"  # the book's own artefacts keep bfloat16 as uint16
    description = Description(path.stem, path.name, tensor, len(matrix), dim, kind)
    source = f"{path}, {tensor_files.short(tensor)}: {len(matrix):,} x {dim}, {kind}"
    return Specimen(description, source, kind, matrix)


def trained(source: Trained) -> artifacts.Artifact | None:
    """What the generator chapter kept as a specimen at the scale in force; None if nothing."""
    try:
        return generators.load(source.chapter)[TRAINED]
    except artifacts.ArtifactMissing:
        return None


def _trained(description: Description, source: Trained) -> Specimen:
    """The specimen out of its artefact. Raises SpecimenError naming the command that makes it."""
    try:
        found = trained(source)
    except artifacts.ArtifactError as error:
        raise SpecimenError(f"{description.id}: {error}") from None
    if found is None:
        raise SpecimenError(
            f"{description.id}: not trained here yet at scale {scale.current()}; "
            f"run `python -m lib run chapters/{source.chapter}.qmd`"
        )
    rows, dim = found["W"].shape
    film = found.provenance["parameters"]["film"]
    line = (
        f"{description.model}: whole matrix {rows:,} x {dim}, BF16, the last frame of {film}, "
        f"trained by {source.chapter}"
    )
    sized = replace(description, rows=rows, dim=dim, revision=film)
    return Specimen(sized, line, "BF16", found["W"], {}, found.provenance)


def _planted(description: Description, source: Planted) -> Specimen:
    """The planted specimen, made from its seed."""
    rows, dim = description.rows, description.dim
    bits, _ = planted.matrix(rows=rows, dim=dim, seed=source.seed)
    line = f"planted matrix {rows:,} x {dim}, made from seed {source.seed}"
    return Specimen(description, line, "BF16", bits)


def read_extract(description: Description, extract: Extract) -> Specimen:
    """The specimen as its committed extract has it. Raises SpecimenError."""
    path = files.checked(paths.SPECIMENS / extract.file)
    header = tensor_files.read_header(path)
    try:
        facts = json.loads(header.metadata["extract"])
    except (KeyError, ValueError):
        raise SpecimenError(
            f"{path}: has no `extract` metadata; restore the committed file"
        ) from None
    if facts["shape"] != [description.rows, description.dim]:
        raise SpecimenError(f"{path}: is of shape {facts['shape']}; restore the committed file")
    arrays = {name: tensor_files.open_tensor(path, name)[0] for name in header.entries}
    quantised = "dead_q" in arrays
    source = (
        f"{description.model}: extract data/specimens/{extract.file}, "
        f"{description.rows:,} x {description.dim}, "
        + ("8-bit Q8_0 rows" if quantised else facts["precision"])
    )
    precision = "Q8_0" if quantised else description.dtype
    return Specimen(description, source, precision, None, arrays, facts)
