"""The PDF edition: Typst source from Pandoc, set by PyPI's `typst` with the book's own fonts."""

import json
from pathlib import Path
from typing import Any

import typst

from book.config import Book
from lib import paths
from press import pandoc
from press.pandoc import ASSETS, PressError

FONTS = paths.DATA / "fonts"


def file_name(book: Book) -> str:
    """The PDF's name inside the rendered book, as Quarto forms it from the title."""
    return "-".join(book.title.split()) + ".pdf"


def write(shaped: dict[str, Any], folder: Path, book: Book) -> Path:
    """Set the book whose pictures lie in `folder`, and put the PDF there. Raises PressError."""
    title = {"title": book.title, "subtitle": book.subtitle, "author": book.author}
    values = json.dumps(title, ensure_ascii=False)
    lines = [
        (ASSETS / "book.typ").read_text(encoding="utf-8"),
        f"#show: book.with(..json(bytes({json.dumps(values, ensure_ascii=False)})))",
        pandoc.typst(shaped),
    ]
    source = folder / ".book.typ"
    source.write_text("\n".join(lines), encoding="utf-8")
    target = folder / file_name(book)
    try:
        typst.compile(
            str(source),
            output=str(target),
            root=str(folder),
            font_paths=[str(FONTS)],
            ignore_system_fonts=True,
        )
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:600]
        raise PressError(f"{target.name}: Typst could not set the book: {reason}") from error
    finally:
        source.unlink()
    return target
