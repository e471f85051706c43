"""Executed notebooks for Quarto's engine (`_extensions/book`): one question a line, one answer.

A question is {"file": path, "parameters": {name: value}, "words": those after `quarto` in the
command, "folder": where it was given}; the answer {"notebook": ...}, current and as Quarto's own
would be, or {"error": a line for the reader}. Of a whole book chapters are executed side by side
from the first question on, while Quarto renders those that are done.
"""

import html
import json
import os
import re
import sys
from concurrent.futures import Future, wait
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

import nbformat
from nbformat import NotebookNode

from book import config, lists, reader, runner, schedule
from lib import figure_data, files, paths

INJECTED = "injected-parameters"  # papermill's tag on the cell of given parameters
PARAMETERS = "parameters"
GIVEN = {"-P", "--execute-param"}  # Quarto's options for a parameter
VALUED = GIVEN | {"--profile", "--to", "--output-dir"}  # its options that a value follows
JOBS = "BOOK_JOBS"  # how many chapters at a time, from `python -m lib book --jobs`


Whole = dict[str, Future[runner.Chapter]]  # of a book that is being executed, by name


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer until `questions` ends; whatever chapters and the runner say goes to stderr.

    Chapters that are still being executed then end with this process.
    """
    from book import warm_kernels  # slow to import

    warm_kernels.prepare()
    whole: Whole = {}
    latest = answer = ""
    with redirect_stdout(sys.stderr), suppress(BrokenPipeError, KeyboardInterrupt):
        for line in questions:
            if line != latest or not whole:  # of a whole book each page is asked for twice in a row
                latest, answer = line, json.dumps(_answer(json.loads(line), whole)) + "\n"
            answers.write(answer)
            answers.flush()
    if not all(future.done() for future in whole.values()):
        os._exit(0)  # nobody waits for them: Quarto has ended


def _answer(question: dict[str, Any], whole: Whole) -> dict[str, Any]:
    try:
        file = Path(question["file"])
        parameters, is_whole = meant(question)
        if is_whole and not whole:
            pages = [paths.ROOT / page.source for page in config.load().pages]
            whole |= schedule.start(pages, int(os.environ.get(JOBS, 0)) or None)
        return {"notebook": notebook(file, parameters, whole)}
    except runner.ChapterFailed as error:
        wait(whole.values())  # what does not depend on it is executed, and kept
        return {"error": f"ERROR: {error}"}
    except (ValueError, RuntimeError, OSError) as error:
        return {"error": f"ERROR: {error}"}


def meant(question: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The parameters of the page that is asked for, and whether all pages are rendered.

    All are if the command names none, or names another one: a book's PDF holds every page. Only the
    page that is named gets the parameters, a value that Quarto leaves out because it is empty
    included. Raises ParameterError.
    """
    command, *words = question["words"]
    file, folder = Path(question["file"]).resolve(), Path(question["folder"])
    values = {at for at, word in enumerate(words, 1) if word in VALUED}
    named = []
    for at, word in enumerate(words):
        follows_option = at and words[at - 1].startswith("-")
        if word.startswith("-") or at in values:
            continue
        if (folder / word).exists() or not follows_option:
            named.append((folder / word).resolve())
    pages = [path for path in named if path.suffix == ".qmd"]
    is_named = not pages or file in pages
    all_rendered = all(path == paths.ROOT for path in named) or not is_named
    if not is_named:
        return {}, command == "render" and all_rendered
    parameters = dict(question["parameters"])
    given = [words[at] for at in values if words[at - 1] in GIVEN and at < len(words)]
    names = [re.split("[:=]", word, maxsplit=1)[0] for word in given]
    if left_out := [f"{name}=" for name in names if name not in parameters]:
        parameters |= runner.parse_parameters(left_out, runner.open_chapter(file))
    return parameters, command == "render" and all_rendered


