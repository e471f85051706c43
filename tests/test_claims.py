"""Claims: guards of sentences, a strict ledger, computed verdicts, kept runs."""

import json

import numpy as np
import pytest
from scipy import stats

from book import full_runs
from lib import artifacts, claims, paths, scale
from lib.analysis.sweeps import CastRows
from lib.claims import Claim, ClaimError, Measured, Verdict

LEDGER = """\
- {id: holes, part: discovery, claim: Thirteen holes, source: seed 003, printed: 13,
   check: equal, chapter: discovery/02-census}
- {id: norm, part: discovery, claim: The mean norm, source: "[P]", printed: 1.087,
   check: close, tolerance: 0.01, chapter: discovery/01-norms}
- {id: list, part: lattice, claim: Populations, source: "[P]", printed: [814, 704],
   check: equal, chapter: lattice/02-holes}
"""


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """A ledger of three claims, and no verdicts."""
    file = tmp_path / "claims.yaml"
    file.write_text(LEDGER)
    read = claims.ledger
    monkeypatch.setattr(claims, "ledger", lambda path=file: read(path))
    monkeypatch.setattr(paths, "VERDICTS", tmp_path / "verdicts")
    monkeypatch.setenv("BOOK_SCALE", "book")
    return file


def claim(check: str, printed, tolerance: float = 0.0) -> Claim:
    """A claim to evaluate."""
    return Claim("id", "part", "says", "seed", printed, check, "part/01-x", tolerance)


# ----------------------------------------------------------------------------- sentences


def test_a_guard_is_not_seen_while_it_holds():
    for condition in (True, 1, np.bool_(True)):
        assert claims.holds(condition).data == "[]{.holds}"
    for condition in (False, 0, np.bool_(False)):
        assert claims.holds(condition).data == " [does not hold here]{.fails}"


# ----------------------------------------------------------------------------- verdicts


def test_claims_are_settled_and_shown_by_one_cell(ledger):
    found = {
        "holes": 13,
        "norm": Measured(2.0, "on another model", comparable=False),
        "list": Measured(None, "on Qwen3"),
    }
    lines = claims.settled(found).data.split("\n")
    assert lines[2] == "| Thirteen holes | seed 003 | 13 | 13 | reproduced |"
    assert lines[3] == "| The mean norm | [P] | 1.087 ± 1 % | 2 (on another model) | open |"
    assert lines[4] == "| Populations | [P] | 814, 704 | – (on Qwen3) | needs specimen |"
    assert {id: r["verdict"] for id, r in claims.verdicts().items()} == {
        "holes": "reproduced",
        "norm": "open",
        "list": "needs specimen",
    }
    claims.settled({"holes": Measured(13, "to look at", open=True)})
    assert claims.verdicts()["holes"]["verdict"] == "open"
    with pytest.raises(ClaimError, match="no claim 'hole'"):
        claims.settled({"hole": 13})


@pytest.mark.parametrize(
    "given", [{"BOOK_GIVEN": "trials"}, {"BOOK_UPSTREAM": '{"a/b": {"s": 1}}'}]
)
def test_with_other_parameters_claims_are_shown_and_not_kept(ledger, monkeypatch, given):
    claims.settled({"holes": 13})
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    line = claims.settled({"holes": 12}).data.split("\n")[2]
    assert line == "| Thirteen holes | seed 003 | 13 | 12 | contradicted |"
    assert claims.verdicts()["holes"]["verdict"] == "reproduced"


def test_a_mean_is_shown_with_its_distance_from_the_printed_one(ledger):
    mean = LEDGER.partition("- {id: norm")[0].replace("holes,", "mean,").replace("13", "5.0")
    ledger.write_text(LEDGER + mean.replace("check: equal", "check: within, runs: 10, unit: 0.1"))
    sample = np.random.default_rng(0).normal(5, 1, 100)
    (line,) = claims.settled({"mean": Measured(sample, "ours", error=0.2)}).data.split("\n")[2:]
    t, limit = claims.apart(claims.ledger()["mean"], sample, 0.2)
    shown = f"(ours; t = {t:+.1f}, limit {limit:.1f})".replace("-", "−")
    assert shown in line and "reproduced" in line and "| 5 (mean of 10) |" in line
    assert claims.verdicts()["mean"]["measured"] == sample.mean()


def test_a_measurement_is_shown_with_one_digit_more_than_was_printed(ledger):
    for value, shown in ((1.0912345, "| 1.0912 |"), (12345.678, "| 12,346 |")):
        assert shown in claims.settled({"norm": value}).data
    assert "| 13.0625 |" in claims.settled({"list": Measured(13.0625, open=True)}).data


