"""Render the whole book: with Quarto where it is, else with the press."""

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from book import config, notebooks, runner, schedule
from lib import files, paths, scale

REPORT = paths.ROOT / "reports" / "field-report.qmd"
REPORTED = ("report.html", "report.pdf", "report.json", "tokens.csv")
WAIT = 0.3  # seconds between two looks at the chapters while they are written
MINIMUM = (1, 9)  # Quarto before this drops alt text in Typst books


class RenderError(RuntimeError):
    """Quarto ended with an error; its own messages stand above."""


def quarto() -> str | None:
    """The Quarto on PATH if it is new enough, else None (with a line that says why)."""
    program = shutil.which("quarto")
    if program is None or os.environ.get("BOOK_EDITION") == "press":
        return None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    version = answer.stdout.strip()
    try:
        number = tuple(int(word) for word in version.split(".")[:2])
    except ValueError:
        number = (0, 0)
    if answer.returncode or number < MINIMUM:
        needed = ".".join(map(str, MINIMUM))
        print(f"Quarto {version or 'that does not start'} is here; {needed} or newer is needed")
        return None
    return program


def book(jobs: int | None = None) -> Path:
    """Execute what is not current and render `_book`. Returns the first page's path.

    With Quarto, its engine (_extensions/book) has what is not current executed and hands Quarto the
    executed notebooks.
    """
    program = quarto()
    if program is None:
        return press(jobs)
    print(f"quarto render at {scale.current()} scale", flush=True)
    command = [program, "render"]
    given = environment() | ({notebooks.JOBS: str(jobs)} if jobs else {})
    if subprocess.run(command, cwd=paths.ROOT, env=given, check=False).returncode:
        raise RenderError("quarto render failed; its messages stand above")
    return paths.BOOK / "index.html"


def press(jobs: int | None = None, formats: tuple[str, ...] = ("html", "pdf")) -> Path:
    """Execute what is not current and press `_book` with Pandoc. Returns the first page's path.

    Raises RenderError where the press has been taken out of the project.
    """
    edition = _of_press("edition")
    pages = config.load().pages
    print(f"chapters at {scale.current()} scale", flush=True)
    schedule.run_all([paths.ROOT / page.source for page in pages], jobs)
    notebooks = [(page, runner.executed_path(page.name)) for page in pages]
    print("pressing the pages", flush=True)
    edition.press(notebooks, paths.BOOK, formats)
    return paths.BOOK / "index.html"


def keep_pressed(ready: Callable[[], None]) -> None:
    """Press the pages, call `ready`, and press again each page whose chapter changes.

    With those that read the chapter, where it makes what others show. Runs until interrupted.
    """
    edition, preview = _of_press("edition"), _of_press("preview")
    pages = config.load().pages
    sources = [paths.ROOT / page.source for page in pages]
    seen = [_stamp(source) for source in sources]
    schedule.run_all(sources)
    executed = [(page, runner.executed_path(page.name)) for page in pages]
    leaves = edition.press(executed, paths.BOOK, ("html",))
    pressed = [_stamp(leaf.notebook) for leaf in leaves]
    ready()
    while True:
        time.sleep(WAIT)
        for number, source in enumerate(sources):
            stamp = _stamp(source)
            if stamp in (None, seen[number]):  # None while an editor has it taken away
                continue
            seen[number] = stamp
            try:
                for other in [number, *_readers(pages[number].name, leaves)]:
                    start = time.perf_counter()
                    chapter = runner.open_chapter(sources[other])
                    _aside(partial(schedule.bring_up_to_date, chapter))
                    now = _stamp(leaves[other].notebook)
                    if now != pressed[other]:
                        leaves[other], pressed[other] = preview.page(other, leaves), now
                        took = time.perf_counter() - start
                        print(f"  {pages[other].source}: {took:.1f} s", flush=True)
            except (RuntimeError, ValueError, OSError) as error:
                print(f"error: {error}", file=sys.stderr, flush=True)


def _aside(work: Callable[[], Any]) -> None:
    """Do the work in a thread: in this one Jupyter's client would take Ctrl-C for its kernel."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as why:  # for whoever waits
            done.set_exception(why)

    threading.Thread(target=run, daemon=True).start()
    done.result()


def _readers(name: str, leaves: Sequence[Any]) -> list[int]:
    """The pages of chapters that read the chapter `name`."""
    return [at for at, leaf in enumerate(leaves) if name in (leaf.book.get("reads") or [])]


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes when a file is written; None if there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def report(
    model: str, out: Path, *, tokenizer: str = "", revision: str = "main", about: str = ""
) -> list[Path]:
    """Write report.html, report.pdf, report.json and tokens.csv of a model into the folder `out`.

    The files take their places together, when all of them are made. Raises RenderError, and what
    the runner raises.
    """
    sheet = _of_press("sheet")
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(".report-*"):
        if files.untouched(left) > files.OLD:  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=out) as folder:
        made = Path(folder)
        given = {"specimen": model, "tokenizer": tokenizer, "revision": revision, "out": folder}
        try:
            notebook = runner.run(REPORT, given, made / "report.ipynb")
        except runner.ChapterFailed as error:
            raise RenderError(str(error).removeprefix(f"{REPORT.name}: ")) from None
        _without(notebook, "out")
        sheet.press(notebook, made / "report.html", made / "report.pdf", about=about or model)
        for name in REPORTED:
            (made / name).replace(out / name)
    return [out / name for name in REPORTED]


def _without(notebook: Path, parameter: str) -> None:
    """Take a given parameter out of an executed notebook: a folder that is gone says nothing."""
    found = nbformat.read(notebook, as_version=4)
    for cell in found.cells:
        if notebooks.INJECTED in cell.metadata.get("tags", []):
            lines = cell.source.splitlines()
            cell.source = "\n".join(x for x in lines if not x.startswith(f"{parameter} ="))
    files.write_atomically(notebook, lambda path: nbformat.write(found, path))


def _of_press(module: str) -> Any:
    """A module of the press, by name: nothing else of the book knows it, and it may be deleted."""
    try:
        return importlib.import_module(f"press.{module}")
    except ModuleNotFoundError as error:
        if error.name not in ("press", f"press.{module}"):
            raise
        raise RenderError("there is no press here: put Quarto on the PATH") from None


def environment() -> dict[str, str]:
    """The environment for Quarto: this Python, whatever is or is not activated."""
    return os.environ | {"QUARTO_PYTHON": sys.executable}
