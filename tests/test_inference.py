"""Inference: evidence is the integral that it claims to be; a planted sigma is found."""

import numpy as np
from scipy import special, stats

from lib import lattice
from lib.analysis import inference, qwen3


def test_the_evidence_of_a_dimension_is_its_integral():
    """Many rows fix the offset to a fraction of s: a grid of s/10 would be off by up to one."""
    for s in (0.004, 0.3):
        for counts in ([2100], [1500, 600], [300, 1200, 600], [2000, 0, 100]):
            counts = np.array(counts)
            width = 9 * s + 0.6
            deltas = np.linspace(-width, len(counts) - 1 + width, 200_001)
            surface = inference.surface(np.array([s]), deltas, ulp=1.0, low=0, counts=counts)[0]
            expected = special.logsumexp(surface) + np.log(deltas[1] - deltas[0])
            found = inference._one(s, 0, counts)[0]
            assert abs(found - expected) < 0.01 + 1e-9 * abs(expected), (s, counts)


def test_the_evidence_of_one_dimension_is_the_integral_it_claims_to_be():
    for s in (0.01, 0.3):  # both kinds of grid
        fine = np.linspace(-4, 4, 400_001)
        cell = [stats.norm.cdf((j + 0.5 - fine) / s) - stats.norm.cdf((j - 0.5 - fine) / s)
                for j in (-1, 0)]  # fmt: skip
        plain = np.trapezoid(cell[0] ** 2 * cell[1] ** 5, fine)
        found = inference._one(s, -1, np.array([2, 5]))[0]
        assert abs(np.exp(found) / plain - 1) < 1e-3


def test_a_planted_sigma_is_found_and_the_holes_are_no_snowball():
    rng = np.random.default_rng(1)
    ulp = 2.0 ** (qwen3.exponents() - 134.0)[:400]
    noise = 2e-9 / ulp * rng.standard_normal((900, 400))
    rows = np.rint(rng.uniform(-0.5, 0.5, 400) + noise).astype(np.int64)
    data = inference.of_rows(rows, ulp)
    assert data.dims == 400
    assert data.rows == 900
    grid, p = inference.refined(data, 1e-10, 1e-7, points=41)
    assert abs(np.log((grid * p).sum() / 2e-9)) < 0.1
    replicate = inference.statistics(inference.predict(2e-9, data, rng=rng)[0])
    truth = inference.statistics(rows)
    assert abs(replicate["varying"] - truth["varying"]) <= 4
    hole = qwen3.thirteen()
    steps = lattice.ordinal(hole.bits).astype(int) - lattice.ordinal(hole.bits[:1])
    qwen = inference.expand(steps, hole.populations)
    observed = inference.statistics(qwen)
    assert (observed["holes"], observed["varying"], observed["widest"]) == (13, 20, 11)
    assert inference.independent_holes(qwen, 3, rng=rng).min() > 100


def test_the_observed_steps_are_the_printed_holes():
    data = inference.observed()
    assert (data.dims, data.rows) == (2560, 2100)
    assert (data.ulp[:20] == lattice.ulp(qwen3.thirteen().bits[0])).all()
    everywhere = np.sort(2.0 ** (qwen3.exponents() - 134.0))
    assert (np.sort(np.repeat(data.ulp, data.times)) == everywhere).all()
    assert sum(np.count_nonzero(count) > 1 for count in data.counts) == 20
    quiet = inference.without(data, np.array([np.count_nonzero(n) > 1 for n in data.counts]))
    assert quiet.dims == 2540 and quiet.rows == 2100


def test_populations_alone_single_out_a_range_of_sigmas():
    found = inference.Abc(60, 1e-11, 1e-6, 42).make()
    assert all(len(values) == 60 for values in found.values())
    assert ((found["sigma"] >= 1e-11) & (found["sigma"] <= 1e-6)).all()
    tiny, huge = found["sigma"] < 3e-11, found["sigma"] > 3e-7
    assert (found["holes"][tiny] <= 6).all() and (found["holes"][huge] == 0).all()
    best = found["sigma"][found["delta"].argmin()]
    assert 1e-10 < best < 1e-8 and found["delta"].max() <= 2