@pytest.mark.parametrize(
    ("check", "printed", "tolerance", "holds", "fails"),
    [
        ("equal", 13, 0.0, [13, np.int64(13)], [12, 13.5]),
        ("equal", [814, 704], 0.0, [[814, 704], (814, 704), np.array([814, 704])], [[704, 814]]),
        ("close", 100.0, 0.1, [90, 110, np.float32(100)], [89.9, 110.1, -100]),
        ("close", -100.0, 0.1, [-90, -110], [-89, 100]),
        ("above", 5, 0.0, [5, 6], [4.9]),
        ("below", 5, 0.0, [5, 4], [5.1]),
        ("true", True, 0.0, [True, np.bool_(True)], [False, np.bool_(False)]),
    ],
)
def test_a_measurement_is_compared_as_the_claim_says(check, printed, tolerance, holds, fails):
    for value in holds:
        assert claims.evaluate(claim(check, printed, tolerance), value) is Verdict.REPRODUCED
    for value in fails:
        assert claims.evaluate(claim(check, printed, tolerance), value) is Verdict.CONTRADICTED


def test_a_printed_mean_is_judged_by_its_trials_our_sample_and_its_digits():
    sample = np.random.default_rng(1).normal(100, 10, 4000)

    def at(printed, runs, unit=0.0, error=0.0):
        own = Claim("id", "part", "says", "seed", printed, "within", "part/01-x", 0.0, runs, unit)
        return claims.evaluate(own, sample, error)

    holds, fails = Verdict.REPRODUCED, Verdict.CONTRADICTED
    assert (at(109, 10), at(111, 10)) == (holds, fails)  # ten trials: a standard error of 3.2
    assert (at(125, 1), at(135, 1)) == (holds, fails)  # one trial is as wide as the sample
    assert (at(102, 10_000), at(102, 10_000, unit=10)) == (fails, holds)  # printed in tens
    assert at(102, 10_000, error=1.0) is holds  # a model known to one unit
    few = Claim("id", "part", "says", "seed", 0, "within", "part/01-x", 0.0, 1000)
    assert claims.evaluate(few, [1.0, 2.0, 3.0]) is holds  # three numbers: t of two degrees
    assert claims.apart(few, [1.0, 2.0, 3.0])[0] > 3 > stats.norm.isf(0.00135)
    assert claims.apart(few, [1.0, 2.0, 3.0])[1] == pytest.approx(stats.t.isf(0.00135, 2), rel=1e-3)
    ours = np.random.default_rng(2).normal(0, 1, 9)
    welch = stats.ttest_ind(ours, ours - 1, equal_var=False)  # equal scatter: Welch is Student
    both = Claim("id", "part", "says", "seed", (ours - 1).mean(), "within", "p/01-x", 0.0, 9)
    assert claims.apart(both, ours)[0] == pytest.approx(welch.statistic)
    same = Claim("id", "part", "says", "seed", 5, "within", "part/01-x", 0.0, 10)
    assert claims.evaluate(same, [5, 5, 5]) is holds
    assert claims.evaluate(same, [6, 6, 6]) is fails
    for wrong in (5.0, [5.0], [[1.0, 2.0]]):
        with pytest.raises(ClaimError, match="sample"):
            claims.evaluate(same, wrong)


@pytest.mark.parametrize("check", claims.CHECKS)
def test_without_the_specimen_nothing_is_decided(check):
    assert claims.evaluate(claim(check, 1.0), None) is Verdict.NEEDS_SPECIMEN


@pytest.mark.parametrize("check", claims.CHECKS)
@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), float("inf")])
def test_a_measurement_that_is_no_number_is_refused(check, value):
    with pytest.raises(ClaimError, match="measured"):
        claims.evaluate(claim(check, 1.0, 0.5), value)


def settle(id: str, value, setting: str = "", **given) -> Verdict:
    """Settle one claim and return the verdict."""
    claims.settled({id: Measured(value, setting, **given)})
    return claims.verdicts()[id]["verdict"]


def test_settling_records_what_was_found(ledger):
    assert settle("holes", np.int64(12), "on Qwen2.5") == Verdict.CONTRADICTED
    record = claims.verdicts()["holes"]
    assert record == {
        "id": "holes",
        "verdict": "contradicted",
        "measured": 12,
        "setting": "on Qwen2.5",
    }
    assert settle("holes", 13) == Verdict.REPRODUCED


def test_verdicts_of_one_scale_say_nothing_of_another(ledger, monkeypatch):
    settle("holes", 13)
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    assert claims.verdicts() == {}
    settle("holes", 1)
    monkeypatch.setenv("BOOK_SCALE", "book")
    assert claims.verdicts()["holes"]["measured"] == 13


def test_a_claim_that_is_not_in_the_ledger_is_refused(ledger):
    for ask in (settle, lambda id, _: claims.table([id]), lambda id, _: claims.ledger()[id]):
        with pytest.raises(ClaimError, match="no claim 'hole'"):
            ask("hole", 13)


