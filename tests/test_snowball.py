"""Snowballs, the plain way: cell borders, probabilities, the reference, closed forms."""

import numpy as np
import pytest
from scipy import stats

from lib import lattice
from lib.analysis import centres, simulation, snowball
from lib.analysis.snowball import Distribution

ALL = list(Distribution)


def test_every_border_of_the_lattice_is_where_the_two_roundings_put_it():
    ordinal = np.arange(-lattice.INFINITY + 1, lattice.INFINITY - 1)
    border = snowball.borders(ordinal)
    half = np.abs(border - snowball.borders(ordinal, float32_rounding=False))
    for sign, expected in ((-1, ordinal), (1, ordinal + 1)):
        exact_sum = border + sign * 1e-3 * half
        found = lattice.ordinal(lattice.round_nearest(exact_sum.astype(np.float32)))
        assert (found == expected).all()


def test_without_float32_rounding_some_borders_are_wrong():
    ordinal = np.arange(10_000, 11_000)
    bare = snowball.borders(ordinal, float32_rounding=False)
    half = np.abs(snowball.borders(ordinal) - bare)
    found = lattice.ordinal(lattice.round_nearest((bare + 0.5 * half).astype(np.float32)))
    assert (found == ordinal + 1).mean() == 0.5


def test_a_flip_at_1e_9_is_misstated_by_tens_of_per_cent_if_float32_is_ignored():
    home = int(lattice.ordinal(lattice.round_nearest(np.float32([0.04])))[0])
    home += home % 2  # an even mantissa: ties stay at home
    border = snowball.borders(np.array([home]), float32_rounding=False)[0]
    centre = np.array([np.float32(border - 2.0**-28)], np.float32)  # one float32 ULP away
    modelled = snowball.cells(centre, scale=1e-9).probability[0]
    bare = snowball.cells(centre, scale=1e-9, float32_rounding=False).probability[0]
    rng = np.random.default_rng(1)
    rows = 4_000_000
    bits = snowball.sample(np.repeat(centre, 8), scale=1e-9, rows=rows // 8, rng=rng)
    flips = int((lattice.ordinal(bits) > home).sum())
    modelled_flip, bare_flip = modelled[-1], bare[-1]
    assert abs(flips - rows * modelled_flip) < 5 * np.sqrt(rows * modelled_flip + 1)
    assert abs(bare_flip / modelled_flip - 1) > 0.2


@pytest.mark.parametrize("distribution", ALL)
def test_probabilities_sum_to_one_and_fit_the_reference(distribution, small_centre):
    scale = 2e-9 if distribution.independent else 2e-8
    table = snowball.cells(small_centre, scale=scale, distribution=distribution)
    tabled = ~table.wild
    assert np.allclose(table.probability[tabled].sum(axis=1), 1, atol=1e-14)
    rows = 60_000
    rng = np.random.default_rng(2)
    bits = snowball.sample(small_centre, scale=scale, rows=rows, distribution=distribution, rng=rng)
    ordinals = lattice.ordinal(bits)
    still = np.setdiff1d(np.arange(small_centre.size), table.dim)
    assert (ordinals[:, still] == ordinals[0, still]).all()
    worst = 1.0
    for k in np.flatnonzero(tabled):
        seen = np.bincount(
            ordinals[:, table.dim[k]] - table.low[k], minlength=table.probability.shape[1]
        )
        expected = rows * table.probability[k]
        enough = expected >= 5
        if enough.sum() > 1:
            seen = np.append(seen[enough], seen[~enough].sum())
            expected = np.append(expected[enough], expected[~enough].sum() + 1e-9)
            if expected[-1] < 1:
                seen, expected = seen[:-1], expected[:-1] * seen[:-1].sum() / expected[:-1].sum()
            worst = min(worst, stats.chisquare(seen, expected).pvalue)
    assert worst > 1e-5


def test_marginals_of_ball_and_shell_are_those_of_the_reference():
    rng = np.random.default_rng(3)
    for distribution in (Distribution.BALL, Distribution.SHELL):
        drawn = snowball.noise(distribution, 1.0, 20_000, 12, rng=rng)[:, 0].astype(np.float64)
        assert stats.kstest(drawn, snowball.marginal(distribution, 1.0, 12)).pvalue > 1e-3


def test_survivors_of_a_uniform_deletion_are_a_direct_sample(small_centre):
    """The theorem, on the reference itself: 4,000 rows with 300 survivors against 300 rows."""
    rng = np.random.default_rng(4)
    survived = [
        snowball.monument_valley(small_centre, scale=3e-9, population=4000, survivors=300, rng=rng)
        for _ in range(300)
    ]
    drawn = [snowball.direct(small_centre, scale=3e-9, rows=300, rng=rng) for _ in range(300)]
    for name in ("unique", "holes", "largest"):
        a, b = ([getattr(d, name) for d in group] for group in (survived, drawn))
        assert stats.ks_2samp(a, b).pvalue > 1e-3
        assert abs(np.mean(a) - np.mean(b)) < 4.5 * np.sqrt((np.var(a) + np.var(b)) / 300)


@pytest.mark.parametrize("scale", [1.5e-9, 4e-9])
@pytest.mark.parametrize("distribution", [Distribution.GAUSSIAN, Distribution.LAPLACE])
def test_closed_forms_are_the_means_of_the_simulation(scale, distribution):
    centre = centres.weighted_mean(centres.on_lattice(rng=np.random.default_rng(0)))
    rows, trials = 2221, 4000
    if distribution is Distribution.LAPLACE:
        scale /= 2
    table = snowball.cells(centre, scale=scale, distribution=distribution)
    found = simulation.simulate(
        centre, scale=scale, rows=rows, trials=trials, distribution=distribution, seed=3
    )

    def near(sample, expected, error=0.0):
        spread = 4.5 * sample.std() / np.sqrt(trials) + 0.01
        assert abs(sample.mean() - expected) < spread + error, (sample.mean(), expected)

    unique = snowball.expected_unique(table, rows)
    assert unique.error < 0.05
    near(found.unique, unique.value, unique.error)
    holes = snowball.expected_holes(table, rows)
    near(found.holes, holes.value, holes.error)
    near(found.tokens, snowball.expected_tokens(table, rows).value)
    near(found.varying, snowball.expected_varying(table, rows))
    near(found.largest, snowball.expected_largest(table, rows), 0.003 * found.largest.mean())


def test_expected_pairs_with_wild_dimensions(small_centre):
    rows, trials = 300, 4000
    table = snowball.cells(small_centre, scale=4e-9)
    assert table.wild.any()
    expected = snowball.expected_pairs(
        small_centre, table, rows, scale=4e-9, distribution=Distribution.GAUSSIAN
    )
    found = simulation.simulate(
        small_centre, scale=4e-9, rows=rows, trials=trials, populations=True
    )
    pairs = np.array([(n * (n - 1) // 2).sum() for n in found.populations])
    assert expected > 0.5
    assert abs(pairs.mean() - expected) < 4.5 * pairs.std() / np.sqrt(trials)


def test_closed_forms_refuse_what_they_cannot_sum(small_centre):
    with pytest.raises(ValueError, match="simulate"):
        snowball.product_cells(snowball.cells(small_centre, scale=1e-6))
