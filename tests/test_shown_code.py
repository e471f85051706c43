"""What the chapters show in full is what lib computes: their functions are run and compared."""

import ast

import numpy as np
import pytest
import torch

from book import reader
from lib import lattice, paths
from lib.analysis import census, clusters, crystal, motion, snowball
from lib.extraction import merging, vocabulary
from lib.training import optim
from lib.training.config import Run
from tests import oracles

ALL = np.arange(1 << 16, dtype=np.uint16)
FINITE = ALL[(ALL & 0x7F80) != 0x7F80]


def shown(chapter: str, name: str, **given):
    """The function that a chapter defines, alone but for what is `given`."""
    notebook = reader.read(paths.CHAPTERS / f"{chapter}.qmd")
    trees = [ast.parse(c.source) for c in notebook.cells if c.cell_type == "code"]
    nodes = [node for tree in trees for node in tree.body]
    [wanted] = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == name]
    names = {"np": np, "lattice": lattice, "motion": motion, **given}
    exec(compile(ast.Module([wanted], []), chapter, "exec"), names)
    return names[name]


def test_value_ordinal_and_ulp():
    by_hand = shown("lattice/01-anatomy", "value_by_hand")
    np.testing.assert_array_equal(by_hand(FINITE), lattice.value(FINITE).astype(float))
    by_hand = shown("lattice/01-anatomy", "ordinal_by_hand")
    np.testing.assert_array_equal(by_hand(ALL), lattice.ordinal(ALL))
    by_hand = shown("lattice/01-anatomy", "ulp_by_hand")
    np.testing.assert_array_equal(by_hand(FINITE), lattice.ulp(FINITE).astype(float))


def test_rounding():
    x = np.random.default_rng(42).normal(size=50_001).astype(np.float32)
    x[:4] = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2.0**-140]  # two ties, a sign, a subnormal
    nearest = shown("lattice/01-anatomy", "round_nearest_by_hand")
    np.testing.assert_array_equal(nearest(x), lattice.round_nearest(x))
    stochastic = shown("lattice/01-anatomy", "round_stochastic_by_hand")
    ours, theirs = (np.random.default_rng(7) for _ in range(2))
    np.testing.assert_array_equal(stochastic(x, ours), lattice.round_stochastic(x, rng=theirs))


def test_the_likelihood_that_the_fit_maximises():
    likelihood = shown("lattice/04-constant", "log_likelihood")
    rng = np.random.default_rng(3)
    step = 2.0 ** rng.integers(-28, -12, 2000)
    varies = rng.random(step.size) < np.minimum(1, 2e-7 / step)
    fit = crystal.fit_spread(step, varies, rng=rng, trials=20)
    best = likelihood(fit.width, step, varies)
    assert all(best >= likelihood(fit.width * f, step, varies) for f in (0.8, 0.97, 1.03, 1.25))
    for end, beyond in ((fit.low, 0.98), (fit.high, 1.02)):
        assert best - likelihood(end, step, varies) < 1.93
        assert best - likelihood(end * beyond, step, varies) > 1.92


def test_neighbours_in_twenty_lines():
    small = shown("spongecrystal/03-neighbours", "neighbours_small")
    bits = lattice.round_nearest(np.random.default_rng(1).normal(0, 1, (60, 6)).astype(np.float32))
    bits[30:] = lattice.from_ordinal(lattice.ordinal(bits[:30]) + 1)
    expected = {tuple(e) for e in oracles.neighbours(bits).tolist()}
    assert small(bits) == expected and len(expected) >= 30


def test_the_scan_of_norms():
    scan = shown("discovery/01-norms", "scan")
    rng = np.random.default_rng(42)
    norms = np.concatenate([rng.normal(1, 0.1, 3000), np.full(40, 0.7)])
    widths = clusters.spike_widths(norms)
    for width, window in zip(widths, clusters.scan_spikes(norms, widths), strict=True):
        assert scan(norms, width) == pytest.approx(window.surprise, rel=1e-12)


def test_a_census_in_two_lines():
    first_identical = shown("discovery/02-census", "first_identical")
    W = np.random.default_rng(42).integers(0, 3, (500, 6)).astype(np.uint16)
    assert np.array_equal(first_identical(W), census.duplicates(W).group)


def test_merging_by_rank():
    merge_word = shown("discovery/06-who", "merge_word")
    qwen = vocabulary.open("qwen3")
    for id in np.random.default_rng(42).choice(len(qwen.tokens), 300):
        word = qwen.tokens[id] + qwen.tokens[(int(id) * 7) % len(qwen.tokens)]
        assert merge_word(word, qwen.ids) == merging.merge(word, qwen)


def test_a_direct_sample():
    direct_sample = shown("monument-valley/01-snowball", "direct_sample")
    centre = np.random.default_rng(1).normal(0, 0.01, 40).astype(np.float32)
    ours, theirs = (np.random.default_rng(7) for _ in range(2))
    expected = snowball.sample(centre, scale=1e-5, rows=100, rng=theirs)
    np.testing.assert_array_equal(direct_sample(centre, 1e-5, 100, ours), expected)


def test_the_gradient_of_a_dead_row():
    by_hand = shown("dynamics/02-push", "by_hand")
    rng = np.random.default_rng(0)
    h, W = rng.normal(size=(30, 6)), rng.normal(size=(11, 6))
    expected = oracles.gradient(h, W, rng.integers(0, 8, 30))  # 8, 9 and 10 are never wanted
    np.testing.assert_allclose(by_hand(h, W, np.arange(8, 11)), expected[8:], atol=1e-12)


def test_adam_written_out():
    run = Run(lr=1e-3, beta2=0.999)
    adamw = shown("dynamics/04-theory", "adamw", lr=run.lr, beta2=run.beta2)
    state = [torch.randn(4096, generator=torch.Generator().manual_seed(1)).bfloat16()]
    state += [torch.zeros(4096).bfloat16() for _ in range(2)]
    for step in range(1, 6):
        g = torch.randn(4096, generator=torch.Generator().manual_seed(10 + step)).bfloat16()
        w, m, v = (x.float() for x in state)
        found = adamw(w, g.float(), m, v, step, keep=lambda x: x.bfloat16().float())
        state = optim.adamw_reference(state[0], g, *state[1:], optim.coefficients(run, step))
        for ours, theirs in zip(found, state, strict=True):  # but for a fused multiply-add
            assert (ours == theirs.float()).float().mean() > 0.999
