"""Coalescence: the law's predictions, where it breaks, late deaths, the dosimeter, recipes."""

import numpy as np
import pytest
import torch
import yaml

from lib import lattice, paths
from lib.analysis import coalescence
from lib.analysis.census import demographics
from lib.analysis.coalescence import Setting
from lib.training import loop, optim
from lib.training.config import FLOAT32, SMALL_FLOAT32, Run

RUN = Run(vocab=52, dim=16, layers=1, heads=2, ff=16, seq=8, batch=4, steps=15, **FLOAT32)


def test_meetings_are_what_the_loop_was_given():
    ids, seen = np.random.default_rng(42).integers(0, 40, 4000), np.zeros((16, 3, 2), dtype=int)

    def observe(moment):
        if moment.step:
            inputs = loop.batch(ids, RUN, moment.step)[0]
            for kind, tokens in enumerate((moment.targets, inputs)):
                seen[moment.step, :, kind] = [(tokens == k).sum() for k in range(3)]

    loop.train(RUN, ids, observers=[observe])
    met = coalescence.meetings(RUN, ids, slice(0, 3))
    assert (met == seen).all() and met.any(axis=(0, 2)).all()
    early = coalescence.meetings(RUN, ids, slice(0, 3), until=5)
    assert (early[:6] == met[:6]).all() and not early[6:].any()


def test_exposure_is_minus_the_log_of_the_decay_factors():
    run = RUN.replace(steps=10, warmup=4, schedule="cosine", weight_decay=3.0)
    factors = [1 - optim.learning_rate(run, t) * run.weight_decay for t in range(1, 11)]
    assert np.allclose(coalescence.exposure(run)[1:], -np.log(np.cumprod(factors)))


def test_predicted_counts_are_those_of_snowballs():
    rng = np.random.default_rng(3)
    centre = rng.normal(0, 0.01, 40).astype(np.float32)
    clouds = centre + 2e-5 * rng.standard_normal((60, 50, 40)).astype(np.float32)
    seen = [demographics(lattice.round_nearest(now.astype(np.float32))) for now in clouds]
    band = coalescence.predicted(clouds[:1], np.array([2e-5]), trials=400)
    for name in coalescence.COUNTS:
        low, _, high = band[name][0]
        inside = np.mean([low <= getattr(found, name) <= high for found in seen])
        assert inside > 0.8, (name, inside, band[name])


SHORT = {"steps": 600, "rows": 40, "dim": 12}


def widths(setting: Setting) -> np.ndarray:
    """Standard deviation per dimension at start and end."""
    rows = coalescence.run_setting(setting)
    return np.sqrt(rows.var(axis=1).mean(axis=1))


def over_law(setting: Setting) -> float:
    first, last = widths(setting)
    return last / (first * np.exp(-setting.exposure))


@pytest.mark.parametrize(
    "exact", [{}, {"correct": False}, {"clip": True}, {"scatter": 2.0}, {"jitter": 5.0}]
)
def test_what_multiplies_a_gradient_leaves_the_law_exact(exact):
    assert abs(over_law(Setting(**SHORT, **exact)) - 1) < 1e-9


@pytest.mark.parametrize("eps", [1e-3, 0.1, 1.0])
def test_a_large_eps_leaves_the_scatter_of_fixed_points(eps):
    setting = Setting(**{**SHORT, "steps": 1500}, eps=eps, jitter=0.0)
    assert np.isclose(widths(setting)[1], coalescence.gated_width(setting), rtol=0.02)
    assert over_law(setting) > 3


def test_rounded_gradients_heat_a_cloud_to_the_closed_form():
    noisy = Setting(**{**SHORT, "steps": 3000}, rounded=True, jitter=10.0)
    _, found = widths(noisy)
    error = coalescence.rounding_error()
    assert np.isclose(found, coalescence.heated_width(noisy.lr, noisy.decay, error), rtol=0.15)
    assert 2**-9 / np.sqrt(3) < error < 2**-8 / np.sqrt(3)  # half a step at a binade's two ends
    calm = Setting(**{**SHORT, "steps": 3000}, rounded=True, jitter=0.1)
    assert widths(calm)[1] < 0.5 * found


def test_memory_and_coupled_decay_break_the_law():
    changing = {"forget": 100, "fall": 100}
    assert over_law(Setting(**SHORT, **changing, beta2=0.999)) > 1.5
    assert over_law(Setting(**SHORT, coupled=True)) > 5


def test_dead_rows_alone_follow_the_law_in_float32_and_stay_apart_in_bf16():
    generator = torch.Generator().manual_seed(42)
    cloud = 1e-3 * torch.randn(40, 30, generator=generator) + 0.01
    first = coalescence.spread(cloud.numpy())
    target, noise = torch.full((30,), 0.01), {"jitter": 0.3, "snapshots": 1}
    ratio = {}
    for dtype in (torch.float32, torch.bfloat16):
        _, kept = coalescence.coalesce(cloud.to(dtype), target, 0.999, 1000, **noise)
        ratio[dtype] = coalescence.spread(kept[-1].float().numpy()) / first
    assert np.isclose(ratio[torch.float32], 0.999**1000, rtol=1e-3)
    assert ratio[torch.bfloat16] > 0.9


