"""The census: exact on every matrix, whatever its digests, its dtype or its size in blocks."""

import tracemalloc

import numpy as np
import pytest

from lib import lattice
from lib.analysis import census
from lib.extraction import specimens
from lib.extraction.catalogue import SpecimenError
from tests.oracles import first_identical

QWEN3 = [814, 704, 306, 228, 11, 10, 6, 5, 4, 4, 3, 3, 2]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 3, 4, 9, 64])
def test_groups_are_those_of_a_dictionary(dtype, dim):
    rng = np.random.default_rng(dim)
    for rows in (0, 1, 2, 300):
        W = rng.integers(0, 2, (rows, dim)).astype(dtype)
        W[:, : dim // 2] = 0  # the same first bytes: every row is a candidate
        assert np.array_equal(census.duplicates(W).group, first_identical(W))


def test_equal_digests_do_not_make_rows_equal(monkeypatch):
    zeros = lambda words, ids, step: np.zeros(len(ids), np.uint64)  # noqa: E731
    monkeypatch.setattr(census, "_quick_marks", zeros)
    W = np.random.default_rng(42).integers(0, 2, (200, 12)).astype(np.uint16)
    W[:, :4] = 0
    assert np.array_equal(census.duplicates(W).group, first_identical(W))


def test_not_even_equal_strong_digests(monkeypatch):
    zeros = lambda words, ids, step: np.zeros(len(ids), np.uint64)  # noqa: E731
    monkeypatch.setattr(census, "_quick_marks", zeros)
    monkeypatch.setattr(census, "_strong_marks", zeros)
    W = np.random.default_rng(42).integers(0, 2, (200, 12)).astype(np.uint16)
    W[:, :4] = 0
    assert np.array_equal(census.duplicates(W).group, first_identical(W))


def test_rows_made_to_share_the_quick_mark_are_told_apart():
    W = np.zeros((4, 6), np.uint64)
    x = 2**63 + 2**34 + 2**5  # becomes 2**63 when mixed; twice that is nothing, modulo 2**64
    W[1, [2, 3]] = W[2, [3, 4]] = x
    marks = census._quick_marks(W, np.arange(4), 4)
    assert len(np.unique(marks)) == 1
    assert census.duplicates(W).group.tolist() == [0, 1, 2, 0]


def test_small_blocks_change_nothing(monkeypatch):
    W = np.random.default_rng(42).integers(0, 2, (500, 10)).astype(np.uint16)
    monkeypatch.setattr(census, "BLOCK_BYTES", 1)
    assert np.array_equal(census.duplicates(W).group, first_identical(W))


def test_rows_are_bits_not_numbers():
    W = np.zeros((4, 8), np.float32)
    W[1, 5] = -0.0
    W[2:, 3] = np.nan
    found = census.duplicates(W)
    assert found.group.tolist() == [0, 1, 2, 2]


def test_all_counts_at_the_size_of_a_vocabulary():
    rng = np.random.default_rng(42)
    W = rng.integers(0, 2**16, (151_936, 16), dtype=np.uint16)
    W[:, :4] = 7  # worst case for the prefix
    ids = rng.permutation(len(W))
    at, holes = 0, []
    for population in QWEN3:
        members = np.sort(ids[at : at + population])
        W[members] = W[members[0]]
        holes.append(members)
        at += population
    found = census.duplicates(W)
    assert found.populations.tolist() == QWEN3 and found.holes == 13
    assert (found.unique, found.surplus, found.hole_rows) == (149_849, 2_087, 2_100)
    assert found.zero_pairs == 651_034 and found.singletons == 151_936 - 2_100
    assert [len(members) for members in found.members] == QWEN3
    assert sorted(m.tolist() for m in found.members) == sorted(h.tolist() for h in holes)
    assert np.array_equal(found.in_holes, np.sort(np.concatenate(holes)))


def test_a_part_of_a_census():
    W = np.array([[1], [2], [1], [3], [2], [1]], dtype=np.uint16)
    found = census.duplicates(W)
    part = found.within(np.array([0, 1, 2, 3]))
    assert (part.unique, part.singletons, part.populations.tolist()) == (3, 2, [2])
    assert found.within(np.array([], dtype=int)).unique == 0


def test_the_matrix_is_not_copied(tmp_path):
    rows, dim = 40_000, 512
    path = tmp_path / "w.bin"
    W = np.memmap(path, np.uint16, "w+", shape=(rows, dim))
    W[:] = np.random.default_rng(42).integers(0, 2**16, (rows, dim), dtype=np.uint16)
    W[:20_000, :8] = 1
    W[5] = W[3]
    tracemalloc.start()
    found = census.duplicates(W)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.populations.tolist() == [2]
    assert peak < 200 * rows + 4 * 2**20 < W.nbytes / 3


@pytest.mark.parametrize("W", [np.zeros(5), np.zeros((5, 0)), np.zeros((5, 4))[:, ::2]])
def test_what_is_no_matrix_of_rows_is_refused(W):
    with pytest.raises(SpecimenError, match="census"):
        census.duplicates(W)


def test_the_extract_s_groups_are_those_of_its_rows():
    s = specimens.open("qwen2.5-coder-0.5b")
    if s.is_full:
        pytest.skip("the whole matrix is here")
    found = census.of(s)
    blocks = np.concatenate(
        [s.array("dead_scale").view(np.uint8), s.array("dead_q").view(np.uint8)], 1
    )
    own = census.duplicates(blocks)
    assert np.array_equal(s.dead_ids[own.group], found.group[s.dead_ids])
    assert found.hole_rows == own.hole_rows


def test_demographics_count_bits_and_steps():
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [0.0, 2.0]], np.float32)
    found = census.demographics(lattice.round_nearest(rows))
    assert found.populations.tolist() == [2, 1, 1]
    assert (found.unique, found.holes, found.tokens, found.largest) == (3, 1, 2, 2)
    assert found.linf == 128
    assert found.varying == 1  # -0 and +0 are two rows and one place on the line
    assert census.demographics(np.arange(6, dtype=np.uint16)[:, None]).largest == 1


def test_single_rows_are_left_out_and_the_others_keep_their_order():
    rows = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4], [7, 8]], np.int64)
    assert census.without_singles(rows).tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]
    assert census.without_singles(rows[:2]).shape == (0, 2)
