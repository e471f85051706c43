"""A model by any name: folders, files, the hub on loopback; what is missing is said, not raised."""

import json

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants
from safetensors.numpy import save_file

from lib import paths
from lib.extraction import models, store
from lib.extraction.catalogue import SpecimenError
from lib.extraction.tensor_files import INDEX
from tests import loopback_hub
from tests.loopback_hub import Hub

HEAD = np.arange(80, dtype=np.float32).reshape(20, 4)
INPUT = HEAD + 1000
TOKENIZER = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "FETCHED", tmp_path / "fetched")
    loopback_hub.quick_and_nobody(monkeypatch)


def folder(path, tensors, config=None, tokenizer=None):
    path.mkdir(exist_ok=True)
    save_file(tensors, path / "model.safetensors")
    if config is not None:
        (path / "config.json").write_text(config)
    if tokenizer is not None:
        (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path


UNTIED = {"lm_head.weight": HEAD, "model.embed_tokens.weight": INPUT}
TIED = {"model.embed_tokens.weight": INPUT}


@pytest.mark.parametrize(
    ("tensors", "config", "tied", "inputs", "says"),
    [
        (UNTIED, '{"tie_word_embeddings": false}', False, True, None),
        (UNTIED, '{"tie_word_embeddings": true}', True, False, None),
        (UNTIED, None, False, True, "no config.json"),
        (TIED, '{"tie_word_embeddings": true}', True, False, None),
        (TIED, "{}", True, False, None),
        (TIED, '{"text_config": {"tie_word_embeddings": false}}', None, False, "only one of them"),
        (TIED, '{"tie', True, False, "config.json cannot be read"),
        (TIED, "[]", True, False, "config.json cannot be read"),
        ({"odd": HEAD}, "{}", None, False, "no tensor has a usual name"),
    ],
)
def test_a_folder_and_whether_its_matrices_are_tied(tmp_path, tensors, config, tied, inputs, says):
    found = models.open(str(folder(tmp_path / "m", tensors, config, TOKENIZER)))
    assert found.tied is tied and (found.inputs is not None) == inputs
    assert (found.specimen.matrix == next(iter(tensors.values()))).all()
    if inputs:
        assert (found.inputs.matrix == INPUT).all()
    assert found.tokenizer == str(tmp_path / "m" / "tokenizer.json")
    assert (says is None and not found.missing) or any(says in line for line in found.missing)


def test_the_input_matrix_by_name_and_a_tokenizer_of_ones_own(tmp_path):
    path = folder(tmp_path / "m", UNTIED, "{}")
    found = models.open(f"{path}:model.embed_tokens.weight")
    assert found.inputs is found.specimen and (found.specimen.matrix == INPUT).all()
    assert any("no tokenizer.json" in line for line in found.missing)
    (path / "spiece.model").write_bytes(b"")
    assert models.open(str(path)).tokenizer == str(path / "spiece.model")
    assert models.open(str(path), tokenizer="qwen3").tokenizer == "qwen3"
    file = path / "model.safetensors"
    assert models.open(str(file)).specimen.description.tensor == "lm_head.weight"


def test_a_gguf_and_the_catalogue(tmp_path):
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    blocks = quants.quantize(np.ones((6, 32), np.float32), GGMLQuantizationType.Q8_0)
    writer.add_tensor("token_embd.weight", blocks, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.add_token_list([b"a", b"<b>", "é".encode()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = models.open(str(tmp_path / "m.gguf"))
    assert found.tied is True and found.specimen.precision == "Q8_0"
    assert found.spelled == ("a", "<b>", "é") and found.tokenizer == str(tmp_path / "m.gguf")
    found = models.open("planted")
    assert found.tied and found.specimen.is_full and "no tokenizer" in found.missing[0]


@pytest.mark.parametrize("sharded", [False, True])
def test_a_repository_of_the_hub_is_fetched_as_a_folder(tmp_path, monkeypatch, sharded):
    """Of its files only the two matrices, config and tokenizer; a second time nothing."""
    path = folder(tmp_path / "m", UNTIED | {"other": np.zeros((900, 90), np.float32)}, "{}",
                  TOKENIZER)  # fmt: skip
    files = {file.name: file for file in path.iterdir()}
    if sharded:
        for name, tensor in UNTIED.items():
            save_file({name: tensor, f"{name}.more": tensor}, path / f"{name}.safetensors")
            files[f"{name}.safetensors"] = path / f"{name}.safetensors"
        table = {name: f"{name}.safetensors" for name in UNTIED}
        (path / INDEX).write_text(json.dumps({"weight_map": table}))
        files[INDEX] = path / INDEX
        del files["model.safetensors"]
    with loopback_hub.serving(Hub({"org/tiny-1.0": files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        found = models.open("org/tiny-1.0")
        asked = len(hub.log)
        again = models.open("org/tiny-1.0")
        assert len(hub.log) == asked
        models.open("org/tiny-1.0", revision="v1/../x")
    for one in (found, again):
        assert (one.specimen.matrix == HEAD).all() and (one.inputs.matrix == INPUT).all()
        assert one.name == "org/tiny-1.0" and one.tied is False and not one.missing
        assert "org/tiny-1.0" in one.specimen.source and "commit" in one.specimen.facts["version"]
        assert one.specimen.description.model == "org/tiny-1.0"
    kept = sorted(p.name for p in (tmp_path / "fetched" / "hub").iterdir())
    assert kept == ["org--tiny-1.0", "org--tiny-1.0@v1%2F..%2Fx"]
    assert store.verify(tmp_path / "fetched/hub/org--tiny-1.0/lm_head.weight.safetensors")


def test_of_the_hub_the_best_form_of_the_tokenizer_is_fetched(tmp_path, monkeypatch):
    path = folder(tmp_path / "m", TIED, "{}")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "README.md"):
        (path / name).write_text("{}")
    files = {file.name: file for file in path.iterdir()}
    with loopback_hub.serving(Hub({"org/a": files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        found = models.open("org/a")
    kept = paths.FETCHED / "hub" / "org--a"
    assert found.tokenizer == str(kept / "vocab.json")
    assert {file.name for file in kept.glob("*.*")} >= {"merges.txt", "tokenizer_config.json"}
    assert not (kept / "README.md").exists()


def test_what_the_hub_does_not_have(tmp_path, monkeypatch):
    path = folder(tmp_path / "m", {"odd": HEAD, "odder": HEAD})
    with loopback_hub.serving(
        Hub({"org/odd": {"model.safetensors": path / "model.safetensors"}})
    ) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        with pytest.raises(SpecimenError, match=r"org/odd: no tensor has an unembedding's name"):
            models.open("org/odd")
        found = models.open("org/odd:odder")
        assert len(found.missing) == 3 and found.tokenizer is None
        with pytest.raises(SpecimenError, match="not on the hub"):
            models.open("org/nothing")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SpecimenError, match="not reachable"):
        models.open("org/elsewhere")
    with pytest.raises(SpecimenError, match="no specimen"):
        models.open("nothing")
    with pytest.raises(SpecimenError, match="check the path"):
        models.open("a/b/c.safetensors")
