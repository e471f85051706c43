"""The book's table of contents, read from `_quarto.yml`: the one list of chapters there is."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from lib import files, paths


class ConfigError(ValueError):
    """`_quarto.yml` does not describe a book; the message names the file and the mend."""


@dataclass(frozen=True)
class Page:
    """One .qmd file of the book, in reading order."""

    source: str  # path from the project's root, "chapters/discovery/01-norms.qmd"
    part: str | None = None  # title of its part; None before the first part and after the last
    appendix: bool = False

    @property
    def name(self) -> str:
        """How chapters, parameters and artefacts call it: "discovery/01-norms", "index"."""
        return str(PurePosixPath(self.source.removeprefix("chapters/")).with_suffix(""))

    @property
    def url(self) -> str:
        """Its address inside the rendered book, the same that Quarto gives."""
        return str(PurePosixPath(self.source).with_suffix(".html"))


@dataclass(frozen=True)
class Book:
    """What the runner, the checker and the press need to know of `_quarto.yml`."""

    title: str
    subtitle: str
    author: str
    pages: tuple[Page, ...]  # the first is index.qmd
    bibliography: str  # path from the project's root
    description: str = ""
    repository: str = ""  # "" where there is no `repo-url`
    lang: str = "en"

    @property
    def parts(self) -> tuple[str, ...]:
        """Titles of the parts that hold chapters, in order."""
        return tuple(dict.fromkeys(page.part for page in self.pages if page.part))


def load(path: Path = paths.QUARTO_CONFIG) -> Book:
    """The book that `path` describes. Raises ConfigError with one line that names the mend."""
    try:
        settings = files.read_yaml(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; run from the project's root") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    book = settings.get("book") if isinstance(settings, dict) else None
    if not isinstance(book, dict):
        raise ConfigError(f"{path}: needs a `book:` section with a title and chapters")
    pages = (
        *_pages(book.get("chapters"), path, "chapters"),
        *_pages(book.get("appendices"), path, "appendices", appendix=True),
    )
    if not pages or pages[0].source != "index.qmd":
        raise ConfigError(f"{path}: the first of `book: chapters:` must be index.qmd")
    sources = [page.source for page in pages]
    for source in sources:
        if sources.count(source) > 1:
            raise ConfigError(f"{path}: {source} is listed twice; keep one")
    return Book(
        title=_text(book, "title", path),
        subtitle=_text(book, "subtitle", path, default=""),
        author=_text(book, "author", path, default=""),
        pages=pages,
        bibliography=_text(settings, "bibliography", path),
        description=_text(book, "description", path, default=""),
        repository=_text(book, "repo-url", path, default="").rstrip("/"),
        lang=_text(settings, "lang", path, default="en"),
    )


def _pages(
    entries: Any, path: Path, section: str, part: str | None = None, appendix: bool = False
) -> list[Page]:
    """The pages of a `chapters:` list; parts are flattened, empty ones leave nothing behind."""
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: `{section}:` must be a list of .qmd files")
    pages = []
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("part"), str) and part is None:
            if entry["part"].endswith(".qmd"):
                raise ConfigError(f"{path}: part {entry['part']!r} must be a title, not a file")
            title = entry["part"]
            pages += _pages(entry.get("chapters"), path, f"part {title!r}", title, appendix)
        elif isinstance(entry, str) and entry.endswith(".qmd"):
            pages.append(Page(source=entry, part=part, appendix=appendix))
        else:
            raise ConfigError(f"{path}: `{section}:` holds {entry!r}; expected a .qmd file")
    return pages


def _text(table: dict, key: str, path: Path, default: str | None = None) -> str:
    value = table.get(key, default)
    if value is None:
        raise ConfigError(f"{path}: `{key}:` is missing")
    if not isinstance(value, str):
        raise ConfigError(f"{path}: `{key}:` must be one line of text, not {value!r}")
    return value
