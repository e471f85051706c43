"""Graphs on rows whose adjacencies are known; the neighbour search against brute force."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib import lattice
from lib.__main__ import main
from lib.analysis import graph, qwen3
from lib.analysis.graph import Adjacency
from lib.extraction.catalogue import SpecimenError
from tests import oracles

BASE = lattice.round_nearest(np.array([0.01, -0.01, 0.012, 1e-6], dtype=np.float32))


def beside(*offsets):
    """Rows at lattice offsets (n, 4) from BASE."""
    return lattice.from_ordinal(lattice.ordinal(BASE) + np.array(offsets))


def pairs(bits, rule, **options):
    return {tuple(e) for e in graph.build(bits, rule, **options).edges.tolist()}


def test_every_rule_says_what_its_name_says():
    bits = beside([0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 5], [2, 0, 0, 0])
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
    bits = beside([0, 0, 0, 0], [1, 0, 0, 0], [9, 9, 9, 9], [2, 0, 0, 0])
    found = graph.build(bits, Adjacency.NEIGHBOUR, populations=np.array([1, 2, 50, 4]))
    assert found.degree.tolist() == [1, 2, 0, 1] and found.isolated == 1
    assert found.components == 2 and found.tokens == 50
    assert found.labels.tolist() == [1, 1, 0, 1] and not found.is_complete
    assert found.density == pytest.approx(2 / 6)
    assert sorted(found.networkx().edges) == [(0, 1), (1, 3)] and len(found.networkx()) == 4
    alone = graph.build(bits[:1], Adjacency.NEIGHBOUR)
    assert alone.is_complete and alone.components == alone.isolated == 1


def test_float16_rows_have_float16_steps():
    half = np.array([[0.01], [0.01]], dtype=np.float16).view(np.uint16) + np.array([[0], [1]], "u2")
    assert pairs(half, Adjacency.NEIGHBOUR, precision="F16") == {(0, 1)}
    gap = float(graph.distances(half, Adjacency.EPSILON, precision="F16")[0, 1])
    assert gap == np.spacing(np.float16(0.01))


def test_duplicates_are_refused():
    with pytest.raises(ValueError, match="distinct rows"):
        graph.build(beside([0, 0, 0, 0], [0, 0, 0, 0]), Adjacency.L2)


def test_the_printed_thirteen():
    cluster = qwen3.thirteen()
    apart = graph.distances(cluster.bits, Adjacency.NEIGHBOUR)[np.triu_indices(13, 1)]
    assert (apart.min(), apart.max()) == (1, 11)
    found = graph.every(cluster.bits, populations=cluster.populations)
    assert len(found[Adjacency.NEIGHBOUR].edges) == 10
    assert found[Adjacency.KISSING].is_complete and found[Adjacency.KISSING].tokens == 2100
    hamming = graph.distances(cluster.bits, Adjacency.ONE_DIMENSION)[np.triu_indices(13, 1)]
    assert (hamming.min(), hamming.max()) == (1, 14)
    loop = sum(
        np.abs(cluster.ordinals[i] - cluster.ordinals[j]).max() <= 1
        for i in range(13)
        for j in range(i)
    )
    assert loop == 10


def rows(seed, count, dim, sigma=0.02):
    rng = np.random.default_rng(seed)
    return lattice.round_nearest(rng.normal(0, sigma, (count, dim)).astype(np.float32))


def moved(bits, offsets):
    """Rows displaced by `offsets` lattice steps."""
    return lattice.from_ordinal(lattice.ordinal(bits) + offsets)


def plant(bits, rng, pairs, steps):
    """Overwrite the second half's first `pairs` rows by neighbours of the first rows."""
    half = len(bits) // 2
    offsets = rng.integers(-steps, steps + 1, (pairs, bits.shape[1]))
    offsets[np.arange(pairs), rng.integers(0, bits.shape[1], pairs)] = steps  # distinct, and far
    bits[half : half + pairs] = moved(bits[:pairs], offsets)
    return bits


