"""What the chapters show in full is what lib computes: their functions are run and compared."""

import ast
import math
from collections import namedtuple
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
import torch
from scipy import linalg, special, stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import cdist, pdist

from book import reader
from lib import lattice, paths
from lib.analysis import (
    census,
    centres,
    clock,
    clusters,
    coalescence,
    crystal,
    mechanisms,
    qwen3,
    snowball,
)
from lib.analysis.clock import Recipe, Stage, Start
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
    names = {"np": np, "lattice": lattice, **given}
    exec(compile(ast.Module([wanted], []), chapter, "exec"), names)
    return names[name]


def test_value_ordinal_and_ulp():
    by_hand = shown("lattice/01-anatomy", "value_by_hand")
    np.testing.assert_array_equal(by_hand(FINITE), lattice.value(FINITE).astype(float))
    by_hand = shown("lattice/01-anatomy", "ordinal_by_hand")
    np.testing.assert_array_equal(by_hand(ALL), lattice.ordinal(ALL))
    by_hand = shown("lattice/01-anatomy", "ulp_by_hand")
    np.testing.assert_array_equal(by_hand(FINITE), lattice.ulp(FINITE).astype(float))


def test_historical_displacement_parts_from_steps_only_where_it_should():
    historical = shown("lattice/01-anatomy", "historical_displacement")
    before = FINITE[(FINITE & 0x7FFF) != lattice.LARGEST]
    one_up = historical(before, lattice.neighbour_up(before))
    sign, exponent, mantissa = lattice.fields(before)
    zero = (before & 0x7FFF) == 0
    # downwards in magnitude from a power of two (but not within E <= 1, where the ULP is one)
    half = (sign == 1) & (mantissa == 0) & (exponent > 1)
    assert np.isposinf(one_up[zero]).all() and half.sum() == 253
    assert (one_up[half] == 0.5).all() and (one_up[~zero & ~half] == 1).all()
    assert np.isneginf(historical(before[zero], lattice.neighbour_down(before[zero]))).all()
    assert (historical(before, before) == 0).all()
    assert historical(0x3F80, 0x4000) == (2.0 - 1.0) / 2.0**-7 == lattice.steps(0x3F80, 0x4000)
    assert historical(0x4000, 0x3F80) == -64  # but -128 steps


def test_rounding():
    x = np.random.default_rng(42).normal(size=50_001).astype(np.float32)
    x[:4] = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2.0**-140]  # two ties, a sign, a subnormal
    nearest = shown("lattice/01-anatomy", "round_nearest_by_hand")
    np.testing.assert_array_equal(nearest(x), lattice.round_nearest(x))
    stochastic = shown("lattice/01-anatomy", "round_stochastic_by_hand")
    ours, theirs = (np.random.default_rng(7) for _ in range(2))
    np.testing.assert_array_equal(stochastic(x, ours), lattice.round_stochastic(x, rng=theirs))


def fit_width(rng):
    """The fit of the chapter on constant dimensions, with the functions that it calls."""
    given = {"rng": rng, "xlogy": special.xlogy}
    given["Fit"] = namedtuple("Fit", "width low high classes p_value")
    for name in ("log_likelihood", "deviance", "share_as_far", "fit_width"):
        given[name] = shown("lattice/04-constant", name, **given)
    return given["fit_width"]


def test_the_fit_maximises_the_likelihood():
    def likelihood(R, step, varies):
        p = np.clip(R / step, 1e-300, 1 - 1e-3)
        return np.log(np.where(varies, p, 1 - p)).sum()

    rng = np.random.default_rng(3)
    step = 2.0 ** rng.integers(-28, -12, 2000)
    varies = rng.random(step.size) < np.minimum(1, 2e-7 / step)
    fit = fit_width(rng)(step, varies, trials=20)
    best = likelihood(fit.width, step, varies)
    assert all(best >= likelihood(fit.width * f, step, varies) for f in (0.8, 0.97, 1.03, 1.25))
    for end, beyond in ((fit.low, 0.98), (fit.high, 1.02)):
        assert best - likelihood(end, step, varies) < 1.93
        assert best - likelihood(end * beyond, step, varies) > 1.92


