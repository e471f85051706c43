"""Series of snowballs and cast rows: each value is that of one simulation, kept by its recipe."""

import numpy as np

from lib import lattice
from lib.analysis import centres, qwen3, simulation, sweeps
from lib.analysis.census import demographics
from lib.analysis.graph import Adjacency, build


def test_a_cast_makes_more_distinct_rows_than_noise_added_in_bf16():
    rng = np.random.default_rng(0)
    unique = {way: [] for way in sweeps.Noise}
    for _ in range(30):
        base = sweeps.unit_vector(64, rng=rng)
        for way in sweeps.Noise:
            bits = sweeps.cast_rows(base, 1e-5, 51, way, rng=rng)
            assert bits.shape == (51, 64)
            unique[way].append(demographics(bits).unique)
    assert np.mean(unique[sweeps.Noise.FLOAT32]) > np.mean(unique[sweeps.Noise.BF16]) + 8


def test_a_sweep_holds_one_simulation_a_scale():
    found = sweeps.Sweep("qwen3-holes", "laplace", 1e-9, 4e-9, 3, 200, 20, 42).make()
    np.testing.assert_allclose(found["scale"], [1e-9, 2e-9, 4e-9])
    one = simulation.simulate(
        centres.named("qwen3-holes", seed=42), scale=found["scale"][1], rows=200, trials=20,
        distribution="laplace", seed=43, varying=False,
    )  # fmt: skip
    for name in ("unique", "holes", "tokens", "largest"):
        assert found[name].shape == (3, 20)
        np.testing.assert_array_equal(found[name][1], getattr(one, name))
    ranked = np.zeros((20, sweeps.RANKS))
    for row, populations in zip(ranked, one.populations, strict=True):
        shared = [n for n in populations.tolist() if n > 1][: sweeps.RANKS]
        row[: len(shared)] = shared
    np.testing.assert_allclose(found["ranks"][1], ranked.mean(axis=0))
    target = qwen3.thirteen().populations
    far = [sweeps.delta(populations, target) for populations in one.populations]
    np.testing.assert_allclose(found["delta"][1], far)


def test_lists_of_holes_are_compared_over_all_ranks_without_single_rows():
    assert sweeps.delta(np.array([5, 3, 1, 1]), np.array([5, 3])) == 0
    assert sweeps.delta(np.array([5, 1, 1]), np.array([5, 3])) == 3 / 8
    assert sweeps.delta(np.array([4, 3, 2, 2, 1]), np.array([5, 3, 1])) == 5 / 8


def test_topologies_are_those_of_the_rows():
    found = sweeps.Topology("qwen3-holes", 2e-9, 100, 8, 42).make()
    centre = centres.named("qwen3-holes", seed=42)
    trials = simulation.simulate(centre, scale=2e-9, rows=100, trials=8, seed=42, cells=True)
    for i, ordinals in enumerate(trials.cells):
        for name, rule in (("kissing", Adjacency.KISSING), ("neighbour", Adjacency.NEIGHBOUR)):
            graph = build(lattice.from_ordinal(ordinals), rule)
            assert found[f"{name}_components"][i] == graph.components
            assert found[f"{name}_isolated"][i] == graph.isolated
            pairs = graph.nodes * (graph.nodes - 1) / 2
            assert found[f"{name}_touching"][i] == (len(graph.edges) / pairs if pairs else 1)
    assert np.array_equal(found["unique"], trials.unique) and found["unique"].max() > 2


def test_cast_rows_are_counted_by_noise_rows_sigma_and_seed():
    found = sweeps.CastRows(2, 1e-6, 1e-4, 30, 16, 3).make()
    assert set(found) == {"sigma", "float32_30", "bf16_30"}
    assert all(found[name].shape == (2, 3, 3) for name in found if name != "sigma")
    unique, holes, largest = np.moveaxis(found["bf16_30"], -1, 0)
    assert (unique + largest - 1 <= 30).all() and (holes <= unique).all()
    rng = np.random.default_rng(2), np.random.default_rng([2, 1])
    bits = sweeps.cast_rows(
        sweeps.unit_vector(16, rng=rng[0]), 1e-4, 30, sweeps.Noise.BF16, rng=rng[1]
    )
    again = demographics(bits)
    assert found["bf16_30"][1, 2].tolist() == [again.unique, again.holes, again.largest]


def test_populations_alone_single_out_a_range_of_sigmas():
    found = sweeps.Abc(60, 1e-11, 1e-6, 2100, 42).make()
    assert all(len(values) == 60 for values in found.values())
    assert ((found["sigma"] >= 1e-11) & (found["sigma"] <= 1e-6)).all()
    tiny, huge = found["sigma"] < 3e-11, found["sigma"] > 3e-7
    assert (found["holes"][tiny] <= 6).all() and (found["holes"][huge] == 0).all()
    best = found["sigma"][found["delta"].argmin()]
    assert 1e-10 < best < 1e-8 and found["delta"].max() <= 2
