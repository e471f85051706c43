"""The census of duplicate rows: exact, by bits, streaming over a memory map.

A *black hole* is a set of at least two rows that are identical bit for bit. Rows are never compared
as numbers: +0 and -0 differ, and a NaN equals itself.

How: two identical rows share their first eight bytes, so only rows that share those with another
row are candidates (one gather and one sort of `rows` 64-bit words). Candidates are told apart by a
digest of the whole row, and every row is at last compared byte by byte with the first of its group:
the digest makes it fast, the comparison makes it exact.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib import progress
from lib.specimens.errors import SpecimenError
from lib.specimens.specimen import Specimen

PREFIX = 8  # bytes of a row that every candidate must share with another
BLOCK_BYTES = 2**24  # compared at a time: bounds the extra memory, whatever the matrix


@dataclass(frozen=True)
class Census:
    """Groups of identical rows: `group[i]` is the id of the first row identical to row i."""

    group: np.ndarray  # (rows,) int64

    @property
    def rows(self) -> int:
        return len(self.group)

    @cached_property
    def _counts(self) -> np.ndarray:
        return np.bincount(self.group, minlength=self.rows)

    @property
    def unique(self) -> int:
        """Distinct rows."""
        return int(np.count_nonzero(self._counts))

    @property
    def surplus(self) -> int:
        """Rows that could be dropped without losing a distinct row."""
        return self.rows - self.unique

    @cached_property
    def first_ids(self) -> np.ndarray:
        """(holes,) int64: the smallest id of each black hole, most populous hole first."""
        ids = np.flatnonzero(self._counts > 1)
        return ids[np.argsort(-self._counts[ids], kind="stable")]

    @property
    def populations(self) -> np.ndarray:
        """(holes,) int64: rows in each black hole, descending."""
        return self._counts[self.first_ids]

    @property
    def holes(self) -> int:
        """Black holes."""
        return len(self.first_ids)

    @property
    def hole_rows(self) -> int:
        """Rows that lie in black holes."""
        return int(self.populations.sum())

    @property
    def singletons(self) -> int:
        """Rows identical to no other, in the whole matrix."""
        return self.rows - self.hole_rows

    @property
    def zero_pairs(self) -> int:
        """Pairs of rows at distance zero: sum of n(n-1)/2 over the holes."""
        populations = self.populations
        return int((populations * (populations - 1) // 2).sum())

    def members(self, hole: int) -> np.ndarray:
        """(population,) int64: ids of the hole of this rank (0: the most populous)."""
        return np.flatnonzero(self.group == self.first_ids[hole])

    def every_hole(self) -> list[tuple[int, np.ndarray]]:
        """(population, (population,) ids ascending) of each hole, in one pass over the rows."""
        order = np.argsort(self.group, kind="stable")
        starts = np.searchsorted(self.group[order], self.first_ids)
        pairs = zip(self.populations.tolist(), starts.tolist(), strict=True)
        return [(n, order[start : start + n]) for n, start in pairs]

    def within(self, ids: np.ndarray) -> "Census":
        """The census of the rows `ids` alone; groups keep the ids' order, not their numbers."""
        _, first, inverse = np.unique(self.group[ids], return_index=True, return_inverse=True)
        return Census(first[inverse])


def duplicates(rows: np.ndarray, *, block_bytes: int = BLOCK_BYTES) -> Census:
    """Exact census of the rows of a C-contiguous (n, dim) array or memory map of any dtype.

    Extra memory: about 60 bytes a row plus `block_bytes` twice; the matrix is never copied.
    Raises SpecimenError if `rows` is no matrix with columns.
    """
    if rows.ndim != 2 or 0 in rows.shape[1:]:
        raise SpecimenError(f"a census needs a matrix (rows, dim), not an array of {rows.shape}")
    if not rows.flags.c_contiguous:
        raise SpecimenError("a census needs rows that lie one after the other; pass a contiguous W")
    raw = np.asarray(rows).view(np.uint8)
    group = np.arange(len(raw))
    candidates = _sharing(_prefix(raw))
    digests = _digests(raw, candidates)
    pending = candidates
    while len(pending):  # one round, unless two different rows ever share a digest
        _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
        group[pending] = pending[first][inverse]
        same = _equal(raw, pending, group[pending], block_bytes)
        pending, digests = pending[~same], digests[~same]
    return Census(group)


def of(specimen: Specimen) -> Census:
    """The census of a specimen: of its whole matrix, or as its extract recorded the groups.

    An extract's groups are those of the bytes it was taken from (for Q8_0: merged, never split).
    """
    if specimen.is_full:
        return duplicates(specimen.bits)
    return Census(specimen.row_group.astype(np.int64))


def _prefix(raw: np.ndarray) -> np.ndarray:
    """(n,) uint64: the first bytes of every row, short rows padded with zeros."""
    words = np.zeros((len(raw), PREFIX), dtype=np.uint8)
    width = min(PREFIX, raw.shape[1])
    words[:, :width] = raw[:, :width]
    return words.view(np.uint64)[:, 0]


def _sharing(words: np.ndarray) -> np.ndarray:
    """Indices, ascending, of the words that occur more than once."""
    order = np.argsort(words)
    ordered = words[order]
    twin = np.zeros(len(words), dtype=bool)
    equal = ordered[1:] == ordered[:-1]
    twin[1:] |= equal
    twin[:-1] |= equal
    return np.sort(order[twin])


def _digests(raw: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(len(ids),) 16-byte voids: BLAKE2b of each whole row."""
    out = np.empty((len(ids), 16), dtype=np.uint8)
    for at, row in enumerate(_slow(ids)):
        out[at] = np.frombuffer(hashlib.blake2b(raw[row], digest_size=16).digest(), np.uint8)
    return out.view("V16")[:, 0] if len(ids) else np.empty(0, "V16")


def _slow(ids: np.ndarray) -> Iterable[int]:
    """The ids, under a progress bar where there are enough of them to take a second."""
    return progress.bar(ids, desc="census", unit="row") if len(ids) > 100_000 else ids


def _equal(raw: np.ndarray, left: np.ndarray, right: np.ndarray, block_bytes: int) -> np.ndarray:
    """(n,) bool: whether row left[i] and row right[i] have the same bytes, block by block."""
    same = np.empty(len(left), dtype=bool)
    step = max(1, block_bytes // raw.shape[1])
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        same[part] = (raw[left[part]] == raw[right[part]]).all(axis=1)
    return same
