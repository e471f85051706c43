"""Run all chapters: what is not current, generators before their readers, side by side."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from graphlib import CycleError, TopologicalSorter
from multiprocessing import active_children, get_context
from pathlib import Path

from book import config, reader, runner, sources
from book.runner import ALL, Chapter, ChapterFailed, ParameterError
from lib import artifacts, files, paths, processes, progress, scale

Catalogue = Mapping[str, Chapter]  # chapters by name, in the order of the book


def read_all(files: list[Path]) -> dict[str, Chapter]:
    """The chapters at `files` by name, in the given order."""
    chapters = [runner.open_chapter(file) for file in files]
    return {chapter.name: chapter for chapter in chapters}


def order(catalogue: Catalogue) -> TopologicalSorter:
    """The chapters in the order in which they can run, ready to be asked.

    One that reads all waits for all others, and for those before it that read all. Raises
    reader.ChapterError if a chapter reads one that does not exist, or itself in the end.
    """
    graph: dict[str, list[str]] = {}
    everyone = [name for name, chapter in catalogue.items() if ALL not in chapter.reads]
    for name, chapter in catalogue.items():
        graph[name] = chapter.reads
        if ALL in chapter.reads:
            graph[name] = list(everyone)
            everyone.append(name)
        for read in graph[name]:
            if read not in catalogue:
                raise reader.ChapterError(f"{chapter.source}: reads {read}, which is no chapter")
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " reads ".join(reversed(error.args[1]))
        raise reader.ChapterError(f"{catalogue[error.args[1][0]].source}: {circle}") from None
    return sorter


def keys(catalogue: Catalogue) -> dict[str, str]:
    """The digest of all that each executed chapter depends on, its generators included.

    Raises reader.ChapterError as `order` does.
    """
    found: dict[str, str] = {}
    sorter = order(catalogue)
    reached = sources.reached(chapter.code for chapter in catalogue.values())
    while sorter.is_active():
        for name in sorter.get_ready():
            code, reads = catalogue[name].code, catalogue[name].reads
            made = sorted(found.values() if ALL in reads else [found[read] for read in reads])
            overrides = scale.overrides(name, scale.current())
            found[name] = sources.chapter_key(code, reached[code], overrides, made)
            sorter.done(name)
    return found


def is_current(path: Path, wanted: str) -> bool:
    """Whether the executed notebook at `path` was made from exactly what `wanted` stands for.

    One whose bytes are not those that were written is not current, nor is one that has read a file
    of data/ which is another now.
    """
    try:
        seal = runner.seal_of(path).read_text()
        read = {name: files.state(name) for name in runner.read_of(seal)}
        return seal == runner.seal(path, wanted, runner.text_of(seal), read)
    except (OSError, ValueError):
        return False


def with_what_it_reads(chapter: Chapter) -> dict[str, Chapter]:
    """The chapter and the generators that it reads, in the end the whole book."""
    if ALL in chapter.reads:
        return read_all([paths.ROOT / page.source for page in config.load().pages])
    found, waiting = {chapter.name: chapter}, list(chapter.reads)
    while waiting:
        one = runner.open_chapter(paths.CHAPTERS / f"{waiting.pop()}.qmd")
        found[one.name] = one
        waiting += [name for name in one.reads if name not in found]
    return found


def bring_up_to_date(chapter: Chapter) -> Path:
    """The chapter's executed notebook, made again with what it reads where that is not current.

    Of a chapter that reads the whole book, only itself. Raises ChapterFailed.
    """
    catalogue = with_what_it_reads(chapter)
    run(catalogue, only={chapter.name} if ALL in chapter.reads else set(catalogue))
    return chapter.executed


def run_all(files: list[Path], jobs: int | None = None, kind: str = "") -> list[Path]:
    """Execute what is not current of the chapters at `files`, or of those of one `kind`.

    Returns the executed notebooks in the order of `files`. Raises ChapterFailed.
    """
    artifacts.clear()
    catalogue = read_all(files)
    only = {name for name, c in catalogue.items() if not kind or c.front.get("kind") == kind}
    run(catalogue, only, jobs)
    return [chapter.executed for chapter in catalogue.values()]


def start(files: list[Path], jobs: int | None = None) -> dict[str, Future[Chapter]]:
    """Begin to execute what is not current of the chapters at `files`, in the order of the book.

    Each chapter's future is the chapter, its executed notebook current, or ChapterFailed. A daemon
    thread sees to them; whoever does not want to wait for what is running ends with os._exit.
    """
    artifacts.clear()
    catalogue = read_all(files)
    futures: dict[str, Future[Chapter]] = {name: Future() for name in catalogue}

    def settle(name: str, failure: str) -> None:
        if failure:
            futures[name].set_exception(ChapterFailed(failure))
        else:
            futures[name].set_result(catalogue[name])

    def work() -> None:
        os.nice(10)  # this thread and its children: the page that Quarto is at comes first
        try:
            run(catalogue, set(catalogue), jobs, settle)
        except BaseException as why:  # for whoever waits
            for future in futures.values():
                if not future.done():
                    future.set_exception(why)

    threading.Thread(target=work, daemon=True).start()
    return futures


def run(
    catalogue: Catalogue,
    only: set[str],
    jobs: int | None = None,
    settle: Callable[[str, str], None] = lambda name, failure: None,
) -> None:
    """Execute what is not current of the chapters `only`, `jobs` at a time, in the book's order.

    Where only a chapter's text has changed, its executed notebook gets the new text. `settle` is
    told each chapter's name as it is done, and how it failed, if it did. Raises ChapterFailed with
    every failure, after what does not depend on it has run.
    """
    wanted = keys(catalogue)
    stale = {name for name in only if not is_current(catalogue[name].executed, wanted[name])}
    for name in by_need(catalogue):
        if name in only - stale:
            runner.refresh(catalogue[name])
            settle(name, "")
    failures = _execute(catalogue, wanted, stale, jobs, settle) if stale else {}
    if failures:
        raise ChapterFailed("\n\n".join(failures.values()))


def by_need(catalogue: Catalogue) -> list[str]:
    """The chapters in the order in which a reader needs them, each after those that it reads.

    One that reads all keeps its place in the book: `order` holds it back.
    """
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for read in catalogue[name].reads:
            if read != ALL and read not in found:
                add(read)
        found[name] = None

    for name in catalogue:
        if name not in found:
            add(name)
    return list(found)


def _execute(
    catalogue: Catalogue,
    wanted: Mapping[str, str],
    stale: set[str],
    jobs: int | None,
    settle: Callable[[str, str], None],
) -> dict[str, str]:
    """Execute the chapters `stale` side by side; what went wrong, by chapter.

    One alone runs from this process, which in a preview has everything imported already.
    """
    on_linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    jobs = max(1, min(jobs or cores, len(stale)))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    if len(stale) == 1:
        [name] = stale
        said, failure = _run_one(catalogue[name].source, wanted[name], catalogue[name].code)
        _say(name, said, failure)
        settle(name, failure)
        return {name: failure} if failure else {}
    place = {name: at for at, name in enumerate(by_need(catalogue))}
    sorter, left = order(catalogue), set(stale)
    ready: list[str] = []
    running: dict[Future, str] = {}
    failures: dict[str, str] = {}
    bar = progress.bar(total=len(stale), desc="chapters", unit="chapter")
    spawn = get_context("spawn")
    workers, settings = 0, {"mp_context": spawn, "initializer": processes.end_with_parent}
    with bar, ProcessPoolExecutor(jobs, **settings) as pool:
        while left:
            while names := sorter.get_ready():
                ready += [name for name in names if name in stale]
                sorter.done(*(name for name in names if name not in stale))
            ready.sort(key=place.get)
            while ready and len(running) < jobs:
                one = catalogue[name := ready.pop(0)]
                running[pool.submit(_run_one, one.source, wanted[name], one.code)] = name
            if not running:
                break  # what is left reads what failed
            workers = max(workers, len(active_children()))
            done = wait(running, timeout=2, return_when=FIRST_COMPLETED).done
            # the pool itself does not always see that a worker died which it started last
            broken = len(active_children()) < min(workers, len(running))
            if broken or any(isinstance(f.exception(), BrokenExecutor) for f in done):
                for worker in active_children():  # asked to end, a running kernel would go on
                    worker.kill()
                names = ", ".join(sorted(running.values(), key=place.get))
                why = "a worker was killed; most often the memory was full: try fewer --jobs"
                raise ChapterFailed(f"{names}: {why}, or a smaller BOOK_SCALE")
            for future in done:
                name = running.pop(future)
                left.remove(name)
                bar.update()
                said, failure = future.result()
                _say(name, said, failure)
                settle(name, failure)
                if failure:
                    failures[name] = failure
                else:
                    sorter.done(name)
    for name in sorted(left, key=place.get):
        failures[name] = f"{name}: not run, because of {', '.join(catalogue[name].reads)}"
        settle(name, failures[name])
    return failures


def _say(name: str, said: str, failure: str) -> None:
    print(f"  {name}: {'FAILED' if failure else said}", flush=True)


def _cost(seconds: float, memory: float) -> str:
    return f"{seconds:.1f} s, {memory / 1e9:.2f} GB"


def _run_one(source: Path, wanted: str, code: str) -> tuple[str, str]:
    """Run one chapter in a worker process: its seconds and memory, or the failure's text.

    `code` is the chapter's, of which `wanted` is the digest.
    """
    started = time.perf_counter()
    try:
        if runner.open_chapter(source).code != code:
            return "", f"{source.name}: its code was changed while it waited: run it again"
        peak = runner.memory_of(runner.run(source, digest=wanted))
    except (ChapterFailed, ParameterError, reader.ChapterError, scale.ScaleError) as error:
        return "", str(error)
    return _cost(time.perf_counter() - started, peak), ""
