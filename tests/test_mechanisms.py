"""Mechanisms: rows alone, the law with one assumption broken, odd dimensions."""

import numpy as np
import pytest
import torch

from lib import lattice
from lib.analysis import coalescence, mechanisms
from lib.analysis.mechanisms import Mechanism, Setting

SHORT = {"steps": 600, "rows": 40, "dim": 12}


def over_law(setting: Setting) -> float:
    first, last = (mechanisms.width(rows) for rows in mechanisms.run_setting(setting))
    return last / (first * np.exp(-mechanisms.setting_exposure(setting)))


@pytest.mark.parametrize(
    "exact", [{}, {"correct": False}, {"clip": True}, {"scatter": 2.0}, {"jitter": 5.0}]
)
def test_what_multiplies_a_gradient_leaves_the_law_exact(exact):
    assert abs(over_law(Setting(**SHORT, **exact)) - 1) < 1e-9


@pytest.mark.parametrize("eps", [1e-3, 0.1, 1.0])
def test_a_large_eps_leaves_the_scatter_of_fixed_points(eps):
    setting = Setting(**{**SHORT, "steps": 1500}, eps=eps, jitter=0.0)
    found = mechanisms.width(mechanisms.run_setting(setting)[1])
    assert np.isclose(found, mechanisms.gated_width(setting), rtol=0.02)
    assert over_law(setting) > 3


def test_rounded_gradients_heat_a_cloud_to_the_closed_form():
    setting = Setting(**{**SHORT, "steps": 3000}, rounded=True, jitter=30.0)
    found = mechanisms.width(mechanisms.run_setting(setting)[1])
    assert np.isclose(found, mechanisms.heated_width(setting), rtol=0.1)
    calm = Setting(**{**SHORT, "steps": 3000}, rounded=True, jitter=0.1)
    assert mechanisms.width(mechanisms.run_setting(calm)[1]) < 0.5 * found


def test_memory_and_coupled_decay_break_the_law():
    changing = {"forget": 100, "fall": 100}
    assert over_law(Setting(**SHORT, **changing, beta2=0.999)) > 1.5
    assert over_law(Setting(**SHORT, coupled=True)) > 5


def test_the_rounding_error_is_that_of_eight_bits():
    error = mechanisms.rounding_error()
    assert 2**-9 / np.sqrt(3) < error < 2**-8 / np.sqrt(3)  # half a step at either end of a binade


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


def test_merged_rows_stay_merged_in_every_arithmetic():
    """The law's absorbing state: equal rows take equal steps and stay equal, bit for bit."""
    rng = torch.Generator().manual_seed(0)
    cloud = 0.01 + 1e-3 * torch.randn(6, 20, generator=rng)
    cloud[3] = cloud[1]
    push = mechanisms.tethered(torch.full((20,), 0.01), 0.99, 0.3)
    for kind in (
        mechanisms.Arithmetic.FLOAT32,
        mechanisms.Arithmetic.FLOAT64,
        mechanisms.Arithmetic.BF16,
    ):
        _, kept = mechanisms.coalesce(cloud, push, 0.99, 200, kind, snapshots=5)
        assert all(torch.equal(rows[1], rows[3]) for rows in kept)
    _, kept = mechanisms.coalesce(
        cloud, push, 0.99, 200, mechanisms.Arithmetic.STOCHASTIC, snapshots=5
    )
    assert not torch.equal(kept[-1][1], kept[-1][3])  # each row is rounded by its own coin


def test_the_printed_pattern():
    found = mechanisms.printed_pattern()
    assert (found.distinct, found.holes, found.varying) == (13, 13, 20)
    assert 0 < found.gapped <= found.several and found.correlation > 0.9


def test_a_planted_pattern_is_counted():
    bits = np.tile(lattice.round_nearest(np.float32([0.01, 0.02, 0.03, 0.04])), (6, 1))
    bits[3:, 1] += 3  # two modes, three steps apart
    bits[3:, 2] += 3
    bits[5, 3] += 1
    found = mechanisms.pattern(bits)
    assert found == mechanisms.Pattern(3, 2, 3, 2, 2, pytest.approx(1.0))
    assert mechanisms.pattern_distance(found, found) == 0
    weighted = mechanisms.pattern(bits[[0, 3, 5]], np.array([3, 2, 1]))
    assert weighted == found


def test_displacements_leave_out_only_dimensions_in_which_all_rows_agree():
    rng = np.random.default_rng(0)
    rows = (rng.normal(0, 0.01, 30) + 2e-6 * rng.standard_normal((40, 30))).astype(np.float32)
    for kind in (Mechanism.TWO_CASTS, Mechanism.SHARDS, Mechanism.LATE):
        group, shift = mechanisms.groups(rows, kind, np.random.default_rng(42))
        whole = lattice.round_nearest(rows + np.float32(1e-5) * shift.astype(np.float32)[group])
        some = mechanisms.displaced(rows, kind, 1e-5, seed=42)
        assert (
            mechanisms.pattern(whole).varying == mechanisms.pattern(some).varying == some.shape[1]
        )
    merged = mechanisms.displaced(rows[[0, 0, 1, 1]], Mechanism.HEAT, 1e-4)
    assert (merged[0] == merged[1]).all() and (merged[2] == merged[3]).all()
    assert (merged[0] != merged[2]).any()


@pytest.mark.slow
def test_few_points_moved_apart_come_nearer_to_the_print_than_a_cloud():
    wanted = mechanisms.printed_pattern()
    cloud = mechanisms.cloud(2e-9, rows=2212, steps=80)
    assert np.isclose(cloud.astype(np.float64).std(axis=0).mean(), 2e-9, rtol=0.1)
    _, _, alone = mechanisms.best([cloud], Mechanism.NONE, [0.0], wanted)
    _, _, heated = mechanisms.best([cloud], Mechanism.HEAT, [3e-8, 6e-8], wanted)
    assert mechanisms.pattern_distance(heated, wanted) < mechanisms.pattern_distance(alone, wanted)
