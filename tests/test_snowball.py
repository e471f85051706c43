"""Snowballs: cell borders, probabilities, the reference, the fast simulator, closed forms."""

import json

import numpy as np
import pytest
import safetensors.numpy
from scipy import special, stats

from lib import lattice
from lib.__main__ import main
from lib.analysis import casting, centres, inference, qwen3, simulation, snowball
from lib.analysis.snowball import Distribution
from lib.cli import snowball as verb

ALL = list(Distribution)


@pytest.fixture(scope="module")
def small_centre():
    """48 dimensions with a few borders near, on and off the lattice, one close to zero."""
    rng = np.random.default_rng(7)
    centre = (rng.standard_normal(48) * 0.007).astype(np.float32)
    centre[:24] = lattice.value(lattice.round_nearest(centre[:24]))
    centre[3] = 0.0
    centre[4] = 2.0**-20  # a binade's edge: the cell is narrower below
    centre[5] = np.float32(-1.3e-6)
    return centre


# ---------------------------------------------------------------- borders and probabilities
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


# ---------------------------------------------------------------- the reference
def test_census_counts_bits_not_values():
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [0.0, 2.0]], np.float32)
    found = snowball.demographics(lattice.round_nearest(rows))
    assert found.populations.tolist() == [2, 1, 1]
    assert (found.unique, found.holes, found.tokens, found.largest) == (3, 1, 2, 2)
    assert found.varying == 2


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


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scale": 0.0}, ValueError),
        ({"scale": float("nan")}, ValueError),
        ({"rows": 0}, ValueError),
        ({"trials": 0}, ValueError),
        ({"distribution": "cauchy"}, ValueError),
        ({"centre": np.zeros((2, 2), np.float32)}, ValueError),
        ({"centre": np.array([np.nan], np.float32)}, ValueError),
        ({"centre": np.zeros(3)}, TypeError),
    ],
)
def test_bad_settings_are_refused(change, error):
    setting = {"centre": np.zeros(4, np.float32), "scale": 1e-9, "rows": 5, "trials": 2} | change
    with pytest.raises(error):
        simulation.simulate(setting.pop("centre"), **setting)


# ---------------------------------------------------------------- the fast simulator
@pytest.mark.parametrize("distribution", ALL)
def test_trials_are_consistent_and_reproducible(distribution, small_centre, monkeypatch):
    monkeypatch.setattr(simulation, "BLOCK_ROWS", 5_000)  # several blocks
    setting = {"scale": 3e-9, "rows": 500, "trials": 33, "distribution": distribution}
    setting["populations"] = True
    if not distribution.independent:
        setting["scale"] = 2e-8
    one = simulation.simulate(small_centre, workers=1, **setting)
    two = simulation.simulate(small_centre, workers=2, **setting)
    other = simulation.simulate(small_centre, seed=43, **setting)
    for name in ("unique", "holes", "tokens", "largest", "varying"):
        assert (getattr(one, name) == getattr(two, name)).all()
    assert (one.largest != other.largest).any()
    assert len(one) == 33
    for i, populations in enumerate(one.populations):
        assert populations.sum() == 500
        assert (np.diff(populations) <= 0).all()
        assert len(populations) == one.unique[i]
        assert populations[0] == one.largest[i]
        assert (populations > 1).sum() == one.holes[i]
        assert populations[populations > 1].sum() == one.tokens[i]


@pytest.mark.parametrize("distribution", ALL)
def test_kept_cells_are_distinct_rows_and_explain_the_varying_dimensions(
    distribution, small_centre
):
    scale = 3e-9 if distribution.independent else 2e-8
    found = simulation.simulate(
        small_centre, scale=scale, rows=200, trials=20, distribution=distribution, cells=True
    )
    for i, coordinates in enumerate(found.cells):
        assert len(np.unique(coordinates, axis=0)) == len(coordinates) == found.unique[i]
        assert (coordinates != coordinates[0]).any(axis=0).sum() == found.varying[i]


def test_leaving_rows_alone_undrawn_changes_nothing(small_centre):
    """`varying` without a draw (lone rows set aside) against `varying` with every row drawn."""
    for rows in (3, 40, 400):  # three rows: often all set aside, or all agreeing by chance
        lazy = simulation.simulate(small_centre, scale=8e-9, rows=rows, trials=3000)
        drawn = simulation.simulate(
            small_centre, scale=8e-9, rows=rows, trials=3000, cells=True, seed=1
        )
        for name in ("unique", "varying"):
            a, b = getattr(lazy, name), getattr(drawn, name)
            assert abs(a.mean() - b.mean()) < 4.5 * np.sqrt((a.var() + b.var() + 1e-9) / 3000), rows


def test_dropping_lone_rows_in_ball_and_shell_changes_nothing(small_centre):
    for distribution in (Distribution.BALL, Distribution.SHELL):
        setting = {"scale": 3e-8, "rows": 300, "trials": 1500, "distribution": distribution}
        full = simulation.simulate(small_centre, varying=True, **setting)
        lean = simulation.simulate(small_centre, varying=False, seed=9, **setting)
        assert (lean.varying == -1).all()
        assert stats.ks_2samp(full.unique, lean.unique).pvalue > 1e-3


