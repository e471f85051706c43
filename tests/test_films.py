"""Films: exact coding, random access, resuming after a kill, clear errors."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from lib import artifacts, files, lattice, paths
from lib.training import films, loop, model, worlds
from lib.training.config import FP32_MASTER, ConfigError, Run
from lib.training.experiments import Experiment
from lib.training.films import Film
from tests.small import world_of

RUN = Run(vocab=40, dim=8, layers=1, heads=1, ff=16, seq=8, batch=2, steps=300, lr=1e-2)
STREAM = np.random.default_rng(0).integers(0, 30, 500).astype(np.uint16)
WORLD = world_of(STREAM, RUN, 30)
DEAD = np.arange(30, 40)
SMALL = RUN.replace(steps=5)


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
    path = tmp_path_factory.mktemp("film") / "run.h5"
    frames = []

    def patterns(named):
        return named["W"].view(torch.int16).numpy().view(np.uint16).copy()

    def keep(moment):
        moments = (moment.params, moment.grads, moment.exp_avg)
        found = dict(zip(("W", "W.grad", "W.exp_avg"), map(patterns, moments), strict=True))
        found["mean_h"] = np.zeros(8) if moment.h is None else moment.h.mean((0, 1)).numpy()
        frames.append(found)

    Film(("W", "W.grad", "mean_h"), dead=("W.exp_avg",)).watch(RUN, WORLD, path)
    outcome = loop.train(RUN, STREAM, observers=[keep])
    return path, {name: np.stack([f[name] for f in frames]) for name in frames[0]}, outcome


def test_a_film_is_the_run(filmed):
    path, frames, outcome = filmed
    assert films.about(path)["W"] == (301, 40, 8) and films.about(path)["W.exp_avg"] == (301, 10, 8)
    for name in ("W", "W.grad"):
        np.testing.assert_array_equal(films.read(path, name), frames[name])
    np.testing.assert_array_equal(films.read(path, "W.exp_avg"), frames["W.exp_avg"][:, DEAD])
    np.testing.assert_array_equal(films.read(path, "loss")[1:], outcome.losses)
    np.testing.assert_allclose(films.read(path, "mean_h"), frames["mean_h"], rtol=1e-5, atol=1e-7)
    last = model.views(outcome.state.param, RUN)["W"].view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(films.read(path, "W", -1), last)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["counts"], WORLD.counts)
        assert (
            file["last_state"][()].tobytes()
            == outcome.state.param.view(torch.uint8).numpy().tobytes()
        )


@pytest.mark.parametrize(
    "frames", [0, 300, -1, [5, 200, 5, 127, 128], slice(120, 140), slice(None, None, 97)]
)
@pytest.mark.parametrize("rows", [None, [39], [3, 36, 0, 31]])
def test_random_access(filmed, frames, rows):
    path, plain, _ = filmed
    wanted = np.arange(40) if rows is None else rows
    expected = plain["W"][frames][..., wanted, :]
    np.testing.assert_array_equal(films.read(path, "W", frames, rows), expected)
    some = DEAD if rows is None else [i for i in rows if i in DEAD]
    if len(some):
        expected = plain["W.exp_avg"][frames][..., some, :]
        np.testing.assert_array_equal(films.read(path, "W.exp_avg", frames, some), expected)


def test_asking_for_what_is_not_there(filmed, tmp_path):
    path = filmed[0]
    missing = (("V",), ("W", 301), ("W", None, [40]), ("W.exp_avg", None, [1]), ("loss", None, [0]))
    for arguments in missing:
        with pytest.raises(films.FilmError):
            films.read(path, *arguments)
    torn = tmp_path / "torn.h5"
    torn.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(films.FilmError, match="make it again"):
        films.read(torn, "W")
    for name in ("X", "E", "W.nothing"):
        with pytest.raises(ConfigError):
            Film((name,)).watch(SMALL, WORLD, tmp_path / "x.h5")


def test_pieces_overlap_by_one_frame(filmed):
    """So every move of the film lies in exactly one of them."""
    path, plain, _ = filmed
    at = 0
    for first, frames in films.pieces(path, DEAD, stop=290):
        assert first == at and 1 < len(frames) <= films.PIECE + 1
        np.testing.assert_array_equal(frames, plain["W"][first : first + len(frames), DEAD])
        at += len(frames) - 1
    assert at == 289


def test_float32_moments_are_kept_as_float32(tmp_path):
    path = tmp_path / "master.h5"
    Film(("W", "W.exp_avg_sq")).watch(SMALL.replace(**FP32_MASTER), WORLD, path)
    assert films.read(path, "W.exp_avg_sq").dtype == np.float32
    assert films.read(path, "W").dtype == np.uint16


def test_an_untied_run_has_two_matrices(tmp_path):
    run = SMALL.replace(tied=False)
    Film(("W", "E")).watch(run, WORLD, tmp_path / "two.h5")
    W, E = (films.read(tmp_path / "two.h5", name) for name in ("W", "E"))
    assert (E[0, DEAD] == E[-1, DEAD]).all() and (W[0, DEAD] != W[-1, DEAD]).any()


def test_what_a_film_needs_is_said_and_a_full_disk_foreseen(tmp_path, monkeypatch, capsys):
    Film().watch(SMALL, WORLD, tmp_path / "x.h5")
    said = capsys.readouterr().out
    assert said.startswith("film of W, loss on cpu: 6 frames, 0 MB plain, at most 0 MB on disk")
    films.announce(
        RUN, [films.Stream("W", (40_000, 8)), films.Stream("loss", (), "float32")], tmp_path
    )
    plain = 301 * (40_000 * 8 * 2 + 4) / 1e6
    # segments and film together, each three times smaller than plain
    assert f"301 frames, {plain:.0f} MB plain, at most 128 MB on disk" in capsys.readouterr().out
    monkeypatch.setattr(films.shutil, "disk_usage", lambda _: type("D", (), {"free": 1000}))
    with pytest.raises(files.FileError, match="free some space"):
        Film().watch(RUN, WORLD, tmp_path / "y.h5")
    assert not (tmp_path / "y.h5").exists()


KILLED = Experiment(
    worlds.Gatsby(3_000), RUN.replace(vocab=128), Film(("W", "mean_h"), dead=("W.exp_avg",))
)
CHILD = """
import sys
from pathlib import Path
from lib import artifacts, paths
from lib.training import loop
from tests.test_films import KILLED
paths.ARTIFACTS = Path(sys.argv[1])
try:
    artifacts.cached(KILLED, "x/y")
