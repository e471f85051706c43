"""Sweeps: the grid, the cache, bad files, a failing point; Dask where it is installed."""

import os
import signal
import time
from collections import Counter

import pytest
import yaml

from lib import artifacts, paths
from lib.__main__ import main
from lib.extraction.editions import EditionError
from lib.training import sweep
from lib.training.sweep import SweepError

FILE = {
    "world": {"name": "gatsby", "characters": 3000},
    "base": {"dim": 8, "layers": 1, "heads": 1, "ff": 8, "seq": 8, "batch": 2, "steps": 5},
    "grid": {"lr": [0.001, 0.01], "seed": [1, 2]},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of its own for artefacts, here and in other processes; a writer of sweep files."""
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(paths, "SLICES", tmp_path / "slices")
    monkeypatch.setenv("BOOK_ARTIFACTS", str(tmp_path / "artifacts"))

    def write(**changes):
        path = tmp_path / "sweep.yml"
        path.write_text(yaml.safe_dump({**FILE, **changes}))
        return path

    return write


def test_the_grid_is_every_combination(place):
    points = sweep.read(place())
    assert [p for p, _ in points] == [{"lr": lr, "seed": s} for lr in (0.001, 0.01) for s in (1, 2)]
    assert [(e.run.lr, e.run.seed) for _, e in points] == [tuple(p.values()) for p, _ in points]
    assert all(e.run.vocab == 128 and e.run.dim == 8 for _, e in points)  # the world's, the base's


@pytest.mark.parametrize(
    "wrong",
    [{"grid": {}, "extra": 1}, {"grid": {"lr": 0.1}}, {"grid": {"nonsense": [1]}},
     {"grid": {"lr": ["fast"]}}, {"base": {"heads": 3}}, {"world": {"name": "latin"}},
     {"world": {"name": "gatsby", "colour": 1}}],
)  # fmt: skip
def test_a_file_that_cannot_be_run_is_refused(place, wrong):
    with pytest.raises(SweepError, match=r"sweep\.yml"):
        sweep.read(place(**wrong))


def test_a_file_that_is_no_yaml(tmp_path):
    (tmp_path / "x.yml").write_text("{")
    with pytest.raises(SweepError, match="YAML"):
        sweep.read(tmp_path / "x.yml")


def test_a_point_is_made_once(place):
    [(_, one), (_, two), *_] = sweep.read(place())
    first, again, other = sweep.make(one), sweep.make(one), sweep.make(two)
    assert (first[1], again[1]) == ("made", "there")
    assert first[0] == again[0] != other[0]


def test_a_world_that_is_not_here_is_named(place):
    world = {"name": "gatsby", "characters": 3000, "text": "tinystories"}
    with pytest.raises(EditionError, match="python -m lib fetch tinystories"):
        sweep.read(place(world=world))


@pytest.mark.slow
def test_the_command_line_runs_the_grid_in_processes(place, capfd):
    path = place(grid={"seed": [1, 2], "steps": [3]})
    for _ in range(2):
        assert main(["sweep", str(path), "--jobs", "2"]) == 0
    out = capfd.readouterr().out
    assert out.count("2 of 2 points are on disk") == 2
    assert (out.count("  made  "), out.count("  there  ")) == (2, 2)
    assert len(list(paths.ARTIFACTS.glob("film/*.h5"))) == 2


@pytest.mark.slow
def test_a_point_that_fails_is_a_line_in_the_table(place, capfd):
    path = place(grid={"lr": [1e-3, 1e30]})
    assert main(["sweep", str(path), "--jobs", "1"]) == 1
    out = capfd.readouterr().out
    assert "failed: Diverged" in out
    assert "1 of 2 points are on disk" in out


@pytest.mark.slow
def test_dask_a_killed_worker_loses_nothing(place):
    """A real scheduler, two workers on loopback, one of them killed in the middle of a point."""
    distributed = pytest.importorskip("distributed")
    wanted = sweep.read(place(grid={"seed": [1, 2, 3, 4, 5]}, base={**FILE["base"], "steps": 400}))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        results, before, lost = [], {}, set()
        for result in sweep.run(wanted, scheduler=cluster.scheduler_address):
            results.append(result)
            if len(results) == 1:
                before = films_on_disk()
                lost = kill_a_busy_worker(cluster)
        starts = Counter(
            key for key, _, now, *_ in cluster.scheduler.transition_log if now == "processing"
        )
    assert sorted(point["seed"] for point, *_ in results) == [1, 2, 3, 4, 5]
    assert all(path is not None and path.exists() for _, path, _ in results), results
    assert len({path for _, path, _ in results}) == 5
    for _, path, _ in results:
        artifacts.opened(path)
    assert before and before.items() <= films_on_disk().items(), "a finished film was made again"
    again = {key for key, count in starts.items() if count > 1}
    assert len(lost) >= 1
    assert lost <= again, "the point of the killed worker was not taken up"
    assert len(again - lost) == 0, "a point was computed again that no killed worker had"


def films_on_disk() -> dict[str, int]:
    """Name -> time of writing, in ns, of every finished film."""
    return {p.name: p.stat().st_mtime_ns for p in paths.ARTIFACTS.glob("film/film-*.h5")}


def kill_a_busy_worker(cluster) -> set[str]:
    """SIGKILL a worker that is in the middle of a point; what it had in hand."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for nanny in cluster.workers.values():
            state = cluster.scheduler.workers.get(nanny.worker_address)
            running = {task.key for task in state.processing} if state else set()
            if running:
                os.kill(nanny.pid, signal.SIGKILL)
                return running | {task.key for task in state.has_what}
        time.sleep(0.01)
    raise AssertionError("no worker was busy")
