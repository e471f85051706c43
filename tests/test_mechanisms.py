"""Mechanisms: who is displaced."""

import numpy as np

from lib import lattice
from lib.analysis import mechanisms
from lib.analysis.mechanisms import Mechanism


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
