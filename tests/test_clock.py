"""The clock: schedules against closed forms, norms against draws, data of released models."""

import json
import math

import numpy as np
import pytest

from lib import files
from lib.analysis import clock
from lib.analysis.clock import ClockError, Recipe, Shape, Stage, Start
from lib.training import optim
from lib.training.config import Run

MODELS = json.loads((clock.RELEASED / "norms.json").read_text(encoding="utf-8"))["models"]
RECIPES = files.read_yaml(clock.RELEASED / "recipes.yaml")
STARTS = {
    "normal": Start(0.02),
    "cut at 3": Start(0.02, cut=3),
    "cut at 2": Start(0.02, cut=2),
    "uniform": Start(0.02, law="uniform"),
}


# ------------------------------------------------------------------------ schedules
@pytest.mark.parametrize(
    ("shape", "area"),
    [("constant", 1.0), ("linear", 0.55), ("cosine", 0.55), ("inverse sqrt", None)],
)
def test_the_area_of_a_schedule_is_that_of_its_closed_form(shape, area):
    steps, warmup, peak = 20_000, 400, 3e-4
    end = 0.1 * peak
    rates = Stage(steps, peak, 0.1, shape, end=end, warmup=warmup).rates()
    if area is None:
        area = 2 * (math.sqrt(steps * warmup) - warmup) / (steps - warmup)
    assert rates.sum() == pytest.approx(peak * (warmup / 2 + area * (steps - warmup)), rel=1e-3)
    assert rates[warmup - 1] == pytest.approx(peak) and len(rates) == steps


def test_a_stage_has_the_rates_of_the_engine():
    run = Run(steps=50, warmup=7, lr=2e-3, lr_end=0.1, schedule="cosine")
    stage = Stage(50, 2e-3, 0.1, "cosine", end=2e-4, warmup=7)
    assert np.allclose(stage.rates(), [optim.learning_rate(run, t) for t in range(1, 51)])
    assert Stage(5, 1.0, 0.1, warmup=2, warmup_from=0.5).rates().tolist() == [0.75, 1, 1, 1, 1]


def test_the_clipped_cosine_falls_to_its_floor_and_stays():
    steps, peak, end = 100_000, 1e-4, 1e-5
    rates = Stage(steps, peak, 0.01, "neox", end=end, warmup=1000).rates()
    clipped = 1000 + np.flatnonzero(rates[1000:] == end)
    assert clipped[-1] == steps - 1 and (np.diff(clipped) == 1).all()
    assert len(clipped) / steps == pytest.approx(2 * math.asin(math.sqrt(0.1)) / math.pi, abs=0.02)
    nominal = Stage(steps, peak, 0.01, "cosine", end=end, warmup=1000).rates()
    assert rates.sum() < 0.96 * nominal.sum()


def test_a_horizon_ends_the_shape_before_the_steps_or_after():
    early = Stage(100, 1.0, 0.0, "cosine", end=0.1, horizon=60).rates()
    assert (early[59:] == pytest.approx(0.1)) and early[58] > 0.1
    late = Stage(100, 1.0, 0.0, "linear", horizon=200).rates()
    assert late[-1] == pytest.approx(0.5)


def test_exposure_is_summed_over_stages_and_is_the_product_that_rows_see():
    stages = (Stage(30, 1e-2, 0.5, warmup=5), Stage(20, 5e-3, 0.5, "linear"))
    factors = np.concatenate([1 - stage.rates() * 0.5 for stage in stages])
    found = Recipe(stages)
    assert np.exp(-found.exposure()) == pytest.approx(np.cumprod([1, *factors]))
    assert Recipe((Stage(9, 1.0, 0.0),)).total == 0 and Recipe(()).total == 0


# ------------------------------------------------------------------------ norms
def draw(start: Start, rows: int, dim: int, *, rng: np.random.Generator) -> np.ndarray:
    return start.sigma * start.unit.rvs((rows, dim), random_state=rng)


@pytest.mark.parametrize("name", STARTS)
def test_norms_of_a_start_are_those_of_draws(name):
    start, dim = STARTS[name], 200
    norms = np.linalg.norm(draw(start, 6_000, dim, rng=np.random.default_rng(1)), axis=1)
    median, width = start.norm(dim)
    assert np.median(norms) == pytest.approx(median, rel=2e-3)
    assert norms.std() / norms.mean() == pytest.approx(width, rel=0.04)


def test_scatters_are_the_known_ones_at_2048_dimensions():
    found = [100 * start.norm(2048)[1] for start in STARTS.values()]
    assert found == pytest.approx([1.5625, 1.494, 1.29, 0.988], abs=2e-3)


@pytest.mark.parametrize("name", STARTS)
def test_an_interval_covers_the_exposure_as_often_as_it_says(name):
    start, dim, exposure = STARTS[name], 300, 7.25
    rng, inside = np.random.default_rng(2), 0
    for _ in range(300):
        rows = draw(start, 25, dim, rng=rng) * math.exp(-exposure)
        found = clock.read(np.linalg.norm(rows, axis=1), start, dim)
        inside += found.low < exposure < found.high
    assert 0.91 < inside / 300 < 0.985


def test_what_cannot_be_read_is_refused():
    for norms in ([1.0], [1.0, 0.0], [1.0, np.nan]):
        with pytest.raises(ClockError):
            clock.read(np.array(norms), Start(0.02), 8)


