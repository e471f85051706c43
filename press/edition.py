"""The press: the edition of the book for machines without Quarto, by Pandoc and Typst.

Executed notebooks are woven into Markdown and read into one Pandoc document, a Div a page. The Lua
filters number and link that document once per edition (so a figure that only the pages show takes
no number in the PDF) and citeproc sees all citations together (so "2024a" is the same everywhere).
Then every page is written through the template to the address that Quarto would give it, and the
PDF through Typst. Pandoc's own chunkedhtml writer splits a book as well, but names its files after
sections in one flat folder; writing page by page keeps the addresses that readers link to, and
uses all cores.

The new book is built in a folder beside the old one and takes its place by renaming: a press that
fails leaves the old book as it was. One press at a time; what one that was killed left is removed.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import filelock

from book import config, lists
from book.config import Book, Page
from lib import files, paths
from press import pandoc, pdf, site, weave
from press.pandoc import PressError

FORMATS = ("html", "pdf")


@dataclass(frozen=True)
class Leaf:
    """A page that has been read: where it goes, what is on it, what is known of its run."""

    page: Page
    notebook: Path
    blocks: list[dict]
    book: dict[str, Any]  # the notebook's `metadata.book`


def press(
    notebooks: Iterable[tuple[Page, Path]],
    out: Path = paths.BOOK,
    formats: Iterable[str] = FORMATS,
    *,
    book: Book | None = None,
    root: Path = paths.ROOT,
) -> list[Leaf]:
    """Make the book at `out` from (page, executed notebook) pairs in reading order.

    `formats` is "html", "pdf" or both; what is not asked for stays as it is in `out`. `root` is the
    project's folder: the bibliography and pictures named in the text are looked up there. Returns
    the pages as they were read. Raises PressError; `out` then is what it was before.
    """
    notebooks, formats = list(notebooks), tuple(formats)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise PressError(f"formats {formats!r}: choose of {', '.join(FORMATS)}")
    if not notebooks:
        raise PressError("nothing to press: no page was given")
    book = book or config.load(root / "_quarto.yml")
    bibliography = root / book.bibliography
    if not bibliography.is_file():
        raise PressError(f"{bibliography}: no such file; mend `bibliography:` in _quarto.yml")
    out = Path(out).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(out.with_name(f".{out.name}.lock")):
        for left in out.parent.glob(f".{out.name}-*"):
            if left.name.endswith("-old") and not out.exists():
                left.replace(out)  # that press was killed between two renamings
            else:
                shutil.rmtree(left)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            if "pdf" not in formats and (out / pdf.file_name(book)).is_file():
                shutil.copyfile(out / pdf.file_name(book), staging / pdf.file_name(book))
            leaves = _make(notebooks, staging, formats, book, root)
            _replace(out, staging, formats, book)
        except OSError as error:
            raise (files.unwritable(out, error) if files.is_full(error) else error) from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return leaves


def _make(
    notebooks: list[tuple[Page, Path]],
    staging: Path,
    formats: tuple[str, ...],
    book: Book,
    root: Path,
) -> list[Leaf]:
    """Everything that `formats` ask for, in the empty folder `staging`; the pages as read."""
    bibliography = root / book.bibliography
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        leaves = list(pool.map(lambda pair: leaf(*pair, staging, root, notebooks), notebooks))
        divs = [pandoc.page_div(one.blocks, attributes(one.page)) for one in leaves]

        def shaped(name: str) -> dict[str, Any]:
            return pandoc.edition(divs, name, bibliography, book.lang)

        printed = None
        if "pdf" in formats:
            printed = pool.submit(lambda: pdf.write(shaped("typst"), staging, book))
        if "html" in formats:
            pages = [(one.page, one.notebook, one.book) for one in leaves]
            site.write(shaped("html"), pages, staging, book, with_pdf="pdf" in formats, pool=pool)
        if printed:
            printed.result()
    return leaves


def leaf(
    page: Page,
    notebook: Path,
    staging: Path,
    root: Path,
    notebooks: Sequence[tuple[Page, Path]] = (),
) -> Leaf:
    """Weave and read one page; its pictures go into `staging`, where the page will lie.

    `notebooks` are those of the whole book, for the lists that the page asks for.
    """
    folder = f"{PurePosixPath(page.source).stem}_files"
    try:
        woven = weave.weave(Path(notebook), folder)
        markdown = lists.filled(woven.markdown, page.source, notebooks)
    except (weave.WeaveError, lists.ListError) as error:
        raise PressError(str(error)) from error
    here = staging / PurePosixPath(page.source).parent
    (here / folder if woven.files else here).mkdir(parents=True, exist_ok=True)
    for name, content in woven.files.items():
        (here / folder / name).write_bytes(content)
    blocks = pandoc.read(markdown, page.source)
    for target in pandoc.images(blocks):
        _bring(target, page, here, staging, root)
    return Leaf(page, Path(notebook), blocks, woven.book)


def _bring(target: str, page: Page, here: Path, staging: Path, root: Path) -> None:
    """Copy a picture named in the text to the same place in the book."""
    if "://" in target or target.startswith(("/", "data:")):
        raise PressError(f"{page.source}: picture {target}: use a file of the project, by its path")
    if (here / target).exists():
        return
    source = (root / PurePosixPath(page.source).parent / target).resolve()
    if not source.is_file() or not source.is_relative_to(root.resolve()):
        raise PressError(f"{page.source}: picture {target}: no such file in the project")
    copy = staging / source.relative_to(root.resolve())
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, copy)


def attributes(page: Page) -> dict[str, str]:
    """What the filters must know of a page."""
    return {
        "source": page.source,
        "name": page.name,
        "url": page.url,
        "root": site.root_of(page),
        "part": "Appendices" if page.appendix else page.part or "",
        "appendix": "yes" if page.appendix else "",
    }


def _replace(out: Path, staging: Path, formats: tuple[str, ...], book: Book) -> None:
    """Put the finished book in the old one's place."""
    if "html" not in formats:
        out.mkdir(exist_ok=True)
        (staging / pdf.file_name(book)).replace(out / pdf.file_name(book))
        return
    old = staging.with_name(f"{staging.name}-old")
    staging.chmod(0o755)
    try:
        if out.exists():
            out.replace(old)
        staging.replace(out)
    except OSError as error:
        if old.exists() and not out.exists():
            old.replace(out)
        raise PressError(
            f"{out}: cannot be replaced ({error.strerror}); close what uses it"
        ) from error
    finally:
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
