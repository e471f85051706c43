"""Centres: surrogates with the printed facts, the rebuilt one, and those of a matrix's cluster."""

import json

import numpy as np
import pytest
from scipy import stats

from lib import lattice, paths
from lib.__main__ import main
from lib.analysis import census, centres, qwen3, simulation
from lib.extraction import planted, specimens
from lib.extraction.catalogue import SpecimenError
from tests.small import specimen_of


def test_surrogate_centres_carry_the_printed_facts():
    on = centres.on_lattice(rng=np.random.default_rng(42))
    facts = qwen3.printed("figures")
    exponent = lattice.fields(lattice.round_nearest(on)).exponent
    assert np.array_equal(np.sort(exponent), qwen3.exponents())
    assert (lattice.value(lattice.round_nearest(on)) == on).all()
    assert abs(np.linalg.norm(on) / facts["largest_hole_norm"] - 1) < 1e-4
    assert np.array_equal(centres.named("qwen3-lattice"), on)
    mean = centres.named("qwen3-holes")
    off = lattice.value(lattice.round_nearest(mean)) != mean
    assert set(np.flatnonzero(off)) == set(qwen3.thirteen().dims)
    assert abs(np.linalg.norm(centres.centred(rng=np.random.default_rng(1))) - 0.166061) < 1e-6


def test_the_rebuilt_centre_has_the_printed_demographics_it_was_not_fitted_to():
    facts = qwen3.printed("figures")["direct"]
    found = simulation.simulate(
        centres.named("qwen3-rebuilt"), scale=1.5e-9, rows=2100, trials=4000
    )
    assert abs(found.holes.mean() - facts["holes"]["mean"]) < 0.2
    assert abs(found.tokens.std() - facts["tokens"]["std"]) < 0.15
    sixth = np.mean([n[5] for n in found.populations if len(n) > 5 and n[5] > 1])
    assert abs(sixth - facts["rank_means"][5]) < 0.6


def test_borders_are_fitted_to_what_was_printed():
    found = centres.fit_borders()
    assert len(found.flip) == 7 and np.allclose(found.flip, stats.norm.sf(found.distance / 1.5e-9))
    printed, error, flips_say = found.data.T
    assert (~found.held).sum() == 6 == len(set(found.flip))  # as many means as numbers
    assert np.allclose(flips_say[~found.held], printed[~found.held], rtol=1e-6)
    off = (flips_say - printed)[found.held] / np.hypot(error, found.error)[found.held]
    assert (np.abs(off) < 3).all() and found.chi_square < stats.chi2.isf(0.01, found.held.sum())
    assert centres.fit_borders(rare=1).chi_square > stats.chi2.isf(1e-6, found.held.sum())


def test_the_error_of_a_forecast_is_what_other_printed_means_would_have_made_of_it(monkeypatch):
    own, facts = centres.fit_borders(), qwen3.printed("figures")
    rng, foretold = np.random.default_rng(0), []
    for _ in range(60):
        direct = {**facts["direct"]}
        direct["rank_means"] = np.array(direct["rank_means"], float)
        direct["rank_means"][:5] += rng.normal(0, own.data[:5, 1])
        direct["tokens"] = {**direct["tokens"], "mean": rng.normal(*own.data[5, :2])}
        stored = {**facts["direct_float16"]}
        stored["largest"] = {**stored["largest"], "mean": rng.normal(*own.data[8, :2])}
        other = {**facts, "direct": direct, "direct_float16": stored}
        monkeypatch.setattr(centres.qwen3, "printed", lambda _, other=other: other)
        foretold.append(centres.fit_borders.__wrapped__().data[own.held, 2])
    assert np.allclose(np.std(foretold, axis=0), own.error[own.held], rtol=0.5)
    with pytest.raises(ValueError, match="qwen3-holes, qwen3-lattice"):
        centres.named("qwen3-middle")


@pytest.fixture(scope="module")
def matrix():
    return specimens.open("planted")


@pytest.fixture(scope="module")
def found(matrix):
    return centres.measured(matrix)


def test_the_holes_are_those_of_the_cluster_and_not_the_living_twins(found):
    _, populations = found
    assert populations.tolist() == list(planted.POPULATIONS)


def test_the_three_centres_are_what_they_are_called(matrix, found):
    kinds, populations = found
    assert kinds.keys() == centres.MEASURED_KINDS.keys()
    largest, mean, centred = (kinds[k] for k in ("largest", "holes", "centred"))
    bits = matrix.bits[census.duplicates(matrix.bits).first_ids]
    bits = bits[np.abs(lattice.steps(bits[:1], bits)).max(axis=1) <= 1]  # of the cluster
    assert (lattice.round_nearest(largest) == bits[0]).all()
    values = lattice.value(bits).astype(np.float64)
    expected = sum(n * row for n, row in zip(populations, values, strict=True))
    expected = expected / populations.sum()
    assert np.abs(mean - expected).max() < 1e-9
    everyone = lattice.value(matrix.bits).astype(np.float64).mean(axis=0)
    assert np.abs(centred - (expected - everyone)).max() < 1e-8
    assert {row.dtype for row in (largest, mean, centred)} == {np.dtype(np.float32)}
    off = lattice.value(lattice.round_nearest(mean)) != mean
    moved = (bits != bits[0]).any(axis=0)
    assert off.any()
    assert not (off & ~moved).any()  # the mean leaves the lattice only where the holes differ


def test_a_matrix_without_holes_or_of_another_lattice_is_refused():
    rows = np.arange(600, dtype=np.uint16).reshape(100, 6)
    with pytest.raises(SpecimenError, match="no two rows"):
        centres.measured(specimen_of("none", rows, source="distinct rows"))
    with pytest.raises(SpecimenError, match="bfloat16"):
        centres.measured(specimens.open("whisper-base"))


def test_the_command_line_takes_a_specimen(capsys, found, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "FETCHED", tmp_path)
    words = ["snowball", "--sigma", "1e-7", "--rows", "50", "--trials", "2", "--json", "--centre"]
    for kind in centres.MEASURED_KINDS:
        assert main([*words, f"planted:{kind}"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["norm"] == pytest.approx(np.linalg.norm(found[0][kind]), rel=1e-6)
    for wrong, said in (("planted:x", "centred"), ("qwen3-4b", "fetch qwen3-4b")):
        assert main([*words, wrong]) == 2
        assert said in capsys.readouterr().err
