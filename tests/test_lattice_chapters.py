"""What the chapters show in full is what lib computes: their cells are run and compared."""

import numpy as np

from lib import lattice, paths
from lib.analysis import crystal, graph
from book import reader

ALL = np.arange(1 << 16, dtype=np.uint16)
FINITE = ALL[(ALL & 0x7F80) != 0x7F80]


def cell(chapter, label):
    """The names that the labelled cell of a chapter defines."""
    notebook = reader.read(paths.CHAPTERS / f"{chapter}.qmd")
    wanted = [c for c in notebook.cells if c.metadata.get("quarto", {}).get("label") == label]
    assert len(wanted) == 1, f"{chapter} has no cell {label}"
    names = {"np": np, "lattice": lattice}
    exec(wanted[0].source, names)
    return names


def test_value_ordinal_and_ulp_by_hand():
    by_hand = cell("lattice/01-anatomy", "anatomy-value")["value_by_hand"]
    np.testing.assert_array_equal(by_hand(FINITE), lattice.value(FINITE).astype(float))
    names = cell("lattice/01-anatomy", "anatomy-ordinal")
    np.testing.assert_array_equal(names["ordinal_by_hand"](ALL), lattice.ordinal(ALL))
    np.testing.assert_array_equal(names["ulp_by_hand"](FINITE), lattice.ulp(FINITE).astype(float))


def test_rounding_by_hand():
    x = np.random.default_rng(42).normal(size=50_001).astype(np.float32)
    x[:4] = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2.0**-140]  # two ties, a sign, a subnormal
    nearest = cell("lattice/01-anatomy", "anatomy-round-nearest")["round_nearest_by_hand"]
    np.testing.assert_array_equal(nearest(x), lattice.round_nearest(x))
    stochastic = cell("lattice/01-anatomy", "anatomy-round-stochastic")["round_stochastic_by_hand"]
    ours, theirs = (np.random.default_rng(7) for _ in range(2))
    np.testing.assert_array_equal(stochastic(x, ours), lattice.round_stochastic(x, rng=theirs))


def test_neighbours_in_twenty_lines():
    small = cell("spongecrystal/03-neighbours", "neighbours-small")["neighbours_small"]
    bits = lattice.round_nearest(np.random.default_rng(1).normal(0, 1, (60, 6)).astype(np.float32))
    bits[30:] = lattice.from_ordinal(lattice.ordinal(bits[:30]) + 1)
    expected = {tuple(e) for e in graph.brute_force(bits).tolist()}
    assert small(bits) == expected and len(expected) >= 30


def test_the_likelihood_that_the_fit_maximises():
    likelihood = cell("lattice/04-constant", "constant-likelihood")["log_likelihood"]
    rng = np.random.default_rng(3)
    step = 2.0 ** rng.integers(-28, -12, 2000)
    varies = rng.random(step.size) < np.minimum(1, 2e-7 / step)
    fit = crystal.fit_spread(step, varies, rng=rng, trials=20)
    best = likelihood(fit.width, step, varies)
    assert all(best >= likelihood(fit.width * f, step, varies) for f in (0.8, 0.97, 1.03, 1.25))
    for end, beyond in ((fit.low, 0.98), (fit.high, 1.02)):
        assert best - likelihood(end, step, varies) < 1.93
        assert best - likelihood(end * beyond, step, varies) > 1.92
