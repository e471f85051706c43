"""The printed files fit together, and do what the chapters take for granted."""

import numpy as np

from lib.analysis import qwen3


def test_the_thirteen_fit_their_census():
    cluster = qwen3.thirteen()
    assert cluster.bits.shape == (13, 20) and cluster.populations.sum() == 2100
    assert (np.diff(cluster.populations) <= 0).all()
    assert (cluster.displacement[0] == 0).all()
    assert (np.ptp(cluster.ordinals, axis=0) > 0).all()


def test_exponents_cover_all_dimensions_and_the_printed_extremes():
    exponents, counts = np.unique(qwen3.exponents(), return_counts=True)
    assert counts.sum() == 2560
    largest = max(
        abs(qwen3.printed("lattice")["component_min"]), qwen3.printed("lattice")["component_max"]
    )
    assert 2.0 ** (exponents.max() - 127) <= largest < 2.0 ** (exponents.max() - 126)


def test_members_and_ids_agree():
    ids, single = qwen3.hole_ids(), qwen3.singleton_ids()
    assert len(ids) == 2100 and len(single) == 112 and not set(ids) & set(single)
    members = qwen3.membership()
    assert [size for size, _ in members] == qwen3.thirteen().populations.tolist()
    for rank, (size, known) in enumerate(members, start=1):
        assert set(known) <= set(ids)
        assert len(known) == size if rank > 4 else len(known) >= 30
