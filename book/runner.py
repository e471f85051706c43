"""Run one chapter, with strictly checked parameters.

papermill executes; this module checks the parameters, fills the values into the text, keeps the
executed notebook and words the errors.
"""

import copy
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbformat import NotebookNode
from traitlets.config import Config

from book import parameters, reader
from book.parameters import Parameter, ParameterError
from lib import digests, files, paths, progress, scale

# errors that are one line for the reader
OWN_ERRORS = (
    *("ArtifactMissing", "SpecimenError", "EditionError", "VocabularyError", "FileError"),
    *("BpeError", "CorpusError", "ConfigError", "ScaleError", "Diverged", "ClockError"),
    *("GeometryError", "FilmError", "PanicException"),  # the last: of the tokenizers library
)
ALL = "all"  # in front matter, `reads: [all]`: the chapter reads what every other one left
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours in tracebacks
# of a run, where only the text changed
KEPT = ("scale", "parameters", "key", "values", "read", "memory")
READ_MIME = "application/vnd.book.read+json"
# the last cell of every run
READ = f"""\
import resource, sys
from lib import files
unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
display({{"{READ_MIME}": {{"files": files.noted, "memory": peak}}}}, raw=True)"""


class ChapterFailed(RuntimeError):
    """A chapter raised; the message holds the cell and the end of the traceback."""


@dataclass(frozen=True)
class Chapter:
    """One page of the book, read but not run."""

    source: Path  # the .qmd file
    name: str  # "discovery/01-norms", or "index" for a page at the root
    notebook: NotebookNode
    text: str

    @property
    def front(self) -> dict[str, Any]:
        """The YAML front matter."""
        return self.notebook.metadata.book.front

    @property
    def reads(self) -> list[str]:
        """Names of the generator chapters whose artefacts this one loads."""
        reads = self.front.get("reads") or []
        if not isinstance(reads, list):
            raise reader.ChapterError(f"{self.source}: `reads:` must be a list, not {reads!r}")
        return reads

    @property
    def code(self) -> str:
        """All code of the chapter in order, the expressions in its text included."""
        return "\n\n".join(c.source for c in self.notebook.cells if c.cell_type == "code")

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the chapter's text as it stands."""
        return digests.of_value(self.text)

    @property
    def executed(self) -> Path:
        """Where its executed notebook lies at the current scale."""
        return executed_path(self.name)

    def parameters(self) -> dict[str, Parameter]:
        """The parameters of its parameters cell by name; empty for a page without one."""
        for cell in self.notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                scales = [scale.overrides(self.name, name) for name in scale.SCALES]
                return parameters.of(cell.source, self.source, scales)
        return {}

    def upstream(self) -> dict[str, dict[str, Parameter]]:
        """Parameters of the generators that it reads, by generator."""
        names = [name for name in self.reads if name != ALL]
        return {name: open_chapter(paths.CHAPTERS / f"{name}.qmd").parameters() for name in names}

    def known(self) -> dict[str, Parameter]:
        """All that may be given: its own parameters, and those of the generators that it reads."""
        found = {}
        for one in [*self.upstream().values(), self.parameters()]:
            found |= one
        return found


def open_chapter(source: Path | str) -> Chapter:
    """Read a chapter by its .qmd file or its name ("discovery/01-norms").

    Raises reader.ChapterError if it cannot be read or is malformed.
    """
    named = paths.CHAPTERS / f"{source}.qmd"
    source = (named if named.is_file() else Path(source)).resolve()
    if source.suffix != ".qmd" or (source.exists() and not source.is_file()):
        raise reader.ChapterError(
            f"{source}: is no chapter; name one (discovery/01-norms) or a .qmd"
        )
    notebook = reader.read(source)
    return Chapter(source, name_of(source), notebook, source.read_text(encoding="utf-8"))


def name_of(source: Path) -> str:
    """A chapter's name: its path below `chapters/` without the ending, or its stem at the root."""
    source = Path(source).resolve().with_suffix("")
    return source.relative_to(
        paths.CHAPTERS if source.is_relative_to(paths.CHAPTERS) else source.parent
    ).as_posix()


def executed_path(name: str, *, changed: bool = False) -> Path:
    """Where the executed notebook of chapter `name` lies at the current scale.

    `changed`: of a run with parameters that were given, which is no page of the book.
    """
    return paths.EXECUTED / (scale.current() + "-changed" * changed) / f"{name}.ipynb"


