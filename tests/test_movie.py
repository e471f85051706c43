"""Movies: exact coding, random access, resuming after a kill, clear errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lib import files, lattice
from lib.training import films, loop, model
from lib.training.config import FP32_MASTER, ConfigError, Run

RUN = Run(vocab=40, dim=8, layers=1, heads=1, ff=16, seq=8, batch=2, steps=300, lr=1e-2)
ROWS = np.concatenate([np.arange(30, 40), np.arange(0, 30, 3)])


def stream() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 30, 500).astype(np.uint16)


def test_every_pattern_survives_the_coding():
    patterns = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    assert len(np.unique(films.fold(patterns))) == 1 << 16
    np.testing.assert_array_equal(films.fold(films.fold(patterns)).view(np.uint16), patterns)
    rng = np.random.default_rng(0)
    frames = np.stack([rng.permutation(patterns) for _ in range(9)])
    np.testing.assert_array_equal(films.decode(films.encode(frames)), frames)


def test_one_lattice_step_is_a_small_code():
    before = lattice.round_nearest(np.float32([0.5, 1.0, -1.0, 3e-5]))
    frames = np.stack([before, lattice.neighbour_up(before), before])
    np.testing.assert_array_equal(films.encode(frames)[1:], [[2] * 4, [1] * 4])


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    path = tmp_path_factory.mktemp("movie") / "run.h5"
    frames = []

    def keep(moment):
        frames.append(
            {
                "W": moment.params["W"].view(torch.int16).numpy().view(np.uint16).copy(),
                "W.grad": moment.grads["W"].view(torch.int16).numpy().view(np.uint16).copy(),
                "W.exp_avg": moment.exp_avg["W"].view(torch.int16).numpy().view(np.uint16).copy(),
                "mean_h": np.zeros(8) if moment.h is None else moment.h.mean((0, 1)).numpy(),
                "loss": moment.loss,
            }
        )

    record = ("W", "W.grad", "W.exp_avg", "mean_h")
    outcome = films.film(path, RUN, stream(), record=record, rows=ROWS)
    loop.train(RUN, stream(), observers=[keep])
    return path, {name: np.stack([f[name] for f in frames]) for name in frames[0]}, outcome


def test_a_movie_is_the_run(filmed):
    path, frames, outcome = filmed
    assert films.about(path)["W"] == (301, len(ROWS), 8)
    for name in ("W", "W.grad", "W.exp_avg"):
        np.testing.assert_array_equal(films.read(path, name, rows=ROWS), frames[name][:, ROWS])
    np.testing.assert_array_equal(films.read(path, "loss")[1:], outcome.losses)
    np.testing.assert_allclose(films.read(path, "mean_h"), frames["mean_h"], rtol=1e-5, atol=1e-7)
    last = model.views(outcome.state.param, RUN)["W"].view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(films.read(path, "W", -1), last[np.sort(ROWS)])


@pytest.mark.parametrize(
    "frames", [0, 300, -1, [5, 200, 5, 127, 128], slice(120, 140), slice(None, None, 97)]
)
@pytest.mark.parametrize("rows", [None, [39], [3, 36, 0]])
def test_random_access(filmed, frames, rows):
    path, plain, _ = filmed
    wanted = np.sort(ROWS) if rows is None else rows
    expected = plain["W"][frames][..., wanted, :]
    np.testing.assert_array_equal(films.read(path, "W", frames, rows), expected)


def test_asking_for_what_is_not_there(filmed, tmp_path):
    path = filmed[0]
    for arguments in (("V",), ("W", 301), ("W", None, [1]), ("loss", None, [0])):
        with pytest.raises(films.FilmError):
            films.read(path, *arguments)
    torn = tmp_path / "torn.h5"
    torn.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(films.FilmError, match="make it again"):
        films.read(torn, "W")
    for record in (("X",), ("E",), ("W.nothing",)):
        with pytest.raises(ConfigError):
            films.film(tmp_path / "x.h5", RUN, stream(), record=record)


def test_float32_moments_are_kept_as_float32(tmp_path):
    path = tmp_path / "master.h5"
    run = RUN.replace(steps=3, **FP32_MASTER)
    films.film(path, run, stream(), record=("W", "W.exp_avg_sq"))
    assert films.read(path, "W.exp_avg_sq").dtype == np.float32
    assert films.read(path, "W").dtype == np.uint16


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    monkeypatch.setattr(films.shutil, "disk_usage", lambda _: type("D", (), {"free": 1000}))
    with pytest.raises(files.FileError, match="free some space"):
        films.film(tmp_path / "x.h5", RUN, stream())
    assert not (tmp_path / "x.h5").exists()


CHILD = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.test_movie import RUN, ROWS, stream
from lib.training import recorder, loop
try:
    recorder.film(Path(sys.argv[1]), RUN, stream(), record=("W", "W.exp_avg"), rows=ROWS)
except loop.Stopped:
    sys.exit(3)
"""


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path, how):
    whole = tmp_path / "whole.h5"
    films.film(whole, RUN, stream(), record=("W", "W.exp_avg"), rows=ROWS)
    path = tmp_path / "killed.h5"
    parts = tmp_path / "killed.h5.parts"
    command = [
        sys.executable,
        "-c",
        CHILD.format(root=str(Path(__file__).parent.parent)),
        str(path),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment)
    while not (parts / "checkpoint.safetensors").exists() and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(how)
    assert child.wait() == (-9 if how == signal.SIGKILL else 3)
    assert not path.exists()
    assert (parts / "checkpoint.safetensors").exists()
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert path.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path):
    path = tmp_path / "x.h5"
    other = films.Recorder(
        tmp_path / "x.h5.parts", films.streams_of(RUN, ["W"], 40), np.arange(40),
        {"run": RUN.replace(seed=1).as_dict()},
    )  # fmt: skip
    other.folder.mkdir()
    loop.train(RUN.replace(seed=1, steps=200), stream(), observers=[other.observe], save=other.save,
               save_every=films.KEY)  # fmt: skip
    assert other.segments()
    films.film(path, RUN, stream())
    films.film(tmp_path / "y.h5", RUN, stream())
    assert path.read_bytes() == (tmp_path / "y.h5").read_bytes()


def test_the_file_is_plain_hdf5(filmed):
    with h5py.File(filmed[0]) as file:
        assert file["W"].dtype == np.uint16
        assert file.attrs["key"] == films.KEY
        assert Run(**json.loads(file.attrs["run"])) == RUN
