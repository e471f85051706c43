"""Sweeps: grids over parameters and seeds, each point one cached film.

Points run in local processes, never more than there are cores; or, with the address of a Dask
scheduler, on whatever machines serve it (they must see the same project folder). Either way a
point that is on disk is not computed again, so a sweep that was killed goes on where it was.
"""

import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml

from lib import artifacts, files, progress
from lib.training import worlds
from lib.training.config import ConfigError, from_dict
from lib.training.experiments import Experiment
from lib.training.films import Film

CHAPTER = "a sweep"  # on whose behalf the films are made

Point = tuple[dict[str, Any], Experiment]  # the run's fields that are the point's own, the film
Result = tuple[dict[str, Any], Path | None, str]  # the same, film, "made", "there" or "failed: ..."


class SweepError(ValueError):
    """A sweep file says something that cannot be run."""


def read(path: Path) -> list[Point]:
    """The points of a YAML file with `world`, `grid`, and optionally `base` and `record`.

    `grid` maps fields of a run to values; every combination is a point, in the order of the file.
    The world is made, since `vocab` is its. Raises SweepError naming the file and what is wrong in
    it.
    """
    try:
        text = files.read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SweepError(f"{path}: cannot be read as YAML ({error})") from error
    known = {"world", "base", "grid", "record"}
    if not isinstance(text, dict) or not {"world", "grid"} <= set(text) <= known:
        raise SweepError(f"{path}: needs world and grid, may have base and record, nothing else")
    grid, base = text["grid"], text.get("base") or {}
    if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
        raise SweepError(f"{path}: grid must map fields of a run to lists of values")
    try:
        world = worlds.named(**text["world"])
    except (TypeError, ValueError) as error:
        raise SweepError(f"{path}: world: {error}") from error
    runs = []
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        try:
            runs.append((point, from_dict({**base, **point})))
        except ConfigError as error:
            raise SweepError(f"{path}: {point}: {error}") from error
    vocab, film = world.get().vocab, Film(tuple(text.get("record") or ("W",)))
    return [(point, Experiment(world, run.replace(vocab=vocab), film)) for point, run in runs]


def run(
    points: Sequence[Point], *, jobs: int | None = None, scheduler: str | None = None
) -> Iterator[Result]:
    """Compute all points; yields a result as each is done, without a path if it failed.

    `jobs` local processes (default and at most: the cores), or a Dask `scheduler` such as
    "tcp://host:8786" (needs the `distributed` package). A point that fails does not stop others.
    """
    bar = progress.bar(total=len(points), desc="sweep", unit="point")
    executor = _dask(scheduler) if scheduler else _processes(min(jobs or len(points), len(points)))
    with bar, executor as pool:
        waiting = {pool.submit(make, experiment): point for point, experiment in points}
        for future in as_completed(waiting):
            bar.update()
            try:
                path, state = future.result()
            except Exception as error:  # any failure of a point is a line in the table, not the end
                path, state = None, f"failed: {type(error).__name__}: {error}"
            yield waiting[future], path, state


def make(experiment: Experiment) -> tuple[Path, str]:
    """One point in the process that runs it: (path of its film, "made" or "there")."""
    there = artifacts.path_of(experiment, artifacts.identify(experiment)[1]).exists()
    return artifacts.cached(experiment, CHAPTER).path, "there" if there else "made"


def _processes(jobs: int) -> Executor:
    context = multiprocessing.get_context("spawn")  # torch and its threads do not survive a fork
    return ProcessPoolExecutor(min(jobs, os.cpu_count() or 1), mp_context=context)


@contextlib.contextmanager
def _dask(scheduler: str) -> Iterator[Executor]:
    try:
        import distributed
    except ImportError as error:
        raise SweepError("--scheduler needs Dask: pip install distributed") from error
    with distributed.Client(scheduler, timeout="30s") as client:
        yield client.get_executor(pure=False, retries=2)
