"""Spikes, voids and cluster rules: known answers, brute force, and nothing where nothing is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lib import paths
from lib.analysis import clusters
from lib.analysis.clusters import Rule
from lib.extraction import planted, specimens
from lib.extraction.catalogue import SpecimenError
from tests.small import specimen_of


@pytest.fixture
def rng():
    return np.random.default_rng(42)


def planted_specimen(seed: int, rows: int = 6_000, dim: int = 256):
    bits, _ = planted.matrix(rows=rows, dim=dim, seed=seed)
    return specimen_of("planted", bits, source=f"seed {seed}")


def test_the_spike_is_found_where_it_was_planted(rng):
    norms = np.concatenate([rng.normal(1, 0.1, 20_000), 0.8 + rng.uniform(0, 1e-5, 400)])
    found = clusters.find_spike(norms)
    assert 0.8 <= found.centre <= 0.8 + 1e-5 and 0 < found.width <= 1e-5
    assert found.rows == pytest.approx(400, abs=30)
    assert found.holds(norms).sum() == found.rows
    assert found.background < 20


def test_a_smooth_bell_has_no_spike(rng):
    assert clusters.find_spike(rng.normal(1, 0.1, 50_000)).surprise < 25


def test_norms_that_cannot_be_scanned_are_refused():
    with pytest.raises(ValueError, match="differ"):
        clusters.find_spike(np.ones(100))


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


def test_rows_at_distance_zero_have_no_ratio():
    r = np.concatenate([np.zeros(100), 1 + np.random.default_rng(42).random(1_000)])
    assert all(v.inner > 0 for v in clusters.voids(r))


@pytest.mark.parametrize("r", [[1.0, 2.0], [1, np.nan, 2], [-1, 0, 1], [0, 1, np.inf]])
def test_distances_that_are_none_are_refused(r):
    with pytest.raises(ValueError, match="void"):
        clusters.voids(np.array(r))


ANSWERS = planted.Answers


@pytest.mark.parametrize("seed", range(6))
def test_every_rule_finds_what_was_planted(seed):
    s = planted_specimen(seed)
    found = clusters.of(s)
    _, cluster = planted.matrix(rows=s.rows, dim=s.dim, seed=seed)
    assert found.census.holes == ANSWERS.holes
    members = found.memberships()
    assert list(members) == list(Rule)
    assert len(members[Rule.HOLES]) == ANSWERS.hole_rows
    populations = found.census.within(members[Rule.HOLES]).populations
    assert populations.tolist() == [*ANSWERS.populations]
    assert len(members[Rule.EXPONENTS]) == ANSWERS.exact_exponents
    assert (found.exponent_gaps <= 1).sum() == ANSWERS.within_one
    assert len(members[Rule.GRAPH]) == ANSWERS.graph
    assert np.array_equal(members[Rule.VOID], np.sort(cluster))
    assert np.array_equal(members[Rule.WIDEST_GAP], np.sort(cluster))
    assert found.void.rows == len(cluster)


def test_rules_agree_with_brute_force():
    s = planted_specimen(3, rows=1_800)
    found = clusters.of(s)
    members, anchor = found.memberships(), found.anchor
    W = s.values(slice(0, s.rows)).astype(np.float64)
    exponent = ((s.bits >> 7) & 0xFF).astype(int)
    gaps = np.abs(exponent - exponent[anchor]).max(axis=1)
    assert np.array_equal(found.exponent_gaps, gaps)
    exact = W[gaps == 0]
    box = ((exact.min(0) <= W) & (exact.max(0) >= W)).all(axis=1)
    assert np.array_equal(members[Rule.BOX], np.flatnonzero(box))
    core = np.linalg.norm(W - W[anchor], axis=1) < clusters.CORE_RADIUS
    assert np.array_equal(members[Rule.CORE], np.flatnonzero(core)) and core.sum() > 100
    for rule, metric, edge in (
        (Rule.KISSING, "chebyshev", clusters.KISSING),
        (Rule.GRAPH, "euclidean", clusters.GRAPH_EDGE),
    ):
        touching = cdist(W, W, metric) <= edge
        reached, frontier = {anchor}, [anchor]
        while frontier:
            new = set(np.flatnonzero(touching[frontier.pop()]).tolist()) - reached
            reached |= new
            frontier += new
        assert members[rule].tolist() == sorted(reached) and len(reached) > 100


def test_a_chain_is_followed_beyond_one_edge():
    """The graph's component grows outwards: a row reached only through others belongs to it."""
    s = planted_specimen(1, rows=1_500)
    cluster = clusters.of(s)
    bits = s.bits.copy()
    live = np.setdiff1d(np.arange(s.rows), cluster.members(Rule.VOID))[:3]
    step = np.zeros(s.dim)
    step[100] = 0.9 * clusters.GRAPH_EDGE
    for k, row in enumerate(live, 1):
        bits[row] = planted._round(s.values([cluster.anchor])[0] + k * step)
    chained = clusters.of(replace(s, matrix=bits))
    assert set(live) <= set(chained.members(Rule.GRAPH))


