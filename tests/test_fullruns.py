"""Kept full-scale results, and the table of the sources' experiments."""

import json

import pytest

from lib import artifacts, claims, paths, scale


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(paths, "VERDICTS", tmp_path / "artifacts" / "claims")
    monkeypatch.setenv("BOOK_SCALE", "full")
    return tmp_path


def made(*, steps: int, seed: int) -> dict:
    import numpy as np

    return {"x": np.arange(steps) + seed}


def test_a_kept_run_is_read_back(place, monkeypatch):
    claims.settle("baseline-centroid", 0.4, setting="10,000 steps")
    recipe = artifacts.Recipe("toy", made, (), "goldilocks/02-baseline")
    full = artifacts.cached(recipe, {"steps": 10_000, "seed": 1})
    with monkeypatch.context() as other:
        other.setenv("BOOK_SCALE", "smoke")
        artifacts.cached(recipe, {"steps": 7, "seed": 1})
    with monkeypatch.context() as other:
        other.setenv(scale.GIVEN, "steps")
        artifacts.cached(recipe, {"steps": 8, "seed": 1})
    entry = claims.gather("goldilocks/03-look", ["goldilocks/02-baseline"])
    assert [one["digest"] for one in entry.artefacts] == [full.digest]
    assert list(entry.claims) == ["baseline-centroid"]
    file = place / "full_runs.yml"
    claims.keep(entry, file)
    claims.keep(entry, file)  # replaces, does not double
    assert claims.full_runs(file) == {"goldilocks/03-look": entry}
    assert claims.full_run("baseline-centroid", claims.full_runs(file))["measured"] == 0.4
    assert claims.full_run("baseline-straight", claims.full_runs(file)) is None


def test_nothing_to_keep_says_how_to_make_it(place):
    with pytest.raises(claims.FullRunError, match=r"run chapters/goldilocks/03-look\.qmd"):
        claims.gather("goldilocks/03-look", [])


def test_a_broken_file_is_named(place):
    (place / "full_runs.yml").write_text("a: [1\n")
    with pytest.raises(claims.FullRunError, match=r"full_runs\.yml"):
        claims.full_runs(place / "full_runs.yml")
    assert claims.full_runs(place / "absent.yml") == {}


def test_many_runs_are_one_entry(place):
    claims.settle("baseline-centroid", 0.4)
    recipe = artifacts.Recipe("toy", made, (), "goldilocks/02-baseline")
    many = [artifacts.cached(recipe, {"steps": 5, "seed": seed}) for seed in (1, 2, 3)]

    def kept():
        return claims.gather("goldilocks/03-look", ["goldilocks/02-baseline"]).artefacts

    (entry,) = kept()
    assert entry["name"] == "toy, 3 files"
    assert entry["seconds"] == pytest.approx(sum(one.provenance["seconds"] for one in many))
    many[0].path.unlink()
    (other,) = kept()
    assert other["name"] == "toy, 2 files"
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
    assert printed <= set(named)
    for experiment in experiments:
        assert experiment.why or all(
            claims.ledger()[id].check == "true" for id in experiment.claims
        )


def test_a_kept_run_outranks_this_edition(place):
    claims.settle("baseline-centroid", 9.9, comparable=False)
    experiment = claims.Experiment("Goldilocks", "", ("baseline-centroid", "baseline-straight"))
    kept = claims.Kept("goldilocks/03-look", "2026-11-26", "", [], json.loads(
        '{"baseline-centroid": {"measured": 0.39, "setting": "full", "verdict": "reproduced"}}'
    ))  # fmt: skip
    first, second = claims.results([experiment], kept=kept and {"x": kept})
    assert (first.ours, first.full, first.best) == ("9.90", "0.390", claims.Verdict.REPRODUCED)
    assert (second.ours, second.full, second.best) == ("–", "–", claims.Verdict.OPEN)


def test_an_unknown_claim_is_named(place):
    file = place / "experiments.yml"
    file.write_text("- {name: X, setting: y, claims: [no-such-claim]}\n")
    with pytest.raises(claims.ExperimentError, match="no-such-claim"):
        claims.experiments(file)