# ------------------------------------------------------------------------ recipes as data
def test_a_recipe_says_what_is_assumed_and_what_is_wrong(tmp_path):
    stage = {"steps": 10, "peak": {"value": 1e-3, "status": "assumed"}, "decay": 0.1}
    found = clock.recipe({"start": {"sigma": 0.02}, "stages": [stage]})
    assert found.assumed == ("stage 1: peak",) and found.total == pytest.approx(1e-3, rel=1e-3)
    for entry, said in (
        ([], "stages"),
        ({"stages": [{"step": 1}]}, "stage 1 maps"),
        ({"stages": [{"steps": -1, "peak": 1, "decay": 0}]}, "steps must be"),
        ({"stages": [{"steps": 1, "peak": "fast", "decay": 0}]}, "peak must be"),
        ({"stages": [], "start": {"sigma": 0}}, "sigma must be"),
        ({"stages": [], "start": {"sigma": 1, "law": "cauchy"}}, "law must be"),
        ({"stages": [{"steps": 1, "peak": 1, "decay": 0, "shape": "saw"}]}, "shape must be"),
        ({"stages": [{"steps": 1}]}, "missing"),
    ):
        with pytest.raises(ClockError, match=said):
            clock.recipe(entry)
    (tmp_path / "x.yml").write_text("stages: [")
    with pytest.raises(ClockError, match=r"x\.yml"):
        clock.read_recipe(tmp_path / "x.yml")


def test_every_published_value_has_a_source_and_a_known_status():
    known = {"published", "read from code", "assumed", "read from the norms"}
    for name, entry in RECIPES.items():
        clock.recipe(entry, name)
        values = [entry.get("start") or {}, *entry["stages"]]
        values = [value for part in values for value in part.values()]
        values += [entry["exempt"]] if "exempt" in entry else []
        assert values and all(v["source"] and v["status"] in known for v in values), name
        assert any(model["model"] == name for model in MODELS), name
        for stage in entry["stages"]:
            assert stage.get("shape", {"value": "constant"})["value"] in tuple(Shape)


def test_steps_are_tokens_over_batches():
    steps = {name: [s["steps"]["value"] for s in e["stages"]] for name, e in RECIPES.items()}
    batch = 1024 * 4096
    olmoe, olmo = (RECIPES[f"allenai/{n}"] for n in ("OLMoE-1B-7B-0924", "OLMo-1.7-7B-hf"))
    assert olmoe["stages"][0]["horizon"]["value"] == round(5e12 / batch)
    assert olmo["stages"][0]["horizon"]["value"] == round(3e12 / batch)
    assert steps["allenai/OLMo-1.7-7B-hf"][1] == round(50e9 / batch)
    assert steps["allenai/OLMoE-1B-7B-0924"][1] == math.ceil(1e11 / batch)
    assert olmo["stages"][0]["warmup"]["value"] * batch == 10_485_760_000
    before = clock.recipe(olmo).stages[0].rates()[-1]
    assert olmo["stages"][1]["peak"]["value"] == pytest.approx(before, rel=1e-4)
    deepseek = [round(tokens / (2304 * 4096)) for tokens in (1.6e12, 0.2e12, 0.2e12)]
    assert steps["deepseek-ai/deepseek-llm-7b-base"] == deepseek
    for size, dim in (("7b", 4096), ("13b", 5120), ("70b", 8192)):
        name = f"meta-llama/Llama-2-{size}-hf"
        assert steps[name] == [round(2e12 / 2**22)]
        assert RECIPES[name]["start"]["sigma"]["value"] == pytest.approx(dim**-0.5, rel=1e-5)


# ------------------------------------------------------------------------ norms as data
GROUPS = {m["model"]: m["group"] for m in MODELS if "group" in m}


def test_every_count_and_quantile_follows_from_the_rows_that_are_here():
    checked = 0
    for name, group in GROUPS.items():
        if group["status"] != "rows here":
            continue
        checked += 1
        ids, norms = zip(*group["pairs"], strict=True)
        assert len(set(ids)) == group["n"] and list(ids) == sorted(ids), name
        for share, value in group["quantiles"].items():
            assert np.quantile(norms, float(share)) == pytest.approx(value, rel=2e-5), (name, share)
        if "mean" in group:
            assert np.mean(norms) == pytest.approx(group["mean"], rel=2e-5), name
        if "rel_sd" in group:
            rel = np.std(norms, ddof=1) / np.mean(norms)
            assert rel == pytest.approx(group["rel_sd"], rel=0.006), name
    assert checked == 9


def test_other_groups_are_consistent_with_what_is_here():
    for name, group in GROUPS.items():
        quantiles = group.get("quantiles", {})
        order = [quantiles[share] for share in sorted(quantiles, key=float)]
        assert order == sorted(order), name
        pairs = group.get("pairs", [])
        assert len(pairs) <= group["n"], name
        if pairs and "0" in quantiles:
            norms = [norm for _, norm in pairs]
            assert min(norms) >= order[0] * (1 - 1e-5), name
            assert "1" not in quantiles or max(norms) <= quantiles["1"] * (1 + 1e-5), name
        if "mean" in group and "sd" in group and "rel_sd" in group:
            assert group["sd"] / group["mean"] == pytest.approx(group["rel_sd"], rel=0.01), name
        if group.get("rel_sd_from") == "quartiles":
            iqr = (quantiles["0.75"] - quantiles["0.25"]) / 1.349 / quantiles["0.5"]
            assert iqr == pytest.approx(group["rel_sd"], rel=0.01), name


def test_norms_at_the_float32_floor_are_roots_of_whole_numbers():
    """Six digits decide: norm squared over 2^-149 is a whole number, as no other numbers' are."""
    for size in ("3", "3.1"):
        norms = np.array([norm for _, norm in GROUPS[f"meta-llama/Meta-Llama-{size}-8B"]["pairs"]])
        units = norms**2 / clock.SUBNORMAL
        off, unsure = np.abs(units - units.round()), units * 1e-5 / 1.6
        assert (off < unsure + 1e-9).all() and unsure.max() < 0.03
    assert len(MODELS) == 81
