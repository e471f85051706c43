"""The census of duplicate rows: exact, by bits, streaming over a memory map.

A *black hole* is a set of at least two rows that are identical bit for bit. Rows are never compared
as numbers: +0 and -0 differ, and a NaN equals itself.

How: two identical rows share their first eight bytes, so only rows that share those with another
row are candidates (one gather and one sort of `rows` 64-bit words). Candidates are told apart by a
quick mark of the whole row, and every row is at last compared byte by byte with the first of its
group: the mark makes it fast, the comparison makes it exact. Rows that the quick mark confused get
a cryptographic one, so that no matrix, however made, takes more than a few rounds.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib import lattice, progress
from lib.extraction.catalogue import SpecimenError
from lib.extraction.specimens import Specimen

PREFIX = 8  # bytes of a row that every candidate must share with another
BLOCK_BYTES = 2**20  # worked on at a time: stays in the cache, and bounds the extra memory
SEED = 42  # of the quick mark's multipliers


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

    @cached_property
    def in_holes(self) -> np.ndarray:
        """(hole_rows,) int64: ids of the rows in black holes, ascending."""
        return np.flatnonzero(self._counts[self.group] > 1)

    @cached_property
    def members(self) -> list[np.ndarray]:
        """(population,) int64 ids, ascending, of each black hole, most populous hole first."""
        order = np.argsort(self.group, kind="stable")
        starts = np.searchsorted(self.group[order], self.first_ids)
        return [order[at : at + n] for at, n in zip(starts, self.populations, strict=True)]

    def within(self, ids: np.ndarray) -> "Census":
        """The census of the rows `ids` alone; groups keep the ids' order, not their numbers."""
        _, first, inverse = np.unique(self.group[ids], return_index=True, return_inverse=True)
        return Census(first[inverse])


