"""What Quarto's engine is answered: notebooks, current ones at once; refusals in a line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book import notebooks, runner
from lib import figure_data, paths
from tests import small_project
from tests.small_project import executed

MAKE = "chapters/one/01-make.qmd"


def given(parameters: dict) -> list[str]:
    """Parameters as Quarto takes them on its command line."""
    return [word for name, value in parameters.items() for word in ("-P", f"{name}:{value}")]


def question(project: Path, file: str, words: list[str], parameters: dict) -> dict:
    """What the engine asks for a page of the project, where the command was `quarto WORDS`."""
    path, folder = str(project / file), str(project)
    return {"file": path, "parameters": parameters, "words": words, "folder": folder}


def answers(project: Path, *questions: tuple[str, dict], whole: bool = False) -> list[dict]:
    """What `python -m lib notebooks` in the project answers, in order."""
    lines = []
    for file, parameters in questions:
        words = ["render"] if whole else ["render", file, *given(parameters)]
        lines.append(json.dumps(question(project, file, words, parameters)) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "lib", "notebooks"],
        cwd=project,
        env=os.environ | {"BOOK_SCALE": "book", "BOOK_JOBS": "2"},
        input="".join(lines),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> tuple[Path, list[dict]]:
    """A small project, and its answers to one question of each kind."""
    project = small_project.write(tmp_path_factory.mktemp("asked"))
    (project / "b.started").touch()  # 02-a waits for its sister
    found = answers(
        project,
        ("chapters/one/02-a.qmd", {}),  # with what it reads
        (MAKE, {"steps": 7}),
        (MAKE, {"stepz": 7}),
        (MAKE, {"steps": "many"}),
        ("index.qmd", {}),
        ("chapters/one/09-none.qmd", {}),
    )
    return project, found


def notebook(answer: dict) -> nbformat.NotebookNode:
    """The notebook of an answer."""
    return nbformat.reads(answer["notebook"], as_version=4)


def test_a_page_comes_executed_with_what_it_reads(asked):
    project, found = asked
    cells = notebook(found[0]).cells
    assert cells[0].cell_type == "raw" and cells[0].source.startswith("---\n")
    shown = [out.text for cell in cells for out in cell.get("outputs", []) if "text" in out]
    assert "50 steps\n" in shown
    assert executed(project, "one/01-make").exists() and executed(project, "one/02-a").exists()
    source = (project / "chapters/one/02-a.qmd").read_text()
    for cell in cells:
        if cell.cell_type == "code":
            assert cell.source in source  # its options are where Quarto looks for them
        elif cell.cell_type == "markdown":
            assert "`{python}" not in cell.source and cell.source.endswith("\n\n")


def test_parameters_are_checked_and_leave_the_books_page_alone(asked):
    project, found = asked
    tags = [cell.metadata.tags for cell in notebook(found[1]).cells if cell.cell_type == "code"]
    assert ["injected-parameters"] in tags
    ran = nbformat.read(executed(project, "one/01-make"), as_version=4)
    assert ran.metadata.book.parameters == {}
    assert "has no parameter 'stepz'; it has: steps (int, 50)" in found[2]["error"]
    assert "steps must be an integer from 1 to 5,000, not 'many'" in found[3]["error"]


TRAIN = "chapters/dynamics/01-train.qmd"
STEPS = {"steps": 50}


@pytest.mark.parametrize(
    ("file", "command", "parameters", "is_whole"),
    [
        (TRAIN, "render", {}, True),
        (TRAIN, "render . --to html --profile publish", {}, True),
        (TRAIN, f"render {TRAIN} -P steps:50", STEPS, False),
        (TRAIN, f"render -P steps:50 --to html {TRAIN}", STEPS, False),
        (TRAIN, f"render {TRAIN} --log-level error --execute-param steps=50", STEPS, False),
        ("index.qmd", f"render {TRAIN} -P steps:50", {}, True),  # for the PDF, side by side
        (TRAIN, "render chapters/dynamics", {}, False),
        (TRAIN, "preview", {}, False),
        ("index.qmd", f"preview {TRAIN} --port 4567 -P steps:50", {}, False),
        (TRAIN, f"preview {TRAIN} --port 4567 -P steps:50", STEPS, False),
    ],
)
def test_what_quarto_was_told_is_meant_for_the_named_page(file, command, parameters, is_whole):
    asked = question(paths.ROOT, file, command.split(" "), STEPS if "50" in command else {})
    assert notebooks.meant(asked) == (parameters, is_whole)


@pytest.mark.parametrize("word", ["steps:", "steps", "steps=", "english:"])
def test_a_parameter_without_a_value_is_refused(word):  # Quarto leaves it out
    asked = question(paths.ROOT, TRAIN, ["render", TRAIN, "-P", word], {})
    with pytest.raises(runner.ParameterError, match=r"^(steps|english) must be a"):
        notebooks.meant(asked)
    with pytest.raises(runner.ParameterError, match="no parameter 'stepz'; it has: vocab"):
        notebooks.meant(asked | {"words": ["render", TRAIN, "-P", "stepz:"]})


def test_a_page_without_code_and_a_file_that_is_not_there(asked):
    _, found = asked
    assert notebook(found[4]).cells[-1].source.strip().endswith("No code.")
    assert "09-none.qmd" in found[5]["error"] and "\n" not in found[5]["error"]


def test_new_prose_needs_no_execution(asked):
    project, _ = asked
    chapter, ran = project / MAKE, executed(project, "one/01-make")
    before = nbformat.read(ran, as_version=4)
    chapter.write_text(chapter.read_text().replace("It took", "In all it took"))
    [answer] = answers(project, (MAKE, {}))
    after = nbformat.read(ran, as_version=4)
    assert any("In all it took 50 steps" in cell.source for cell in notebook(answer).cells)
    kept = [[c.get("execution_count"), c.get("outputs")] for c in after.cells]
    assert kept == [[c.get("execution_count"), c.get("outputs")] for c in before.cells]
    assert after.metadata.book.key == before.metadata.book.key


def test_of_a_whole_book_chapters_run_side_by_side_while_a_page_is_asked_for(tmp_path):
    project = small_project.write(tmp_path)
    [page] = answers(project, ("chapters/one/02-a.qmd", {}), whole=True)
    assert notebook(page).cells and (project / "b.started").exists()  # it waited for its sister


def test_a_page_edited_while_the_whole_book_is_rendered_is_the_same_in_both_formats(tmp_path):
    project = small_project.write(tmp_path)
    (project / "b.started").touch()
    page = project / MAKE
    with subprocess.Popen(
        [sys.executable, "-m", "lib", "notebooks"],
        cwd=project,
        env=os.environ | {"BOOK_SCALE": "book", "BOOK_JOBS": "2"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as asked:

        def answer(file: str) -> str:
            line = json.dumps(question(project, file, ["render"], {}))
            asked.stdin.write(f"{line}\n")
            asked.stdin.flush()
            return asked.stdout.readline()

        html = answer(MAKE)
        page.write_text(page.read_text().replace("It took", "In all it took"))
        typst = answer(MAKE)
        answer("index.qmd")
        later = answer(MAKE)
        asked.stdin.close()
    assert "It took 50 steps" in html and typst == html
    assert "In all it took 50 steps" in later


def test_a_chapter_that_fails_in_a_whole_book_says_so_on_its_page(tmp_path):
    project = small_project.write(tmp_path)
    chapter = project / MAKE
    chapter.write_text(chapter.read_text().replace("print(steps", "print(stepz"))
    asked = [("index.qmd", {}), (MAKE, {}), ("chapters/one/02-a.qmd", {})]
    first, *failed = answers(project, *asked, whole=True)
    assert notebook(first).cells[-1].source.strip().endswith("No code.")
    assert all("name 'stepz' is not defined" in answer["error"] for answer in failed)


def test_a_page_that_lists_the_books_figures_waits_for_all_chapters(tmp_path):
    project = small_project.write(tmp_path)
    page = project / "index.qmd"
    page.write_text(f'{page.read_text()}\n\n::: {{.book-list of="tokens"}}\n:::\n')
    [answer] = answers(project, ("index.qmd", {}), whole=True)
    assert "notebook" in answer, answer
    assert executed(project, "one/02-a").exists() and executed(project, "one/03-b").exists()


def test_a_plotly_figure_is_drawn_by_a_script_among_the_files_of_its_page(tmp_path):
    figure = {"data": [{"type": "scatter", "y": [1, 2], "name": "</script>"}], "layout": {}}
    output = nbformat.v4.new_output("display_data", {figure_data.PLOTLY: figure})
    cell = nbformat.v4.new_code_cell("draw()", outputs=[output])
    options = {"label": "fig-turn", "fig-alt": 'Two "points".'}
    notebooks._turn(cell, options, tmp_path / "01-a.qmd")
    shown = cell.outputs[0].data["text/html"]
    assert figure_data.PLOTLY not in cell.outputs[0].data
    assert 'src="01-a_files/plotly.min.js"' in shown and "//" not in shown.replace("*/", "")
    assert (tmp_path / "01-a_files" / "plotly.min.js").stat().st_size > 1_000_000
    assert 'aria-label="Two &quot;points&quot;."' in shown
    assert shown.count("<script") == shown.count("</script>")


def test_the_engine_is_committed_where_quarto_looks():
    folder = paths.ROOT / "_extensions" / "book"
    engine = (folder / "engine.js").read_text()
    assert "engines:\n    - path: engine.js" in (folder / "_extension.yml").read_text()
    assert '"-m", "lib", "notebooks"' in engine and len(engine.splitlines()) < 150
