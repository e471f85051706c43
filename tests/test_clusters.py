"""Spikes, voids and cluster rules: known answers, brute force, and nothing where nothing is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lib import paths
from lib.analysis import census, clusters
from lib.analysis.clusters import Rule
from lib.extraction import planted, specimens
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
    assert clusters.voids(r, fraction=1.0 - 1e-9)[0].rows == 1_000


def test_rows_at_distance_zero_have_no_ratio():
    r = np.concatenate([np.zeros(100), 1 + np.random.default_rng(42).random(1_000)])
    assert all(v.inner > 0 for v in clusters.voids(r))


@pytest.mark.parametrize("r", [[1.0, 2.0], [1, np.nan, 2], [-1, 0, 1], [0, 1, np.inf]])
def test_distances_that_are_none_are_refused(r):
    with pytest.raises(ValueError, match="void"):
        clusters.voids(np.array(r))


@pytest.mark.parametrize("seed", range(6))
def test_every_rule_finds_what_was_planted(seed):
    s, answer = planted_specimen(seed), planted.Answers
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
    s, answer = planted_specimen(4), planted.Answers
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


ANSWERS = planted.Answers


@pytest.fixture(scope="module")
def cluster():
    return clusters.find_cluster("planted")


def test_members_are_those_that_were_planted(cluster):
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
    with pytest.raises(ValueError, match="not offered"):
        cluster.members(Rule.LADDER)


def test_holes_are_the_clusters_own(cluster):
    bits, tokens = cluster.holes
    assert tuple(tokens) == ANSWERS.populations  # the live twins are left out
    assert len(bits) == len(np.unique(bits, axis=0))
    assert len(cluster.phantoms()) == ANSWERS.holes and sum(cluster.phantoms()) == 0


def test_the_sample_is_of_live_rows(cluster):
    rows = cluster.sample(50, rng=np.random.default_rng(0))
    dead = cluster.specimen.values(cluster.members(Rule.WIDEST_GAP))
    assert rows.shape == (50, cluster.specimen.dim)
    assert rows.std() > 3 * dead.std()


@pytest.mark.parametrize("id", ["whisper-base", "qwen3-4b-base"])
def test_without_a_whole_bf16_matrix_there_is_none(id, capsys):
    assert clusters.find_cluster(id) is None
    assert "whole" in capsys.readouterr().out


def test_a_survey_points_every_instrument_at_a_matrix():
    found = clusters.survey(planted_specimen(2))
    assert found.census.holes == ANSWERS.holes and len(found.ball.ids) == ANSWERS.void
    assert found.spike == clusters.find_spike(found.specimen.norms)
    cells = found.cells()
    assert len(cells) == len(clusters.SURVEY_HEADERS) == len(clusters.SURVEY_ALIGN)
    assert cells[1:5] == ["6,000", "256", "BF16", str(ANSWERS.holes)]
    coder = specimens.open("qwen2.5-coder-0.5b")
    if not coder.is_full:  # of a quantised matrix counts stand in brackets
        assert all(
            cell[0] == "(" and cell[-1] == ")" for cell in clusters.survey(coder).cells()[4:7]
        )
    lonely = specimen_of(
        "lonely", planted._round(np.random.default_rng(0).normal(size=(400, 16))), source="random"
    )
    assert clusters.survey(lonely).cells()[4:9] == ["0", "0", "0", "none", "–"]


def test_what_is_at_hand_and_what_is_still_to_train(tmp_path, monkeypatch):
    for name in ("ARTIFACTS", "MADE", "FETCHED"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    assert [s.id for s in clusters.at_hand()] == ["qwen2.5-coder-0.5b", "whisper-base", "planted"]
    assert [d.id for d in clusters.to_train()] == ["flannel", "gatsby", "goldilocks"]
