"""The PDF edition: Typst source from Pandoc, set by PyPI's `typst` with the book's own fonts.

A character that no font has is printed as its code point, and never as a box.
"""

import json
import re
from pathlib import Path
from typing import Any

import typst

from book.config import Book
from lib import paths
from press import pandoc
from press.pandoc import ASSETS, PressError

FONTS = paths.DATA / "fonts"
UNSHOWN = re.compile(r'the text `"(.+?)"` could not be displayed')  # said for PDF/A
ESCAPED = re.compile(r"\\u\{([0-9a-f]+)\}")


def file_name(book: Book) -> str:
    """The PDF's name inside the rendered book, as Quarto forms it from the title."""
    return "-".join(book.title.split()) + ".pdf"


def lacking(text: str) -> set[str]:
    """The characters of a text that no font of the PDF has. Raises PressError."""
    signs = sorted({sign for sign in text if not sign.isascii()})
    dated = '#set document(title: "signs", date: datetime(year: 2000, month: 1, day: 1))'
    each = "\n\n".join(f"#{json.dumps(sign, ensure_ascii=False)}" for sign in signs)
    try:
        typst.compile(
            f"{dated}\n{each}\n".encode(),
            font_paths=[str(FONTS)],
            ignore_system_fonts=True,
            pdf_standards="a-2b",
        )
    except RuntimeError as error:
        said = str(getattr(error, "diagnostic", error))
        shown = [ESCAPED.sub(lambda m: chr(int(m[1], 16)), text) for text in UNSHOWN.findall(said)]
        if not shown:
            raise PressError(f"Typst could not look at the fonts: {said[:300]}") from error
        return set("".join(shown))
    return set()


def write(shaped: dict[str, Any], folder: Path, book: Book) -> Path:
    """Set the book whose pictures lie in `folder`, and put the PDF there. Raises PressError."""
    title = {"title": book.title, "subtitle": book.subtitle, "author": book.author}
    values = json.dumps(title, ensure_ascii=False)
    lines = [
        (ASSETS / "book.typ").read_text(encoding="utf-8"),
        f"#show: book.with(..json(bytes({json.dumps(values, ensure_ascii=False)})))",
        pandoc.typst(shaped),
    ]
    text = "\n".join(lines)
    text = text.translate({ord(sign): f"U+{ord(sign):04X}" for sign in lacking(text)})
    source = folder / ".book.typ"
    source.write_text(text, encoding="utf-8")
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
