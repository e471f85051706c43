"""Specimens: the catalogue, roles, committed extracts, what this book trains, planted rows."""

import numpy as np
import pytest
from scipy import stats

from lib import paths, scale
from lib.extraction import catalogue, fetching, planted, specimens
from lib.extraction.catalogue import SpecimenError
from lib.generators import Generator
from lib.training import films
from lib.training.experiments import LastFrame

CODER, WHISPER = "qwen2.5-coder-0.5b", "whisper-base"


@pytest.fixture(autouse=True)
def _nothing_fetched(tmp_path, monkeypatch):
    """Tests do not see what the person who runs them has fetched."""
    monkeypatch.setattr(paths, "FETCHED", tmp_path / "fetched")


def test_the_catalogue_holds_what_the_book_promises():
    ids = [d.id for d in catalogue.CATALOGUE]
    assert len(ids) == len(set(ids))
    assert {"qwen3-4b", "qwen3-4b-base", "qwen3-0.6b", "qwen2.5-3b", "qwen2.5-0.5b", "qwen2-7b",
            "qwen1.5-4b", "llama-3.2-3b", "gemma-3-4b", "gpt2", WHISPER, "minilm-l6",
            "planted", "flannel", "gatsby", "goldilocks"} <= set(ids)  # fmt: skip
    assert catalogue.find("llama-3.2-3b").gated and catalogue.find("gemma-3-4b").gated
    with pytest.raises(SpecimenError, match="there are qwen3-4b,"):
        catalogue.find("gpt-7")


def test_what_is_not_here_names_the_command_that_fetches_it():
    with pytest.raises(SpecimenError, match="python -m lib fetch qwen3-4b"):
        specimens.open("qwen3-4b")


def test_the_subject_is_qwen3_where_it_was_fetched_and_a_stand_in_says_so_elsewhere(monkeypatch):
    for role, (meant, stand_in) in catalogue.ROLES.items():
        assert catalogue.resolve(role) == stand_in and catalogue.resolve(meant) == meant
        found = specimens.open(role)
        assert found.id == stand_in and "stands in for Qwen/Qwen3-4B-Instruct-2507" in found.source
        assert "python -m lib fetch qwen3-4b" in found.source
        assert "stands in" not in specimens.open(stand_in).source
    catalogue.fetched_file("qwen3-4b").parent.mkdir()
    catalogue.fetched_file("qwen3-4b").touch()
    assert catalogue.resolve("subject") == "qwen3-4b" and catalogue.remark("subject") == ""
    with pytest.raises(SpecimenError, match=r"qwen3-4b\.safetensors"):
        specimens.open("subject")  # a damaged matrix is reported, never passed over


