"""Inference: evidence is the integral that it claims to be; a planted sigma is found."""

from collections import Counter

import numpy as np
from scipy import special, stats

from book import reader
from lib import lattice, paths
from lib.analysis import census, inference, qwen3
from tests.test_shown_code import shown


def test_the_evidence_of_a_dimension_is_its_integral():
    """Many rows fix the offset to a fraction of s: a grid of s/10 would be off by up to one."""
    for s in (0.004, 0.3):
        for counts in ([2100], [1500, 600], [300, 1200, 600], [2000, 0, 100]):
            counts = np.array(counts)
            width = 9 * s + 0.6
            deltas = np.linspace(-width, len(counts) - 1 + width, 200_001)
            chain = inference.Chain(1.0, 0, counts, 1)
            joint = inference.log_likelihood(deltas, s, chain)
            expected = special.logsumexp(joint) + np.log(deltas[1] - deltas[0])
            found = inference.evidence(np.array([s]), [chain]).item()
            assert abs(found - expected) < 0.01 + 1e-9 * abs(expected), (s, counts)


def test_the_evidence_of_one_dimension_is_the_integral_it_claims_to_be():
    for s in (0.01, 0.3):  # both kinds of grid
        fine = np.linspace(-4, 4, 400_001)
        cell = [stats.norm.cdf((j + 0.5 - fine) / s) - stats.norm.cdf((j - 0.5 - fine) / s)
                for j in (-1, 0)]  # fmt: skip
        plain = np.trapezoid(cell[0] ** 2 * cell[1] ** 5, fine)
        chain = inference.Chain(1.0, -1, np.array([2, 5]), 1)
        found = inference.evidence(np.array([s]), [chain]).item()
        assert abs(np.exp(found) / plain - 1) < 1e-3


CHAPTER = "monument-valley/05-inference"
chains = shown(CHAPTER, "chains", Counter=Counter, inference=inference)
statistics = shown(CHAPTER, "statistics", census=census, alike=shown(CHAPTER, "alike"))


def test_a_planted_sigma_is_found_and_the_holes_are_no_snowball():
    rng = np.random.default_rng(1)
    ulp = 2.0 ** (qwen3.exponents() - 134.0)[:400]
    noise = 2e-9 / ulp * rng.standard_normal((900, 400))
    rows = np.rint(rng.uniform(-0.5, 0.5, 400) + noise).astype(np.int64)
    data = chains(rows, ulp)
    assert sum(chain.times for chain in data) == 400
    assert all(chain.counts.sum() == 900 for chain in data)
    given = {"inference": inference, "special": special, "grid_points": 41}
    grid, p = shown(CHAPTER, "refined", **given)(data, 1e-10, 1e-7)
    assert abs(np.log((grid * p).sum() / 2e-9)) < 0.1
    replicate = statistics(inference.predict(2e-9, data, rng=rng))
    truth = statistics(rows)
    assert abs(replicate["varying"] - truth["varying"]) <= 4
    more = inference.predict(2e-9, data, rng=rng, rows=1200)
    assert len(more) == 1200 and abs(more.shape[1] - truth["varying"]) < 20
    hole = qwen3.thirteen()
    steps = lattice.ordinal(hole.bits).astype(int) - lattice.ordinal(hole.bits[:1])
    observed = statistics(np.repeat(steps, hole.populations, axis=0))
    assert (observed["holes"], observed["varying"], observed["widest"]) == (13, 20, 11)
    assert observed["alike"] > 0.99 and observed["gap"] > 0 and truth["gap"] == 0


def test_statistics_count_rows_in_holes_alone():
    steps = np.zeros((300, 3), np.int64)
    steps[:100, 0] = 1
    with_singles = np.vstack([steps, [[0, 7, 0]], [[0, -2, 4]]])
    assert statistics(with_singles) == statistics(steps)
    assert statistics(steps)["widest"] == 1
    assert set(statistics(with_singles[-2:]).values()) == {0}


def test_the_chains_of_the_chapter_are_the_printed_holes():
    notebook = reader.read(paths.CHAPTERS / f"{CHAPTER}.qmd")
    [source] = [c.source for c in notebook.cells if "data = [chains(" in c.source]
    hole = qwen3.thirteen()
    names = {"np": np, "Counter": Counter, "lattice": lattice, "qwen3": qwen3, "chains": chains}
    names |= {"hole": hole, "tokens": hole.populations.sum()}
    exec(source, names)
    data = names["data"]
    varying = [np.count_nonzero(chain.counts) > 1 for chain in data]
    assert varying == [True] * 20 + [False] * (len(data) - 20)
    assert sum(chain.times for chain in data) == 2560
    assert all(chain.counts.sum() == 2100 for chain in data)
    exponents = np.repeat([np.log2(chain.ulp) + 134 for chain in data], [c.times for c in data])
    assert np.array_equal(np.sort(exponents), qwen3.exponents())