def test_the_spread_is_recovered_from_which_dimensions_vary():
    rng = np.random.default_rng(42)
    fitted = fit_width(rng)
    step = 2.0 ** rng.integers(-28, -12, 4000)
    width = 3e-7
    varies = rng.random(step.size) < np.minimum(1, width / step)
    fit = fitted(step, varies, trials=200)
    assert fit.low < width < fit.high and fit.p_value > 0.01
    assert fit.classes[:, 1].sum() == step.size and fit.classes[:, 2].sum() == varies.sum()
    wrong = rng.random(step.size) < 0.1  # no relation to the step
    assert fitted(step, wrong, trials=200).p_value < 0.01
    for all_or_none in (np.zeros, np.ones):
        with pytest.raises(AssertionError, match="some that vary"):
            fitted(step, all_or_none(step.size, bool), trials=200)


def test_round_trips_tell_the_format():
    survivors = shown("lattice/05-evidence", "survivors")
    x = np.random.default_rng(42).normal(size=4000).astype(np.float32)
    brain = lattice.value(lattice.round_nearest(x))
    half = x.astype(np.float16).astype(np.float32)
    assert survivors(brain)["bfloat16"] == 1 and survivors(half)["float16"] == 1
    assert 0.05 < survivors(half)["bfloat16"] < 0.25  # three bits too many: 1/8
    assert max(survivors(x).values()) < 0.01


def test_the_commonest_gap_is_a_step():
    commonest_gap = shown("lattice/05-evidence", "commonest_gap")
    values = lattice.value(np.arange(0x3F70, 0x3FC0, dtype=np.uint16))
    assert commonest_gap(np.concatenate([values, values])) == 2.0**-7


def test_constant_dimensions_and_what_centring_does_to_them():
    constant = shown("lattice/06-pitfalls", "constant")
    values = [[1.0, 2.0, 0.001], [1.0, 2.015625, 0.001], [1.0, 2.0, 0.00100708]]
    bits = lattice.round_nearest(np.array(values, np.float32))
    assert constant(bits) == constant(bits, np.zeros(3)) == 1
    assert constant(bits, np.array([0, 0, 1e6])) == 2  # merged by the subtraction


def test_neighbours_in_twenty_lines():
    small = shown("spongecrystal/03-neighbours", "neighbours_small")
    bits = lattice.round_nearest(np.random.default_rng(1).normal(0, 1, (60, 6)).astype(np.float32))
    bits[30:] = lattice.from_ordinal(lattice.ordinal(bits[:30]) + 1)
    expected = {tuple(e) for e in oracles.neighbours(bits).tolist()}
    assert small(bits) == expected and len(expected) >= 30


def test_the_box_counts_steps_values_and_exponents():
    box = namedtuple("Box", "extent diversity mantissa_only")
    measure = shown("spongecrystal/04-shape", "measure", Box=box)
    rows = [[0x3F80, 0x0001, 0x3C00], [0x3F82, 0x8001, 0x3C00], [0x3F7F, 0x0001, 0x3C00]]
    found = measure(np.array(rows, np.uint16), 7)
    assert found.extent.tolist() == [3, 2, 0] and found.diversity.tolist() == [3, 2, 1]
    assert found.mantissa_only.tolist() == [False, False, True]
    half = np.array([[1.0], [1.5], [1.9]], dtype=np.float16).view(np.uint16)
    assert measure(half, 10).mantissa_only.all() and not measure(half, 7).mantissa_only.any()


def all_combinations(bits: int) -> np.ndarray:
    return np.array([[i >> b & 1 for b in range(bits)] for i in range(2**bits)])


def test_shattering_counts_the_dimensions_of_a_cloud():
    shattered = shown("spongecrystal/05-flips", "shattered", combinations=combinations)
    assert shattered(all_combinations(3)) == 3 and shattered(all_combinations(2)) == 2
    line = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])  # walls crossed one by one
    assert shattered(line) == 1
    assert shattered(np.array([[0], [1], [2]])) == 0  # no dimension with two states


def test_a_line_of_descent_is_consistent_and_a_cube_is_not():
    consistency = shown("spongecrystal/05-flips", "consistency", hierarchy=hierarchy)
    assert consistency(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])) == 1
    assert consistency(all_combinations(3)) == pytest.approx(3 / 7)
    table = np.random.default_rng(0).integers(0, 3, (12, 20))
    apart = (table[:, None] != table).sum(axis=-1)
    tree = nx.minimum_spanning_tree(nx.from_numpy_array(apart))
    assert consistency(table) == table.max(axis=0).sum() / tree.size(weight="weight")


