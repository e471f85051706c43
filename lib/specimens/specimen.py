"""A specimen at hand: its description, the line that says what was read, and the arrays."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lib.specimens import gguf_file
from lib.specimens.catalogue import Description
from lib.specimens.errors import SpecimenError
from lib.specimens.quantised import dequantise_q8_0

CHUNK = 4_096  # rows turned into numbers at a time

BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


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
        return self._whole().view(BITS[self._whole().dtype.itemsize])

    def values(self, ids: slice | np.ndarray | Iterable[int]) -> np.ndarray:
        """(n, dim) float32: rows `ids` of the whole W, exactly. Raises SpecimenError if absent."""
        ids = ids if isinstance(ids, slice) else np.asarray(ids)
        return to_float32(np.asarray(self._whole()[ids]), self.precision)

    def chunks(self, size: int = CHUNK) -> Iterable[tuple[slice, np.ndarray]]:
        """(slice, (n, dim) float32) over the whole W, `size` rows at a time."""
        for start in range(0, self.rows, size):
            part = slice(start, min(start + size, self.rows))
            yield part, self.values(part)

    def array(self, name: str) -> np.ndarray:
        """The extract's array of this name. Raises SpecimenError listing what there is."""
        if name in self.arrays:
            return self.arrays[name]
        held = ", ".join(self.arrays) or "no extract"
        raise SpecimenError(
            f"{self.id}: no array {name!r} at hand ({self.source}); it holds {held}"
        )

    @cached_property
    def norms(self) -> np.ndarray:
        """(rows,) float64: L2 norm of every row, from the extract or computed in float64 from W."""
        if self.is_full:
            norms = np.empty(self.rows)
            for part, values in self.chunks():
                norms[part] = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
            return norms
        return self.array("norm").astype(np.float64)

    @property
    def distances(self) -> np.ndarray:
        """(rows,) float32: L2 distance of every row to the extract's reference (see `facts`)."""
        return self.array("dist")

    @property
    def projection(self) -> np.ndarray:
        """(rows, 3) float32: uncentred rows on the extract's principal axes 1..3."""
        return self.array("projection")

    @property
    def axes(self) -> np.ndarray:
        """(dim, 6) float32: the extract's principal axes, one a column."""
        return self.array("axes")

    @property
    def mean(self) -> np.ndarray:
        """(dim,) float32: the mean of all rows, from the extract."""
        return self.array("mean")

    @property
    def row_group(self) -> np.ndarray:
        """(rows,) int32: for every row the id of the first row with identical stored bytes."""
        return self.array("row_group")

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
        """The vocabulary that names the rows (lib.tokens). Raises SpecimenError if none."""
        if self.description.tokenizer is None:
            raise SpecimenError(
                f"{self.id}: the book has no tokenizer for {self.description.model}"
            )
        from lib.tokens import vocabulary  # same floor: only needed when rows are named

        return vocabulary.open(self.description.tokenizer, self.rows)

    def _whole(self) -> np.ndarray:
        if self.matrix is None:
            raise SpecimenError(
                f"{self.id}: only an extract is at hand ({self.source}); "
                f"run `python -m lib fetch {self.id}` for the whole matrix"
            )
        return self.matrix

    def _extracted(self, quantised: str, exact: str) -> np.ndarray:
        if f"{quantised}_q" in self.arrays:
            return dequantise_q8_0(self.array(f"{quantised}_scale"), self.array(f"{quantised}_q"))
        return to_float32(self.array(f"{exact}_bits"), "F16")


def to_float32(stored: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values of an array as stored under `dtype` (BF16 and F16 may be uint16 bits)."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        return stored.view(np.float16).astype(np.float32)
    if dtype in ("F32", "F64"):
        return stored.astype(np.float32, copy=False)
    if dtype.startswith(("Q", "IQ", "TQ", "MXFP")):
        return gguf_file.dequantise(stored, dtype)
    raise SpecimenError(f"{dtype} rows are not read as numbers here; use BF16, F16 or F32")
