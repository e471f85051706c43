"""Snowballs, the plain way: cell borders, probabilities, the reference, closed forms."""

import numpy as np
import pytest
from scipy import stats

from lib import lattice
from lib.analysis import centres, simulation, snowball
from lib.analysis.census import demographics
from lib.analysis.snowball import Distribution

ALL = list(Distribution)


def midpoints(ordinal):
    """Borders as they would be if float32 did not round."""
    pair = [lattice.value(lattice.from_ordinal(ordinal + step)).astype(float) for step in (0, 1)]
    return np.mean(pair, axis=0)


def test_every_border_of_the_lattice_is_where_the_two_roundings_put_it():
    ordinal = np.arange(-lattice.INFINITY + 1, lattice.INFINITY - 1)
    border = snowball.borders(ordinal)
    half = np.abs(border - midpoints(ordinal))
    for sign, expected in ((-1, ordinal), (1, ordinal + 1)):
        exact_sum = border + sign * 1e-3 * half
        found = lattice.ordinal(lattice.round_nearest(exact_sum.astype(np.float32)))
        assert (found == expected).all()


def test_without_float32_rounding_some_borders_are_wrong():
    ordinal = np.arange(10_000, 11_000)
    bare = midpoints(ordinal)
    half = np.abs(snowball.borders(ordinal) - bare)
    found = lattice.ordinal(lattice.round_nearest((bare + 0.5 * half).astype(np.float32)))
    assert (found == ordinal + 1).mean() == 0.5


def test_a_flip_at_1e_9_is_misstated_by_tens_of_per_cent_if_float32_is_ignored():
    home = int(lattice.ordinal(lattice.round_nearest(np.float32([0.04])))[0])
    home += home % 2  # an even mantissa: ties stay at home
    border = midpoints(np.array([home]))[0]
    centre = np.array([np.float32(border - 2.0**-28)], np.float32)  # one float32 ULP away
    modelled_flip = snowball.cells(centre, scale=1e-9).probability[0, -1]
    bare_flip = stats.norm.sf((border - float(centre[0])) / 1e-9)
    rng = np.random.default_rng(1)
    rows = 4_000_000
    bits = snowball.sample(np.repeat(centre, 8), scale=1e-9, rows=rows // 8, rng=rng)
    flips = int((lattice.ordinal(bits) > home).sum())
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

    def sample(rows):
        return snowball.sample(small_centre, scale=3e-9, rows=rows, rng=rng)

    survived = [demographics(sample(4000)[rng.permutation(4000)[:300]]) for _ in range(300)]
    drawn = [demographics(sample(300)) for _ in range(300)]
    for name in ("unique", "holes", "largest"):
        a, b = ([getattr(d, name) for d in group] for group in (survived, drawn))
        assert stats.ks_2samp(a, b).pvalue > 1e-3
        assert abs(np.mean(a) - np.mean(b)) < 4.5 * np.sqrt((np.var(a) + np.var(b)) / 300)


@pytest.mark.parametrize("scale", [1.5e-9, 4e-9])
@pytest.mark.parametrize("distribution", [Distribution.GAUSSIAN, Distribution.LAPLACE])
def test_closed_forms_are_the_means_of_the_simulation(scale, distribution):
    centre = centres.named("qwen3-holes", seed=0)
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

    expected = snowball.expected(table, rows)
    assert expected.error < 0.1
    for name in ("unique", "holes", "tokens"):
        near(getattr(found, name), getattr(expected, name), expected.error)
    near(found.largest, snowball.expected_largest(table, rows), 0.003 * found.largest.mean())
    pairs = np.array([(n * (n - 1) // 2).sum() for n in found.populations])
    same = (table.probability**2).sum(axis=1).prod()  # that two rows lie in one cell
    near(pairs, rows * (rows - 1) / 2 * same)
    near(found.varying, (1 - (table.probability**rows).sum(axis=1)).sum())


def test_wild_dimensions_leave_as_many_identical_pairs_as_their_cells_say(small_centre):
    rows, trials = 300, 4000
    table = snowball.cells(small_centre, scale=4e-9)
    assert table.wild.any()
    same = (table.probability[~table.wild] ** 2).sum(axis=1).prod()
    for k in np.flatnonzero(table.wild):
        centre = float(small_centre[table.dim[k]])
        home = int(lattice.ordinal(lattice.round_nearest(np.float32([centre])))[0])
        reach = np.arange(home - 20_000, home + 20_000).clip(1 - lattice.INFINITY)
        cells = snowball.cell_probability(
            np.unique(reach), centre, lambda x: stats.norm.cdf(x, scale=float(np.float32(4e-9)))
        )
        same *= (cells**2).sum()
    expected = rows * (rows - 1) / 2 * same
    found = simulation.simulate(small_centre, scale=4e-9, rows=rows, trials=trials)
    pairs = np.array([(n * (n - 1) // 2).sum() for n in found.populations])
    assert expected > 0.5
    assert abs(pairs.mean() - expected) < 4.5 * pairs.std() / np.sqrt(trials)


def test_closed_forms_refuse_what_they_cannot_sum(small_centre):
    with pytest.raises(ValueError, match="simulate"):
        snowball.expected(snowball.cells(small_centre, scale=1e-6), 100)


def test_dimensions_of_two_cells_are_sorted_and_add_up():
    table = snowball.two_cells(np.array([0.001, 0.4, 0.9]))
    assert table.dim.tolist() == [1, 2, 0] and not table.wild.any()
    np.testing.assert_allclose(table.probability, [[0.6, 0.4], [0.1, 0.9], [0.999, 0.001]])
    np.testing.assert_allclose(table.peak, [0.6, 0.9, 0.999])