def test_all_three_ways_of_splitting_agree():
    from lib.analysis import simulation

    p = np.array([0.02, 0.9, 0.08])
    count = np.full(40_000, 12)
    for way in (simulation._binomials, simulation._leavers, simulation._rows):
        order = np.argsort(p)
        parent, cell, n = way(count, p[order], np.arange(3)[order], np.random.default_rng(5))
        assert (np.bincount(parent, weights=n) == 12).all()
        total = np.bincount(cell, weights=n)
        assert stats.chisquare(total, 480_000 * p).pvalue > 1e-4
        split = np.zeros((40_000, 3))
        split[parent, cell] = n
        assert abs(split[:, 2].var() / (12 * 0.08 * 0.92) - 1) < 0.04
        assert abs(np.cov(split[:, 0], split[:, 2])[0, 1] + 12 * 0.02 * 0.08) < 0.006


def test_no_active_dimension_means_one_hole():
    centre = np.full(8, 0.04, np.float32)
    found = simulation.simulate(centre, scale=1e-12, rows=50, trials=3, populations=True)
    assert (found.unique == 1).all()
    assert (found.varying == 0).all()
    assert found.populations[0].tolist() == [50]
    ball = simulation.simulate(centre, scale=1e-12, rows=50, trials=3, distribution="ball")
    assert (ball.largest == 50).all()


# ---------------------------------------------------------------- closed forms
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


# ---------------------------------------------------------------- centres
def test_surrogate_centres_carry_the_printed_facts():
    on = centres.on_lattice(rng=np.random.default_rng(42))
    facts = qwen3.printed("figures")
    exponent = lattice.fields(lattice.round_nearest(on)).exponent
    counts = np.unique(exponent, return_counts=True)
    assert {str(e): int(n) for e, n in zip(*counts, strict=True)} == facts["largest_hole_exponents"]
    assert (lattice.value(lattice.round_nearest(on)) == on).all()
    assert abs(np.linalg.norm(on) / facts["largest_hole_norm"] - 1) < 1e-4
    mean = centres.weighted_mean(on)
    off = lattice.value(lattice.round_nearest(mean)) != mean
    assert set(np.flatnonzero(off)) == set(qwen3.thirteen().dims)
    assert abs(np.linalg.norm(centres.centred(rng=np.random.default_rng(1))) - 0.166061) < 1e-6


def test_the_printed_figures_hang_together():
    facts = qwen3.printed("figures")
    hole = qwen3.thirteen()
    assert facts["populations"] == hole.populations.tolist()
    assert sum(facts["largest_hole_exponents"].values()) == 2560
    assert json.dumps(facts)


# ---------------------------------------------------------------- rebuilding and inference
def test_the_rebuilt_centre_has_the_printed_demographics_it_was_not_fitted_to():
    facts = qwen3.printed("figures")["direct"]
    found = simulation.simulate(
        centres.named("qwen3-rebuilt"), scale=1.5e-9, rows=2100, trials=4000, populations=True
    )
    assert abs(found.holes.mean() - facts["holes"]["mean"]) < 0.2
    assert abs(found.tokens.std() - facts["tokens"]["std"]) < 0.15
    sixth = np.mean([n[5] for n in found.populations if len(n) > 5 and n[5] > 1])
    assert abs(sixth - facts["rank_means"][5]) < 0.6


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


def test_the_evidence_of_one_dimension_is_the_integral_it_claims_to_be():
    for s in (0.01, 0.3):  # both kinds of grid
        fine = np.linspace(-4, 4, 400_001)
        cell = [stats.norm.cdf((j + 0.5 - fine) / s) - stats.norm.cdf((j - 0.5 - fine) / s)
                for j in (-1, 0)]  # fmt: skip
        plain = np.trapezoid(cell[0] ** 2 * cell[1] ** 5, fine)
        found = inference._one(s, -1, np.array([2, 5]))[0]
        assert abs(np.exp(found) / plain - 1) < 1e-3


def test_a_cast_makes_more_distinct_rows_than_noise_added_in_bf16():
    rng = np.random.default_rng(0)
    unique = {way: [] for way in casting.Way}
    for _ in range(30):
        base = casting.unit_vector(64, rng=rng)
        for way in casting.Way:
            bits = casting.rows(base, 1e-5, 51, way, rng=rng)
            assert bits.shape == (51, 64)
            unique[way].append(snowball.demographics(bits).unique)
    assert np.mean(unique[casting.Way.FLOAT32]) > np.mean(unique[casting.Way.BF16]) + 8


# ---------------------------------------------------------------- the command line
def test_the_command_line(tmp_path, capsys):
    centre = centres.on_lattice(rng=np.random.default_rng(3))
    file = tmp_path / "centre.safetensors"
    safetensors.numpy.save_file({"c": centre, "wide": np.zeros((2, 3), np.float32)}, file)
    words = ["snowball", "--sigma", "1.5e-9", "--trials", "5", "--json", "--centre"]
    assert main([*words, f"{file}:c"]) == 0
    answer = json.loads(capsys.readouterr().out)
    direct = simulation.simulate(centre, scale=1.5e-9, rows=2221, trials=5)
    assert [t["largest"] for t in answer["trials"]] == direct.largest.tolist()
    assert answer["mean"]["holes"] == direct.holes.mean()
    for wrong in (f"{file}:wide", f"{file}:none", "nowhere.safetensors"):
        assert main([*words, wrong]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert main(["snowball", "--sigma", "-1", "--centre", "qwen3-holes"]) == 2
    assert tuple(centres.NAMES) == verb.CENTRES
    assert tuple(Distribution) == verb.DISTRIBUTIONS
