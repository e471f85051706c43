"""Running one chapter: strict parameters, scales, failures, values in the text."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from book import runner
from book.reader import ChapterError
from book.runner import ChapterFailed, ParameterError
from lib import scale
from lib.__main__ import main
from tests.small_project import MAKE, cell, executed, lib, printed, write_chapter


@pytest.fixture
def chapter(tmp_path) -> runner.Chapter:
    """The generator, opened."""
    return runner.open_chapter(write_chapter(tmp_path, "one/01-make", MAKE))


def test_a_chapter_opens_by_its_name_and_by_its_file(here):
    file = write_chapter(here, "one/01-make", MAKE)
    assert runner.open_chapter("one/01-make") == runner.open_chapter(file)
    with pytest.raises(ChapterError, match="one/02-not-there"):
        runner.open_chapter("one/02-not-there")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("steps=7", 7),
        ("steps=+7", 7),
        ("lr=0.25", 0.25),
        ("lr=3e-4", 3e-4),
        ("lr=1e-3", 1e-3),
        ("lr=3", 3.0),
        ("name=b", "b"),
        ("name=b=c", "b=c"),
        ("name=7", "7"),
        ("name=no", "no"),
        ('name="7"', "7"),
        ("quick=true", True),
        ("sizes=[3]", [3]),
    ],
)
def test_a_parameter_takes_its_literals_type(word, value, chapter):
    name = word.partition("=")[0]
    given = runner.parse_parameters([word], chapter)
    assert given == {name: value} and type(given[name]) is type(value)


REFUSED = (
    *("stepz=7", "Steps=7", "steps=7.5", "steps=many", "steps=true", "steps=null", "steps="),
    *("steps", "lr=fast", "lr=true", "lr=.nan", "lr=-.inf", "lr=nan", "quick=1", "name="),
    *("steps=0", "steps=010", "steps=1:30", "lr=-1", "sizes=3", "sizes=[]"),
)


@pytest.mark.parametrize("word", REFUSED)
def test_other_names_and_values_are_refused_with_what_is_valid(word, chapter):
    with pytest.raises(ParameterError) as error:
        runner.parse_parameters([word], chapter)
    name = word.partition("=")[0]
    if name not in chapter.parameters():
        for valid in ("steps (int, 50)", "lr (float, 0.5)", "name (str, 'a')"):
            assert valid in str(error.value)
    elif "=" in word:
        assert f"{name} must be {chapter.parameters()[name].wanted}, not " in str(error.value)


def test_the_command_line_says_it_in_one_line(chapter, capsys):
    assert main(["run", str(chapter.source), "-p", "stepz=7"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: 01-make has no parameter 'stepz'; it has: steps (int, 50)")


def test_what_is_given_to_a_reader_reaches_the_generators_that_it_reads(here, monkeypatch):
    """A generator's parameter is checked by its type, and handed on beside the reader's own."""
    write_chapter(here, "one/01-make", MAKE)
    own = "```{python}\n#| tags: [parameters]\nbins = 5\nrate = 0.1\n```\n"
    front = "---\nkind: analyser\nreads: [one/01-make]\n---\n\n# R {#sec-r}\n\n"
    reader = runner.open_chapter(write_chapter(here, "one/02-read", front + own))
    given = runner.parse_parameters(["steps=7", "bins=6", "rate=0.2"], reader)
    assert given == {"steps": 7, "bins": 6, "rate": 0.2}
    with pytest.raises(ParameterError, match=r"it has: bins .*; of what it reads: steps, lr, name"):
        runner.check_parameters({"stepz": 1}, reader)
    with pytest.raises(ParameterError, match="steps must be an integer from 1 to"):
        runner.check_parameters({"steps": 1.5}, reader)
    seen = {}

    def execute(chapter, parameters):
        seen.update(own=parameters, upstream=json.loads(os.environ[scale.UPSTREAM]))
        return chapter.notebook, {}, 0

    monkeypatch.setattr(runner, "_execute", execute)
    monkeypatch.setenv(scale.UPSTREAM, "")
    ran = nbformat.read(runner.run(reader.source, given), as_version=4)
    assert seen == {"own": {"bins": 6, "rate": 0.2}, "upstream": {"one/01-make": {"steps": 7}}}
    assert ran.metadata.book.parameters == given
    runner.run(reader.source)
    assert json.loads(os.environ[scale.UPSTREAM]) == {}  # nothing is left of the run before


def test_explicit_parameters_win_over_the_scale_and_papermill_agrees(project):
    words = ["-p", "steps=7", "-p", "lr=0.5"]  # lr: its own literal, given explicitly
    answer = lib(project, "run", "chapters/one/01-make.qmd", *words, scale="smoke")
    assert answer.returncode == 0, answer.stderr
    ran = executed(project, "one/01-make", "smoke-changed")
    assert not executed(project, "one/01-make", "smoke").exists()  # no page of the book
    assert printed(ran) == "7 0.5 0.25 a\n"
    text = [c.source for c in nbformat.read(ran, as_version=4).cells if c.cell_type == "markdown"]
    assert text[-1].startswith("It took 7 steps, 7. Of 151,936 rows 0.123 are dead,\n12\u00a0%;")
    assert text[-1].endswith(
        "steps are many.[]{.holds} The rate is\none half. [does not hold here]{.fails}"
    )
    assert lib(project, "run", "chapters/one/01-make.qmd", scale="smoke").returncode == 0
    ran_check = lib(project, "check", "--ran", scale="smoke")
    assert ran_check.returncode == 1
    line, summary = ran_check.stdout.splitlines()
    at = (project / "chapters/one/01-make.qmd").read_text().split("\n").index
    place = at("one half.`{python} holds(rate == 0.5)`") + 1
    assert line.startswith(
        f"chapters/one/01-make.qmd:{place}: ran/holds: does not hold: The rate is one half.; "
    )
    assert summary == "1 finding"
    assert sorted(p.name for p in ran.parent.iterdir()) == ["01-make.ipynb", "01-make.seal"]

    answer = lib(project, "export", "chapters/one/01-make.qmd", "--output", "plain.ipynb")
    assert answer.returncode == 0, answer.stderr
    command = [sys.executable, "-m", "papermill", "plain.ipynb", "result.ipynb"]
    command += ["-p", "steps", "7", "-p", "rate", "0.125", "--no-progress-bar"]
    environment = os.environ | {"BOOK_SCALE": "smoke"}
    environment.pop(scale.GIVEN, None)
    papermill = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True
    )
    assert papermill.returncode == 0, papermill.stderr
    assert printed(project / "result.ipynb") == "7 0.1 0.125 a\n"


def test_a_failing_chapter_says_where_and_leaves_no_notebook(here):
    file = write_chapter(here, "one/01-bad", cell("x = 1\nraise ValueError('too small: mend it')"))
    with pytest.raises(ChapterFailed) as error:
        runner.run(file)
    said = str(error.value)
    assert said.startswith("01-bad.qmd failed in cell 1:")
    assert "raise ValueError" in said and said.endswith("ValueError: too small: mend it")
    assert "\x1b" not in said
    assert not list(here.rglob("*.ipynb"))


def test_what_a_chapter_cannot_show_is_said_in_one_sentence(here):
    code = "class SpecimenError(ValueError): ...\nraise SpecimenError('gpt2: has no cluster')"
    source = write_chapter(here, "part/03-other", cell(code))
    with pytest.raises(ChapterFailed) as raised:
        runner.run(source)
    assert str(raised.value) == "03-other.qmd: gpt2: has no cluster"


def test_a_killed_kernel_is_one_clear_error(here):
    file = write_chapter(here, "one/01-big", cell("import os\nos.kill(os.getpid(), 9)"))
    with pytest.raises(ChapterFailed, match="memory") as error:
        runner.run(file)
    assert str(error.value).startswith("01-big.qmd")
    assert not list(here.rglob("*.ipynb"))


def test_a_page_without_code_needs_no_kernel(here, monkeypatch):
    monkeypatch.setattr(runner, "_execute", None)
    file = write_chapter(here, "one/01-page", "# Only words {#sec-words}\n\nWords.\n")
    output = runner.run(file, digest="d")
    assert output == here / "executed" / "book" / "one" / "01-page.ipynb"
    assert nbformat.read(output, as_version=4).metadata.book.key == "d"


def test_export_refuses_a_broken_cell(here):
    file = write_chapter(here, "one/01-bad", cell("x = ("))
    with pytest.raises(ChapterError, match=r"01-bad\.qmd:9:"):
        runner.export(file, here / "out.ipynb")
    assert not (here / "out.ipynb").exists()