def test_nothing_is_found_in_random_rows():
    s = planted_specimen(0, rows=2_000)
    rng = np.random.default_rng(42)
    bits = planted._round(rng.normal(0, 0.05, (2_000, 64)))
    lonely = replace(s, description=replace(s.description, dim=64), matrix=bits)
    assert clusters.of(lonely).void is None
    bits[17] = bits[5]  # one pair of twins makes an anchor, but no cluster
    twins = clusters.of(replace(lonely, matrix=bits))
    assert twins.void is None and Rule.VOID not in twins.memberships()
    with pytest.raises(SpecimenError, match="beyond chance"):
        twins.members(Rule.VOID)


def test_a_cluster_without_identical_rows_is_found_by_its_spike():
    s = planted_specimen(4)
    _, cluster = planted.matrix(rows=s.rows, dim=s.dim, seed=4)
    rng = np.random.default_rng(4)
    bits = s.bits.copy()
    bits[:, 200:232] = (bits[:, 200:232] & 0xFF80) | rng.integers(48, 80, (s.rows, 32)).astype("u2")
    apart = clusters.of(replace(s, matrix=bits))
    assert apart.census.holes == 0
    members = apart.memberships()
    assert np.array_equal(members[Rule.VOID], np.sort(cluster))
    assert len(members[Rule.HOLES]) == 0
    assert len(members[Rule.EXPONENTS]) == ANSWERS.exact_exponents


def test_extracts_answer_the_rules_that_their_numbers_allow():
    gap, void = Rule.WIDEST_GAP, Rule.VOID
    for id, size, rules in (
        ("qwen2.5-coder-0.5b", 2_244, [Rule.HOLES, gap, void]),
        ("whisper-base", 51, [gap, void]),
    ):
        found = clusters.of(specimens.open(id))
        if not found.specimen.is_full:
            assert list(found.memberships()) == rules
            assert len(found.members(void)) == found.void.rows == size
            with pytest.raises(SpecimenError, match="whole matrix"):
                found.members(Rule.CORE)


@pytest.fixture(scope="module")
def cluster():
    return clusters.find_cluster("planted")


def test_rows_are_the_distinct_ones_of_the_members(cluster):
    for rule, answer in (
        (Rule.EXPONENTS, ANSWERS.exact_exponents),
        (Rule.GRAPH, ANSWERS.graph),
        (Rule.WIDEST_GAP, ANSWERS.void),
    ):
        bits, tokens = cluster.rows(rule)
        assert tokens.sum() == len(cluster.members(rule)) == answer, rule
        assert len(np.unique(bits, axis=0)) == len(bits) and (np.diff(tokens) <= 0).all()
    core = cluster.members(Rule.CORE)
    assert np.isin(core, cluster.members(Rule.GRAPH)).all() and cluster.anchor in core


def test_a_component_that_is_too_large_is_not_drawn(cluster, monkeypatch):
    monkeypatch.setattr(clusters, "GRAPH_LIMIT", 20)
    with pytest.raises(SpecimenError, match="too large"):
        cluster.rows(Rule.GRAPH)
    assert Rule.GRAPH not in cluster.memberships()


@pytest.mark.parametrize("id", ["whisper-base", "qwen3-4b-base"])
def test_without_a_whole_bf16_matrix_there_is_none(id, capsys):
    assert clusters.find_cluster(id) is None
    assert "whole" in capsys.readouterr().out


def test_what_is_at_hand_and_what_is_still_to_train(tmp_path, monkeypatch):
    for name in ("ARTIFACTS", "MADE", "FETCHED"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    assert [s.id for s in clusters.at_hand()] == ["qwen2.5-coder-0.5b", "whisper-base", "planted"]
    assert [d.id for d in clusters.to_train()] == ["flannel", "gatsby", "goldilocks"]
