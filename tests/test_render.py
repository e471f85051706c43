"""Which edition is rendered, and what happens before Quarto renders."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path

import pytest
import yaml

from book import config, render, runner, schedule
from lib import paths
from press import edition
from tests import small_project

FAKE = """\
#!/bin/sh
[ "$1" != --version ] || { echo VERSION; exit 0; }
echo "$@ with $QUARTO_PYTHON" >> CALLS
exit STATUS
"""


@pytest.fixture
def calls(tmp_path) -> Path:
    """Where the programs below write how they were called."""
    return tmp_path / "calls"


def program(folder: Path, name: str, text: str) -> Path:
    """An executable script of this name."""
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def quarto(tmp_path, calls, monkeypatch):
    """Puts a Quarto of the given version on PATH that ends with the given status."""
    monkeypatch.delenv("BOOK_EDITION", raising=False)

    def put(version: str, status: int = 0) -> Path:
        text = FAKE.replace("VERSION", version).replace("STATUS", str(status))
        path = program(tmp_path, "quarto", text.replace("CALLS", str(calls)))
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return path

    return put


@pytest.mark.parametrize("version", ["1.9.38", "1.10.18", "2.0.1", "1.11.0-dev"])
def test_a_quarto_that_is_new_enough_is_used(quarto, version):
    path = quarto(version)
    assert render.quarto() == str(path)


@pytest.mark.parametrize("version", ["1.8.27", "0.9.1", "", "not found"])
def test_an_older_or_broken_quarto_is_named_and_left(quarto, version, capsys):
    quarto(version)
    assert render.quarto() is None
    assert "1.9 or newer is needed" in capsys.readouterr().out


def test_the_press_can_be_asked_for(quarto, monkeypatch):
    quarto("1.9.38")
    monkeypatch.setenv("BOOK_EDITION", "press")
    assert render.quarto() is None


def test_quarto_renders_with_this_python(quarto, calls):
    quarto("1.9.38")
    assert render.book() == paths.BOOK / "index.html"
    assert calls.read_text() == f"render with {sys.executable}\n"


def test_a_failed_render_is_an_error(quarto):
    quarto("1.9.38", status=1)
    with pytest.raises(render.RenderError, match="messages stand above"):
        render.book()


def test_without_quarto_the_press_is_asked_and_may_be_gone(monkeypatch):
    monkeypatch.setenv("BOOK_EDITION", "press")
    monkeypatch.setitem(sys.modules, "press", None)  # as if the folder were deleted
    monkeypatch.delitem(sys.modules, "press.edition", raising=False)
    with pytest.raises(render.RenderError, match="no press here: put Quarto on the PATH"):
        render.book()


def test_the_press_gets_every_page_in_order(monkeypatch):
    asked = []
    monkeypatch.setenv("BOOK_EDITION", "press")
    monkeypatch.setattr(schedule, "run_all", lambda files, jobs: asked.append((files, jobs)))
    monkeypatch.setattr(edition, "press", lambda *given: asked.append(given))
    assert render.book(3) == paths.BOOK / "index.html"
    pages = config.load().pages
    assert asked[0] == ([paths.ROOT / page.source for page in pages], 3)
    notebooks, out, formats = asked[1]
    assert [page for page, _ in notebooks] == list(pages)
    assert all(path == runner.executed_path(page.name) for page, path in notebooks)
    assert (out, formats) == (paths.BOOK, ("html", "pdf"))


def ready(python: Path | str, **environment: str) -> subprocess.CompletedProcess:
    """The pre-render step that _quarto.yml names, as Quarto runs it."""
    step = yaml.safe_load((paths.ROOT / "_quarto.yml").read_text())["project"]["pre-render"]
    given = {k: v for k, v in os.environ.items() if k not in ("QUARTO_PROJECT_RENDER_ALL",)}
    return subprocess.run(
        step.split(),
        cwd=paths.ROOT,
        env=given | {"QUARTO_PYTHON": str(python), "BOOK_SCALE": "smoke"} | environment,
        capture_output=True,
        text=True,
    )


PYTHON = """\
#!/bin/sh
[ "$1" != -c ] || exit 0
echo "$@ at $BOOK_SCALE scale" >> CALLS
exit STATUS
"""


WITH_JUPYTER = {"QUARTO_PROJECT_RENDER_ALL": "1", "QUARTO_PROFILE": "publish,jupyter"}


@pytest.mark.parametrize("as_folder", [False, True])
def test_for_quartos_jupyter_the_generators_run_with_the_callers_python(tmp_path, calls, as_folder):
    path = program(tmp_path, "python", PYTHON.replace("CALLS", str(calls)).replace("STATUS", "0"))
    answer = ready(tmp_path if as_folder else path, **WITH_JUPYTER)
    assert answer.returncode == 0, answer.stderr
    assert calls.read_text() == "-m lib run --generators at smoke scale\n"


@pytest.mark.parametrize(
    "environment",
    [{}, {"QUARTO_PROFILE": "jupyter"}, {"QUARTO_PROJECT_RENDER_ALL": "1"}],
)
def test_before_a_single_chapter_and_for_the_books_engine_nothing_runs(
    tmp_path, calls, environment
):
    path = program(tmp_path, "python", PYTHON.replace("CALLS", str(calls)).replace("STATUS", "0"))
    answer = ready(path, **environment)
    assert answer.returncode == 0 and not calls.exists()
    assert not answer.stdout and not answer.stderr


def test_a_failed_generator_leaves_the_word_to_its_page(tmp_path, calls):
    path = program(tmp_path, "python", PYTHON.replace("CALLS", str(calls)).replace("STATUS", "2"))
    answer = ready(path, **WITH_JUPYTER)
    assert answer.returncode == 0 and "a generator failed" in answer.stdout


def workflow_step(name: str) -> str:
    """The commands of one step of the publishing workflow."""
    steps = yaml.safe_load((paths.ROOT / ".github/workflows/publish.yml").read_text())
    return next(s["run"] for s in steps["jobs"]["render"]["steps"] if s.get("name") == name)


def test_a_pull_request_lists_the_pages_it_changes(tmp_path, capsys):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    (tmp_path / "chapters").mkdir()
    for text in ("before", "after"):
        (tmp_path / "chapters" / "01-a.qmd").write_text(text)
        (tmp_path / "notes.md").write_text(text)
        for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", text)):
            subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True)
    schedule._say("dynamics/01-train", schedule._cost(18.1, 3e8), "")
    (tmp_path / "executed.txt").write_text(f"executing\n{capsys.readouterr().out}chapters\n")
    summary = tmp_path / "summary.md"
    environment = os.environ | {"RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(summary)}
    step = workflow_step("Say which pages those are")
    subprocess.run(["sh", "-ec", step], cwd=tmp_path, env=environment, check=True)
    shown = [line for line in summary.read_text().splitlines() if line.startswith("- ")]
    assert shown == ["- chapters/01-a.qmd", "- dynamics/01-train: 18.1 s, 0.30 GB"]


@pytest.mark.slow
def test_the_preview_of_the_press_shows_an_edit(tmp_path):
    project = small_project.write(tmp_path / "book")
    for part in ("press", "data/fonts"):
        shutil.copytree(paths.ROOT / part, project / part)
    (project / "references.bib").write_text("")
    for me in "ab":
        (project / f"{me}.started").touch()
    page = project / "chapters/one/01-make.qmd"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "lib", "preview", "--port", str(port)],
        cwd=project,
        env=os.environ | {"BOOK_SCALE": "book", "BOOK_EDITION": "press"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # of a job in the background the shell lets Ctrl-C be ignored, by all that it starts
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as shown:

        def is_seen(words: str, name: str = "01-make") -> bool:
            address = f"http://127.0.0.1:{port}/chapters/one/{name}.html"
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if words in urllib.request.urlopen(address).read().decode():
                    return True
                time.sleep(0.1)
            return False

        try:
            assert any("the book: " in line for line in shown.stdout)
            assert is_seen("It took 50 steps")
            text = page.read_text()
            page.write_text(text.replace("It took", "In all it took"))
            assert is_seen("In all it took 50 steps")
            page.write_text(text.replace("steps = 50 ", "steps = 51 "))
            assert is_seen("It took 51 steps")
            assert is_seen("51 steps", "03-b")  # which reads it
            page.write_text(
                text.replace("print(steps,", "import time; time.sleep(99)\nprint(steps,")
            )
            time.sleep(3)  # so that Ctrl-C comes while a chapter is executed
        finally:
            os.killpg(shown.pid, signal.SIGINT)
            try:
                shown.wait(20)
            except subprocess.TimeoutExpired:
                shown.kill()
                raise
    left, end = ["pgrep", "-s", str(shown.pid)], time.monotonic() + 20
    while subprocess.run(left, capture_output=True).stdout:  # a kernel's server ends after it
        assert time.monotonic() < end, "a process is left"
        time.sleep(0.1)