def test_a_line_cut_by_walls_has_one_cell_more_than_walls():
    table = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    every = np.repeat(table, [40, 30, 20, 10], axis=0)
    given = {"every": every, "rng": np.random.default_rng(42)}
    given["cut"] = shown("spongecrystal/05-flips", "cut")
    cut_cloud = shown("spongecrystal/05-flips", "cut_cloud", **given)
    line = crystal.counted(cut_cloud(1) for _ in range(20))
    assert (line.distinct == 4).mean() > 0.9
    plane = crystal.counted(cut_cloud(2) for _ in range(20)).distinct
    assert plane.max() <= 8 and plane.mean() > 4.5


def test_the_dimensions_that_vary_are_as_many_as_their_ranges_say():
    expected_varying = shown("spongecrystal/07-grown", "expected_varying")
    rng = np.random.default_rng(42)
    centre = rng.uniform(0.26, 0.49, 2000).astype(np.float32)
    rows = centre + np.float32(3e-5) * rng.standard_normal((50, 2000)).astype(np.float32)
    varying = (np.ptp(lattice.ordinal(lattice.round_nearest(rows)), axis=0) > 0).sum()
    mean, spread = expected_varying(rows)
    assert 0 < spread < mean**0.5 and abs(varying - mean) < 4 * spread


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


def test_a_square_field_of_ninety_degrees_is_a_sixth_of_the_sky():
    square_share = shown("discovery/03-sky", "square_share")
    assert square_share(90) == pytest.approx(1 / 6)
    assert square_share(1) == pytest.approx(np.pi / 129_600, rel=1e-4)


def test_pairs_are_of_two_rows_and_measured_in_all_dimensions():
    rng = np.random.default_rng(42)
    random_pairs = shown("discovery/04-distances", "random_pairs", rng=rng, pairs=5000)
    pairs, rows = random_pairs(40), rng.normal(size=(40, 9))
    assert (pairs[:, 0] != pairs[:, 1]).all() and set(pairs.ravel()) == set(range(40))
    cosines, distances = shown("discovery/04-distances", "cosines_and_distances")(rows, pairs)
    np.testing.assert_allclose(distances, cdist(rows, rows)[*pairs.T])
    np.testing.assert_allclose(cosines, 1 - cdist(rows, rows, "cosine")[*pairs.T])


def test_rows_within_a_radius():
    near, two = np.array([[0.0, 1.0, 1.0, 2.0]]), np.array([[0.0, 1.0], [2.0, np.inf]])
    within = shown("discovery/04-distances", "counts_within", radii=np.array([0.0, 0.5, 1.0, 3.0]))
    assert within(near, 1.0).tolist() == [1, 1, 3, 4]
    within = shown("discovery/04-distances", "counts_within", radii=np.array([1.5, 2.5]))
    assert within(two, np.array([1.0, 10.0])).tolist() == [5.5, 6.0]


def test_float32_products_merge_rows_that_differ():
    rng = np.random.default_rng(42)
    ball = rng.normal(size=64) * 0.04 + rng.normal(size=(80, 64)) * 1e-6
    ball[10:30] = ball[10]
    tools = {"torch": torch, "pdist": pdist}
    true, fast = shown("discovery/04-distances", "true_and_fast", **tools)(ball.astype(np.float32))
    assert (true == 0).sum() == 20 * 19 / 2  # twenty twins
    differ = true > 0
    assert (np.abs(fast[differ] / true[differ] - 1) > 0.5).mean() > 0.5  # the trap is real here


