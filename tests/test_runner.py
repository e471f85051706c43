"""Running chapters: strict parameters, scales, failures, order, and what is reused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lib import digests, paths, scale
from lib.__main__ import main
from book import runner, schedule, sources
from book.reader import ChapterError
from book.runner import ChapterFailed, ParameterError

MAKE = """\
---
kind: generator
reads: []
---

# Make {#sec-make}

```{python}
#| tags: [parameters]
steps = 50  # how many
lr = 0.5
rate = 0.5
name = "a"
quick = False
sizes = [1, 2]
```

```{python}
from lib import scale
scale.apply("one/01-make", globals())
steps_str = f"{steps:,} steps"
from pathlib import Path
Path("made.txt").write_text(steps_str)
```

It took `{python} steps_str`, `{python} steps`.

```{python}
print(steps, lr, rate, name)
```
"""

# each of the two waits for the other: they only end if they run side by side
LOOK = """\
---
kind: analyser
reads: [one/01-make]
---

# Look {{#sec-look-{me}}}

```{{python}}
import time
from pathlib import Path
{extra}
made = Path("made.txt").read_text()
Path("{me}.started").touch()
end = time.monotonic() + 60
while not Path("{other}.started").exists():
    assert time.monotonic() < end, "the other never started"
    time.sleep(0.02)
print(made)
```
"""

CONFIG = """\
project: {type: book}
book:
  title: Small
  chapters: [index.qmd, {part: One, chapters: [chapters/one/03-b.qmd, chapters/one/02-a.qmd,
    chapters/one/01-make.qmd]}]
bibliography: references.bib
"""


def write_chapter(root: Path, name: str, text: str) -> Path:
    """The chapter `name` of the project at `root`."""
    file = root / "chapters" / f"{name}.qmd"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def cell(code: str) -> str:
    """A chapter with one cell."""
    return f"---\nkind: generator\nreads: []\n---\n\n# A {{#sec-a}}\n\n```{{python}}\n{code}\n```\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A small project with this book's `lib`, three chapters and a page without code."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(paths.LIB, root / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "_quarto.yml").write_text(CONFIG)
    (root / "index.qmd").write_text("# Small\n\nNo code.\n")
    (root / "lib" / "law.py").write_text('"""A law."""\n\nRATE = 1\n')
    write_chapter(root, "one/01-make", MAKE)
    write_chapter(root, "one/02-a", LOOK.format(me="a", other="b", extra="from lib import law"))
    write_chapter(root, "one/03-b", LOOK.format(me="b", other="a", extra=""))
    scales = root / "data" / "scales"
    scales.mkdir(parents=True)
    (scales / "smoke.yml").write_text("one/01-make: {steps: 5, lr: 0.1, rate: 0.25}\n")
    (scales / "full.yml").write_text("")
    return root


def lib(project: Path, *words: str, scale: str = "book") -> subprocess.CompletedProcess:
    """`python -m lib ...` in the project."""
    environment = os.environ | {"BOOK_SCALE": scale}
    command = [sys.executable, "-m", "lib", *words]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def printed(file: Path) -> str:
    """All that an executed notebook printed."""
    cells = nbformat.read(file, as_version=4).cells
    outputs = [out for c in cells if c.cell_type == "code" for out in c.outputs]
    return "".join(out.text for out in outputs if out.output_type == "stream")


def executed(project: Path, name: str, scale: str = "book") -> Path:
    """Where the executed chapter lies."""
    return project / "data" / "artifacts" / "executed" / scale / f"{name}.ipynb"


@pytest.fixture
def chapter(tmp_path) -> runner.Chapter:
    """The generator, opened."""
    return runner.open_chapter(write_chapter(tmp_path, "one/01-make", MAKE))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder whose chapters this process may run."""
    monkeypatch.setattr(paths, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setattr(paths, "EXECUTED", tmp_path / "executed")
    monkeypatch.setenv("BOOK_SCALE", "book")
    monkeypatch.setenv(scale.GIVEN, "")
    monkeypatch.setenv("PYTHONWARNINGS", "")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", "")
    return tmp_path


def test_a_chapter_opens_by_its_name_and_by_its_file(here):
    file = write_chapter(here, "one/01-make", MAKE)
    assert runner.open_chapter("one/01-make") == runner.open_chapter(file)
    with pytest.raises(ChapterError, match="one/02-not-there"):
        runner.open_chapter("one/02-not-there")


# ------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("steps=7", 7),
        ("steps=-7", -7),
        ("lr=0.25", 0.25),
        ("lr=3e-4", 3e-4),
        ("lr=1e-3", 1e-3),
        ("lr=3", 3.0),
        ("name=b", "b"),
        ("name=b=c", "b=c"),
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
    *("steps", "lr=fast", "lr=true", "lr=.nan", "lr=-.inf", "lr=nan", "quick=1", "name=7"),
    *("name=[", "sizes=3"),
)


