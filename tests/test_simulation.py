"""The fast simulator against the reference: same distribution, and an error of 2 % is seen.

The centre is the sources' own (norm 0.3709) in the dimensions that noise can move, with a few quiet
ones: what the other 2,500 dimensions would add is nothing but time. `slow` tests take all of them.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from scipy import optimize, stats

from lib import lattice
from lib.__main__ import main
from lib.analysis import centres, simulation, snowball
from lib.analysis.census import demographics
from lib.analysis.snowball import Distribution

ALL = list(Distribution)
ROWS, TRIALS = 2221, 200


SIGMAS = [1e-9, 1.5e-9, 2.782559e-9, 8e-9, 2e-8]


ALARM = 1e-4  # a p-value below this is a disagreement


@pytest.fixture(scope="module")
def centre():
    full = centres.named("qwen3-holes")
    active = snowball.cells(full, scale=2e-8).dim
    quiet = np.setdiff1d(np.arange(full.size), active)[:8]
    return full[np.concatenate([active, quiet])]


def reference(centre, scale, distribution=Distribution.GAUSSIAN, trials=TRIALS, seed=0):
    """Demographics of the reference's trials, and how often each cell was hit, by dimension."""
    rng = np.random.default_rng(seed)
    low = snowball.cells(centre, scale=scale, distribution=distribution)
    found, hits = [], np.zeros(low.probability.shape, np.int64)
    for _ in range(trials):
        bits = snowball.sample(centre, scale=scale, rows=ROWS, distribution=distribution, rng=rng)
        found.append(demographics(bits))
        index = lattice.ordinal(bits[:, low.dim]) - low.low
        for k in np.flatnonzero(~low.wild):
            hits[k] += np.bincount(index[:, k], minlength=hits.shape[1])
    return found, hits


def p_values(found, hits, fast, table):
    """p-values of KS and chi-square on demographics and populations, and of every dimension."""
    result = {}
    for name in ("unique", "holes", "largest", "varying"):
        a = np.array([getattr(d, name) for d in found])
        b = getattr(fast, name)
        result[f"KS {name}"] = stats.ks_2samp(a, b, method="asymp").pvalue
        result[f"chi2 {name}"] = chi_square(a, b)
    for rank in range(1, 4):
        a = [d.populations[rank] if len(d.populations) > rank else 0 for d in found]
        b = [p[rank] if len(p) > rank else 0 for p in fast.populations]
        result[f"KS rank {rank + 1}"] = stats.ks_2samp(a, b, method="asymp").pvalue
    for k in np.flatnonzero(~table.wild):
        expected = hits[k].sum() * table.probability[k]
        enough = expected >= 10
        if enough.sum() > 1:
            seen = hits[k][enough]
            scaled = expected[enough] * seen.sum() / expected[enough].sum()
            result[f"cells of dimension {k}"] = stats.chisquare(seen, scaled).pvalue
    return result


def chi_square(a, b):
    """p-value of a two-sample chi-square on common bins of at least ten; 1 if there is one bin."""
    both = np.concatenate([a, b])
    edges = np.unique(np.quantile(both, np.linspace(0, 1, 9)))
    if len(edges) < 3:
        values, counts = np.unique(both, return_counts=True)
        if len(values) < 2 or counts.min() < 10:
            return 1.0
        edges = np.append(values, values[-1] + 1)
    edges[-1] += 1
    table = np.array([np.histogram(x, edges)[0] for x in (a, b)])
    return stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue


def planted(table, factor=1.02):
    """The table with every cell but the likeliest `factor` times as likely as it should be."""
    p = table.probability.copy()
    for k in np.flatnonzero(~table.wild):
        home = p[k].argmax()
        p[k] *= factor
        p[k, home] += 1 - p[k].sum()
    return replace(table, probability=p)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_gaussian_agrees_and_a_planted_error_of_two_per_cent_is_caught(sigma, centre):
    found, hits = reference(centre, sigma)
    table = snowball.cells(centre, scale=sigma)
    setting = {"scale": sigma, "rows": ROWS, "trials": TRIALS}
    fast = simulation.simulate(centre, **setting)
    good = p_values(found, hits, fast, table)
    assert min(good.values()) > ALARM, {k: v for k, v in good.items() if v <= ALARM}

    wrong = planted(table)
    bad = p_values(found, hits, simulation.simulate(centre, table=wrong, **setting), wrong)
    cell_checks = [v for k, v in bad.items() if k.startswith("cells")]
    demographic = [v for k, v in bad.items() if not k.startswith("cells")]
    assert min(cell_checks) < ALARM, "the marginals do not see a wrong probability"
    if sigma >= 1.5e-9:  # at 1e-9 a single dimension moves: 2 % is half a spread of `largest`
        assert min(demographic) < ALARM, "the demographics do not see a wrong probability"


def louder(centre, scale, distribution, factor=1.02):
    """The scale at which the most restless dimension leaves its cell `factor` times as often."""

    def excess(x):
        peaks = [
            snowball.cells(centre, scale=y, distribution=distribution).peak[0] for y in (scale, x)
        ]
        return (1 - peaks[1]) - factor * (1 - peaks[0])

    return optimize.brentq(excess, scale, 1.2 * scale, rtol=1e-12)