def test_the_causal_metric():
    rng = np.random.default_rng(42)
    given = {"ridge": 0, "linalg": linalg}
    causal_lens = shown("discovery/04-distances", "causal_lens", **given)
    rows = rng.normal(size=(5000, 6)) * np.arange(1, 7)
    change, seen = rng.normal(size=(6, 6)), []
    for w in (rows, rows @ change):  # the same logits, written down in two ways
        lens, _ = causal_lens(np.cov(w.T, bias=True))
        seen.append((w - w.mean(axis=0)) @ lens)
    np.testing.assert_allclose(np.cov(seen[0].T, bias=True), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(seen[0][:99] @ seen[0][:99].T, seen[1][:99] @ seen[1][:99].T)
    causal_lens = shown("discovery/04-distances", "causal_lens", **given | {"ridge": 0.1})
    assert causal_lens(np.diag([1.0, 1.0, 0.0]))[1] < 20  # a flat cloud needs a ridge


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
    by_hand = shown("dynamics/02-push", "by_hand", softmax=special.softmax)
    rng = np.random.default_rng(0)
    h, W = rng.normal(size=(30, 6)), rng.normal(size=(11, 6))
    expected = oracles.gradient(h, W, rng.integers(0, 8, 30))  # 8, 9 and 10 are never wanted
    np.testing.assert_allclose(by_hand(h, W, np.arange(8, 11)), expected[8:], atol=1e-12)


def test_strata_are_shares_of_phases():
    strata = shown("dynamics/03-first-look", "strata", at=np.arange(1, 8), steps=7)
    exits = {"early": [3, 0], "midlife": [3, 2], "motion": [6, 2]}
    found = strata(exits)
    in_phase = np.array([[sum(t > last[i] for last in exits.values()) for t in range(1, 8)]
                         for i in range(2)])  # fmt: skip
    assert found.tolist() == [(in_phase == phase).mean(0).tolist() for phase in range(4)]


def test_epochs_of_a_drawn_breath():
    Epochs = namedtuple("Epochs", "inhale sneeze dip")
    epochs = shown("dynamics/03-first-look", "epochs", Epochs=Epochs)
    assert epochs(np.array([1.0, 0.99, 0.98, 0.985, 0.99, 1.2, 1.3, 1.31])) == (2, 5, 0.98)


def test_frozen_for_good_is_not_standing_still():
    frozen = shown("dynamics/10-freezing", "frozen")
    arm = {"motion": np.array([5, 0]), "still": np.zeros(6)}
    assert frozen(arm).tolist() == [0.5, 0.5, 0.5, 0.5, 0.5, 1]


def test_a_rank_is_found_and_noise_is_not():
    rank = shown("dynamics/10-freezing", "rank_correlation", stats=stats)
    rng = np.random.default_rng(0)
    last = rng.integers(1, 1000, (3, 200))
    other = rng.integers(0, 5, (3, 200))  # with ties
    assert rank(last, last.astype(float) ** 3) == pytest.approx(1)
    for i, rho in enumerate(rank(last, other)):
        assert rho == pytest.approx(stats.spearmanr(last[i], other[i]).statistic)
    traits = {"cubed": last[0] ** 3, "noise": rng.random(200), "same": np.ones(200)}
    given = {"traits": traits, "draws": 200, "seed": 42, "stats": stats, "rank_correlation": rank}
    association = shown("dynamics/10-freezing", "association", **given)
    assert association({"motion": last[0]}, "cubed") == pytest.approx(1)
    rho, low, high = association({"motion": last[0]}, "noise")
    assert low < 0 < high and low < rho < high and abs(rho) < 0.2
    assert np.isnan(association({"motion": last[0]}, "same")).all()


def test_adam_written_out():
    run = Run(lr=1e-3, beta2=0.999)
    adamw = shown("dynamics/04-theory", "adamw", lr=run.lr, beta2=run.beta2)
    state = [torch.randn(4096, generator=torch.Generator().manual_seed(1)).bfloat16()]
    state += [torch.zeros(4096).bfloat16() for _ in range(2)]
    for step in range(1, 6):
        g = torch.randn(4096, generator=torch.Generator().manual_seed(10 + step)).bfloat16()
        w, m, v = (x.float() for x in state)
        found = adamw(w, g.float(), m, v, step, keep=lambda x: x.bfloat16().float())
        state = optim.adamw_reference(state[0], g, *state[1:], run, step)
        for ours, theirs in zip(found, state, strict=True):  # but for a fused multiply-add
            assert (ours == theirs.float()).float().mean() > 0.999


def test_a_valley_is_a_census_of_what_a_deletion_leaves():
    given = {"snowball": snowball, "demographics": census.demographics}
    given |= {"sigma": 1e-6, "population": 60, "valley_rows": 60}
    centre = np.random.default_rng(1).normal(0, 0.01, 40).astype(np.float32)
    valley = shown("monument-valley/02-two-centres", "monument_valley", **given)
    everyone = snowball.sample(centre, scale=1e-6, rows=60, rng=np.random.default_rng(7))
    found = valley(centre, np.random.default_rng(7))  # where all survive, the order is all
    assert np.array_equal(found.populations, census.demographics(everyone).populations)
    fewer = shown(
        "monument-valley/02-two-centres", "monument_valley", **(given | {"valley_rows": 9})
    )
    assert fewer(centre, np.random.default_rng(7)).populations.sum() == 9


def test_further_borders_go_on_as_densely():
    borders = centres.fit_borders()
    further = shown("monument-valley/02-two-centres", "further_borders", borders=borders)
    known = np.sort(borders.distance)
    far = further(3 * known[-1], np.random.default_rng(0))
    assert np.array_equal(far[:7], known) and (far[7:] > known[-1]).all()
    assert abs(len(far) - 21) < 4 * 14**0.5
    assert np.array_equal(further(0.0, np.random.default_rng(0)), known)


def test_dimensions_dealt_anew_keep_their_steps_and_lose_their_ties():
    deal = shown("monument-valley/05-inference", "independent_holes")
    steps = np.repeat([[0, 0, 0], [1, 1, 1]], 50, axis=0)
    assert (deal(steps, 5, np.random.default_rng(0)) == 8).all()  # all corners of a cube
    assert (deal(steps[:, :1], 3, np.random.default_rng(0)) == 2).all()


def test_an_interval_is_that_of_the_textbook():
    slopes = {"a": 1.0, "b": 2.0, "c": 3.0}
    interval = shown("coalescence/03-law", "interval", stats=stats, slopes=slopes, level=0.95)
    mean, low, high = interval(slopes)
    assert mean == 2 and high - mean == pytest.approx(4.302652729749464 / 3**0.5)
    assert mean - low == pytest.approx(high - mean)


def test_stochastic_rounding_alone_comes_to_the_predicted_temperature():
    noise_spread = shown("coalescence/05-holes", "noise_spread")
    decay, steps, ulp = 0.98, 150, 2.0**-15
    rng = np.random.default_rng(42)
    target = np.linspace(0.0048, 0.0068, 40)  # well inside one binade
    rows = np.tile(target, (300, 1)).astype(np.float32)
    width, noise = [0.0], []
    for _ in range(steps):
        push = (1 - decay) * target * (1 + 0.3 * rng.standard_normal(40))
        wanted = (rows * decay + push).astype(np.float32)
        f = wanted / ulp % 1
        noise.append((ulp**2 * f * (1 - f)).sum(axis=1).mean())
        rows = lattice.value(lattice.round_stochastic(wanted, rng=rng))
        width.append(float(coalescence.spread(rows)))
    thermal = noise_spread(0.0, np.full(steps, 1 - decay**2), np.array(noise))
    assert len(thermal) == steps + 1 and thermal[-1] > 40**0.5 * ulp  # heated from nothing
    np.testing.assert_allclose(width[50:], thermal[50:], rtol=0.05)


def test_rows_after_a_cast_shrink_round_the_new_centre():
    rng = np.random.default_rng(5)
    cast, now = rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=(3, 4))
    stages = {"second.rows": [cast]}
    found = shown("coalescence/06-lives", "lawful_rows", stages=stages)(now, 1.5)
    assert np.allclose(found.mean(0), now.mean(0))
    assert np.isclose(coalescence.spread(found) / coalescence.spread(cast), np.exp(-1.5))


