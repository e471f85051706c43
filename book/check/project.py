"""The project as the rules see it: every page read once, with the line of everything in it."""

import ast
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from book import config, reader
from book.check import prose

GENERATED = {".git", ".venv", "__pycache__", "_book", "_freeze", ".quarto", "artifacts", "build"}


@dataclass(frozen=True)
class Cell:
    """One code cell of a page."""

    line: int  # of its first option or code line
    options: dict[str, Any]  # `#| key: value`
    code: str  # without the options

    @property
    def label(self) -> str:
        """Its label, "" without one."""
        return str(self.options.get("label") or "")

    @property
    def tags(self) -> list[str]:
        """Its tags, maybe none."""
        tags = self.options.get("tags") or []
        return [tags] if isinstance(tags, str) else list(tags)

    @cached_property
    def tree(self) -> ast.Module | None:
        """The parsed code; None if it is not plain Python."""
        try:
            return ast.parse(self.code)
        except SyntaxError:
            return None

    @cached_property
    def called(self) -> set[str]:
        """Dotted names of everything it calls: {"plt.subplots", "print"}."""
        nodes = ast.walk(self.tree) if self.tree else ()
        return {dotted(node.func) for node in nodes if isinstance(node, ast.Call)} - {""}


@dataclass(frozen=True)
class Page:
    """One .qmd file. `prose` and `text` have as many lines as the file, so lines can be counted."""

    file: str  # from the project's root
    source: str
    front: dict[str, Any]
    cells: tuple[Cell, ...]
    prose: str  # the file with front matter, code cells and other fenced blocks blanked
    listed: bool  # whether _quarto.yml lists it
    appendix: bool = False

    @property
    def name(self) -> str:
        """How `lib` calls the chapter: "discovery/01-norms"; "index" at the root."""
        return str(PurePosixPath(self.file.removeprefix("chapters/")).with_suffix(""))

    @property
    def is_chapter(self) -> bool:
        """Whether it tells a story: under chapters/, no appendix, nothing to look things up in.

        These have the common shape.
        """
        told = self.file.startswith("chapters/") and not self.file.startswith("chapters/reference/")
        return told and not self.appendix

    @property
    def kind(self) -> str:
        """generator, analyser or page."""
        return str(self.front.get("kind", "page"))

    @property
    def reads(self) -> list[str]:
        """Names of the generators whose artefacts it loads."""
        reads = self.front.get("reads") or []
        return [str(name) for name in reads] if isinstance(reads, list) else []

    @cached_property
    def text(self) -> str:
        """`prose` with inline code, mathematics, comments and link targets blanked too."""
        return prose.mask(self.prose)

    @property
    def parameters_cell(self) -> Cell | None:
        """The first cell tagged `parameters`."""
        return next((cell for cell in self.cells if "parameters" in cell.tags), None)

    @property
    def parameters(self) -> dict[str, Any]:
        """Literal parameters by name; those that are no literals are left out."""
        cell = self.parameters_cell
        values = {}
        for node in cell.tree.body if cell and cell.tree else ():
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                try:
                    values[node.targets[0].id] = ast.literal_eval(node.value)
                except ValueError:
                    continue
        return values

    def line_of(self, needle: str) -> int:
        """The first line of the file that holds `needle`; 1 if none does."""
        before, found, _ = self.source.partition(needle)
        return before.count("\n") + 1 if found else 1


@dataclass(frozen=True)
class Project:
    """A book's folder, read but not run."""

    root: Path
    book: config.Book | None  # None if _quarto.yml cannot be read
    pages: tuple[Page, ...]  # in reading order, then those that are not listed
    files: tuple[str, ...]  # all files that belong to the project, from its root
    unreadable: dict[str, str] = field(default_factory=dict)  # file -> why

    def read(self, file: str) -> str:
        """The text of a file of the project; "" if it is no UTF-8 text."""
        try:
            return (self.root / file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def page(self, name: str) -> Page | None:
        """The page called `name` ("dynamics/01-train")."""
        return next((page for page in self.pages if page.name == name), None)


def load(root: Path) -> Project:
    """The project at `root`. What cannot be read is noted in `unreadable`, never raised."""
    unreadable: dict[str, str] = {}
    try:
        book = config.load(root / "_quarto.yml")
    except config.ConfigError as error:
        book, unreadable["_quarto.yml"] = None, str(error)
    files = tuple(sorted(_files(root)))
    listed = {page.source: page.appendix for page in book.pages} if book else {}
    unlisted = [f for f in files if f.endswith(".qmd") and f not in listed and _is_page(f)]
    pages = []
    for file in [*listed, *unlisted]:
        if not (root / file).is_file():
            continue
        try:
            pages.append(read_page(root, file, file in listed, listed.get(file, False)))
        except reader.ChapterError as error:
            unreadable[file] = str(error).replace(f"{root}{os.sep}", "")
    return Project(root, book, tuple(pages), files, unreadable)


def read_page(root: Path, file: str, listed: bool = True, appendix: bool = False) -> Page:
    """The page at `root / file`. Raises reader.ChapterError if it is malformed."""
    path = root / file
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise reader.ChapterError(f"{path}:1: not UTF-8: {error}") from error
    front, body, first = reader.split_front_matter(source, path)
    lines = [""] * (source.count("\n") + 1)
    cells = []
    for block in reader.split_blocks(body, path, first):
        if block.kind == "code":
            options, code = reader.split_options(block.source, path, block.line)
            cells.append(Cell(block.line, options, code))
        else:
            for number, line in enumerate(block.source.split("\n"), start=block.line - 1):
                lines[number] = line
    text = prose.without_fences("\n".join(lines))
    return Page(file, source, front, tuple(cells), text, listed, appendix)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute node; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def _is_page(file: str) -> bool:
    return file.startswith("chapters/") or "/" not in file


def _files(root: Path) -> Iterator[str]:
    """Files of the project: what git tracks or would track; without git, all but the generated."""
    command = ["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"]
    if (root / ".git").exists():
        listing = subprocess.run(command, capture_output=True, check=False)
        if listing.returncode == 0:
            names = [name for name in listing.stdout.decode().split("\0") if name]
            yield from (name for name in dict.fromkeys(names) if (root / name).is_file())
            return
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if path.is_file() and not GENERATED.intersection(parts):
            yield "/".join(parts)
