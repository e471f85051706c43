"""Sweeps: grids over parameters and seeds, each point one cached artefact.

Points run in local processes, never more than there are cores; or, with the address of a Dask
scheduler, on whatever machines serve it (they must see the same project folder). Either way a
point that is on disk is not computed again, so a sweep that was killed goes on where it was.
"""

import itertools
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lib import artifacts, files, progress
from lib.training import experiments, films, worlds
from lib.training.config import ConfigError, from_dict

RECORDED = ("W",)  # what a point's film keeps if the file does not say
CHAPTER = "a sweep"  # on whose behalf the films are made


class SweepError(ValueError):
    """A sweep file says something that cannot be run."""


@dataclass(frozen=True)
class Sweep:
    """One sweep: a world, a base run, and lists of values for some of its fields."""

    world: dict[str, Any]  # name and fields of a world, see worlds.named
    base: dict[str, Any]  # fields of the Run; vocab is the world's
    grid: dict[str, list]  # field -> values; every combination is a point
    record: tuple[str, ...]

    def points(self) -> list[dict[str, Any]]:
        """The changed fields of every point, in the order of the file."""
        names = list(self.grid)
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


@dataclass(frozen=True)
class Result:
    """What became of a point."""

    point: dict[str, Any]
    path: Path | None  # of its film; None if it failed
    state: str  # "made" | "there" | "failed: ..."


def read(path: Path) -> Sweep:
    """A sweep from a YAML file with `world`, `grid`, and optionally `base` and `record`.

    Raises SweepError naming the file and what is wrong in it.
    """
    try:
        text = files.read_yaml(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SweepError(f"{path}: cannot be read as YAML ({error})") from error
    known = {"world", "base", "grid", "record"}
    if not isinstance(text, dict) or not {"world", "grid"} <= set(text) <= known:
        raise SweepError(f"{path}: needs world and grid, may have base and record, nothing else")
    grid = text["grid"]
    if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
        raise SweepError(f"{path}: grid must map fields of a run to lists of values")
    sweep = Sweep(
        text["world"], text.get("base") or {}, grid, tuple(text.get("record") or RECORDED)
    )
    for point in sweep.points():
        try:
            from_dict({**sweep.base, **point})
        except ConfigError as error:
            raise SweepError(f"{path}: {point}: {error}") from error
    return sweep


def run(sweep: Sweep, *, jobs: int | None = None, scheduler: str | None = None) -> Iterator[Result]:
    """Compute all points; yields a Result as each is done.

    `jobs` local processes (default and at most: the cores), or a Dask `scheduler` such as
    "tcp://host:8786" (needs the `distributed` package). A point that fails does not stop others.
    """
    points = sweep.points()
    with progress.bar(total=len(points), desc="sweep", unit="point") as bar:
        results = _on_dask(sweep, points, scheduler) if scheduler else _here(sweep, points, jobs)
        for result in results:
            bar.update()
            yield result


def make(
    world: Mapping[str, Any], values: Mapping[str, Any], record: Sequence[str]
) -> tuple[str, str]:
    """One point in the process that runs it: (path of its film, "made" or "there")."""
    where = worlds.named(**world)
    run = from_dict({**values, "vocab": where.get().vocab})
    point = experiments.Experiment(where, run, films.Film(tuple(record)))
    path = artifacts.path_of(point, artifacts.identify(point)[1])
    there = path.exists()
    return str(artifacts.cached(point, CHAPTER).path), "there" if there else "made"


def _here(sweep: Sweep, points: list[dict], jobs: int | None) -> Iterator[Result]:
    cores = os.cpu_count() or 1
    workers = min(jobs or cores, cores, len(points))
    context = multiprocessing.get_context("spawn")  # torch and its threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: dict[Future, dict] = {
            pool.submit(make, sweep.world, {**sweep.base, **point}, sweep.record): point
            for point in points
        }
        for future in as_completed(waiting):
            yield _result(waiting[future], future)


def _on_dask(sweep: Sweep, points: list[dict], scheduler: str) -> Iterator[Result]:
    try:
        import distributed
    except ImportError as error:
        raise SweepError("--scheduler needs Dask: pip install distributed") from error
    with distributed.Client(scheduler, timeout="30s") as client:
        waiting = {}
        for point in points:
            values = {**sweep.base, **point}
            future = client.submit(make, sweep.world, values, sweep.record, pure=False, retries=2)
            waiting[future.key] = (point, future)
        for future in distributed.as_completed([future for _, future in waiting.values()]):
            yield _result(waiting[future.key][0], future)


def _result(point: dict, future: Any) -> Result:
    try:
        path, state = future.result()
        return Result(point, Path(path), state)
    except Exception as error:  # any failure of a point is a line in the table, not the end
        return Result(point, None, f"failed: {type(error).__name__}: {error}")
