"""What only a whole matrix can say, against the planted answers."""

import numpy as np
import pytest

from lib import lattice
from lib.analysis import clusters, crystal
from lib.analysis.clusters import Rule
from lib.extraction import planted

ANSWERS = planted.answers()


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


def test_constant_dimensions_and_what_centring_does_to_them():
    values = np.array(
        [[1.0, 2.0, 0.001], [1.0, 2.015625, 0.001], [1.0, 2.0, 0.00100708]], np.float32
    )
    bits = lattice.round_nearest(values)
    assert crystal.constant_dimensions(bits) == 1
    assert crystal.constant_dimensions(bits, np.zeros(3)) == 1
    assert (
        crystal.constant_dimensions(bits, np.array([0, 0, 1e6])) == 2
    )  # merged by the subtraction


@pytest.mark.parametrize("id", ["whisper-base", "qwen3-4b-base"])
def test_without_a_whole_bf16_matrix_there_is_none(id, capsys):
    assert clusters.find_cluster(id) is None
    assert "whole" in capsys.readouterr().out
