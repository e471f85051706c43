"""Coalescence: the law's predictions, late deaths, the dosimeter, published recipes."""

import numpy as np
import pytest
import yaml

from lib import lattice, paths
from lib.analysis import coalescence
from lib.training import loop, optim
from lib.training.config import FLOAT32, SMALL_FLOAT32, Run

RUN = Run(vocab=52, dim=16, layers=1, heads=2, ff=16, seq=8, batch=4, steps=15, **FLOAT32)


def test_last_seen_agrees_with_what_the_loop_was_given():
    ids, seen = np.random.default_rng(42).integers(0, 40, 4000), np.zeros(3, dtype=int)

    def observe(moment):
        if moment.step:
            for k in range(3):
                inputs = loop.batch(ids, RUN, moment.step)[0]
                met = (moment.targets == k).any() or (inputs == k).any()
                seen[k] = moment.step if met else seen[k]

    loop.train(RUN, ids, observers=[observe])
    met = coalescence.meetings(RUN, ids, slice(0, 3))
    steps, times = coalescence.last_seen(met)
    assert (steps == seen).all() and (times == met[:, :, 0].sum(0)).all() and times.all()
    early, _ = coalescence.last_seen(coalescence.meetings(RUN, ids, slice(0, 3), until=5))
    assert (early <= 5).all() and early.any()


def test_exposure_is_minus_the_log_of_the_decay_factors():
    run = RUN.replace(steps=10, warmup=4, schedule="cosine", weight_decay=3.0)
    factors = [1 - optim.learning_rate(run, t) * run.weight_decay for t in range(1, 11)]
    assert np.allclose(coalescence.exposure(run)[1:], -np.log(np.cumprod(factors)))


def test_demography_counts_what_was_planted():
    rows = np.full((6, 4), 0.01, dtype=np.float32)
    rows[3:5, 1] = lattice.value(lattice.neighbour_up(lattice.round_nearest(rows[3:5, 1])))
    rows[5, 2] = 0.02
    found = coalescence.demography(rows)
    assert found.populations.tolist() == [3, 2, 1]
    assert (found.unique, found.holes, found.varying, found.linf) == (3, 2, 2, 128)


def test_predicted_counts_are_those_of_snowballs():
    rng = np.random.default_rng(3)
    centre = rng.normal(0, 0.01, 40).astype(np.float32)
    clouds = centre + 2e-5 * rng.standard_normal((60, 50, 40)).astype(np.float32)
    seen = coalescence.census(clouds.astype(np.float32))
    band = coalescence.predicted(clouds[:1], np.array([2e-5]), trials=400)
    for name in coalescence.COUNTS:
        low, _, high = band[name][0]
        inside = ((seen[name] >= low) & (seen[name] <= high)).mean()
        assert inside > 0.8, (name, inside, band[name])


def test_rows_after_a_cast_shrink_round_the_new_centre():
    rng = np.random.default_rng(5)
    rows, centre = rng.normal(size=(9, 4)), rng.normal(size=4)
    found = coalescence.shrunk(rows, centre, 1.5)
    assert np.allclose(found.mean(0), centre)
    assert np.isclose(coalescence.spread(found) / coalescence.spread(rows), np.exp(-1.5))


def test_merge_probability_is_one_for_equal_rows_and_falls_with_steps():
    assert coalescence.merge_probability(np.zeros(5), 0.1) == 1.0
    assert coalescence.merge_probability(np.array([1, 0]), 0.0) == 0.0
    near = coalescence.merge_probability(np.array([1, 0]), 2.0)
    assert np.isclose(near, 1 - np.exp(-2.0))
    assert coalescence.merge_probability(np.array([1, 1]), 2.0) < near


def test_slope_and_interval_are_those_of_the_textbook():
    exposure = np.linspace(0, 3, 7)
    assert coalescence.slope(exposure, 5 * np.exp(-exposure)) == pytest.approx(-1)
    rows = np.exp(-exposure)[:, None, None] * np.random.default_rng(0).normal(size=(1, 9, 4))
    np.testing.assert_allclose(coalescence.excess(rows, exposure), 0, atol=1e-12)
    mean, low, high = coalescence.interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2 and high - mean == pytest.approx(4.302652729749464 / 3**0.5)
    assert mean - low == pytest.approx(high - mean)