@pytest.mark.parametrize("word", REFUSED)
def test_other_names_and_types_are_refused_with_what_is_valid(word, chapter):
    with pytest.raises(ParameterError) as error:
        runner.parse_parameters([word], chapter)
    if "=" in word and "[" not in word and "." not in word:
        for valid in ("steps (int, 50)", "lr (float, 0.5)", "name (str, 'a')"):
            assert valid in str(error.value)


def test_the_command_line_says_it_in_one_line(chapter, capsys):
    assert main(["run", str(chapter.source), "-p", "stepz=7"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: 01-make has no parameter 'stepz'; it has: steps (int, 50)")


def test_explicit_parameters_win_over_the_scale_and_papermill_agrees(project):
    words = ["-p", "steps=7", "-p", "lr=0.5"]  # lr: its own literal, given explicitly
    answer = lib(project, "run", "chapters/one/01-make.qmd", *words, scale="smoke")
    assert answer.returncode == 0, answer.stderr
    ran = executed(project, "one/01-make", "smoke")
    assert printed(ran) == "7 0.5 0.25 a\n"
    text = [c.source for c in nbformat.read(ran, as_version=4).cells if c.cell_type == "markdown"]
    assert text[-1] == "It took 7 steps, 7."
    assert [p.name for p in ran.parent.iterdir()] == ["01-make.ipynb"]

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


# -------------------------------------------------------------------- failures


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


# -------------------------------------------------------------- order and reuse


def test_all_chapters_run_in_order_side_by_side_and_once(project):
    assert lib(project, "run", "--jobs", "2").returncode == 0
    answers = {name: executed(project, f"one/{name}") for name in ("01-make", "02-a", "03-b")}
    assert printed(answers["02-a"]) == printed(answers["03-b"]) == "50 steps\n"  # made before
    assert executed(project, "index").exists()
    stamps = {name: file.stat().st_mtime_ns for name, file in answers.items()}

    again = lib(project, "run", "--jobs", "2")
    assert again.returncode == 0 and again.stdout == ""
    assert stamps == {name: file.stat().st_mtime_ns for name, file in answers.items()}

    law = project / "lib" / "law.py"
    law.write_text(law.read_text().replace("1", "2"))  # only 02-a imports it
    changed = lib(project, "run", "--jobs", "2")
    assert changed.returncode == 0, changed.stderr
    assert changed.stdout.split(":")[0].strip() == "one/02-a" and changed.stdout.count("\n") == 1


def catalogue(root: Path, **reads: str) -> dict[str, runner.Chapter]:
    """Chapters by name, each reading the ones named in words."""
    for name, words in reads.items():
        front = f"kind: generator\nreads: [{', '.join(words.split())}]"
        write_chapter(root, name, f"---\n{front}\n---\n\n# {name} {{#sec-{name}}}\n")
    return schedule.read_all([root / "chapters" / f"{name}.qmd" for name in reads])


def test_a_chapters_key_follows_what_it_reads(here):
    before = catalogue(here, a="", b="a", c="b", d="")
    keys = {name: schedule.key(chapter, {}, before) for name, chapter in before.items()}
    text = here / "chapters" / "a.qmd"
    text.write_text(text.read_text() + "More.\n")
    after = schedule.read_all([chapter.source for chapter in before.values()])
    changed = {n for n, c in after.items() if schedule.key(c, {}, after) != keys[n]}
    assert changed == {"a", "b", "c"}


def test_a_chapters_key_follows_parameters_scale_and_data(here, monkeypatch):
    chapter = catalogue(here, a="")["a"]
    keys = [schedule.key(chapter, {}, {}), schedule.key(chapter, {"steps": 1}, {})]
    monkeypatch.setattr(scale, "overrides", lambda *_: {"steps": 5})
    keys.append(schedule.key(chapter, {}, {}))
    monkeypatch.setattr(sources, "data_digest", lambda: "other data")
    keys.append(schedule.key(chapter, {}, {}))
    assert len(set(keys)) == 4


def test_reads_of_no_chapter_and_circles_are_refused(here):
    with pytest.raises(ChapterError, match="reads gone, which is no chapter"):
        schedule.run_all([c.source for c in catalogue(here, a="gone").values()])
    with pytest.raises(ChapterError, match="a reads b reads a"):
        schedule.run_all([c.source for c in catalogue(here, a="b", b="a").values()])
    chapters = catalogue(here, a="")
    file = chapters["a"].source
    file.write_text(file.read_text().replace("reads: []", "reads: a"))
    with pytest.raises(ChapterError, match="must be a list"):
        schedule.run_all([file])


def test_a_chapter_that_reads_all_waits_for_all(here):
    chapters = catalogue(here, z="all", a="", b="a")
    waiting = dict(chapters)
    assert not schedule._ready(waiting.pop("z"), waiting, {}, {})
    assert not schedule._ready(chapters["z"], {}, {"future": "b"}, {})
    assert schedule._ready(chapters["z"], {}, {}, {})
    assert not schedule._ready(chapters["b"], {}, {}, {"a": "failed"})


def test_what_is_not_a_notebook_is_not_current(here):
    chapter = catalogue(here, a="")["a"]
    runner.run(chapter.source, digest="key")
    assert schedule.is_current(chapter.executed, "key")
    assert not schedule.is_current(chapter.executed, "other key")
    whole = chapter.executed.read_text()
    for broken in ("", whole[: len(whole) // 2], "{}", "[]", '{"nbformat": 4}'):
        chapter.executed.write_text(broken)
        assert not schedule.is_current(chapter.executed, "key")
    chapter.executed.unlink()
    assert not schedule.is_current(chapter.executed, "key")


def test_a_failure_stops_its_readers_only(here, monkeypatch):
    chapters = catalogue(here, a="", b="a", c="")
    file = chapters["a"].source
    file.write_text(file.read_text() + "\n`{python} gone`\n")  # fails: no kernel may be needed
    monkeypatch.setattr(schedule, "_run_one", fails_without_kernel)
    monkeypatch.setattr(schedule, "ProcessPoolExecutor", Here)
    with pytest.raises(ChapterFailed) as error:
        schedule.run_all([c.source for c in chapters.values()])
    assert "a.qmd failed" in str(error.value) and "b: not run, because of a" in str(error.value)
    assert (here / "executed" / "book" / "c.ipynb").exists()


def fails_without_kernel(source: Path, wanted: str) -> tuple[float, str]:
    """As schedule._run_one, but chapter a fails."""
    if source.stem == "a":
        return 0.0, "a.qmd failed"
    runner.run(source, digest=wanted)
    return 0.0, ""


class Here(schedule.ProcessPoolExecutor):
    """A pool of threads in this process, so that what a test replaced stays replaced."""

    def __new__(cls, jobs, **_):
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(jobs)


# -------------------------------------------------------------------- closures


def test_the_closure_of_a_chapter_is_every_file_it_reaches():
    found = {str(f.relative_to(paths.ROOT)) for f in digests.of_code("from lib import artifacts")}
    assert {"lib/__init__.py", "lib/artifacts.py", "lib/digests.py", "lib/paths.py"} <= found
    assert not any(name.startswith("lib/survey") for name in found)
    for code in (
        "import book.reader",
        "from book import reader",
        "from book.reader import read",
    ):
        assert paths.LIB / "book" / "reader.py" in digests.of_code(code)
    assert digests.of_code("import numpy as np") == []
