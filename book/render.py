"""Render the whole book: with Quarto where it is, else with the press."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from book import config, runner, schedule
from lib import paths, scale

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

    Quarto's pre-render step (`make ready`, named in _quarto.yml) executes what is not current, and
    its engine (_extensions/book) hands it the executed notebooks.
    """
    program = quarto()
    if program is None:
        return press(jobs)
    print(f"quarto render at {scale.current()} scale", flush=True)
    command = [program, "render"]
    if subprocess.run(command, cwd=paths.ROOT, env=environment(), check=False).returncode:
        raise RenderError("quarto render failed; its messages stand above")
    return paths.BOOK / "index.html"


def press(jobs: int | None = None, formats: tuple[str, ...] = ("html", "pdf")) -> Path:
    """Execute what is not current and press `_book` with Pandoc. Returns the first page's path.

    Raises RenderError where the press has been taken out of the project.
    """
    try:  # by name: nothing else of the book knows the press, which may be deleted
        edition = importlib.import_module("press.edition")
    except ModuleNotFoundError as error:
        if error.name not in ("press", "press.edition"):
            raise
        raise RenderError("there is no press here: put Quarto on the PATH") from None
    pages = config.load().pages
    print(f"chapters at {scale.current()} scale", flush=True)
    schedule.run_all([paths.ROOT / page.source for page in pages], jobs)
    notebooks = [(page, runner.executed_path(page.name)) for page in pages]
    print("pressing the pages", flush=True)
    edition.press(notebooks, paths.BOOK, formats)
    return paths.BOOK / "index.html"


def environment() -> dict[str, str]:
    """The environment for Quarto: this Python, whatever is or is not activated."""
    return os.environ | {"QUARTO_PYTHON": sys.executable}
