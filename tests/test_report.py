"""The field report: what is planted is found, what is missing is said, foreign text stays text."""

import csv
import json

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from safetensors.torch import save_file

from lib import files, paths
from lib.__main__ import main
from lib.analysis import report, report_files
from lib.extraction import emission, models, reachability
from lib.extraction.reachability import Reach
from tests.test_emission import byte_level, sentencepiece, wordpiece
from tests.test_families import by_id, in_gguf, kinds_of

DIM = 64


def planted(rows, dead, twins=0):
    """(rows, DIM) bfloat16: the rows `dead` close to one point, the first `twins` of them equal."""
    rng = torch.Generator().manual_seed(42)
    W = torch.randn(rows, DIM, generator=rng) * 0.07
    point = torch.randn(DIM, generator=rng) * 0.03
    W[dead] = point + 1e-6 * torch.randn(len(dead), DIM, generator=rng)
    W[dead[:twins]] = point
    return W.to(torch.bfloat16)


def folder(path, tokenizer, more=12, config='{"tie_word_embeddings": true}', **tensors):
    """A model whose predicted rows are its dead ones, but for one of each kind of exception."""
    path.mkdir()
    (path / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (path / "config.json").write_text(config)
    found = emission.records(path / "tokenizer.json")
    rows = len(found) + more
    predicted = [r.id for r in found if r.reach.dead] + [*range(len(found), rows)]
    alive = next(r.id for r in found if not r.reach.dead)
    dead = [*predicted[1:], alive]
    save_file({"wte.weight": planted(rows, dead, 5), **tensors}, path / "model.safetensors")
    return predicted, dead


@pytest.mark.parametrize("family", [byte_level, sentencepiece, wordpiece])
def test_what_is_planted_is_found(family, tmp_path):
    predicted, dead = folder(tmp_path / "m", family())
    found = report.of(str(tmp_path / "m"))
    assert found.found.tolist() == sorted(dead) and not found.missing
    assert found.agreement.predicted == set(predicted)
    assert found.agreement.false_alarms == predicted[:1]
    assert found.agreement.missed == [dead[-1]]
    assert found.holes[dead[0]] == (1, found.census.populations[0])
    assert sum(count for _, count, _, _ in found.classes()) == found.specimen.rows
    answer = json.loads(json.dumps(found.summary(), default=float))
    assert answer["found"]["ids"] == sorted(dead) and answer["agreement"]["missed"] == [dead[-1]]
    assert not answer["missing"] and answer["tied"] is True and len(answer["sha256"]) == 64


def test_a_gguf_is_reported_with_the_vocabulary_inside_it(tmp_path):
    """And one whose way of cutting texts is not known keeps the names of its rows."""
    ours = byte_level()
    merges = [" ".join(pair) for pair in json.loads(ours.to_str())["model"]["merges"]]
    more = {"token_merges": merges, "token_types": kinds_of(ours)}
    path = in_gguf(tmp_path / "m.gguf", "gpt2", by_id(ours), tokenizer_pre="gpt-2", **more)
    found = report.of(str(path))
    assert {r.reach for r in found.records} >= {Reach.REACHABLE, Reach.PHANTOM}
    assert [line for line in found.missing if line.startswith("tokenizer")] == []
    path = in_gguf(tmp_path / "n.gguf", "gpt2", by_id(ours), tokenizer_pre="viking", **more)
    found = report.of(str(path))
    assert any("'viking'" in line for line in found.missing)
    assert found.records[97].text == by_id(ours)[97] and not found.agreement.predicted - {
        len(found.records) - 2, len(found.records) - 1
    }  # fmt: skip


def test_the_ids_that_a_table_shows_are_of_every_class_and_spread_over_it(tmp_path):
    folder(tmp_path / "m", byte_level(), more=50)
    found = report.of(str(tmp_path / "m"))
    some = found.some(found.predicted, 8)
    assert len(some) == 8 and set(some) <= set(found.predicted) and len(set(some)) == 8
    assert {found.records[id].reach for id in some} == {
        found.records[id].reach for id in found.predicted
    }
    phantoms = [id for id in some if found.records[id].reach is Reach.PHANTOM]
    assert len(phantoms) > 1 and phantoms[-1] - phantoms[0] >= 50 / 2


def test_without_a_void_identical_rows_are_found(tmp_path):
    """The case of duplicates that are exact: no distance lies between them and the void."""
    W = planted(300, [*range(40, 80)], 40)
    save_file({"wte.weight": W}, tmp_path / "m.safetensors")
    found = report.of(str(tmp_path / "m.safetensors"))
    assert found.void is None and found.found.tolist() == [*range(40, 80)]
    assert "identical" in found.how_found and found.agreement is None
    assert len(found.missing) == 0 and len(found.model.missing) == 2


def test_rows_that_are_no_numbers_and_a_matrix_without_a_cluster(tmp_path):
    W = planted(300, [])
    W[7, 3] = float("nan")
    save_file({"wte.weight": W}, tmp_path / "m.safetensors")
    found = report.of(str(tmp_path / "m.safetensors"))
    assert [line.partition(":")[0] for line in found.missing] == ["norms", "distances"]
    assert not len(found.found) and found.sky is None and found.places()["void"] == "not known"
    save_file({"wte.weight": planted(300, [])}, tmp_path / "healthy.safetensors")
    found = report.of(str(tmp_path / "healthy.safetensors"))
    assert found.void is None and not len(found.found) and found.short()["black holes"] == 0
    assert found.judged() == {"predicted": "not known", "found dead": 0}


def test_what_nothing_divides_is_null_in_json(tmp_path):
    """Nothing predicted, nothing found: shares of nothing are no numbers."""
    (tmp_path / "tokenizer.json").write_text(wordpiece().to_str(), encoding="utf-8")
    alive = [r for r in emission.records(tmp_path / "tokenizer.json") if not r.reach.dead]
    W = planted(len(alive), [])
    save_file({"wte.weight": W}, tmp_path / "model.safetensors")
    found = report.of(str(tmp_path))
    found.agreement = reachability.compare([], [])
    answer = json.loads(json.dumps(found.summary(), default=float, allow_nan=False))
    assert answer["agreement"]["precision"] is None is answer["agreement"]["recall"]
    assert found.judged()["precision"] == "–"


def test_a_tokenizer_of_another_model_and_a_broken_one(tmp_path):
    folder(tmp_path / "m", byte_level(), more=0)
    (tmp_path / "m" / "tokenizer.json").write_text(sentencepiece().to_str())
    found = report.of(str(tmp_path / "m"))
    assert "beyond the matrix's last row" in found.missing[0]
    assert len(found.records) == found.specimen.rows
    (tmp_path / "m" / "tokenizer.json").write_text("{")
    found = report.of(str(tmp_path / "m"))
    assert found.missing[0].startswith("tokenizer: ") and not found.records


def test_the_clock_reads_what_decay_has_left(tmp_path):
    tokenizer, exposure = byte_level(), 0.7
    found = emission.records(_written(tmp_path / "tokenizer.json", tokenizer))
    dead = [r.id for r in found if r.reach.dead]
    rng = torch.Generator().manual_seed(42)
    W = torch.randn(len(found), 512, generator=rng)
    E = torch.randn(len(found), 512, generator=rng)
    E[dead] = 0.02 * np.exp(-exposure) * torch.randn(len(dead), 512, generator=rng)
    both = {"lm_head.weight": W, "model.embed_tokens.weight": E}
    save_file(both, tmp_path / "model.safetensors")
    found = report.of(str(tmp_path))
    assert found.clock.listed.tolist() == dead == found.clock.inside.tolist()
    reading = found.clock.reading
    assert reading.low < exposure < reading.high and reading.high - reading.low < 0.1
    assert found.exposure()["exposure"].startswith("0.")
    assert not any("no clock" in line for line in found.limits())


def _written(path, tokenizer):
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    return path


@pytest.mark.parametrize("id", ["minilm-l6", "whisper-base", "qwen2.5-coder-0.5b"])
def test_an_extract_says_what_it_lacks(id, monkeypatch):
    monkeypatch.setattr(paths, "FETCHED", paths.FETCHED / "nothing")
    model = models.open(id)
    found = report.Report(models.Model(model.name, model.specimen, None, True, None))
    assert (found.census is None) == (id != "qwen2.5-coder-0.5b")
    assert (found.distances is None) == (id == "minilm-l6")
    assert "Only an extract" in found.limits()[0] and found.digest is None
    assert (len(found.found) > 0) == (id != "minilm-l6")
    if id == "qwen2.5-coder-0.5b":
        assert any("quantisation" in line for line in found.limits())


HOSTILE = ["<img src=x onerror=alert(1)>", "=HYPERLINK(1)", "@SUM(1)", "| a", "`code`"]
HOSTILE += ["\u202ee", "$x$", "**b**", "\x1b[31m", "a\nb", "[l](http://x)", "-1+1", "{{x}}", "\t=1"]


def hostile(path):
    path.mkdir()
    vocab = {text: id for id, text in enumerate([*HOSTILE, "a"])}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}
    (path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    save_file({"wte.weight": planted(40, [*range(len(HOSTILE))], 4)}, path / "model.safetensors")


def test_in_a_list_only_our_own_commands_are_markup():
    lines = ["not here: run `python -m lib fetch a-b/c.d`", "`<b>`{=html} and `make setup`{=html}"]
    shown = report.bullets(lines).data.splitlines()
    assert shown[0].endswith("run `python -m lib fetch a-b/c.d`")
    assert "`<b>`" not in shown[1].replace("\\", "~") and shown[1].endswith(
        r"`make setup`\{\=html\}"
    )


def test_tokens_are_no_formulas_in_a_spreadsheet(tmp_path):
    hostile(tmp_path / "m")
    report_files.write(report.of(str(tmp_path / "m")), tmp_path / "out")
    with (tmp_path / "out" / "tokens.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = [*csv.DictReader(file)]
    assert [int(row["id"]) for row in rows] == [*range(40)] and set(rows[0]) == set(
        report_files.COLUMNS
    )
    assert [row["found"] for row in rows] == ["1"] * len(HOSTILE) + ["0"] * (40 - len(HOSTILE))
    for row in rows:
        assert not row["text"].startswith(("=", "+", "-", "@", "\t")) and row["text"].isprintable()
    assert rows[1]["text"] == "'=HYPERLINK(1)"


@pytest.mark.slow
def test_the_command_writes_four_files_and_nothing_else(tmp_path, capsys, monkeypatch):
    """The page needs no other file, and a token's text is text in it; an error leaves nothing."""
    hostile(tmp_path / "m")
    out = tmp_path / "out"
    assert main(["report", str(tmp_path / "m"), "--out", str(out)]) == 0
    names = ["report.html", "report.json", "report.pdf", "tokens.csv"]
    assert sorted(path.name for path in out.iterdir()) == names
    page = BeautifulSoup((out / "report.html").read_text("utf-8"), "html.parser")
    for element in page.find_all(src=True) + page.find_all("link", href=True):
        target = element.get("src") or element.get("href")
        assert target.startswith("data:"), target
    assert not page.find_all(["script", "iframe"]) and not page.find(onerror=True)
    cells = {cell.get_text() for cell in page.find_all("td")}
    assert {"<img src=x onerror=alert(1)>", "`code`", "$x$", "**b**", "[l](http://x)"} <= cells
    assert not page.select(".failing-sentence") and "{python}" not in page.get_text()
    assert (out / "report.pdf").read_bytes()[:5] == b"%PDF-"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["report", str(tmp_path / "nothing.safetensors"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    hostile(tmp_path / "m")
    found = report.of(str(tmp_path / "m"))
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises((files.FileError, OSError)):
        report_files.write(found, tmp_path / "out")