def test_pairs_merge_as_often_as_no_border_comes_between():
    merge_probability = shown("coalescence/06-lives", "merge_probability")
    assert merge_probability(np.zeros(5), 0.1) == 1 and merge_probability(np.array([1, 0]), 0) == 0
    steps, rng = np.array([3, -1, 0]), np.random.default_rng(0)
    places = rng.random((200_000, 3))  # of the one, in a cell; the other is that far off
    together = np.floor(places) == np.floor(places + steps * np.exp(-2.0))
    assert abs(together.all(axis=1).mean() - merge_probability(steps, 2.0)) < 0.005


def test_a_published_stage_is_a_run():
    stage_run = shown("coalescence/07-dosimeter", "stage_run", Run=Run)
    facts = {"peak": 1e-3, "decay": 0.1, "steps": 10_000, "warmup": 100}
    run = stage_run({name: {"value": value} for name, value in facts.items()})
    rates = [optim.learning_rate(run, step) for step in range(1, 10_001)]
    assert max(rates) == rates[99] == 1e-3 and rates[-1] == 0
    total = coalescence.exposure(run)[-1]
    assert np.isclose(total, 0.5 * 1e-3 * 0.1 * 10_000, rtol=1e-3)  # half the peak
    last_rate = shown("coalescence/07-dosimeter", "last_rate", coalescence=coalescence, optim=optim)
    longer = run.replace(weight_decay=3.0)
    left = sum(rate * 3.0 for rate in rates[100:] if rate < last_rate(longer))
    assert 0.99 < left < 1


def test_a_dose_of_exposure():
    exposure = shown("coalescence/07-dosimeter", "exposure")
    middle, low, high = exposure(np.array([2e-6, 1e-6, 4e-6]), 0.02)
    np.testing.assert_allclose([middle, low, high], np.log([1e4, 5e3, 2e4]))
    assert np.isinf(exposure(np.zeros(3), 0.02)).all()


