"""Run all chapters: what is not current, generators before their readers, side by side."""

import json
import os
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from book import reader, runner, sources
from book.runner import ALL, Chapter, ChapterFailed, ParameterError
from lib import progress, scale


def key(
    chapter: Chapter,
    parameters: dict[str, Any],
    catalogue: dict[str, Chapter],
    readers: tuple[str, ...] = (),
) -> str:
    """The digest of all that the executed chapter depends on, its generators included.

    `readers` are the chapters on whose behalf it is asked. Raises reader.ChapterError if a chapter
    reads one that does not exist, or itself in the end.
    """
    if chapter.name in readers:
        circle = " reads ".join([*readers[readers.index(chapter.name) :], chapter.name])
        raise reader.ChapterError(f"{chapter.source}: {circle}")
    names = [n for n in catalogue if n != chapter.name] if ALL in chapter.reads else chapter.reads
    for name in names:
        if name not in catalogue:
            raise reader.ChapterError(f"{chapter.source}: reads {name}, which is no chapter")
    above = (*readers, chapter.name)
    chapters = [catalogue[name] for name in names if ALL not in catalogue[name].reads]
    upstream = [key(generator, {}, catalogue, above) for generator in chapters]
    overrides = scale.overrides(chapter.name, scale.current())
    return sources.chapter_key(chapter.text, chapter.code, parameters, overrides, upstream)


def is_current(path: Path, wanted: str) -> bool:
    """Whether the executed notebook at `path` was made from exactly what `wanted` stands for."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        return notebook["metadata"]["book"]["key"] == wanted
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_all(files: list[Path]) -> dict[str, Chapter]:
    """The chapters at `files` by name, in the given order."""
    chapters = [runner.open_chapter(file) for file in files]
    return {chapter.name: chapter for chapter in chapters}


def run_all(files: list[Path], jobs: int | None = None, only: str | None = None) -> list[Path]:
    """Execute what is not current, generators before their readers, `jobs` at a time.

    `only="generator"` stops after the generators. Returns the executed notebooks in the order of
    `files`. Raises ChapterFailed with every failure, after what does not depend on it has run.
    """
    catalogue = read_all(files)
    if only:
        catalogue = {n: c for n, c in catalogue.items() if c.front.get("kind") == only}
    jobs = max(1, min(jobs or len(os.sched_getaffinity(0)), len(catalogue) or 1))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // jobs)))
    wanted = {name: key(chapter, {}, catalogue) for name, chapter in catalogue.items()}
    waiting = {n: c for n, c in catalogue.items() if not is_current(c.executed, wanted[n])}
    failures: dict[str, str] = {}
    bar = progress.bar(total=len(waiting), desc="chapters", unit="chapter")
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running: dict = {}
        while waiting or running:
            for name in sorted(waiting, key=lambda n: waiting[n].front.get("kind") != "generator"):
                if len(running) == jobs or not _ready(waiting[name], waiting, running, failures):
                    continue  # generators first, then the order of the book, as cores fall free
                chapter = waiting.pop(name)
                running[pool.submit(_run_one, chapter.source, wanted[name])] = name
            if not running:
                for name, chapter in waiting.items():
                    failures[name] = f"{name}: not run, because of {', '.join(chapter.reads)}"
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                bar.update()
                seconds, failure = future.result()
                if failure:
                    failures[name] = failure
                print(f"  {name}: {'FAILED' if failure else f'{seconds:.1f} s'}", flush=True)
    bar.close()
    if failures:
        raise ChapterFailed("\n\n".join(failures.values()))
    return [chapter.executed for chapter in catalogue.values()]


def _ready(chapter: Chapter, waiting: dict, running: dict, failures: dict) -> bool:
    if ALL in chapter.reads:
        others = [c for c in waiting.values() if ALL not in c.reads]
        return not (others or running)
    pending = {*waiting, *running.values(), *failures}
    return not any(name in pending for name in chapter.reads)


def _run_one(source: Path, wanted: str) -> tuple[float, str]:
    """Run one chapter in a worker process: seconds and the failure's text ("" if none)."""
    started = time.perf_counter()
    try:
        runner.run(source, digest=wanted)
    except (ChapterFailed, ParameterError, reader.ChapterError, scale.ScaleError) as error:
        return time.perf_counter() - started, str(error)
    return time.perf_counter() - started, ""
