"""Rows rounded alike stay together; what parts them is how their sums are cut, and nothing else."""

import numpy as np
import pytest

from lib import lattice
from lib.analysis import alike
from lib.analysis.alike import Blocks, Sums

SMALL = Blocks(rows=24, blocks=4, dim=16, tokens=12, steps=60, snapshots=3)


def terms(scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(42).standard_normal((30, 8))).astype(np.float32)


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_a_cut_sum_is_the_sum_but_for_rounding(parts):
    exact = terms().astype(np.float64).sum(axis=0)
    size = np.abs(terms()).sum(axis=0)
    for sums, error in ((Sums.FLOAT32, 2e-6), (Sums.CAST, 2**-8), (Sums.PARTS, 2**-7)):
        assert (np.abs(alike.split_sum(terms(), parts, sums) - exact) <= error * size).all()


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_in_bfloat16_are_rounded_one_by_one(parts):
    pieces = [piece.sum(axis=0) for piece in np.array_split(terms(), parts)]
    rounded = [lattice.value(lattice.round_nearest(piece)) for piece in pieces]
    total = np.stack(rounded).sum(axis=0)
    found = alike.split_sum(terms(), parts, Sums.PARTS)
    assert np.array_equal(found, lattice.value(lattice.round_nearest(total)))


def test_without_rounding_errors_no_cut_can_be_seen():
    whole = np.random.default_rng(42).integers(-4, 5, (30, 8)).astype(np.float32)
    for sums in Sums:
        assert all(
            np.array_equal(alike.split_sum(whole, k, sums), whole.sum(axis=0)) for k in range(1, 9)
        )


@pytest.mark.parametrize("sums", list(Sums))
def test_rows_of_one_block_stay_one_row_and_blocks_part(sums):
    history = alike.run(Blocks(**vars(SMALL) | {"sums": sums}))
    assert history.rows.shape == (4, 24, 16) and history.rows.dtype == np.float32
    block = np.arange(24) * 4 // 24
    for k in range(4):
        assert (history.rows[:, block == k] == history.rows[:, block == k][:, :1]).all()
    if sums is not Sums.CAST:  # a cast rarely shows the last bits of so short a run
        assert len(np.unique(history.rows[-1], axis=0)) > 1 and history.error > 0


def test_one_block_or_no_cut_keeps_one_point():
    for change in ({"blocks": 1}, {"every": 1000}):
        history = alike.run(Blocks(**vars(SMALL) | {"sums": Sums.PARTS} | change))
        assert len(np.unique(history.rows[-1], axis=0)) == 1 and history.error == 0


def test_decay_draws_independent_starts_together_by_the_law():
    history = alike.run(Blocks(**vars(SMALL) | {"spread": 0.1, "steps": 300}))
    wide = history.rows.astype(np.float64).std(axis=1).mean(axis=1)
    assert np.allclose(wide / wide[0], np.exp(-history.exposure), rtol=1e-3)