Pattern = namedtuple("Pattern", "distinct holes varying several gapped correlation")


def pattern(bits: np.ndarray) -> Pattern:
    """The pattern of rows as the chapter on the odd dimensions counts it."""
    strongest = shown("coalescence/08-dimensions", "strongest")
    given = {"census": census, "Pattern": Pattern, "strongest": strongest}
    return shown("coalescence/08-dimensions", "pattern_of", **given)(bits)


def printed_pattern() -> Pattern:
    holes = qwen3.thirteen()
    return pattern(np.repeat(holes.bits, holes.populations, axis=0))


def test_the_printed_pattern():
    found = printed_pattern()
    assert (found.distinct, found.holes, found.varying) == (13, 13, 20)
    assert 0 < found.gapped <= found.several and found.correlation > 0.9


def test_a_planted_pattern_is_counted():
    bits = np.tile(lattice.round_nearest(np.float32([0.01, 0.02, 0.03, 0.04])), (6, 1))
    bits[3:, 1] += 3  # two modes, three steps apart
    bits[3:, 2] += 3
    bits[5, 3] += 1
    assert pattern(bits) == Pattern(3, 2, 3, 2, 2, pytest.approx(1.0))
    assert pattern(bits[:3]) == Pattern(1, 1, 0, 0, 0, 0.0)
    assert pattern(bits[:1]) == Pattern(1, 0, 0, 0, 0, 0.0)


def test_a_pattern_of_holes_leaves_single_rows_out():
    bits = np.tile(lattice.round_nearest(np.float32([0.01, 0.02, 0.03])), (5, 1))
    bits[2:4, 1] += 1
    bits[4, 2] += 9  # stands alone
    assert pattern(census.without_singles(bits)) == Pattern(2, 2, 1, 0, 0, 0.0)
    whole = pattern(bits)
    assert (whole.distinct, whole.holes, whole.varying, whole.several) == (3, 2, 2, 1)
    nothing = pattern(census.without_singles(bits[[0, 2, 4]]))
    assert nothing == Pattern(0, 0, 0, 0, 0, 0.0)


@pytest.mark.slow
def test_few_points_moved_apart_come_nearer_to_the_print_than_a_cloud():
    far_apart, wanted = shown("coalescence/08-dimensions", "far_apart"), printed_pattern()
    cloud = mechanisms.cloud(2e-9, rows=2212, steps=80)
    assert np.isclose(cloud.astype(np.float64).std(axis=0).mean(), 2e-9, rtol=0.1)

    def far(mechanism, size):
        moved = mechanisms.displaced(cloud, mechanism, size)
        return far_apart(pattern(census.without_singles(moved)), wanted)

    heated = min(far(mechanisms.Mechanism.HEAT, size) for size in (3e-8, 6e-8))
    assert heated < far(mechanisms.Mechanism.NONE, 0.0)


def test_patterns_and_clouds_of_the_odd_dimensions():
    far_apart = shown("coalescence/08-dimensions", "far_apart")
    one, other = Pattern(3, 2, 3, 2, 2, 1.0), Pattern(7, 2, 3, 5, 2, 0.0)
    assert far_apart(one, one) == 0
    assert far_apart(one, other) == far_apart(other, one) == pytest.approx(2 * np.log(2))
    cooled = shown("coalescence/08-dimensions", "cooled")
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    colder = cooled(rows, 0.5)
    np.testing.assert_allclose(colder.mean(axis=0), rows.mean(axis=0), atol=1e-6)
    assert colder.dtype == np.float32 and np.allclose(colder.std(axis=0), rows.std(axis=0) / 2)


# ------------------------------------------------------------------------ rows rounded alike
ALIKE = "coalescence/09-rounded-alike"
HALF = shown(ALIKE, "half")
CUT_SUM = shown(ALIKE, "cut_sum")
FINE, CAST, COARSE = ROUNDINGS = (np.asarray, np.asarray), (np.asarray, HALF), (HALF, HALF)


def terms(scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(42).standard_normal((30, 8))).astype(np.float32)