def parse_parameters(words: list[str], chapter: Chapter) -> dict[str, Any]:
    """`name=value` words as checked parameters of `chapter`. Raises ParameterError."""
    given, known = {}, chapter.known()
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ParameterError(f"-p takes name=value, not {word[:60]!r}")
        given[name] = _known(name, known, chapter).read(text)
    return given


def check_parameters(given: dict[str, Any], chapter: Chapter) -> dict[str, Any]:
    """`given`, each of its literal's type. Raises ParameterError that lists what is valid."""
    known = chapter.known()
    return {name: _known(name, known, chapter).check(value) for name, value in given.items()}


def _known(name: str, known: dict[str, Parameter], chapter: Chapter) -> Parameter:
    """The parameter of that name, of the chapter or of what it reads. Raises ParameterError."""
    if name in known:
        return known[name]
    own = chapter.parameters()
    valid = ", ".join(f"{p.name} ({type(p.literal).__name__}, {p.literal!r})" for p in own.values())
    if len(known) > len(own):
        valid += f"; of what it reads: {', '.join(n for n in known if n not in own)}"
    wrong = f"{chapter.name} has no parameter {name[:60]!r}"
    raise ParameterError(f"{wrong}; it has: {valid or 'none'}")


def listed(chapter: Chapter) -> Iterator[str]:
    """A line for each parameter that may be given: its value at this scale, range and meaning."""
    for name, known in {chapter.name: chapter.parameters(), **chapter.upstream()}.items():
        if name != chapter.name:
            yield f"\nof {name}, which it reads:"
        values = scale.overrides(name, scale.current())
        for one in known.values():
            value = values.get(one.name, one.literal)
            yield f"{one.name} = {value!r}: {one.wanted}; {one.meaning}".rstrip("; ")


def run(
    source: Path,
    parameters: dict[str, Any] | None = None,
    output: Path | None = None,
    digest: str = "",
) -> Path:
    """Execute one chapter with checked parameters; returns the executed notebook's path.

    `digest` (what the result depends on, see `schedule.keys`) is stored in the notebook.
    Raises ParameterError, reader.ChapterError, or ChapterFailed with the failing cell.
    """
    chapter = open_chapter(source)
    parameters = check_parameters(parameters or {}, chapter)
    own = {name: value for name, value in parameters.items() if name in chapter.parameters()}
    rest = {name: value for name, value in parameters.items() if name not in own}
    upstream = {
        generator: {name: value for name, value in rest.items() if name in known}
        for generator, known in (chapter.upstream() if rest else {}).items()
    }
    os.environ[scale.UPSTREAM] = json.dumps(upstream)
    output = Path(output) if output else executed_path(chapter.name, changed=bool(parameters))
    executed, read, peak = _execute(chapter, own) if chapter.code else (chapter.notebook, {}, 0)
    about = {"scale": scale.current(), "parameters": digests.plain(parameters), "key": digest}
    about |= {"read": read, "memory": peak}
    about["values"] = reader.inline_values(executed)
    _write(chapter, reader.fill(executed, about["values"]), about, output)
    return output