def test_the_dosimeter_finds_a_planted_width_below_the_lattice_step():
    rng = np.random.default_rng(42)
    centre = rng.normal(0, 0.0073, 4000).astype(np.float32)
    rows = (centre + 2e-6 * rng.standard_normal((300, 4000))).astype(np.float32)
    values = lattice.value(lattice.round_nearest(rows))
    assert np.median(lattice.ulp(lattice.round_nearest(centre))) > 5 * 2e-6
    unique, counts = np.unique(values, axis=0, return_counts=True)
    found = coalescence.dose(unique, counts, 4000, draws=200)
    assert found.low < 2e-6 < found.high and found.high < 1.3 * found.low
    exposure, low, high = found.exposure(0.02)
    assert low < np.log(0.02 / 2e-6) < high and low < exposure < high


def test_the_dosimeter_weighs_repeated_rows_like_the_rows_themselves():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 3, (5, 7)).astype(float)
    counts = np.array([4, 1, 2, 1, 3])
    whole = np.repeat(values, counts, axis=0)
    direct = np.abs(whole[:, None] - whole[None]).sum() / (len(whole) * (len(whole) - 1)) / 7
    assert np.isclose(
        coalescence.dose(values, counts, 7, draws=10).sigma * 2 / np.sqrt(np.pi), direct
    )


def test_a_row_never_met_is_not_behind_and_one_met_lately_is_farther_than_one_met_early():
    run = SMALL_FLOAT32.replace(vocab=60, steps=1600, weight_decay=3.0)
    record = {
        "steps": np.array([0, 1600]),
        "push": np.ones((2, run.dim)),
        "gradient": np.full(1600, 1e-6),
        "hidden": np.ones(1600),
    }
    met = np.zeros((1601, 4, 2), dtype=np.int64)
    met[100, 1, 0] = met[700, 2, 0] = 1
    met[100:110, 3, 0] = 1
    found = coalescence.late_distance(run, record, met)
    assert found[0] == 0 and found[2] > found[3] > found[1] > 0
    later = coalescence.exposure(run)[700] - coalescence.exposure(run)[100]
    assert np.isclose(np.log(found[2] / found[1]), later, rtol=0.05)  # long after both: the law
    louder = coalescence.late_distance(run, {**record, "hidden": np.full(1600, 10.0)}, met)
    assert (louder[1:] > found[1:]).all()
    rows = np.random.default_rng(0).normal(size=(2, 4 + 3, run.dim))
    rows[-1, :4] = 3 * rows[-1, 4:].mean(0)
    tokens = coalescence.late_tokens(run, {**record, "rows": rows}, met)
    unseen, total = rows[-1, 4:], coalescence.exposure(run)
    assert tokens["times"].tolist() == [0, 1, 1, 10]
    np.testing.assert_allclose(tokens["since"], total[-1] - total[[0, 100, 700, 109]])
    np.testing.assert_allclose(tokens["distance"], 2 * np.linalg.norm(unseen.mean(0)))
    np.testing.assert_allclose([tokens["norm"], tokens["cosine"]], [[3] * 4, [1] * 4])
    width = coalescence.spread(unseen)
    np.testing.assert_allclose(tokens["foreseen"], np.hypot(found, width))


def test_a_recipe_adds_up_to_half_the_peak():
    stage = coalescence.Stage(peak=1e-3, decay=0.1, steps=10_000, warmup=100)
    rates = stage.rates()
    assert rates.max() == 1e-3 and rates[99] == 1e-3 and rates[-1] == 0
    assert np.isclose(stage.exposure(), 0.5 * 1e-3 * 0.1 * 10_000, rtol=1e-3)
    left = (rates * 0.1)[
        rates < coalescence.last_rate(coalescence.Stage(1e-3, 3.0, 10_000, 100))
    ].sum()
    assert left < 1


def test_every_published_value_names_its_source():
    table = yaml.safe_load((paths.DATA / "recipes.yaml").read_text(encoding="utf-8"))
    assert set(table) == {"whisper-base", "minilm-l6"}
    for name, entry in table.items():
        assert entry["verified"] and entry["paper"]
        values = [entry[k] for k in ("initial", "optimizer", "eps", "schedule", "arithmetic")]
        for part in entry["stages"]:
            values += [part[k] for k in ("peak", "decay", "steps", "warmup")]
        assert all("value" in v and v["source"] for v in values)
        assert coalescence.schedule(name).exposure() > 0
    with pytest.raises(KeyError, match="there are whisper-base, minilm-l6"):
        coalescence.schedule("gpt-7")