def film(rounding, *, steps=60, blocks=4, **arm):
    """The chapter's film of 24 rows of 16 dimensions, sums of 12 terms, four looks."""
    names = {"rows": 24, "dim": 16, "blocks": blocks, "terms": 12, "lr": 1e-3, "decay": 4.0}
    names |= {"snapshots": 3, "seed": 42, "block": np.arange(24) * blocks // 24}
    names |= {"Film": namedtuple("Film", "exposure rows error"), "cut_sum": CUT_SUM}
    for name in ("begin", "prescribed", "gradients", "sums_apart", "adam", "walk", "film"):
        names[name] = shown(ALIKE, name, **names)
    return names["film"](rounding, steps, **arm)


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_a_cut_sum_is_the_sum_but_for_rounding(parts):
    exact = terms().astype(np.float64).sum(axis=0)
    size = np.abs(terms()).sum(axis=0)
    for rounding, error in ((FINE, 2e-6), (CAST, 2**-8), (COARSE, 2**-7)):
        assert (np.abs(CUT_SUM(parts, terms(), *rounding) - exact) <= error * size).all()


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_in_bfloat16_are_rounded_one_by_one(parts):
    pieces = [piece.sum(axis=0) for piece in np.array_split(terms(), parts)]
    rounded = [lattice.value(lattice.round_nearest(piece)) for piece in pieces]
    total = np.stack(rounded).sum(axis=0)
    found = CUT_SUM(parts, terms(), *COARSE)
    assert np.array_equal(found, lattice.value(lattice.round_nearest(total)))


def test_without_rounding_errors_no_cut_can_be_seen():
    whole = np.random.default_rng(42).integers(-4, 5, (30, 8)).astype(np.float32)
    for rounding in ROUNDINGS:
        assert all(
            np.array_equal(CUT_SUM(k, whole, *rounding), whole.sum(axis=0)) for k in range(1, 9)
        )


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=["fine", "cast", "coarse"])
def test_rows_of_one_block_stay_one_row_and_blocks_part(rounding):
    history = film(rounding)
    assert history.rows.shape == (4, 24, 16) and history.rows.dtype == np.float32
    block = np.arange(24) * 4 // 24
    for k in range(4):
        assert (history.rows[:, block == k] == history.rows[:, block == k][:, :1]).all()
    if rounding is not CAST:  # a cast rarely shows the last bits of so short a run
        assert len(np.unique(history.rows[-1], axis=0)) > 1 and history.error > 0


def test_one_block_or_no_cut_keeps_one_point():
    for change in ({"blocks": 1}, {"every": 1000}):
        history = film(COARSE, **change)
        assert len(np.unique(history.rows[-1], axis=0)) == 1 and history.error == 0


def test_decay_draws_independent_starts_together_by_the_law():
    history = film(FINE, spread=0.1, steps=300)
    wide = history.rows.astype(np.float64).std(axis=1).mean(axis=1)
    assert np.allclose(wide / wide[0], np.exp(-history.exposure), rtol=1e-3)


# ------------------------------------------------------------------------ the clock
RELEASED = "clock/02-released"
KICK = shown("clock/01-statement", "kick")


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999), (0.8, 0.9)])
def test_one_gradient_kicks_every_component_alike(betas):
    beta1, beta2 = betas
    for gradient in (1e-3, 7.0):
        m = v = moved = 0.0
        for step in range(1, 20_000):
            g = gradient if step == 5_000 else 0.0
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            late = (1 - beta1**step, math.sqrt(1 - beta2**step))
            moved += (m / late[0]) / (math.sqrt(v) / late[1] + 1e-30)
        assert moved == pytest.approx(KICK(*betas), rel=0.005)
    with pytest.raises(AssertionError, match="does not converge"):
        KICK(0.99, 0.95)


def test_a_row_seen_once_is_a_kick_that_decayed_since():
    found = Recipe((Stage(1000, 1e-3, 1.0),), Start(0.02))
    norms = shown(RELEASED, "seen_once", kick=KICK())(found, 64)
    never = found.start.norm(64)[0] * math.exp(-found.total)
    fresh = KICK() * 1e-3 * 8
    assert norms[-1] == pytest.approx(math.hypot(fresh, never))
    assert norms[0] == pytest.approx(math.hypot(fresh * math.exp(-found.total), never), rel=0.01)
    since = shown("clock/01-statement", "kicked", kick=KICK)
    alone = since(found.stages[0].rates(), found.exposure(), 64)
    np.testing.assert_allclose(np.hypot(alone, never), norms)


STARTS = [Start(0.02), Start(0.02, cut=3), Start(0.02, cut=2), Start(0.02, law="uniform")]