def refresh(chapter: Chapter) -> None:
    """Bring the text of the executed notebook up to the chapter's, whose code has not changed.

    Outputs and values of expressions stay. Raises reader.ChapterError if they do not fit.
    """
    if text_of(seal_of(chapter.executed).read_text()) == chapter.digest:
        return
    executed = nbformat.read(chapter.executed, as_version=4)
    about = {name: executed.metadata.book[name] for name in KEPT}
    notebook = reader.fill(copy.deepcopy(chapter.notebook), about["values"])
    for cell, ran in zip(_code(notebook), _code(executed), strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    _write(chapter, notebook, about, chapter.executed)


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _write(chapter: Chapter, notebook: NotebookNode, about: dict[str, Any], output: Path) -> None:
    """Write an executed notebook with what is known of its run."""
    notebook.metadata.book = about | {
        "chapter": chapter.name,
        "kind": chapter.front.get("kind", "page"),
        "reads": chapter.reads,
    }
    files.write_atomically(output, lambda path: nbformat.write(notebook, path))
    text = seal(output, about["key"], chapter.digest, about["read"])
    files.write_atomically(seal_of(output), lambda path: path.write_text(text))


def seal_of(executed: Path) -> Path:
    """The file beside an executed notebook that says what it was made from, and its digest."""
    return executed.with_suffix(".seal")


def seal(executed: Path, key: str, text: str, read: Mapping[str, str]) -> str:
    """What the seal of an executed notebook says that was made from what `key` stands for.

    `text`: the digest of the chapter's text that it shows; `read`: the files of data/ that it read,
    each with its state then.
    """
    lines = [f"made from {key}", f"text {text}", f"sha256 {digests.of_file(executed)}"]
    lines += [f"read {state}  {name}" for name, state in sorted(read.items())]
    lines.append(f"seal {digests.of_value(lines)}")  # of the text, nothing else would show damage
    return "\n".join(lines) + "\n"


def text_of(seal: str) -> str:
    """The digest of the text that a seal says is shown; empty if it does not say."""
    found = re.search(r"^text (\w+)$", seal, re.MULTILINE)
    return found.group(1) if found else ""


def read_of(seal: str) -> dict[str, str]:
    """The files that a seal says were read, and their states. Raises ValueError."""
    lines = [line.removeprefix("read ") for line in seal.splitlines() if line.startswith("read ")]
    pairs = (line.split("  ", 1) for line in lines)
    return {name: state for state, name in pairs}


def _execute(
    chapter: Chapter, parameters: dict[str, Any]
) -> tuple[NotebookNode, dict[str, str], int]:
    """The chapter's notebook with outputs, run in a kernel of its own from the project's root.

    And the files of data/ that it has read, or that the generators which it reads had read, and the
    most memory that the kernel had, in bytes.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    environment = {scale.GIVEN: ",".join(parameters), "PYTHONWARNINGS": "ignore::UserWarning"}
    if sys.stderr.isatty():
        environment[progress.TERMINAL] = os.ttyname(sys.stderr.fileno())
    os.environ.update(environment)
    notebook = copy.deepcopy(chapter.notebook)
    notebook.cells.append(nbformat.v4.new_code_cell(READ))
    try:
        with TemporaryDirectory(prefix="book-") as sockets:
            os.environ |= {"JUPYTER_RUNTIME_DIR": sockets, "IPYTHONDIR": sockets}  # nobody's own
            executed = papermill.execute_notebook(
                notebook,
                None,
                parameters=parameters,
                cwd=str(paths.ROOT),
                kernel_name="python3",
                progress_bar={"disable": not sys.stderr.isatty()},
                config=_kernel_config(sockets),
                extra_arguments=["--log-level=CRITICAL"],
                log_output=False,
            )
    except PapermillExecutionError as error:
        raise ChapterFailed(_explain(chapter, error)) from None
    except DeadKernelError:
        why = "its kernel died; most often the memory was full: try a smaller BOOK_SCALE"
        raise ChapterFailed(f"{chapter.source.name}: {why}, or fewer --jobs") from None
    found = executed.cells.pop().outputs[-1].data[READ_MIME]
    read = found["files"]
    for name in chapter.reads if ALL not in chapter.reads else ():
        with suppress(OSError):  # a generator that a single run does without
            read = read_of(seal_of(executed_path(name)).read_text()) | read
    return executed, read, found["memory"]


def memory_of(executed: Path) -> int:
    """The most memory that the kernel of an executed notebook had, in bytes; 0 without a kernel."""
    return json.loads(executed.read_text(encoding="utf-8"))["metadata"]["book"]["memory"]


def _kernel_config(folder: str) -> Config:
    """Warm kernels, spoken to through sockets in `folder`: no ports that could collide.

    A socket's path may have a hundred bytes; in a longer folder ports must do.
    """
    from book import warm_kernels

    settings: dict[str, Any] = {}
    if os.name == "posix" and len(os.fsencode(folder)) < 90:
        settings["KernelManager"] = {"transport": "ipc", "ip": f"{folder}/kernel"}
    if warm_kernels.forks:
        settings["NotebookClient"] = {"kernel_manager_class": warm_kernels.Manager}
    return Config(settings)


def _explain(chapter: Chapter, error: Any) -> str:
    """The failing cell and the end of its traceback, in a few lines."""
    if error.ename in OWN_ERRORS:
        return f"{chapter.source.name}: {error.evalue}"
    if error.ename == "ModuleNotFoundError":
        return f"{chapter.source.name}: {error.evalue}: run `make setup`"
    plain = ANSI.sub("", "\n".join(str(line) for line in error.traceback[-1:])).splitlines()
    source = "\n".join("    " + line for line in str(error.source).splitlines()[-6:])
    end = "\n".join(plain[-4:])
    return f"{chapter.source.name} failed in cell {error.exec_count}:\n{source}\n{end}"


def export(source: Path, output: Path) -> Path:
    """Write the chapter as a plain notebook that papermill and Jupyter run unchanged."""
    chapter = open_chapter(source)
    files.write_atomically(Path(output), lambda path: nbformat.write(chapter.notebook, path))
    return Path(output)
