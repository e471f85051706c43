"""Extracts: cut small ones from small matrices, open them, and find in them what went in."""

from dataclasses import replace

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from lib import paths
from lib.analysis import census, extracts
from lib.extraction import catalogue, specimens
from lib.extraction.catalogue import Description, Extract, SpecimenError

ROWS, DIM = 400, 64
DEAD = np.array([7, 30, 301, 302, 390, 391, 392])


@pytest.fixture
def matrix() -> np.ndarray:
    """(400, 64) float32: live rows, and seven close together of which three are one row."""
    rng = np.random.default_rng(42)
    W = rng.normal(0, 0.1, (ROWS, DIM)).astype(np.float32)
    W[DEAD] = rng.normal(0, 0.02, DIM) + rng.normal(0, 1e-6, (len(DEAD), DIM))
    W[DEAD[:3]] = W[DEAD[0]]
    return W


def opened(description: Description, path, monkeypatch) -> specimens.Specimen:
    """The specimen as its extract at `path` has it."""
    monkeypatch.setattr(paths, "SPECIMENS", path.parent)
    return specimens.read_extract(description, Extract(path.name))


def test_every_committed_extract_has_a_maker():
    committed = {
        d.id for d in catalogue.CATALOGUE for s in d.sources if isinstance(s, catalogue.Extract)
    }
    assert committed == set(extracts.CUTS)


def test_an_8_bit_extract(tmp_path, monkeypatch, matrix):
    file, path = tmp_path / "m.gguf", tmp_path / "cut.safetensors"
    writer = gguf.GGUFWriter(file, "test")
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("output.weight", gguf.quants.quantize(matrix, kind), raw_dtype=kind)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file,
                  writer.write_tensors_to_file, writer.close):  # fmt: skip
        write()
    whole = specimens.open(str(file))
    description = replace(whole.description, dtype="BF16")
    extracts.cut_q8_0(whole, description, path, ids=DEAD[2:4], ball=1e-3, beyond=0.05, draw=50)
    found = opened(description, path, monkeypatch)
    assert found.precision == "Q8_0" and not found.is_full
    assert found.dead_ids.tolist() == DEAD.tolist() and len(found.live_ids) == 50
    assert not np.isin(found.live_ids, DEAD).any()
    assert np.array_equal(found.dead_rows, whole.values(DEAD))
    assert np.array_equal(found.live_rows, whole.values(found.live_ids))
    assert np.array_equal(census.of(found).group, census.of(whole).group)
    np.testing.assert_allclose(found.norms, whole.norms, rtol=1e-6)
    values = whole.values(slice(None))
    assert np.allclose(found.array("projection"), values @ found.array("axes")[:, :3], atol=1e-6)
    offset = values - values.mean(0)
    assert np.isclose(found.facts["trace"], (offset**2).sum() / ROWS, rtol=1e-5)
    with pytest.raises(SpecimenError, match="BF16, not Q8_0"):
        extracts.cut_q8_0(
            specimens.open("planted"), description, path, ids=DEAD, ball=1, beyond=1, draw=1
        )


def test_a_float16_extract(tmp_path, monkeypatch, matrix):
    file, path = tmp_path / "m.safetensors", tmp_path / "cut.safetensors"
    half = matrix.astype(np.float16)
    save_file({"W": half}, file)
    description = replace(specimens.open(str(file)).description, tokenizer="whisper")
    whole = replace(specimens.open(str(file)), description=description)
    extracts.cut_core(whole, description, path, middle=30, core=1e-3, draw=100)
    found = opened(description, path, monkeypatch)
    assert found.dead_ids.tolist() == DEAD.tolist()
    assert np.array_equal(found.array("core_bits"), half[DEAD].view(np.uint16))
    others = found.live_ids
    assert len(others) == 100 and not np.isin(others, DEAD).any() and others.max() > ROWS / 2
    assert np.array_equal(found.live_rows, half[others].astype(np.float32))
    np.testing.assert_allclose(
        found.array("dist"), np.linalg.norm(half.astype(float) - half[30].astype(float), axis=1),
        atol=1e-6,
    )  # fmt: skip
    with pytest.raises(SpecimenError, match="not float16"):
        extracts.cut_core(specimens.open("planted"), description, path, middle=1, core=1, draw=1)


def test_an_extract_of_numbers_that_float16_keeps(tmp_path, monkeypatch, matrix):
    file, path = tmp_path / "m.safetensors", tmp_path / "cut.safetensors"
    save_file({"W": matrix.astype(np.float16).astype(np.float32)}, file)
    whole = specimens.open(str(file))
    extracts.cut_unused(whole, whole.description, path, ids=DEAD)
    found = opened(whole.description, path, monkeypatch)
    rows = found.array("unused_bits").view(np.float16).astype(np.float32)
    assert np.array_equal(rows, whole.values(DEAD))
    assert found.array("unused_ids").tolist() == DEAD.tolist()
    planted, other = specimens.open("planted"), tmp_path / "other.safetensors"
    with pytest.raises(SpecimenError, match="no float16 numbers"):
        extracts.cut_unused(planted, planted.description, other, ids=np.arange(2000))
    assert not other.exists()