@pytest.mark.parametrize("start", STARTS)
def test_an_exposure_read_from_a_median_is_as_good_as_it_says(start):
    read_median = shown(RELEASED, "read_median")
    rng, inside, exposure = np.random.default_rng(2), 0, 7.25
    for _ in range(300):
        rows = 0.02 * start.unit.rvs((25, 300), random_state=rng) * math.exp(-exposure)
        median = np.median(np.linalg.norm(rows, axis=1))
        found, error = read_median(median, 25, start, 300)
        inside += abs(found - exposure) < stats.norm.ppf(0.975) * error
    assert 0.91 < inside / 300 < 0.985


def test_squares_in_float32_are_multiples_of_the_smallest_number():
    float32_norms = shown(RELEASED, "float32_norms")
    rows = 2.6e-23 * np.random.default_rng(3).standard_normal((400, 1024))
    squares = float32_norms(rows) ** 2 / clock.SUBNORMAL
    assert np.abs(squares - squares.round()).max() < 1e-6
    usual = rows * 1e15
    assert float32_norms(usual) == pytest.approx(np.linalg.norm(usual, axis=1), rel=1e-5)


@pytest.mark.parametrize("scale", [2.2e-23, 2.8e-23, 4e-23, 1e-21])
def test_a_norm_is_restored_from_subnormal_squares(scale):
    rows = scale * np.random.default_rng(4).standard_normal((400, 4096))
    printed = np.sqrt(np.mean(shown(RELEASED, "float32_norms")(rows) ** 2))
    assert clock.restored(printed, 4096, Start(1.0)) == pytest.approx(64 * scale, rel=3e-3)


def test_row_by_row_tells_one_factor_from_a_common_start_from_nothing():
    names = namedtuple("Pairing", "rows factor scatter correlation")
    pairing = shown(RELEASED, "pairing", Pairing=names)
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((200, 4096))
    norms = dict(enumerate(np.linalg.norm(rows, axis=1)))
    child = {id: 0.87 * norm for id, norm in norms.items()}
    other = dict(enumerate(np.linalg.norm(rng.standard_normal((200, 4096)), axis=1)))
    same, apart = pairing(norms, child), pairing(norms, other)
    assert same.factor == pytest.approx(0.87) and same.scatter < 1e-12 and same.correlation > 0.999
    assert abs(apart.correlation) < 0.25 and apart.scatter > 0.01 and apart.rows == 200
    with pytest.raises(AssertionError, match="2 rows in common"):
        pairing({1: 1.0, 2: 1.0}, {1: 1.0, 2: 1.0, 3: 1.0})


def test_the_second_contraction_is_what_exposure_leaves():
    """Γ from widths per dimension is ln of coalescence.spread, less exposure."""
    rng = np.random.default_rng(0)
    clouds = rng.normal(size=(2, 3, 40, 6)) * rng.uniform(0.1, 2, (2, 3, 1, 6))
    record = {"width": clouds.std(2), "exposure": rng.uniform(0, 1, (2, 3))}
    ln_spread = shown("clock/03-tied-rows", "ln_spread")
    gamma = shown("clock/03-tied-rows", "gamma", ln_spread=ln_spread)
    spread = coalescence.spread(clouds)
    wanted = np.log(spread[:, :1] / spread) - record["exposure"]
    np.testing.assert_allclose(gamma(record), wanted, rtol=1e-9, atol=1e-12)


def test_collapsed_directions_and_what_they_take():
    """Of D directions r shrink for good: K counts them, and Γ is -ln(1 - r/D)/2."""
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    K = axes @ np.diag([40.0] * 5 + [1e-3] * 7) @ axes.T
    assert shown("clock/03-tied-rows", "collapsed")(K) == 5
    left = np.square(linalg.expm(-K)).sum() / 12
    assert -np.log(left) / 2 == pytest.approx(-np.log1p(-5 / 12) / 2, abs=2e-3)


def test_the_closed_form_counts_logits():
    """A steady push: ln p falls by 3 at ρ = 8 in 4 dimensions, and then decay is resisted."""
    record = {
        "variance": np.full((1, 4, 4), 2.0),
        "mean": np.full((1, 4, 4), 0.5),
        "probability": np.exp([[-np.inf, -6.0, -9.0, -9.0]]),
        "logit": np.full((1, 4), -5.0),
        "exposure": np.array([[0.0, 0.0, 0.0, 0.1]]),
        "width": np.ones((1, 4, 4)),
    }
    found = shown("clock/03-tied-rows", "closed")(record)
    np.testing.assert_allclose(found, [[0, 0, 3 * 8 / 4, 3 * 8 / 4 + 8 * 5 * 0.1 / 4]])
