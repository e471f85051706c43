"""Voids and cluster rules: known answers, brute force, and nothing found where nothing is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lib.analysis import census, clusters
from lib.extraction import catalogue, planted, specimens


def planted_specimen(seed: int, rows: int = 6_000, dim: int = 256):
    description = catalogue.find("planted")
    return planted.read(replace(description, rows=rows, dim=dim), catalogue.Planted(seed))


# ---------------------------------------------------------------- voids
def test_a_smooth_cloud_has_no_void():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        for dimensions in (1, 2, 30):
            assert clusters.significant_void(rng.random(3_000) ** (1 / dimensions)) is None


def test_surprise_is_exponential_for_a_power_law():
    rng = np.random.default_rng(42)
    for dimensions in (1, 4):
        r = np.sort(rng.random(20_000) ** (1 / dimensions))
        k = np.arange(1, len(r))
        s = k * np.log(r[1:] / r[:-1]) * dimensions
        assert abs(s.mean() - 1) < 0.03 and abs(s.std() - 1) < 0.04


def test_a_void_is_found_at_any_scale():
    rng = np.random.default_rng(42)
    r = np.concatenate([rng.random(50) * 1e-5, 2e-3 + rng.random(50_000)])
    for scale in (1e-12, 1.0, 1e9):
        found = clusters.significant_void(scale * r)
        assert found.rows == 50 and found.outer >= scale * 2e-3
    assert clusters.widest_void(r, nearest=10_000).rows == 50


def test_the_widest_gap_depends_on_its_net_and_the_surprise_does_not():
    bulk = 2e-3 * np.exp(np.linspace(0, 8, 400))  # gaps grow with the distance: no void
    r = np.concatenate([np.random.default_rng(42).random(60) * 1e-5, bulk])
    assert clusters.significant_void(r).rows == 60
    assert clusters.widest_void(r, nearest=100).rows == 60
    assert clusters.widest_void(r, nearest=460).rows > 400


def test_the_rim_of_the_whole_is_no_void():
    r = np.concatenate([np.random.default_rng(42).random(1_000), [50.0, 51.0]])
    assert clusters.significant_void(r) is None
    assert clusters.voids(r, fraction=1.0 - 1e-9)[0].rows == 1_000


def test_rows_at_distance_zero_have_no_ratio():
    r = np.concatenate([np.zeros(100), 1 + np.random.default_rng(42).random(1_000)])
    assert all(v.inner > 0 for v in clusters.voids(r))


@pytest.mark.parametrize("r", [[1.0, 2.0], [1, np.nan, 2], [-1, 0, 1], [0, 1, np.inf]])
def test_distances_that_are_none_are_refused(r):
    with pytest.raises(ValueError, match="void"):
        clusters.voids(np.array(r))


# ---------------------------------------------------------------- rules
@pytest.mark.parametrize("seed", range(6))
def test_every_rule_finds_what_was_planted(seed):
    s, answer = planted_specimen(seed), planted.answers()
    count = census.of(s)
    _, cluster = planted.matrix(rows=s.rows, dim=s.dim, seed=seed)
    assert count.holes == answer.holes
    found = {(m.rule, m.setting): m.ids for m in clusters.memberships(s, count)}
    by_rule = {rule: ids for (rule, _), ids in found.items() if rule is not clusters.Rule.LADDER}
    assert len(by_rule[clusters.Rule.HOLES]) == answer.hole_rows
    assert count.within(by_rule[clusters.Rule.HOLES]).populations.tolist() == [*answer.populations]
    assert len(by_rule[clusters.Rule.EXPONENTS]) == answer.exact_exponents
    assert len(found[clusters.Rule.LADDER, "exponents within 1"]) == answer.within_one
    assert len(by_rule[clusters.Rule.GRAPH]) == answer.graph
    assert np.array_equal(by_rule[clusters.Rule.VOID], np.sort(cluster))
    assert np.array_equal(by_rule[clusters.Rule.WIDEST_GAP], np.sort(cluster))
    assert np.array_equal(clusters.dead_ball(s, count).ids, np.sort(cluster))


def test_rules_agree_with_brute_force():
    s = planted_specimen(3, rows=1_800)
    count = census.of(s)
    anchor = int(count.first_ids[0])
    W = s.values(slice(0, s.rows)).astype(np.float64)
    exponent = ((s.bits >> 7) & 0xFF).astype(int)
    gaps = np.abs(exponent - exponent[anchor]).max(axis=1)
    found = {(m.rule, m.setting): m.ids for m in clusters.memberships(s, count)}
    ladder = [ids for (rule, _), ids in found.items() if rule is clusters.Rule.LADDER]
    assert len(ladder) == 15
    for tolerance, ids in enumerate(ladder, 1):
        assert np.array_equal(ids, np.flatnonzero(gaps <= tolerance))
    exact = W[gaps == 0]
    box = ((exact.min(0) <= W) & (exact.max(0) >= W)).all(axis=1)
    by_rule = {rule: ids for (rule, _), ids in found.items()}
    assert np.array_equal(by_rule[clusters.Rule.BOX], np.flatnonzero(box))
    core = np.linalg.norm(W - W[anchor], axis=1) < clusters.CORE_RADIUS
    assert np.array_equal(by_rule[clusters.Rule.CORE], np.flatnonzero(core)) and core.sum() > 100
    for rule, metric, edge in (
        (clusters.Rule.KISSING, "chebyshev", clusters.KISSING),
        (clusters.Rule.GRAPH, "euclidean", clusters.GRAPH_EDGE),
    ):
        touching = cdist(W, W, metric) <= edge
        reached, frontier = {anchor}, [anchor]
        while frontier:
            new = set(np.flatnonzero(touching[frontier.pop()]).tolist()) - reached
            reached |= new
            frontier += new
        assert by_rule[rule].tolist() == sorted(reached) and len(reached) > 100


def test_a_chain_is_followed_beyond_one_edge():
    """The graph's component grows outwards: a row reached only through others belongs to it."""
    s = planted_specimen(1, rows=1_500)
    count = census.of(s)
    bits = s.bits.copy()
    anchor = int(count.first_ids[0])
    live = np.setdiff1d(np.arange(s.rows), clusters.dead_ball(s, count).ids)[:3]
    step = np.zeros(s.dim)
    step[100] = 0.9 * clusters.GRAPH_EDGE
    for k, row in enumerate(live, 1):
        bits[row] = planted._round(s.values([anchor])[0] + k * step)
    chained = replace(s, matrix=bits)
    ids = {m.rule: m.ids for m in clusters.memberships(chained, census.of(chained))}
    assert set(live) <= set(ids[clusters.Rule.GRAPH])