def test_what_this_book_trains_is_found_by_its_id(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(paths, "MADE", tmp_path / "made")
    frames = np.random.default_rng(42).integers(0, 1 << 15, (3, 30, 8), dtype=np.uint16)
    (tmp_path / "film").mkdir()
    stream, segment = films.Stream("W", (30, 8)), tmp_path / "segment.h5"
    films.write_segment(segment, [stream], {"W": frames})
    rows = {"rows": np.arange(30)}
    films.assemble(tmp_path / "film" / "film-0123.h5", [stream], [segment], rows)
    for chapter, id, size in (
        ("dynamics/01-train", "flannel", "smoke"),
        ("dynamics/05-arms", "gatsby", "smoke"),
        ("dynamics/01-train", "flannel", "book"),
    ):
        monkeypatch.setenv("BOOK_SCALE", size)
        with pytest.raises(SpecimenError, match=f"{id}: not trained here yet at scale {size}"):
            specimens.open(id)
        kept = Generator(chapter, scale.settings(chapter))
        kept.keep(specimens.TRAINED, LastFrame(id, "film-0123.h5"))
    s = specimens.open("flannel")
    assert np.array_equal(s.bits, frames[-1]) and (s.rows, s.dim, s.precision) == (30, 8, "BF16")
    assert "film-0123.h5, trained by dynamics/01-train" in s.source
    assert specimens.here(s.description) == "trained"
    with pytest.raises(
        SpecimenError, match=r"run `python -m lib run chapters/goldilocks/02-baseline\.qmd`"
    ):
        specimens.open("goldilocks")
    with pytest.raises(SpecimenError, match="trained, not fetched"):
        fetching.fetch("flannel")
    file = specimens.trained(catalogue.Trained("dynamics/01-train")).path
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(SpecimenError, match=r"flannel: .* is damaged"):
        specimens.open("flannel")


def test_the_coder_extract_agrees_with_itself():
    s = specimens.open(CODER)
    axes = s.array("axes")
    assert (
        s.norms.shape
        == s.array("dist").shape
        == s.array("row_group").shape
        == (s.rows,)
        == (151_936,)
    )
    assert s.array("projection").shape == (s.rows, 3) and axes.shape == (s.dim, 6)
    assert np.array_equal(np.flatnonzero(s.array("dist") < 1e-3), s.dead_ids)
    for ids, rows in ((s.dead_ids, s.dead_rows), (s.live_ids, s.live_rows)):
        norms = np.linalg.norm(rows.astype(np.float64), axis=1)
        np.testing.assert_allclose(norms, s.norms[ids], rtol=1e-6)
        np.testing.assert_allclose(rows @ axes[:, :3], s.array("projection")[ids], atol=2e-6)
    equal = s.array("row_group")[s.dead_ids]
    first = {g: i for i, g in reversed(list(enumerate(equal.tolist())))}
    assert all(
        (s.dead_rows[i] == s.dead_rows[first[g]]).all() for i, g in enumerate(equal.tolist())
    )
    assert "extract" in s.source and not s.is_full and s.precision == "Q8_0"
    with pytest.raises(SpecimenError, match=f"python -m lib fetch {CODER}"):
        _ = s.bits


def test_the_whisper_extract_agrees_with_itself():
    s = specimens.open(WHISPER)
    assert s.array("core_bits").dtype == np.uint16 and len(s.dead_ids) == 51
    for ids, rows in ((s.dead_ids, s.dead_rows), (s.live_ids, s.live_rows)):
        norms = np.linalg.norm(rows.astype(np.float64), axis=1)
        np.testing.assert_allclose(norms, s.norms[ids], rtol=1e-6)
    assert not np.isin(s.live_ids, s.dead_ids).any()
    assert stats.kstest(s.live_ids / s.rows, "uniform").pvalue > 0.01  # from all of the matrix
    with pytest.raises(SpecimenError, match="no array 'row_group'"):
        s.array("row_group")


def test_the_minilm_extract_holds_the_unused_rows():
    s = specimens.open("minilm-l6")
    ids = s.array("unused_ids")
    assert ids.tolist() == [*range(1, 100), *range(104, 999)]
    rows = s.array("unused_bits").view(np.float16).astype(np.float64)
    assert rows.shape == (994, s.dim) and s.norms.shape == (s.rows,)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), s.norms[ids], rtol=1e-6)
    assert len(np.unique(rows, axis=0)) == 994


def test_numbers_from_bits_are_exact():
    s = specimens.open("planted")
    word = (s.bits[:50].astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(s.values(slice(0, 50)), word) and s.values([3]).shape == (1, s.dim)
    np.testing.assert_allclose(
        s.norms[:50], np.linalg.norm(word.astype(np.float64), axis=1), rtol=1e-12
    )


def test_the_planted_matrix_is_the_same_every_time_and_differs_by_seed():
    one, ids = planted.matrix(rows=3000, dim=200, seed=1)
    two, _ = planted.matrix(rows=3000, dim=200, seed=1)
    other, _ = planted.matrix(rows=3000, dim=200, seed=2)
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    assert len(ids) == planted.Answers.void
