"""Graphs on rows whose adjacencies are known under every rule."""

import numpy as np
import pytest

from lib import lattice
from lib.analysis import graph, qwen3
from lib.analysis.graph import Adjacency

BASE = lattice.round_nearest(np.array([0.01, -0.01, 0.012, 1e-6], dtype=np.float32))


def rows(*offsets):
    """Rows at lattice offsets (n, 4) from BASE."""
    return lattice.from_ordinal(lattice.ordinal(BASE) + np.array(offsets))


def pairs(bits, rule, **options):
    return {tuple(e) for e in graph.build(bits, rule, **options).edges.tolist()}


def test_every_rule_says_what_its_name_says():
    bits = rows([0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 5], [2, 0, 0, 0])
    assert pairs(bits, Adjacency.ONE_STEP) == {(0, 1), (1, 2), (1, 4)}
    assert pairs(bits, Adjacency.NEIGHBOUR) == {(0, 1), (0, 2), (1, 2), (1, 4), (2, 4)}
    assert pairs(bits, Adjacency.ONE_DIMENSION) == {(0, 1), (0, 3), (0, 4), (1, 2), (1, 4)}
    # a step at 0.01 is 2^-14 = 1.024 epsilon: not within epsilon, but within two; two steps are not
    assert pairs(bits, Adjacency.EPSILON) == {(0, 3)}
    assert pairs(bits, Adjacency.KISSING) == {
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 2),
        (1, 3),
        (2, 3),
        (1, 4),
        (2, 4),
    }
    assert graph.build(bits, Adjacency.L2).is_complete


def test_steps_cross_zero_and_binade_edges():
    tiny = np.array([[0x8001], [0x0001], [0x0000]], dtype=np.uint16)
    assert pairs(tiny, Adjacency.NEIGHBOUR) == {(0, 2), (1, 2)}
    edge = np.array([[0x3F7F], [0x3F80], [0x3F81]], dtype=np.uint16)
    assert pairs(edge, Adjacency.ONE_STEP) == {(0, 1), (1, 2)}


def test_components_degree_tokens():
    bits = rows([0, 0, 0, 0], [1, 0, 0, 0], [9, 9, 9, 9], [2, 0, 0, 0])
    found = graph.build(bits, Adjacency.NEIGHBOUR, populations=np.array([1, 2, 50, 4]))
    assert found.degree.tolist() == [1, 2, 0, 1] and found.isolated == 1
    assert found.components == 2 and found.tokens(0) == 50 and found.tokens(1) == 7
    assert found.labels.tolist() == [1, 1, 0, 1] and not found.is_complete
    assert found.networkx().nodes[2]["tokens"] == 50


def test_float16_rows_have_float16_steps():
    half = np.array([[0.01], [0.01]], dtype=np.float16).view(np.uint16) + np.array([[0], [1]], "u2")
    assert pairs(half, Adjacency.NEIGHBOUR, precision="F16") == {(0, 1)}
    gap = float(graph.distances(half, Adjacency.EPSILON, precision="F16")[0, 1])
    assert gap == np.spacing(np.float16(0.01))


def test_duplicates_are_refused():
    with pytest.raises(ValueError, match="distinct rows"):
        graph.build(rows([0, 0, 0, 0], [0, 0, 0, 0]), Adjacency.L2)


def test_the_printed_thirteen():
    cluster = qwen3.thirteen()
    apart = graph.distances(cluster.bits, Adjacency.NEIGHBOUR)[np.triu_indices(13, 1)]
    assert (apart.min(), apart.max()) == (1, 11)
    found = graph.every(cluster.bits, populations=cluster.populations)
    assert len(found[Adjacency.NEIGHBOUR].edges) == 10
    assert found[Adjacency.KISSING].is_complete and found[Adjacency.KISSING].tokens() == 2100
    hamming = graph.distances(cluster.bits, Adjacency.ONE_DIMENSION)[np.triu_indices(13, 1)]
    assert (hamming.min(), hamming.max()) == (1, 14)
    loop = sum(
        np.abs(cluster.ordinals[i] - cluster.ordinals[j]).max() <= 1
        for i in range(13)
        for j in range(i)
    )
    assert loop == 10
