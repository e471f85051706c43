"""Sweeps: the grid, the cache, bad files, a failing point; Dask where it is installed."""

import argparse
import os
import signal
import time

import pytest
import yaml

from lib import artifacts, paths
from lib.cli import sweep as verb
from lib.training import sweep
from lib.training.sweep import SweepError

FILE = {
    "world": {"name": "gatsby", "characters": 3000},
    "base": {"dim": 8, "layers": 1, "heads": 1, "ff": 8, "seq": 8, "batch": 2, "steps": 5},
    "grid": {"lr": [0.001, 0.01], "seed": [1, 2]},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of its own for artefacts, and a writer of sweep files."""
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")

    def write(**changes):
        path = tmp_path / "sweep.yml"
        path.write_text(yaml.safe_dump({**FILE, **changes}))
        return path

    return write


def test_the_grid_is_every_combination(place):
    points = sweep.read(place()).points()
    assert points == [{"lr": lr, "seed": s} for lr in (0.001, 0.01) for s in (1, 2)]


@pytest.mark.parametrize(
    "wrong",
    [{"grid": {}, "extra": 1}, {"grid": {"lr": 0.1}}, {"grid": {"nonsense": [1]}},
     {"grid": {"lr": ["fast"]}}, {"base": {"heads": 3}}],
)  # fmt: skip
def test_a_file_that_cannot_be_run_is_refused(place, wrong):
    with pytest.raises(SweepError, match=r"sweep\.yml"):
        sweep.read(place(**wrong))


def test_a_file_that_is_no_yaml(tmp_path):
    (tmp_path / "x.yml").write_text("{")
    with pytest.raises(SweepError, match="YAML"):
        sweep.read(tmp_path / "x.yml")


def test_a_point_is_made_once(place):
    wanted = sweep.read(place())
    values = {**wanted.base, **wanted.points()[0]}
    first = sweep.make(wanted.world, values, wanted.record)
    again = sweep.make(wanted.world, values, wanted.record)
    assert (first[1], again[1]) == ("made", "there")
    assert first[0] == again[0]
    other = sweep.make(wanted.world, {**values, "seed": 9}, wanted.record)
    assert other[0] != first[0]


@pytest.mark.slow
def test_the_command_line_runs_the_grid_in_processes(place, capfd):
    path = place(grid={"seed": [1, 2], "steps": [3]})
    arguments = argparse.Namespace(file=path, jobs=2, scheduler=None)
    assert verb.run(arguments) == 0
    assert verb.run(arguments) == 0
    out = capfd.readouterr().out
    assert out.count("2 of 2 points are on disk") == 2
    assert out.count("  there  ") >= 2


@pytest.mark.slow
def test_a_point_that_fails_is_a_line_in_the_table(place, capfd):
    path = place(grid={"lr": [1e-3, 1e38]}, base={**FILE["base"], "optimizer": "sgd"})
    assert verb.run(argparse.Namespace(file=path, jobs=1, scheduler=None)) == 1
    out = capfd.readouterr().out
    assert "failed: Diverged" in out
    assert "1 of 2 points are on disk" in out


@pytest.mark.slow
def test_dask_a_killed_worker_loses_nothing(place):
    distributed = pytest.importorskip("distributed")
    wanted = sweep.read(place(grid={"seed": [1, 2, 3, 4]}, base={**FILE["base"], "steps": 400}))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        results, killed = [], False
        for result in sweep.run(wanted, scheduler=cluster.scheduler_address):
            results.append(result)
            if not killed:
                os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
                killed = True
                time.sleep(0.2)
    assert sorted(r.point["seed"] for r in results) == [1, 2, 3, 4]
    assert all(r.path is not None and r.path.exists() for r in results), [r.state for r in results]
    assert len({r.path for r in results}) == 4
    for result in results:
        artifacts.verify(result.path)
