"""The printed files fit together, and do what the chapters take for granted."""

import numpy as np

from lib.analysis import qwen3
from lib.extraction import specimens
from tests.small import specimen_of


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


def test_the_sister_model_s_lists_fit_its_printed_census():
    members = qwen3.membership("qwen2.5-3b")
    facts = {one["model"]: one for one in qwen3.printed("census")["other_models"]}
    sister = facts["Qwen/Qwen2.5-3B-Instruct"]
    sizes = np.array([size for size, _ in members])
    assert (len(sizes), sizes.sum()) == (sister["holes"], sister["hole_rows"])
    assert sister["rows"] - sister["unique"] == (sizes - 1).sum()
    assert sizes[:2].tolist() == sister["largest"] and (np.diff(sizes) <= 0).all()
    assert all(len(known) == min(size, 20) for size, known in members)
    assert all((np.diff(known) > 0).all() for _, known in members)
    every = np.concatenate([known for _, known in members])
    assert len(np.unique(every)) == len(every) and every.max() < sister["rows"]


def test_of_the_large_holes_the_smallest_and_the_largest_ids_are_known():
    known = [ids for _, ids in qwen3.membership()]
    every = np.concatenate(known)
    assert len(np.unique(every)) == len(every)
    low = min(ids[19] for ids in known[:4])  # below it the list of every hole is complete
    assert set(qwen3.hole_ids()[qwen3.hole_ids() <= low]) <= set(every)
    assert set(qwen3.hole_ids()[-10:]) <= set(every)


def test_the_outliers_lie_in_the_void_and_beyond_the_others():
    found = qwen3.outliers()
    assert len(set(found["token_ids"])) == len(found["distances"]) == 10
    assert min(found["distances"]) > found["nearest_other"]
    beside = set(found["token_ids"]) - set(qwen3.cluster_ids())
    rules = qwen3.printed("census")["rules"]
    assert len(beside) == rules["radius void"]["tokens"] - rules["L2 graph"]["tokens"]
    assert len(found["under_trained"]["norms"]) == len(found["under_trained"]["token_ids"])
    assert (np.diff(found["under_trained"]["norms"]) >= 0).all()


def test_the_spike_is_the_lowest_percent():
    spike = qwen3.printed("spike")
    assert spike["tokens"] <= np.ceil(spike["rows"] * spike["percentile"] / 100)
    assert (np.diff(spike["first_ids"]) > 0).all()


def test_the_printed_figures_hang_together():
    facts = qwen3.printed("figures")
    assert facts["populations"] == qwen3.thirteen().populations.tolist()
    assert np.array_equal(qwen3.cluster_ids(), np.sort([*qwen3.hole_ids(), *qwen3.singleton_ids()]))
    assert qwen3.thirteen().names[0] == "H1" and len(qwen3.thirteen().names) == 13
    assert set(qwen3.printed("comparison")) and set(qwen3.printed("census"))


def test_a_claim_about_the_matrix_is_settled_by_nothing_else():
    other = qwen3.measured_on(specimens.open("planted"), "census")(13)
    assert (other.value, other.setting) == (None, "")
    rows = np.zeros((4, 2), np.uint16)
    itself = specimen_of(qwen3.MODEL, rows, source="here")
    found = qwen3.measured_on(itself, "census")(13)
    assert (found.value, found.setting) == (13, f"census of {itself.description.model}")
