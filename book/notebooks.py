"""Executed notebooks for Quarto's engine (`_extensions/book`): one question a line, one answer.

A question is {"file": path, "parameters": {name: value}}; the answer {"notebook": ...}, current and
as Quarto's own would be, or {"error": a line for the reader}.
"""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import nbformat

from book import reader, runner, schedule, warm_kernels

INJECTED = "injected-parameters"  # papermill's tag on the cell of given parameters


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer until `questions` ends; whatever chapters and the runner say goes to stderr."""
    warm_kernels.prepare()
    for line in questions:
        with redirect_stdout(sys.stderr):
            answer = _answer(json.loads(line))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"notebook": notebook(Path(question["file"]), question["parameters"])}
    except (ValueError, RuntimeError, OSError) as error:
        return {"error": f"ERROR: {error}"}


def notebook(file: Path, parameters: dict[str, Any]) -> str:
    """The executed notebook of a chapter as JSON, cells' options where Quarto looks for them."""
    chapter = runner.open_chapter(file)
    if parameters:
        executed = runner.run(file, runner.check_parameters(parameters, chapter))
    else:
        executed = schedule.bring_up_to_date(chapter)
    found = nbformat.read(executed, as_version=4)
    front, body, first = reader.split_front_matter(chapter.text, file)
    blocks = iter([b for b in reader.split_blocks(body, file, first) if b.kind == "code"])
    for cell in found.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            cell.source += "\n\n"  # Quarto joins cells as they are
        elif INJECTED not in tags:
            cell.source = next(blocks).source
        cell.metadata = {"tags": tags}
    found.metadata.kernelspec = chapter.notebook.metadata.kernelspec
    head = "".join(chapter.text.splitlines(keepends=True)[: first - 1]) if front else ""
    if head:
        found.cells.insert(0, nbformat.v4.new_raw_cell(head.strip() + "\n\n"))
    return nbformat.writes(found)
