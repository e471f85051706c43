"""The command line: answers in words and in JSON, errors in one line with status 2."""

import ast
import json
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from lib import artifacts, paths
from lib.__main__ import main
from lib.analysis.sweeps import CastRows
from lib.extraction import ranges
from lib.extraction.catalogue import SpecimenError


@pytest.fixture(autouse=True)
def nothing_fetched(tmp_path, monkeypatch):
    """Tests do not see what the person who runs them has fetched, nor wait for anyone."""
    monkeypatch.setattr(paths, "FETCHED", tmp_path / "fetched")
    monkeypatch.setattr(ranges, "BACKOFF", (0.0,) * 5)


def test_census_on_the_command_line(tmp_path, capsys):
    W = np.arange(40, dtype=np.float32).reshape(10, 4)
    W[7] = W[3] = W[2]
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"W": W, "v": W[:3].copy()}, path)
    assert main(["census", f"{path}:W", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {
        "source", "tensor", "dtype", "rows", "dim", "unique", "surplus", "holes", "zero_pairs",
        "singletons", "hole_rows", "not_finite", "seconds",
    }  # fmt: skip
    assert answer["holes"] == [{"population": 3, "first_ids": [2, 3, 7]}]
    assert (answer["unique"], answer["surplus"], answer["zero_pairs"]) == (8, 2, 3)
    assert main(["census", f"{path}:v"]) == 0
    assert "1 surplus" not in capsys.readouterr().out


def test_a_census_says_that_rows_hold_no_numbers(tmp_path, capsys):
    W = np.ones((8, 4), np.float32)
    W[:3] = np.nan
    W[6:] = np.inf
    path = tmp_path / "nan.safetensors"
    safetensors.numpy.save_file({"W": W}, path)
    assert main(["census", str(path)]) == 0
    assert "5 rows of holes hold NaN or infinity" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    ["--seed -1", "--seed 1e9", f"--seed {10**23}", f"--rows {10**20}", "--rows 0",
     f"--trials {10**11}", "--trials -3", f"--trials {'9' * 5000}"],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_before_anything_runs(words, capsys):
    with pytest.raises(SystemExit) as error:
        main(["snowball", "--centre", "qwen3-holes", "--sigma", "1e-9", *words.split()])
    assert error.value.code == 2 and "is no integer from" in capsys.readouterr().err


def test_errors_on_the_command_line_are_one_line(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(20))
    for words in (["census", str(path)], ["census", "nothing"], ["census", "a/b.safetensors:W"],
                  ["fetch", "nothing"], ["census", str(tmp_path / "x:y")]):  # fmt: skip
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1


def test_the_list_of_specimens(capsys):
    assert main(["specimens", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["qwen2.5-coder-0.5b"]["here"] == "extract" and rows["planted"]["here"] == "made"
    assert rows["qwen3-4b"]["here"] == "no" and rows["gemma-3-4b"]["gated"]
    assert main(["specimens"]) == 0
    assert "qwen3-4b" in capsys.readouterr().out


def test_what_cannot_be_fetched_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["fetch", "qwen3-0.6b"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Qwen/Qwen3-0.6B") and error.count("\n") == 1
    assert main(["fetch", "no-such"]) == 2
    assert main(["fetch", "planted"]) == 2


def test_the_artefacts_are_verified_and_the_damaged_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)
    sound, damaged = (
        artifacts.cached(CastRows(1, 1e-6, 1e-6, 3, 4, seeds), "x/y").path for seeds in (1, 2)
    )
    assert main(["verify"]) == 0
    assert "2 files, 0 damaged" in capsys.readouterr().out
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert main(["verify"]) == 1
    said = capsys.readouterr().out
    assert f"ok       cast-rows/{sound.name}" in said and f"DAMAGED  {damaged} is damaged" in said
    assert main(["verify", "--remove"]) == 1 and not damaged.exists()
    assert main(["verify"]) == 0


def test_a_package_that_is_not_installed_is_one_line(monkeypatch, capsys):
    def parser():
        raise ModuleNotFoundError("No module named 'x'", name=name)

    monkeypatch.setattr("lib.__main__.parser", parser)
    name = "x.y"
    assert main(["census"]) == 2
    assert capsys.readouterr().err.startswith("error: No module named 'x': run `make setup`")
    name = "lib.x"  # a defect
    with pytest.raises(ModuleNotFoundError):
        main(["census"])


def test_an_older_python_is_told_so_before_it_fails():
    source = (paths.ROOT / "lib" / "__main__.py").read_text()
    before = ast.parse(source, feature_version=(3, 7)).body[:4]  # it can be read at all
    assert isinstance(before[-1], ast.If) and "version_info" in ast.unparse(before[-1])
    assert [node.names[0].name for node in before[1:3]] == ["argparse", "sys"]


def test_defects_keep_their_traceback_and_interruptions_their_status(monkeypatch, capsys):
    def verb(error):
        def run(args):
            raise error

        return lambda: SimpleNamespace(parse_args=lambda _: SimpleNamespace(run=run))

    for error in (ValueError("a defect"), RuntimeError("a defect")):
        monkeypatch.setattr("lib.__main__.parser", verb(error))
        with pytest.raises(type(error), match="a defect"):
            main([])
    for error, status in (
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 1),
        (OSError(2, "No such file", "x.yml"), 2),
        (OSError(28, "No space left on device"), 2),
        (SpecimenError("gone"), 2),
    ):
        monkeypatch.setattr("lib.__main__.parser", verb(error))
        assert main([]) == status
    lines = ["stopped", "error: x.yml: No such file", "error: No space left on device"]
    assert capsys.readouterr().err.splitlines() == [*lines, "error: gone"]