def marginals(table, other):
    """`table` with the cell probabilities of `other`, dimension by dimension."""
    p = np.zeros_like(table.probability)
    for k in np.flatnonzero(~table.wild):
        j = int(np.flatnonzero(other.dim == table.dim[k])[0])
        here = table.low[k] + np.arange(p.shape[1]) - other.low[j]
        inside = (here >= 0) & (here < other.probability.shape[1])
        p[k, inside] = other.probability[j, here[inside]]
    return replace(table, probability=p)


@pytest.mark.parametrize(
    ("distribution", "scale"),
    [
        (Distribution.LAPLACE, 8e-10),
        (Distribution.LAPLACE, 2e-9),
        (Distribution.BALL, 1.1e-8),
        (Distribution.BALL, 4e-8),
        (Distribution.SHELL, 1.1e-8),
        (Distribution.SHELL, 4e-8),
    ],
)
def test_other_distributions_agree_and_a_planted_error_is_caught(distribution, scale, centre):
    """Ball and shell are drawn, not tabulated: there the error is planted in the radius."""
    found, hits = reference(centre, scale, distribution, trials=100)
    trials = 1000 if distribution.independent else 300
    setting = {"rows": ROWS, "trials": trials, "distribution": distribution}
    table = snowball.cells(centre, scale=scale, distribution=distribution)
    good = p_values(found, hits, simulation.simulate(centre, scale=scale, **setting), table)
    assert min(good.values()) > ALARM, {k: v for k, v in good.items() if v <= ALARM}

    if distribution.independent:
        wrong = planted(table)
        fast = simulation.simulate(centre, scale=scale, table=wrong, **setting)
    else:
        scale = louder(centre, scale, distribution)
        wrong = marginals(table, snowball.cells(centre, scale=scale, distribution=distribution))
        fast = simulation.simulate(centre, scale=scale, **setting)
    bad = p_values(found, hits, fast, wrong)
    marginal = [v for k, v in bad.items() if k.startswith("cells")]
    demographic = [v for k, v in bad.items() if not k.startswith("cells")]
    assert min(marginal) < ALARM, "the marginals do not see a wrong probability"
    assert min(demographic) < ALARM, "the demographics do not see a wrong probability"


def test_treating_a_shell_as_independent_dimensions_is_caught():
    """On a sphere of two dimensions one coordinate tells the other: independence would be wrong."""
    centre = np.full(2, 2.0**-20 * 1.5, np.float32)
    radius = 2.0**-28 * 1.1  # cells end half a ULP, 2^-28, from the centre: both cannot leave
    shell = {"scale": radius, "distribution": Distribution.SHELL}
    table = snowball.cells(centre, **shell)
    right = simulation.simulate(centre, **shell, rows=400, trials=50)
    drawn = [
        snowball.sample(centre, **shell, rows=400, rng=np.random.default_rng(i)) for i in range(50)
    ]
    found = [demographics(bits).unique for bits in drawn]
    wrong = simulation.simulate(centre, scale=1e-9, rows=400, trials=50, table=table)
    assert right.unique.mean() == np.mean(found) == 5
    assert wrong.unique.mean() > 8


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.5e-9, 2.782559e-9, 2e-8, 1e-5])
def test_at_full_width_with_real_survival(sigma):
    """2,560 dimensions; the reference draws 8,000 rows and deletes all but 2,221."""
    full = centres.named("qwen3-holes")
    rng = np.random.default_rng(8)
    drawn = (snowball.sample(full, scale=sigma, rows=8000, rng=rng) for _ in range(25))
    found = [demographics(bits[rng.permutation(8000)[:ROWS]]) for bits in drawn]
    fast = simulation.simulate(full, scale=sigma, rows=ROWS, trials=1000)
    for name in ("unique", "holes", "largest", "varying"):
        a, b = np.array([getattr(d, name) for d in found]), getattr(fast, name)
        assert abs(a.mean() - b.mean()) < 4.5 * b.std() / 5 + 0.02, name


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


@pytest.mark.parametrize("distribution", ALL)
def test_trials_are_consistent_and_reproducible(distribution, small_centre, monkeypatch):
    monkeypatch.setattr(simulation, "BLOCK_ROWS", 5_000)  # several blocks
    setting = {"scale": 3e-9, "rows": 500, "trials": 33, "distribution": distribution}
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
    found = simulation.simulate(centre, scale=1e-12, rows=50, trials=3)
    assert (found.unique == 1).all()
    assert (found.varying == 0).all()
    assert found.populations[0].tolist() == [50]
    ball = simulation.simulate(centre, scale=1e-12, rows=50, trials=3, distribution="ball")
    assert (ball.largest == 50).all()


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
    with pytest.raises(SystemExit):
        main(["snowball", "--help"])
    help = capsys.readouterr().out
    for word in (*centres.NAMES, *centres.MEASURED_KINDS, *Distribution):
        assert word in help