except loop.Stopped:
    sys.exit(3)
"""


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path, monkeypatch, how):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "whole")
    whole = artifacts.cached(KILLED, "x/y")
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", CHILD, str(folder)]
    options = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "cwd": paths.ROOT}
    child = subprocess.Popen(command, **options)
    while not list(folder.glob("film/.*.parts/checkpoint.safetensors")) and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(how)
    assert child.wait() == (-9 if how == signal.SIGKILL else 3)
    monkeypatch.setattr(paths, "ARTIFACTS", folder)
    assert [path.parent.name for path in artifacts.every()] == ["world"]  # nothing half-made
    assert list(folder.glob("film/.*.parts/checkpoint.safetensors"))
    again = subprocess.run(command, capture_output=True, text=True, **options)
    assert again.returncode == 0 and "going on after step" in again.stdout, again.stderr
    film = artifacts.opened(folder / "film" / whole.path.name)
    assert film.path.read_bytes() == whole.path.read_bytes() and film.digest == whole.digest
    assert sorted(p.name for p in (folder / "film").iterdir() if p.suffix != ".lock") == [
        film.path.name,
        artifacts.beside(film.path).name,
    ]


@pytest.mark.parametrize("what", ["another run", "another source", "a torn checkpoint"])
def test_what_is_not_this_run_s_is_not_taken_up(tmp_path, monkeypatch, what):
    def half(run: Run) -> None:
        """Film until some checkpoints are there."""

        def stop(recorder, moment, observe=films.Recorder.observe):
            observe(recorder, moment)
            if moment.step == 200:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(films.Recorder, "observe", stop)
            if what == "another source":
                patch.setattr(films.digests, "of_maker", lambda *_: "another source")
            Film().watch(run, WORLD, tmp_path / "x.h5")

    half(RUN.replace(seed=1) if what == "another run" else RUN)
    checkpoint = tmp_path / "x.h5.parts" / "checkpoint.safetensors"
    assert checkpoint.exists() and list(checkpoint.parent.glob("segment-*.h5"))
    if what == "a torn checkpoint":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    Film().watch(RUN, WORLD, tmp_path / "x.h5")
    Film().watch(RUN, WORLD, tmp_path / "y.h5")
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()


def test_the_file_is_plain_hdf5(filmed):
    with h5py.File(filmed[0]) as file:
        assert file["W"].dtype == np.uint16
        assert file.attrs["key"] == films.KEY
        assert Run(**json.loads(file.attrs["run"])) == RUN


def test_sizes_are_what_lies_on_disk(filmed):
    path = filmed[0]
    sizes = films.sizes(path)
    assert set(sizes) == {"W", "W.grad", "W.exp_avg"}
    assert sizes["W"].plain.sum() == (RUN.steps + 1) * RUN.vocab * RUN.dim * 2
    stored = sum(size.stored.sum() for size in sizes.values())
    assert 0.5 * path.stat().st_size < stored < path.stat().st_size
    full = films.KEY * RUN.vocab * RUN.dim * 2
    assert sizes["W"].plain.tolist() == [full, full, full * (RUN.steps + 1 - 256) // 128]
    assert (sizes["W"].plain > sizes["W"].stored).all()