def notebook(file: Path, parameters: dict[str, Any], whole: Whole) -> str:
    """The executed notebook of a chapter as JSON, cells' options where Quarto looks for them.

    Of a book that is being executed as a `whole` it waits for the chapter, or, where a page lists
    what is in the book, for all. The data of its figures are left where Quarto takes a page's files
    from.
    """
    chapter = runner.open_chapter(file)
    if parameters:
        executed = runner.run(file, parameters)
    else:
        is_current = whole and _awaited(chapter, whole).text == chapter.text
        executed = chapter.executed if is_current else schedule.bring_up_to_date(chapter)
    found = nbformat.read(executed, as_version=4)
    front, body, first = reader.split_front_matter(chapter.text, file)
    blocks = iter([b for b in reader.split_blocks(body, file, first) if b.kind == "code"])
    pages = [(page, runner.executed_path(page.name)) for page in config.load().pages]
    cells = []
    for cell in found.cells:
        tags, options = cell.metadata.get("tags", []), cell.metadata.get("quarto", {})
        cells.append(cell)
        if cell.cell_type == "markdown":
            source = os.path.relpath(file, paths.ROOT)
            cell.source = lists.filled(cell.source, source, pages) + "\n\n"  # joined as they are
        elif INJECTED not in tags:
            cell.source = next(blocks).source
            if PARAMETERS in tags:  # not folded: the PDF leaves folded code out
                cell.source = f"#| code-fold: false\n{cell.source}"
            cells += _data(cell, str(options.get("label") or ""), file)
            if any(figure_data.PLOTLY in out.get("data", {}) for out in cell.get("outputs", [])):
                _turn(cell, options, file)
        cell.metadata = {"tags": tags}
    found.cells = cells
    found.metadata.kernelspec = chapter.notebook.metadata.kernelspec
    head = "".join(chapter.text.splitlines(keepends=True)[: first - 1]) if front else ""
    if head:
        found.cells.insert(0, nbformat.v4.new_raw_cell(head.strip() + "\n\n"))
    return nbformat.writes(found)


def _awaited(chapter: runner.Chapter, whole: Whole) -> runner.Chapter:
    """The chapter as it was executed, when all is done that its page needs."""
    everything = lists.WANTED.search(chapter.text) or runner.ALL in chapter.reads
    needed = whole if everything else schedule.with_what_it_reads(chapter)
    others = needed.keys() & whole.keys() - {chapter.name}
    for name in others:  # first, so that a failure of theirs is what is said
        whole[name].result()
    return whole[chapter.name].result()


def _data(cell: NotebookNode, label: str, file: Path) -> list[NotebookNode]:
    """Write the data of a cell's figures into the files of its page; what links to them."""
    folder = file.with_name(f"{file.stem}_files")
    tables = figure_data.files_of(label, cell.outputs) if label.startswith("fig-") else {}
    for name, table in tables.items():
        files.write_atomically(folder / name, lambda path, table=table: path.write_bytes(table))
    for output in cell.outputs:
        output.get("data", {}).pop(figure_data.MIME, None)
    links = figure_data.links(tables, folder.name)
    text = f"::: {{.figure-data}}\n{links}\n:::\n\n"
    return [nbformat.v4.new_markdown_cell(text, metadata={"tags": []})] if links else []


def _turn(cell: NotebookNode, options: dict[str, Any], file: Path) -> None:
    """Let the page show the cell's plotly figures, by a script that lies among its files."""
    from plotly import io, offline  # slow to import

    script, source = f"{file.stem}_files/plotly.min.js", offline.get_plotlyjs()
    files.write_atomically(file.parent / script, lambda path: path.write_text(source))
    for output in cell.get("outputs", []):
        if figure := output.get("data", {}).pop(figure_data.PLOTLY, None):
            shown = io.to_html(
                {"data": figure["data"], "layout": figure["layout"]},
                {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud"]},
                include_plotlyjs=script,
                full_html=False,
                default_height="min(36rem, 95vw)",
                validate=False,
                div_id=f"{options.get('label')}-canvas",
            )
            alt = html.escape(str(options.get("fig-alt") or ""))
            output.data["text/html"] = f'<div role="group" aria-label="{alt}">{shown}</div>'
