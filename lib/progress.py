"""Progress bars that reach the person and never the page.

Inside a chapter's kernel there is no terminal, and a bar printed to stderr would end up in the
book. The runner therefore names its own terminal in BOOK_TERMINAL; bars are drawn there.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm.std import tqdm

TERMINAL = "BOOK_TERMINAL"


def bar(iterable: Iterable | None = None, **options) -> tqdm:
    """A tqdm bar (same options): on the runner's terminal, in a notebook, or not at all."""
    terminal = os.environ.get(TERMINAL)
    if terminal:
        try:
            return tqdm(iterable, file=Path(terminal).open("w"), leave=False, **options)
        except OSError:
            return tqdm(iterable, disable=True, **options)
    if "BOOK_QUIET" in os.environ or not (sys.stderr.isatty() or _interactive_notebook()):
        return tqdm(iterable, disable=True, **options)
    from tqdm.auto import tqdm as auto_tqdm  # warns in a kernel without ipywidgets, on the page

    return auto_tqdm(iterable, leave=False, **options)


def _interactive_notebook() -> bool:
    """Whether a person has this notebook open (not Quarto, not the runner)."""
    return "JPY_SESSION_NAME" in os.environ and "QUARTO_PROJECT_ROOT" not in os.environ
