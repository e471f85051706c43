"""The ledger: strict to read, verdicts computed, recorded per scale, tabulated."""

import json

import numpy as np
import pytest

from lib import claims, paths
from lib.claims import Claim, ClaimError, Verdict

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


def test_settling_records_what_was_found(ledger):
    assert claims.settle("holes", np.int64(12), setting="on Qwen2.5") is Verdict.CONTRADICTED
    record = claims.verdicts()["holes"]
    assert record == {
        "id": "holes",
        "verdict": "contradicted",
        "measured": 12,
        "setting": "on Qwen2.5",
    }
    assert claims.settle("holes", 13) is Verdict.REPRODUCED
    assert claims.verdicts()["holes"]["verdict"] == "reproduced"


def test_verdicts_of_one_scale_say_nothing_of_another(ledger, monkeypatch):
    claims.settle("holes", 13)
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    assert claims.verdicts() == {}
    claims.settle("holes", 1)
    monkeypatch.setenv("BOOK_SCALE", "book")
    assert claims.verdicts()["holes"]["measured"] == 13


def test_a_verdict_cannot_be_set_by_hand_except_open(ledger):
    with pytest.raises(ClaimError, match="only OPEN"):
        claims.settle("holes", 12, verdict=Verdict.REPRODUCED)
    assert claims.verdicts() == {}
    assert claims.settle("holes", 13, verdict=Verdict.OPEN) is Verdict.OPEN


def test_a_claim_that_is_not_in_the_ledger_is_refused(ledger):
    with pytest.raises(ClaimError, match="no claim 'hole'"):
        claims.settle("hole", 13)
    with pytest.raises(ClaimError, match="no claim 'hole'"):
        claims.table(["hole"])


def test_the_table_shows_printed_measured_and_verdict(ledger):
    claims.settle("holes", 13, setting="Qwen3-4B")
    claims.settle("list", np.array([1, 2]))
    claims.settle("norm", None)
    lines = claims.table(["holes", "norm", "list"]).data.split("\n")
    assert lines[2] == "| Thirteen holes | seed 003 | 13 | 13 (Qwen3-4B) | reproduced |"
    assert lines[3] == "| The mean norm | [P] | 1.087 | – | needs specimen |"
    assert lines[4] == "| Populations | [P] | 814, 704 | 1, 2 | contradicted |"


def test_the_table_of_a_part_and_of_all(ledger):
    assert len(claims.table(part="discovery").data.split("\n")) == 2 + 2
    rows = claims.table().data.split("\n")[2:]
    assert len(rows) == 3 and all(row.endswith("| – | open |") for row in rows)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {id: a, claim: b}", "missing"),
        ("- a string", "no claim"),
        ("id: a", "list"),
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
        json.dumps(entry.printed)


def test_a_disagreement_in_another_setting_is_open_and_an_agreement_counts(ledger):
    assert claims.settle("norm", 2.0, comparable=False) is Verdict.OPEN
    assert claims.verdicts()["norm"]["verdict"] == "open"
    assert claims.settle("norm", 2.0) is Verdict.CONTRADICTED
    assert claims.settle("norm", 1.087, comparable=False) is Verdict.REPRODUCED
