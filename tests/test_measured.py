"""Centres of a matrix's own cluster: known from the planted specimen, and by the command line."""

import json

import numpy as np
import pytest

from lib import lattice, paths
from lib.__main__ import main
from lib.analysis import centres
from lib.cli import snowball as verb
from lib.extraction import planted, specimens
from lib.extraction.catalogue import SpecimenError


@pytest.fixture(scope="module")
def matrix():
    return specimens.open("planted")


@pytest.fixture(scope="module")
def found(matrix):
    return centres.measured(matrix)


def test_the_holes_are_those_of_the_cluster_and_not_the_living_twins(found):
    assert found.populations.tolist() == list(planted.POPULATIONS)


def test_the_three_centres_are_what_they_are_called(matrix, found):
    largest, mean, centred = (found.centre(k) for k in ("largest", "holes", "centred"))
    assert (lattice.round_nearest(largest) == found.bits[0]).all()
    values = lattice.value(found.bits).astype(np.float64)
    expected = sum(n * row for n, row in zip(found.populations, values, strict=True))
    expected = expected / found.populations.sum()
    assert np.abs(mean - expected).max() < 1e-9
    everyone = lattice.value(matrix.bits).astype(np.float64).mean(axis=0)
    assert np.abs(centred - (expected - everyone)).max() < 1e-8
    assert {row.dtype for row in (largest, mean, centred)} == {np.dtype(np.float32)}
    off = lattice.value(lattice.round_nearest(mean)) != mean
    moved = (found.bits != found.bits[0]).any(axis=0)
    assert off.any()
    assert not (off & ~moved).any()  # the mean leaves the lattice only where the holes differ
    with pytest.raises(ValueError, match="centred"):
        found.centre("somewhere")


def test_a_matrix_without_holes_or_of_another_lattice_is_refused():
    rows = np.arange(600, dtype=np.uint16).reshape(100, 6)
    with pytest.raises(SpecimenError, match="no two rows"):
        centres.measured(specimens.of_array("none", rows, source="distinct rows"))
    with pytest.raises(SpecimenError, match="bfloat16"):
        centres.measured(specimens.open("whisper-base"))


def test_the_command_line_takes_a_specimen(capsys, found, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "FETCHED", tmp_path)
    words = ["snowball", "--sigma", "1e-7", "--rows", "50", "--trials", "2", "--json", "--centre"]
    for kind in verb.KINDS:
        assert main([*words, f"planted:{kind}"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["norm"] == pytest.approx(np.linalg.norm(found.centre(kind)), rel=1e-6)
    assert tuple(centres.MEASURED_KINDS) == verb.KINDS
    for wrong, said in (("planted:x", "centred"), ("qwen3-4b", "fetch qwen3-4b")):
        assert main([*words, wrong]) == 2
        assert said in capsys.readouterr().err
