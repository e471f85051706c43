"""Coalescence beyond the law: broken assumptions, late deaths, recipes, odd dimensions."""

import numpy as np
import pytest
import torch
import yaml

from lib import lattice, paths
from lib.analysis import coalescence, mechanisms, runs
from lib.analysis.mechanisms import Mechanism, Setting
from lib.extraction import specimens
from lib.training import loop
from lib.training.config import Run

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
    setting = Setting(**{**SHORT, "steps": 3000}, rounded=True, jitter=10.0)
    found = mechanisms.width(mechanisms.run_setting(setting)[1])
    assert np.isclose(found, mechanisms.heated_width(setting), rtol=0.15)
    calm = Setting(**{**SHORT, "steps": 3000}, rounded=True, jitter=0.1)
    assert mechanisms.width(mechanisms.run_setting(calm)[1]) < 0.5 * found


def test_memory_and_coupled_decay_break_the_law():
    changing = {"forget": 100, "fall": 100}
    assert over_law(Setting(**SHORT, **changing, beta2=0.999)) > 1.5
    assert over_law(Setting(**SHORT, coupled=True)) > 5


def test_the_rounding_error_is_that_of_eight_bits():
    error = mechanisms.rounding_error()
    assert 2**-9 / np.sqrt(3) < error < 2**-8 / np.sqrt(3)  # half a step at either end of a binade


def test_dead_rows_get_no_gradient_from_the_input_side():
    ids = np.random.default_rng(1).integers(0, 20, 2000)
    run = Run(vocab=32, dim=16, layers=1, ff=16, seq=8, batch=4, steps=2, tied=False,
              param_dtype="float32", grad_dtype="float32", state_dtype="float32")  # fmt: skip
    seen = []

    def look(moment):
        if moment.step:
            seen.append(
                (moment.grads["E"][20:].abs().max().item(), moment.grads["W"][20:].abs().min())
            )

    loop.train(run, ids, observers=[look])
    assert len(seen) == 2 and all(e == 0.0 and w > 0 for e, w in seen)


def test_merged_rows_stay_merged_in_every_arithmetic():
    """The law's absorbing state: equal rows take equal steps and stay equal, bit for bit."""
    from lib.analysis import mechanisms

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


# ---------------------------------------------------------------- late deaths
def test_a_row_never_met_is_not_behind_and_one_met_lately_is_farther_than_one_met_early():
    run = Run(**{**runs.GROUND, "vocab": 60, "steps": 1600})
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
    later = runs.exposure(run)[700] - runs.exposure(run)[100]
    assert np.isclose(np.log(found[2] / found[1]), later, rtol=0.05)  # long after both: the law
    louder = coalescence.late_distance(run, {**record, "hidden": np.full(1600, 10.0)}, met)
    assert (louder[1:] > found[1:]).all()


# ---------------------------------------------------------------- recipes and MiniLM
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


def test_the_minilm_extract_holds_the_unused_rows():
    s = specimens.open("minilm-l6")
    ids = s.array("unused_ids")
    assert ids.tolist() == [*range(1, 100), *range(104, 999)]
    rows = s.array("unused_bits").view(np.float16).astype(np.float64)
    assert rows.shape == (994, s.dim) and s.norms.shape == (s.rows,)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), s.norms[ids], rtol=1e-6)
    assert len(np.unique(rows, axis=0)) == 994


def test_an_extract_is_only_cut_where_float16_keeps_every_number(tmp_path):
    from lib.analysis import charts
    from lib.extraction import catalogue, planted

    description = catalogue.find("planted")
    whole = planted.read(description, catalogue.Planted())
    with pytest.raises(catalogue.SpecimenError, match="no float16 numbers"):
        charts.cut_unused(whole, description, np.arange(2000), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- the odd dimensions
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
