"""Coalescence: the identities behind the law, its observers, and the dosimeter."""

import numpy as np
import pytest
import torch

from lib import lattice
from lib.analysis import coalescence, mechanisms, runs
from lib.analysis.response import Tangent
from lib.training import loop, model, optim
from lib.training.config import Run

LIVE, DEAD = 40, 12
SMALL = {
    "vocab": LIVE + DEAD,
    "dim": 16,
    "layers": 1,
    "heads": 2,
    "ff": 16,
    "seq": 8,
    "batch": 4,
    "steps": 60,
    "lr": 1e-3,
    "weight_decay": 3.0,
    "beta2": 0.95,
    "param_dtype": "float32",
    "grad_dtype": "float32",
    "state_dtype": "float32",
}
WATCHED = slice(LIVE, LIVE + DEAD)


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return np.random.default_rng(42).integers(0, LIVE, 4000)


@pytest.fixture(scope="module")
def arrays(ids) -> dict[str, np.ndarray]:
    found, _ = runs.record(Run(**SMALL), ids, WATCHED, snapshots=6, tangent_from=20)
    return found


def test_gradients_of_dead_rows_are_probability_weighted_sums_of_h_and_nearly_parallel(ids):
    run, checked = Run(**{**SMALL, "steps": 3}), []

    def observe(moment):
        if moment.step:
            h = moment.h.reshape(-1, run.dim).double()
            W = moment.before["W"].double()
            p = torch.softmax(h @ W.T, dim=1)[:, WATCHED]
            expected = p.T @ h / len(h)
            got = moment.grads["W"][WATCHED].double()
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-9)
            unit = got / got.norm(dim=1, keepdim=True)
            checked.append(float((unit @ unit.T).min()))

    loop.train(run, ids, observers=[observe])
    assert len(checked) == 3 and min(checked) > 0.95


def test_rows_that_start_equal_take_equal_updates_for_ever(ids):
    run = Run(**SMALL)
    flat = model.initialise(run)
    named = model.views(flat, run)
    named["W"][LIVE + 1] = named["W"][LIVE]
    found, _ = runs.record(run, ids, WATCHED, snapshots=5, first=flat)
    assert (found["rows"][:, 0] == found["rows"][:, 1]).all()
    assert (found["rows"][-1, 0] != found["rows"][-1, 2]).any()


def test_decay_below_2_to_the_minus_9_moves_no_normal_number_and_above_it_some():
    patterns = np.arange(1 << 16, dtype=np.uint16)
    exponent = (patterns >> 7) & 0xFF
    normal = patterns[(exponent > 1) & (exponent < 0xFF)]
    value = lattice.value(normal)
    assert len(normal) == 2 * 253 * 128  # both signs, every mantissa of every exponent
    below = lattice.round_nearest(value * np.float32(1 - 0.99 * 2**-9))
    above = lattice.round_nearest(value * np.float32(1 - 1.02 * 2**-9))
    assert (below == normal).all()
    assert (above != normal).any()


@pytest.mark.parametrize(("beta2", "kept"), [(0.999, True), (0.99, False), (0.95, False)])
def test_the_second_moment_is_a_ratchet_at_beta2_0_999(beta2, kept):
    """Every positive normal bfloat16 number, all mantissas and all exponents."""
    v = torch.arange(0x0100, 0x7F80, dtype=torch.int16).view(torch.bfloat16)
    assert len(v) == (255 - 2) * 128 and bool(torch.isfinite(v).all())
    assert torch.equal(v * beta2, v) == kept


def test_exposure_is_minus_the_log_of_the_decay_factors():
    run = Run(**{**SMALL, "steps": 10, "warmup": 4, "schedule": "cosine"})
    factors = [1 - optim.learning_rate(run, t) * run.weight_decay for t in range(1, 11)]
    assert np.allclose(runs.exposure(run)[1:], -np.log(np.cumprod(factors)))


def test_the_two_shares_of_contraction_account_for_every_step(arrays):
    width = coalescence.spread(arrays["rows"])
    shares = arrays["contraction"].sum(axis=1)
    assert np.isclose(width[-1] / width[0], np.sqrt(np.prod(1 - shares)), rtol=1e-5)


def test_the_tangent_follows_small_differences_and_a_wrong_decay_does_not(ids):
    fields = {**SMALL, "init_std": 0.002, "steps": 80, "lr": 3e-3, "weight_decay": 1.0}
    found, _ = runs.record(Run(**fields), ids, WATCHED, snapshots=4, tangent_from=20)
    width = coalescence.spread(found["rows"])
    assert np.allclose(found["predicted"][1:] / width[1:], 1, atol=2e-3)
    wrong = Tangent(Run(**{**fields, "weight_decay": 2.0}), WATCHED, 20)
    loop.train(Run(**fields), ids, observers=[wrong])
    assert abs(wrong.spread() / width[-1] - 1) > 0.02


def test_a_second_stage_starts_from_the_cast_and_never_splits_a_hole(monkeypatch, ids):
    monkeypatch.setattr(runs, "stream", lambda *_: ids)
    fields = {k: v for k, v in SMALL.items() if k not in ("vocab", "steps")}
    found = runs.make(
        live=LIVE, dead=DEAD, characters=0, snapshots=3, steps=40, init_std=1e-6,
        **(fields | {"param_dtype": "bfloat16", "master": "fp32"}),
        second={"steps": 20, "seed": 43},
    )  # fmt: skip
    cast = lattice.round_nearest(found["rows"][-1])
    assert (lattice.value(cast) == found["second.rows"][0]).all()
    assert coalescence.demography(found["rows"][-1]).holes > 0
    for later in found["second.rows"]:
        for bits in np.unique(cast, axis=0):
            assert len(np.unique(later[(cast == bits).all(axis=1)], axis=0)) == 1