def agrees(bits, steps):
    found = graph.search(bits, steps)
    np.testing.assert_array_equal(found.edges, oracles.neighbours(bits, steps))
    return found


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 40, 300])
def test_planted_neighbours_are_found_and_nothing_else(steps):
    rng = np.random.default_rng(steps)
    bits = plant(rows(1, 600, 48), rng, 100, steps) if steps else rows(1, 600, 48)
    found = agrees(bits, steps)
    assert len(found.edges) >= (100 if steps else 0)
    if steps:
        one_less = graph.search(bits, steps - 1).edges.tolist()
        assert not {(i, 300 + i) for i in range(100)} & set(map(tuple, one_less))
        assert (np.abs(lattice.steps(bits[:100], bits[300:400])).max(axis=1) == steps).all()


def test_neighbours_on_both_sides_of_every_wall():
    """One row exactly on a cell's wall in all dimensions, its neighbours on every side."""
    base = np.full(12, (122 << 7) + graph.WIDTH // 2, dtype=np.uint16)
    rng = np.random.default_rng(42)
    offsets = rng.integers(-1, 2, (400, 12))
    offsets[0] = 0
    bits = np.concatenate([moved(base[None], offsets), rows(2, 300, 12)])
    found = agrees(bits, 1)
    assert len(found.edges) > 300
    ordinals = lattice.ordinal(bits)
    filed, _ = graph._buckets(ordinals[:, :4], 1)
    assert len(filed) > 2 * len(bits)  # the test stands on walls indeed


def test_zero_binade_edges_and_signs():
    line = np.array([0x8002, 0x8001, 0x8000, 0x0000, 0x0001, 0x3F7F, 0x3F80, 0xBF80], np.uint16)
    found = agrees(np.repeat(line[:, None], 3, axis=1), 1)
    assert found.edges.tolist() == [[0, 1], [1, 2], [1, 3], [2, 3], [2, 4], [3, 4], [5, 6]]


def test_black_holes_are_one_vector_with_many_tokens():
    bits = rows(3, 200, 32)
    bits[50:60] = bits[7]
    bits[60] = moved(bits[7:8], np.eye(32, dtype=int)[:1])
    bits[61:63] = bits[100]  # a hole without neighbour
    found = agrees(bits, 1)
    assert found.edges.tolist() == [[7, 60]]
    assert found.touched.tolist() == [7, 60] and found.components == 1
    assert found.rows_with_neighbour.tolist() == [7, *range(50, 61)]
    assert found.share_without == pytest.approx(1 - 12 / 200)
    assert found.share_alone == pytest.approx(1 - 15 / 200)


def test_components_are_numbered_by_size():
    bits = rows(4, 100, 16)
    bits[90] = moved(bits[0:1], np.eye(16, dtype=int)[:1])
    bits[91] = moved(bits[0:1], -np.eye(16, dtype=int)[1:2])
    bits[92] = moved(bits[5:6], np.eye(16, dtype=int)[:1])
    found = agrees(bits, 1)
    assert found.components == 2
    assert dict(zip(found.touched.tolist(), found.labels.tolist(), strict=True)) == {
        0: 0, 90: 0, 91: 0, 5: 1, 92: 1,
    }  # fmt: skip

    assert [m.tolist() for m in found.members] == [[0, 90, 91], [5, 92]]


def crowd(seed, count, dim, spread):
    rng = np.random.default_rng(seed)
    base = lattice.round_nearest(rng.normal(0, 0.01, dim).astype(np.float32))
    return moved(base[None], rng.integers(-spread, spread + 1, (count, dim)))


def test_a_crowd_too_dense_to_cut(monkeypatch):
    monkeypatch.setattr(graph, "CROWD", 64)
    monkeypatch.setattr(graph, "PAIRS", 5_000)
    assert len(agrees(crowd(5, 400, 6, 3), 1).edges) > 100


def test_a_crowd_that_only_later_dimensions_divide(monkeypatch):
    monkeypatch.setattr(graph, "CROWD", 64)
    bits = np.concatenate([crowd(6, 500, graph.WINDOW, 1), rows(7, 500, 40)], axis=1)
    bits[250:400] = bits[:150]
    bits[250:400, -1:] = moved(bits[:150, -1:], 1)
    compared = []
    original = graph._compare
    monkeypatch.setattr(
        graph, "_compare", lambda b, ids, k: compared.append(len(ids)) or original(b, ids, k)
    )
    assert len(agrees(bits, 1).edges) >= 150
    assert max(compared, default=0) < 100  # the crowd was cut, not compared


def test_outliers_do_not_make_it_recurse_for_ever(monkeypatch):
    monkeypatch.setattr(graph, "CROWD", 32)
    bits = np.concatenate([crowd(8, 300, 40, 2), rows(9, 12, 40, sigma=3.0)])
    agrees(bits, 1)


def test_chance_neighbours_in_few_dimensions():
    found = agrees(rows(10, 1500, 2), 3)
    assert len(found.edges) > 30


def test_float16_patterns_have_their_own_steps():
    half = np.random.default_rng(1).normal(0, 1, (100, 20)).astype(np.float16)
    half[50:] = np.nextafter(half[:50], np.float16(np.inf))
    found = agrees(half.view(np.uint16), 1)
    assert found.edges.tolist() == [[i, 50 + i] for i in range(50)]


def test_small_matrices():
    assert graph.search(np.zeros((1, 4), np.uint16)).components == 0
    assert agrees(np.array([[1], [2], [4]], np.uint16), 1).edges.tolist() == [[0, 1]]
    alone = graph.search(rows(11, 64, 8))
    assert alone.members == [] and alone.components == 0 and alone.share_without == 1
    assert len(alone.labels) == 0


def test_a_memory_map_is_read_where_it_lies(tmp_path):
    bits = plant(rows(12, 300, 40), np.random.default_rng(0), 50, 1)
    bits.tofile(tmp_path / "w.bin")
    mapped = np.memmap(tmp_path / "w.bin", np.uint16, "r", shape=bits.shape)
    np.testing.assert_array_equal(graph.search(mapped).edges, graph.search(bits).edges)


def test_the_command_line_answers_in_words_and_in_json(tmp_path, capsys):
    bits = plant(rows(14, 200, 24), np.random.default_rng(0), 30, 2)
    bits[150] = bits[0]
    tensors = {"lm_head.weight": torch.from_numpy(bits).view(torch.bfloat16)}
    save_file(tensors | {"wide": torch.zeros(3, 3)}, tmp_path / "m.safetensors")
    file = str(tmp_path / "m.safetensors")
    assert main(["neighbours", file, "--steps", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = oracles.neighbours(bits, 2)
    assert answer["pairs"] == expected.tolist() and answer["edges"] == len(expected) == 30
    assert answer["rows"] == 200 and answer["distinct"] == 199 and answer["non_isolated"] == 60
    assert answer["non_isolated_rows"] == 61 and len(answer["components"]) == 30
    assert main(["neighbours", f"{file}:lm_head.weight"]) == 0
    assert "200 rows, 199 distinct" in capsys.readouterr().out
    for words, complaint in (
        ([f"{file}:wide"], "BF16"),
        ([str(tmp_path / "none.safetensors")], "none.safetensors"),
    ):
        assert main(["neighbours", *words]) == 2
        assert complaint in capsys.readouterr().err


def test_bad_input_is_refused_in_words():
    with pytest.raises(SpecimenError, match="16-bit patterns"):
        graph.search(np.zeros((3, 3), np.float32))
    with pytest.raises(SpecimenError, match="16-bit patterns"):
        graph.search(np.zeros(3, np.uint16))
    with pytest.raises(ValueError, match="negative"):
        graph.search(np.zeros((3, 3), np.uint16), -1)
    bits = rows(13, 40, 40)
    bits[1] = moved(bits[0:1], np.eye(40, dtype=int)[39:])
    bits[:2, 5] = 0x7FC0
    with pytest.raises(SpecimenError, match="NaN"):
        graph.search(bits)