def test_nothing_is_found_in_random_rows():
    s = planted_specimen(0, rows=2_000)
    rng = np.random.default_rng(42)
    bits = planted._round(rng.normal(0, 0.05, (2_000, 64)))
    lonely = replace(s, description=replace(s.description, dim=64), matrix=bits)
    assert clusters.dead_ball(lonely, census.of(lonely)) is None
    bits[17] = bits[5]  # one pair of twins makes an anchor, but no cluster
    twins = replace(lonely, matrix=bits)
    assert clusters.dead_ball(twins, census.of(twins)) is None


def test_a_cluster_without_identical_rows_is_found_by_its_spike():
    s, answer = planted_specimen(4), planted.answers()
    _, cluster = planted.matrix(rows=s.rows, dim=s.dim, seed=4)
    rng = np.random.default_rng(4)
    bits = s.bits.copy()
    bits[:, 200:232] = (bits[:, 200:232] & 0xFF80) | rng.integers(48, 80, (s.rows, 32)).astype("u2")
    apart = replace(s, matrix=bits)
    count = census.of(apart)
    assert count.holes == 0
    ids = {m.rule: m.ids for m in clusters.memberships(apart, count)}
    assert np.array_equal(ids[clusters.Rule.VOID], np.sort(cluster))
    assert len(ids[clusters.Rule.HOLES]) == 0
    assert len(ids[clusters.Rule.EXPONENTS]) == answer.exact_exponents


def test_extracts_answer_the_rules_that_their_numbers_allow():
    for id, size in (("qwen2.5-coder-0.5b", 2_244), ("whisper-base", 51)):
        s = specimens.open(id)
        if s.is_full:
            continue
        count = census.Census(np.arange(s.rows)) if id == "whisper-base" else census.of(s)
        assert len(clusters.dead_ball(s, count).ids) == size