def duplicates(rows: np.ndarray) -> Census:
    """Exact census of the rows of a C-contiguous (n, dim) array or memory map of any dtype.

    Extra memory: about 60 bytes a row and a few BLOCK_BYTES; the matrix is never copied. Raises
    SpecimenError if `rows` is no matrix with columns.
    """
    if rows.ndim != 2 or 0 in rows.shape[1:]:
        raise SpecimenError(f"a census needs a matrix (rows, dim), not an array of {rows.shape}")
    if not rows.flags.c_contiguous:
        raise SpecimenError("a census needs rows that lie one after the other; pass a contiguous W")
    words = _words(np.asarray(rows))
    step = max(1, BLOCK_BYTES // (words.shape[1] * words.itemsize))
    group = np.arange(len(words))
    pending = _sharing(_prefix(words))
    marks = _quick_marks
    while len(pending):  # one round, unless different rows share a mark
        _, first, inverse = np.unique(
            marks(words, pending, step), return_index=True, return_inverse=True
        )
        group[pending] = pending[first][inverse]
        pending = pending[~_equal(words, pending, group[pending], step)]
        marks = _strong_marks
    return Census(group)


@dataclass(frozen=True)
class Demographics:
    """What a small set of rows looks like on the lattice."""

    populations: np.ndarray  # (unique,) int64: copies of each distinct row, descending
    extent: np.ndarray  # (D,) int64: largest minus smallest ordinal in each dimension

    @property
    def unique(self) -> int:
        """Distinct rows."""
        return len(self.populations)

    @property
    def holes(self) -> int:
        """Black holes: distinct rows with a population of at least two."""
        return int((self.populations > 1).sum())

    @property
    def tokens(self) -> int:
        """Rows that sit in a hole."""
        return int(self.populations[self.populations > 1].sum())

    @property
    def largest(self) -> int:
        """Population of the largest group."""
        return int(self.populations[0])

    @property
    def varying(self) -> int:
        """Dimensions in which not all rows agree."""
        return int((self.extent > 0).sum())

    @property
    def linf(self) -> int:
        """Largest difference between two rows in any dimension, in lattice steps."""
        return int(self.extent.max())


def demographics(bits: np.ndarray) -> Demographics:
    """Demographics of (rows, D) uint16 patterns; rows are compared by bits, never as floats."""
    _, copies = np.unique(duplicates(np.ascontiguousarray(bits)).group, return_counts=True)
    ordinals = lattice.ordinal(bits)
    extent = ordinals.max(axis=0).astype(np.int64) - ordinals.min(axis=0)
    return Demographics(np.sort(copies)[::-1].astype(np.int64), extent)


def without_singles(rows: np.ndarray) -> np.ndarray:
    """(m, D) those of (n, D) rows that are identical to another; of Qwen3-4B's no others are known.

    What is compared with printed holes must have lost its single rows in the same way.
    """
    return rows[duplicates(np.ascontiguousarray(rows)).in_holes]


def of(specimen: Specimen) -> Census:
    """The census of a specimen: of its whole matrix, or as its extract recorded the groups.

    An extract's groups are those of the bytes it was taken from (for Q8_0: merged, never split).
    Raises SpecimenError where the extract recorded none.
    """
    if specimen.is_full:
        return duplicates(specimen.bits)
    if "row_group" not in specimen.arrays:
        raise SpecimenError(
            f"{specimen.id}: a census needs every row, and the extract at hand does not say which "
            f"are identical; run `python -m lib fetch {specimen.id}`"
        )
    return Census(specimen.array("row_group").astype(np.int64))


def _words(rows: np.ndarray) -> np.ndarray:
    """(n, words) the rows' bytes as the widest unsigned integers that fit, a view."""
    width = rows.shape[1] * rows.itemsize
    dtype = next(
        t for t in (np.uint64, np.uint32, np.uint16, np.uint8) if width % t().itemsize == 0
    )
    return rows.view(dtype)


def _prefix(words: np.ndarray) -> np.ndarray:
    """(n,) uint64: the first bytes of every row, short rows padded with zeros."""
    first = words[:, : PREFIX // words.itemsize]
    padded = np.zeros((len(words), PREFIX // words.itemsize), dtype=words.dtype)
    padded[:, : first.shape[1]] = first
    return padded.view(np.uint64)[:, 0]


def _sharing(words: np.ndarray) -> np.ndarray:
    """(m,) int64 indices, ascending, of the words that occur more than once."""
    ordered = np.sort(words)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return np.empty(0, dtype=np.int64)
    at = np.searchsorted(twice, words).clip(max=len(twice) - 1)
    return np.flatnonzero(twice[at] == words)


def _quick_marks(words: np.ndarray, ids: np.ndarray, step: int) -> np.ndarray:
    """(len(ids),) uint64: a multilinear mark of each row; different rows may share one."""
    rng = np.random.default_rng(SEED)
    factors = rng.integers(0, 2**63, words.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    out = np.empty(len(ids), dtype=np.uint64)
    for part in _parts(len(ids), step):
        block = words[ids[part]].astype(np.uint64, copy=False)
        out[part] = ((block ^ (block >> np.uint64(29))) * factors).sum(axis=1, dtype=np.uint64)
    return out


def _strong_marks(words: np.ndarray, ids: np.ndarray, step: int) -> np.ndarray:
    """(len(ids),) 16-byte voids: BLAKE2b of each row."""
    digests = [hashlib.blake2b(words[row], digest_size=16).digest() for row in ids]
    return np.array(digests, dtype="V16")


def _equal(words: np.ndarray, left: np.ndarray, right: np.ndarray, step: int) -> np.ndarray:
    """(n,) bool: whether rows left[i] and right[i] have the same bytes, `step` at a time."""
    same = np.empty(len(left), dtype=bool)
    for part in _parts(len(left), step):
        same[part] = (words[left[part]] == words[right[part]]).all(axis=1)
    return same


def _parts(rows: int, step: int) -> Iterable[slice]:
    """Slices over `rows`, under a progress bar where there are enough to take a second."""
    starts = range(0, rows, step)
    shown = progress.bar(starts, desc="census") if len(starts) > 1_000 else starts
    return (slice(start, start + step) for start in shown)