def test_merged_rows_stay_merged_in_every_arithmetic():
    """The law's absorbing state: equal rows take equal steps and stay equal, bit for bit."""
    rng = torch.Generator().manual_seed(0)
    cloud = 0.01 + 1e-3 * torch.randn(6, 20, generator=rng)
    cloud[3] = cloud[1]
    target, noise = torch.full((20,), 0.01), {"jitter": 0.3, "snapshots": 5}
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        at, kept = coalescence.coalesce(cloud.to(dtype), target, 0.99, 200, **noise)
        assert at.tolist() == [0, 40, 80, 120, 160, 200] and kept.shape == (6, 6, 20)
        assert all(torch.equal(rows[1], rows[3]) for rows in kept)


def test_the_dosimeter_finds_a_planted_width_below_the_lattice_step():
    rng = np.random.default_rng(42)
    centre = rng.normal(0, 0.0073, 4000).astype(np.float32)
    rows = (centre + 2e-6 * rng.standard_normal((300, 4000))).astype(np.float32)
    values = lattice.value(lattice.round_nearest(rows))
    assert np.median(lattice.ulp(lattice.round_nearest(centre))) > 5 * 2e-6
    unique, counts = np.unique(values, axis=0, return_counts=True)
    sigma, low, high = coalescence.dose(unique, counts, 4000, draws=200)
    assert low < 2e-6 < high < 1.3 * low and low < sigma < high


def test_the_dosimeter_weighs_repeated_rows_like_the_rows_themselves():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 3, (5, 7)).astype(float)
    counts = np.array([4, 1, 2, 1, 3])
    whole = np.repeat(values, counts, axis=0)
    direct = np.abs(whole[:, None] - whole[None]).sum() / (len(whole) * (len(whole) - 1)) / 7
    sigma, _, _ = coalescence.dose(values, counts, 7, draws=10)
    assert np.isclose(sigma * 2 / np.sqrt(np.pi), direct)
    wider, _, _ = coalescence.dose(values, counts, 14, draws=10)  # as many that all agree in
    assert np.isclose(wider, sigma / 2)


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
    found = coalescence.last_met_distance(run, record, met)
    assert found[0] == 0 and found[2] > found[3] > found[1] > 0
    later = coalescence.exposure(run)[700] - coalescence.exposure(run)[100]
    assert np.isclose(np.log(found[2] / found[1]), later, rtol=0.05)  # long after both: the law
    louder = coalescence.last_met_distance(run, {**record, "hidden": np.full(1600, 10.0)}, met)
    assert (louder[1:] > found[1:]).all()
    rows = np.random.default_rng(0).normal(size=(2, 4 + 3, run.dim))
    rows[-1, :4] = 3 * rows[-1, 4:].mean(0)
    tokens = coalescence.last_met_tokens(run, {**record, "rows": rows}, met)
    unseen, total = rows[-1, 4:], coalescence.exposure(run)
    assert tokens["times"].tolist() == [0, 1, 1, 10]
    np.testing.assert_allclose(tokens["since"], total[-1] - total[[0, 100, 700, 109]])
    np.testing.assert_allclose(tokens["distance"], 2 * np.linalg.norm(unseen.mean(0)))
    np.testing.assert_allclose([tokens["norm"], tokens["cosine"]], [[3] * 4, [1] * 4])
    width = coalescence.spread(unseen)
    np.testing.assert_allclose(tokens["foreseen"], np.hypot(found, width))


def test_late_tokens_are_told_by_when_they_were_last_met():
    run = RUN.replace(weight_decay=3.0)
    met = np.zeros((16, 3, 2), dtype=np.int64)
    met[[4, 9], 0, [0, 1]] = met[2, 1, 0] = 1  # a target, then an input; a target; never
    rows = np.array([[[3.0, 4.0], [0.0, 2.0], [2.0, 2.0], [1.0, 1.0], [1.0, 3.0]]])
    record = {
        "steps": np.array([0, 15]),
        "push": np.ones((2, 2)),
        "gradient": np.full(15, 1e-6),
        "hidden": np.ones(15),
        "rows": rows,
    }
    found = coalescence.last_met_tokens(run, record, met)
    total = coalescence.exposure(run)
    assert found["times"].tolist() == [1, 1, 0]
    np.testing.assert_allclose(found["since"], total[-1] - total[[9, 2, 0]])
    np.testing.assert_allclose(found["distance"], [np.sqrt(8), 1, 1])
    np.testing.assert_allclose(found["norm"], np.array([5, 2, np.sqrt(8)]) / np.sqrt(5))
    np.testing.assert_allclose(found["cosine"][2], 6 / np.sqrt(40))
    assert found["foreseen"][2] == 1 < found["foreseen"][:2].min()


def test_every_published_value_names_its_source():
    table = yaml.safe_load((paths.DATA / "recipes.yaml").read_text(encoding="utf-8"))
    assert set(table) == {"whisper-base", "minilm-l6"}
    for entry in table.values():
        assert entry["verified"] and entry["paper"]
        values = [entry[k] for k in ("initial", "optimizer", "eps", "schedule", "arithmetic")]
        for part in entry["stages"]:
            values += [part[k] for k in ("peak", "decay", "steps", "warmup")]
        assert all("value" in v and v["source"] for v in values)
