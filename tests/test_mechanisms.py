"""Mechanisms: what a pattern counts, who is displaced, and what comes nearer to the print."""

import numpy as np
import pytest

from lib import lattice
from lib.analysis import census, mechanisms, qwen3
from lib.analysis.mechanisms import Mechanism


def printed() -> mechanisms.Pattern:
    holes = qwen3.thirteen()
    return mechanisms.pattern(holes.bits, holes.populations)


def test_the_printed_pattern():
    found = printed()
    assert (found.distinct, found.holes, found.varying) == (13, 13, 20)
    assert 0 < found.gapped <= found.several and found.correlation > 0.9


def test_a_planted_pattern_is_counted():
    bits = np.tile(lattice.round_nearest(np.float32([0.01, 0.02, 0.03, 0.04])), (6, 1))
    bits[3:, 1] += 3  # two modes, three steps apart
    bits[3:, 2] += 3
    bits[5, 3] += 1
    found = mechanisms.pattern(bits)
    assert found == mechanisms.Pattern(3, 2, 3, 2, 2, pytest.approx(1.0))
    weighted = mechanisms.pattern(bits[[0, 3, 5]], np.array([3, 2, 1]))
    assert weighted == found


def test_a_pattern_of_holes_leaves_single_rows_out():
    bits = np.tile(lattice.round_nearest(np.float32([0.01, 0.02, 0.03])), (5, 1))
    bits[2:4, 1] += 1
    bits[4, 2] += 9  # stands alone
    found = mechanisms.pattern(census.without_singles(bits))
    assert found == mechanisms.Pattern(2, 2, 1, 0, 0, 0.0)
    whole = mechanisms.pattern(bits)
    assert (whole.distinct, whole.holes, whole.varying, whole.several) == (3, 2, 2, 1)
    nothing = mechanisms.pattern(census.without_singles(bits[[0, 2, 4]]))
    assert nothing == mechanisms.Pattern(0, 0, 0, 0, 0, 0.0)


def test_groups_are_displaced_as_one():
    rng = np.random.default_rng(0)
    rows = (rng.normal(0, 0.01, 30) + 2e-6 * rng.standard_normal((40, 30))).astype(np.float32)
    for kind in (Mechanism.TWO_CASTS, Mechanism.SHARDS, Mechanism.LATE):
        group, shift = mechanisms.groups(rows, kind, np.random.default_rng(42))
        moved = np.stack([row + 1e-5 * shift[k] for row, k in zip(rows, group, strict=True)])
        found = lattice.ordinal(mechanisms.displaced(rows, kind, 1e-5, seed=42))
        wanted = lattice.ordinal(lattice.round_nearest(moved.astype(np.float32)))
        assert (found == wanted).mean() > 0.999 and np.abs(found - wanted).max() <= 1
    merged = mechanisms.displaced(rows[[0, 0, 1, 1]], Mechanism.HEAT, 1e-4)
    assert (merged[0] == merged[1]).all() and (merged[2] == merged[3]).all()
    assert (merged[0] != merged[2]).any()


@pytest.mark.slow
def test_few_points_moved_apart_come_nearer_to_the_print_than_a_cloud():
    wanted = printed()
    cloud = mechanisms.cloud(2e-9, rows=2212, steps=80)
    assert np.isclose(cloud.astype(np.float64).std(axis=0).mean(), 2e-9, rtol=0.1)
    names = ("distinct", "varying", "several", "gapped")

    def far(mechanism, size):
        moved = mechanisms.displaced(cloud, mechanism, size)
        found = mechanisms.pattern(census.without_singles(moved))
        pairs = [(getattr(found, name) + 1, getattr(wanted, name) + 1) for name in names]
        return sum(abs(np.log(a / b)) for a, b in pairs)

    assert min(far(Mechanism.HEAT, size) for size in (3e-8, 6e-8)) < far(Mechanism.NONE, 0.0)