def test_last_seen_agrees_with_what_the_loop_was_given(ids):
    run, seen = Run(**{**SMALL, "steps": 15}), np.zeros(3, dtype=int)

    def observe(moment):
        if moment.step:
            for k in range(3):
                inputs = loop.batch(ids, run, moment.step)[0]
                met = (moment.targets == k).any() or (inputs == k).any()
                seen[k] = moment.step if met else seen[k]

    loop.train(run, ids, observers=[observe])
    met = runs.meetings(run, ids, slice(0, 3))
    steps, times = runs.last_seen(met)
    assert (steps == seen).all() and (times == met[:, :, 0].sum(0)).all() and times.all()
    early, _ = runs.last_seen(runs.meetings(run, ids, slice(0, 3), until=5))
    assert (early <= 5).all() and early.any()


def test_demography_counts_what_was_planted():
    rows = np.full((6, 4), 0.01, dtype=np.float32)
    rows[3:5, 1] = lattice.value(lattice.neighbour_up(lattice.round_nearest(rows[3:5, 1])))
    rows[5, 2] = 0.02
    found = coalescence.demography(rows)
    assert found.populations == (3, 2, 1)
    assert (found.unique, found.holes, found.varying, found.linf) == (3, 2, 2, 128)


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


def test_dead_rows_alone_follow_the_law_in_float32_and_stay_apart_in_bf16():
    generator = torch.Generator().manual_seed(42)
    cloud = 1e-3 * torch.randn(40, 30, generator=generator)
    cloud = cloud + 0.01
    push = mechanisms.tethered(torch.full((30,), 0.01), 0.999, 0.3)
    _, exact = mechanisms.coalesce(
        cloud, push, 0.999, 1000, mechanisms.Arithmetic.FLOAT32, snapshots=1
    )
    _, rough = mechanisms.coalesce(
        cloud, push, 0.999, 1000, mechanisms.Arithmetic.BF16, snapshots=1
    )
    ratio = [coalescence.spread(k[-1].double().numpy()) for k in (exact, rough)]
    first = coalescence.spread(cloud.double().numpy())
    assert np.isclose(ratio[0] / first, 0.999**1000, rtol=1e-3)
    assert ratio[1] / first > 0.9


def test_stochastic_rounding_alone_comes_to_the_predicted_temperature():
    decay, steps = 0.98, 150
    target = torch.linspace(0.0048, 0.0068, 40)  # well inside one binade
    push = mechanisms.tethered(target, decay, 0.3)
    cloud = target.expand(300, -1).clone()
    _, kept = mechanisms.coalesce(
        cloud, push, decay, steps, mechanisms.Arithmetic.STOCHASTIC, snapshots=steps
    )
    ulp = 2.0**-15
    noise = np.empty(steps)
    for t in range(steps):
        wanted = kept[t].double() * decay - push(t + 1)
        f = torch.frac(wanted / ulp)
        noise[t] = (ulp**2 * f * (1 - f)).sum(1).mean()
    thermal = coalescence.noise_spread(0.0, np.full(steps, 1 - decay**2), noise)
    width = coalescence.spread(np.stack([k.double().numpy() for k in kept]))
    assert width[0] == 0 and thermal[-1] > 40**0.5 * ulp  # heated from nothing
    assert np.allclose(width[50:], thermal[50:], rtol=0.05)


def test_merge_probability_is_one_for_equal_rows_and_falls_with_steps():
    assert coalescence.merge_probability(np.zeros(5), 0.1) == 1.0
    assert coalescence.merge_probability(np.array([1, 0]), 0.0) == 0.0
    near = coalescence.merge_probability(np.array([1, 0]), 2.0)
    assert np.isclose(near, 1 - np.exp(-2.0))
    assert coalescence.merge_probability(np.array([1, 1]), 2.0) < near


def test_one_text_follows_another_as_if_the_run_had_not_stopped(ids):
    run = Run(**{**SMALL, "steps": 12})
    whole, _ = runs.record(run, ids, WATCHED, snapshots=3)
    same, _ = runs.record(run, ids, WATCHED, snapshots=3, later=(5, ids))
    other, _ = runs.record(run, ids, WATCHED, snapshots=3, later=(5, ids[::-1].copy()))
    for name in ("rows", "losses", "push", "gradient", "hidden", "exposure"):
        assert np.array_equal(whole[name], same[name]), name
    assert not np.array_equal(whole["rows"][-1], other["rows"][-1])


def test_rare_tokens_stand_where_they_are_wanted():
    ids = runs.stream(100, 30_000, 6, (1, 10))
    counts = np.bincount(ids, minlength=106)[100:]
    assert counts.tolist() == [1, 1, 1, 10, 10, 10]


def test_the_push_holds_the_centroid_that_the_run_reaches():
    """With steady updates the rows come to rest at minus the push over the decay."""
    ids = np.random.default_rng(7).integers(0, LIVE, 4000)
    found, _ = runs.record(Run(**{**SMALL, "steps": 400, "lr": 4e-3}), ids, WATCHED, snapshots=8)
    centre, push = found["rows"][-1].astype(float).mean(0), found["push"][-1]
    assert centre @ -push / np.linalg.norm(centre) / np.linalg.norm(push) > 0.95
    assert np.linalg.norm(centre) < np.sqrt(SMALL["dim"]) / SMALL["weight_decay"]


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