def test_the_table_of_a_part_and_of_all(ledger):
    assert len(claims.table(part="discovery").data.split("\n")) == 2 + 2
    rows = claims.table().data.split("\n")[2:]
    assert len(rows) == 3 and all(row.endswith("| – | open |") for row in rows)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {id: a, claim: b}", "missing"),
        ("- a string", "no Claim"),
        ("id: a", "'id' is no Claim"),
        ("- [", "cannot read"),
        (LEDGER + LEDGER, "stands twice"),
        (LEDGER.replace("equal", "equals"), "check must be one of"),
        (LEDGER.replace("part:", "wing:"), "wing"),
    ],
)
def test_a_malformed_ledger_is_one_clear_error(text, says, tmp_path):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(ClaimError, match=says) as error:
        claims.ledger(tmp_path / "claims.yaml")
    assert "claims.yaml" in str(error.value)


def test_the_books_own_ledger_is_well_formed():
    for id, entry in claims.ledger().items():
        assert id == entry.id and entry.claim and entry.source and entry.chapter
        assert entry.check != "close" or entry.tolerance > 0, id
        assert entry.first is None or entry.why, id
        assert entry.ours or not entry.source.startswith(("[D]", "this book")), id
        json.dumps(entry.printed)


def test_another_setting_decides_nothing_whichever_way_it_comes_out(ledger):
    assert settle("norm", 2.0, comparable=False) == "open"
    assert settle("norm", 2.0) == "contradicted"
    assert settle("norm", 1.087, comparable=False) == "agrees elsewhere"
    assert settle("norm", 1.087) == "reproduced"
    assert settle("norm", None, comparable=False) == "needs specimen"


def test_our_own_claims_say_so_in_the_table(ledger):
    ledger.write_text(LEDGER.replace("tolerance: 0.01,", "tolerance: 0.01, ours: true,"))
    assert "| The mean norm | this book: [P] |" in claims.table(["norm"]).data


# ----------------------------------------------------------------------------- full runs


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(paths, "VERDICTS", tmp_path / "artifacts" / "claims")
    monkeypatch.setenv("BOOK_SCALE", "full")
    return tmp_path


def toy(seeds: int) -> CastRows:
    """A recipe that is quickly made."""
    return CastRows(1, 1e-6, 1e-6, 3, 4, seeds)


def test_a_kept_run_is_read_back(place, monkeypatch):
    settle("baseline-centroid", 0.4, "10,000 steps")
    full = artifacts.cached(toy(1), "goldilocks/02-baseline")
    artifacts.cached(toy(2), "goldilocks/01-design")
    with monkeypatch.context() as other:
        other.setenv("BOOK_SCALE", "smoke")
        artifacts.cached(toy(3), "goldilocks/02-baseline")
    with monkeypatch.context() as other:
        other.setenv(scale.GIVEN, "steps")
        artifacts.cached(toy(4), "goldilocks/02-baseline")
    entry = full_runs.gather("goldilocks/03-look", ["goldilocks/02-baseline"])
    assert [one["digest"] for one in entry.artefacts] == [full.digest]
    assert list(entry.claims) == ["baseline-centroid"]
    file = place / "full_runs.yml"
    full_runs.keep(entry, file)
    full_runs.keep(entry, file)  # replaces, does not double
    kept = claims.full_runs(file)
    assert kept == {"goldilocks/03-look": entry}
    monkeypatch.setattr(claims, "full_runs", lambda: kept)
    assert claims.full_run("baseline-centroid")["measured"] == 0.4
    assert claims.full_run("baseline-straight") is None


def test_nothing_to_keep_says_how_to_make_it(place):
    with pytest.raises(ClaimError, match=r"run chapters/goldilocks/03-look\.qmd"):
        full_runs.gather("goldilocks/03-look", [])


def test_a_broken_file_is_named(place):
    (place / "full_runs.yml").write_text("a: [1\n")
    with pytest.raises(ClaimError, match=r"full_runs\.yml"):
        claims.full_runs(place / "full_runs.yml")
    assert claims.full_runs(place / "absent.yml") == {}


def test_many_runs_are_one_entry(place):
    settle("baseline-centroid", 0.4)
    many = [artifacts.cached(toy(seed), "goldilocks/02-baseline") for seed in (1, 2, 3)]

    def kept():
        return full_runs.gather("goldilocks/03-look", ["goldilocks/02-baseline"]).artefacts

    (entry,) = kept()
    assert entry["name"] == "cast-rows, 3 files"
    assert entry["seconds"] == pytest.approx(sum(one.provenance["seconds"] for one in many))
    many[0].path.unlink()
    (other,) = kept()
    assert other["name"] == "cast-rows, 2 files"
    assert other["content"] != entry["content"]


def test_every_printed_training_result_stands_in_the_table():
    experiments = claims.experiments()
    named = [id for experiment in experiments for id in experiment.claims]
    assert len(named) == len(set(named))
    printed = {
        claim.id
        for claim in claims.ledger().values()
        if claim.part in ("dynamics", "goldilocks") and "[P]" in claim.source
    }
    assert printed <= set(named) <= set(claims.ledger())
    for experiment in experiments:
        assert experiment.why or all(
            claims.ledger()[id].check == "true" for id in experiment.claims
        )
