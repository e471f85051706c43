"""`python -m lib clock` on a model trained here, on norms, and on what it cannot use."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
import yaml

from lib import paths
from lib.__main__ import main
from lib.analysis import clock, coalescence
from lib.extraction import bpe, catalogue
from lib.training import loop, model, optim
from lib.training.config import BF16_STORAGE, FLOAT32, Run
from tests.loopback_hub import Hub, serving

TEXT = "the cat sat on the mat and the dog ate the rest of the day. " * 60
LIVE, VOCAB = 40, 120  # tokens, and rows of the matrix
RUN = Run(
    vocab=VOCAB, dim=64, layers=1, heads=2, ff=64, seq=16, batch=4, steps=120, lr=3e-3, warmup=12,
    schedule="cosine", lr_end=0.1, weight_decay=4.0, tied=False, seed=7, **FLOAT32,
)  # fmt: skip
RECIPE = {
    "start": {"sigma": RUN.init_std},
    "stages": [
        {"steps": 120, "peak": 3e-3, "end": 3e-4, "warmup": 12, "decay": 4.0, "shape": "cosine"}
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a model's: both matrices and the tokenizer; and the recipe beside them."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = bpe.train(TEXT, LIVE, "character")
    stream = np.array(tokenizer.encode(TEXT).ids, np.uint16)
    state = loop.train(RUN, stream).state
    named = model.views(state.param, RUN)
    tensors = {"model.embed_tokens.weight": named["E"], "lm_head.weight": named["W"]}
    tensors = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "recipe.yml").write_text(yaml.safe_dump({"ours": RECIPE}))
    return folder


@pytest.mark.parametrize("arithmetic", [{}, {"param_dtype": "bfloat16", "master": "fp32"}])
def test_rows_never_read_are_the_product_of_the_factors_bit_for_bit(arithmetic):
    run = RUN.replace(**arithmetic)
    ids = np.random.default_rng(1).integers(0, LIVE, 2000).astype(np.uint16)
    state = loop.train(run, ids).state
    rows = model.views(model.initialise(run), run)["E"][LIVE:].clone()
    for step in range(1, run.steps + 1):
        rows *= 1 - optim.learning_rate(run, step) * run.weight_decay
    assert torch.equal(model.views(optim.finest(state), run)["E"][LIVE:], rows)
    seen = model.views(state.param, run)
    assert torch.equal(seen["E"][LIVE:], rows.to(state.param.dtype))
    assert not torch.equal(seen["W"][LIVE:], rows.to(state.param.dtype))


def test_in_pure_bf16_small_decay_does_nothing_and_large_decay_does():
    ids = np.random.default_rng(1).integers(0, LIVE, 2000).astype(np.uint16)
    for decay, still in ((0.65, True), (4.0, False)):  # lr wd below and above 2^-9
        run = RUN.replace(weight_decay=decay, **BF16_STORAGE)
        end = model.views(loop.train(run, ids).state.param, run)["E"][LIVE:]
        start = model.views(model.initialise(run), run)["E"][LIVE:].bfloat16()
        assert torch.equal(end, start) == still


def asked(capsys, *words) -> dict:
    """The answer in JSON."""
    assert main(["clock", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_trained_here_tells_its_exposure(folder, capsys):
    due = coalescence.exposure(RUN)[-1]
    answer = asked(
        capsys, f"{folder}:model.embed_tokens.weight", "--recipe", f"{folder}/recipe.yml:ours"
    )
    assert answer["due"] == pytest.approx(due) and not answer["start_assumed"]
    assert answer["low"] < due < answer["high"] and abs(answer["errors"]) < 3
    assert answer["listed"] >= VOCAB - LIVE and answer["zero"] == 0
    assert set(map(int, answer["cluster"])) >= set(range(LIVE, VOCAB))
    start = model.views(model.initialise(RUN), RUN)["E"].numpy()
    for id in (LIVE, VOCAB - 1):
        norm = np.linalg.norm(start[id]) * np.exp(-due)
        assert answer["cluster"][str(id)] == pytest.approx(norm, rel=1e-4)
    assert answer["scatter"] == pytest.approx(answer["expected"], rel=0.35)
    assert main(["clock", f"{folder}:model.embed_tokens.weight"]) == 0
    said = capsys.readouterr().out
    assert "assumed" in said and said.count("\n") == 4 and "due by" not in said


def test_so_does_one_on_a_hub_of_which_only_the_matrix_is_read(
    folder, tmp_path, monkeypatch, capsys
):
    name, repo = "model.embed_tokens.weight", "someone/model"
    asked_for = catalogue.Description(
        "small", repo, name, VOCAB, RUN.dim, "F32", sources=(catalogue.Hub(repo, name),), tied=False
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", (asked_for,))
    monkeypatch.setattr(paths, "FETCHED", tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(Hub({repo: {"model.safetensors": folder / "model.safetensors"}})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        assert main(["fetch", "small"]) == 0
    capsys.readouterr()
    words = ("--tokenizer", folder / "tokenizer.json", "--recipe", f"{folder}/recipe.yml:ours")
    answer = asked(capsys, "small", *words)
    assert abs(answer["errors"]) < 3 and repo in answer["source"]


def test_output_rows_do_not_tell_it(folder, capsys):
    words = (f"{folder}:lm_head.weight", "--recipe", f"{folder}/recipe.yml:ours")
    assert abs(asked(capsys, *words)["errors"]) > 10


def test_norms_alone_will_do(tmp_path, capsys):
    start, exposure = clock.Start(0.02, cut=3), 12.5
    rows = 0.02 * start.unit.rvs((90, 512), random_state=np.random.default_rng(1))
    norms = np.linalg.norm(rows, axis=1) * np.exp(-exposure)
    norms[:3] = 0.3  # seen after all
    norms[3] = 0.0
    file, recipe = tmp_path / "norms.json", tmp_path / "r.yml"
    file.write_text(json.dumps({"dim": 512, "norms": dict(enumerate(norms.tolist()))}))
    entry = {"start": {"sigma": 0.02, "cut": {"value": 3, "status": "assumed"}}, "stages": []}
    recipe.write_text(yaml.safe_dump(entry))
    answer = asked(capsys, file, "--recipe", recipe)
    assert answer["elsewhere"] == [0, 1, 2, 3] and answer["zero"] == 1
    assert answer["low"] < exposure < answer["high"] and answer["due"] == 0
    assert answer["assumed"] == ["start: cut"]


def test_norms_at_the_end_of_float32_are_corrected(tmp_path, capsys):
    groups = json.loads((clock.RELEASED / "norms.json").read_text("utf-8"))["models"]
    group = next(m["group"] for m in groups if m["model"] == "meta-llama/Meta-Llama-3-8B")
    file = tmp_path / "llama.json"
    file.write_text(json.dumps({"dim": 4096, "norms": dict(group["pairs"])}))
    answer = asked(capsys, file)
    assert answer["median"] == pytest.approx(1.79e-21, rel=2e-3)
    assert answer["median"] > 1.05 * group["quantiles"]["0.5"]


def test_a_published_recipe_and_printed_norms_give_the_books_line(tmp_path, capsys):
    groups = json.loads((clock.RELEASED / "norms.json").read_text("utf-8"))["models"]
    name = "allenai/OLMo-1.7-7B-hf"
    file = tmp_path / "olmo.json"
    pairs = next(m["group"]["pairs"] for m in groups if m["model"] == name)
    file.write_text(json.dumps({"dim": 4096, "norms": dict(pairs)}))
    answer = asked(capsys, file, "--recipe", f"{paths.DATA}/released/recipes.yaml:{name}")
    assert abs(answer["errors"]) < 3 and answer["due"] == pytest.approx(10.586, abs=1e-3)


def test_errors_are_one_line(folder, tmp_path, capsys):
    matrix, bad = f"{folder}:model.embed_tokens.weight", tmp_path / "bad.json"
    bad.write_text('{"norms": [1, 2]}')
    bare = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"E": np.ones((4, 2), np.float32)}, bare)
    zeros = tmp_path / "zeros.json"
    zeros.write_text('{"dim": 8, "norms": {"1": 0.0, "2": 0.0}}')
    for words, said in (
        (["nothing"], "nothing"),
        ([bare], "which tokenizer"),
        ([bad], "needs `dim`"),
        ([zeros], "at least two norms"),
        ([matrix, "--tokenizer", "none"], "none"),
        ([matrix, "--recipe", tmp_path / "no.yml"], "no.yml"),
        ([matrix, "--recipe", f"{folder}/recipe.yml:theirs"], "no recipe 'theirs'"),
    ):
        assert main(["clock", *map(str, words)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and said in error
