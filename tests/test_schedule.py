"""Running all chapters: their order, side by side, and what is reused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from book import runner, schedule, sources
from book.reader import ChapterError
from book.runner import ChapterFailed
from lib import digests, scale
from tests import small_project
from tests.small_project import executed, lib, printed, write_chapter


def test_all_chapters_run_in_order_side_by_side_and_once(project):
    assert lib(project, "run", "--jobs", "2").returncode == 0
    answers = {name: executed(project, f"one/{name}") for name in ("01-make", "02-a", "03-b")}
    assert printed(answers["02-a"]) == printed(answers["03-b"]) == "50 steps\n"  # made before
    assert executed(project, "index").exists()
    stamps = {name: file.stat().st_mtime_ns for name, file in answers.items()}

    again = lib(project, "run", "--jobs", "2")
    assert again.returncode == 0 and again.stdout == ""
    assert stamps == {name: file.stat().st_mtime_ns for name, file in answers.items()}

    law, words = project / "lib" / "law.py", project / "data" / "words.txt"
    law.write_text(law.read_text().replace("OTHER = 1", "OTHER = 2"))  # nobody names it
    (project / "data" / "claims.yaml").write_text("[]\n\n")  # nobody settles a claim
    small_project.record(project)
    again = lib(project, "run", "--jobs", "2")
    assert again.returncode == 0 and again.stdout == ""
    for change in (
        lambda: law.write_text(law.read_text().replace("RATE = 1", "RATE = 2")),
        lambda: words.write_text("other words\n"),
    ):  # only 02-a names the one and reads the other
        change()
        small_project.record(project)
        changed = lib(project, "run", "--jobs", "2")
        assert changed.returncode == 0, changed.stderr
        assert (
            changed.stdout.split(":")[0].strip() == "one/02-a" and changed.stdout.count("\n") == 1
        )
    for name, old, new in (
        ("03-b", "# Look", "# Look again"),
        ("02-a", "print(made)", "print(made, 1)"),
    ):
        file = project / "chapters" / "one" / f"{name}.qmd"
        file.write_text(file.read_text().replace(old, new))  # text alone in one, code in the other
    changed = lib(project, "run", "--jobs", "2")
    assert changed.stdout.split(":")[0].strip() == "one/02-a" and not changed.returncode
    assert "# Look again" in executed(project, "one/03-b").read_text()
    words.write_text("words that nobody recorded\n")
    refused = lib(project, "run")
    assert refused.returncode == 2 and "git checkout data/words.txt" in refused.stderr
    assert "Traceback" not in refused.stderr and refused.stderr.count("\n") == 1


def catalogue(root: Path, **reads: str) -> dict[str, runner.Chapter]:
    """Chapters by name, each reading the ones named in words."""
    for name, words in reads.items():
        front = f"kind: generator\nreads: [{', '.join(words.split())}]"
        write_chapter(root, name, f"---\n{front}\n---\n\n# {name} {{#sec-{name}}}\n")
    return schedule.read_all([root / "chapters" / f"{name}.qmd" for name in reads])


def test_a_chapters_key_follows_what_it_reads(here):
    before = catalogue(here, a="", b="a", c="b", d="")
    keys = schedule.keys(before)
    text = here / "chapters" / "a.qmd"

    def changed(words: str) -> set[str]:
        text.write_text(text.read_text() + words)
        after = schedule.read_all([chapter.source for chapter in before.values()])
        return {name for name, key in schedule.keys(after).items() if key != keys[name]}

    assert changed("More.\n") == set()  # words compute nothing
    assert changed("Half of it is `{python} 1 / 2`.\n") == {"a", "b", "c"}


def test_a_chapters_key_follows_parameters_and_scale(here, monkeypatch):
    chapters = catalogue(here, a="")
    keys = [schedule.keys(chapters)["a"]]
    monkeypatch.setattr(scale, "overrides", lambda *_: {"steps": 5})
    keys.append(schedule.keys(chapters)["a"])
    assert len(set(keys)) == 2


def test_a_chapters_key_follows_the_definitions_it_reaches_and_the_machinery(here, monkeypatch):
    def keyed(code: str) -> str:
        return sources.chapter_key(code, sources.reached([code])[code], {}, [])

    code = "from lib import lattice\nlattice.ulp(1)"
    before, real = keyed(code), digests.of_file
    assert keyed("from lib import lattice\nlattice.value(1)") != before
    for name, changed in (("runner.py", True), ("schedule.py", False)):
        other = lambda file, name=name: "x" if file.name == name else real(file)  # noqa: E731
        monkeypatch.setattr(digests, "of_file", other)
        assert (keyed(code) != before) == changed, name


def test_what_code_reaches_is_looked_up_once_until_lib_changes(here, monkeypatch):
    looked: list[str] = []
    real, of_file = digests.of_cells, digests.of_file
    monkeypatch.setattr(digests, "of_cells", lambda code: looked.append(code) or real(code))
    one, two = "from lib import lattice\nlattice.ulp(1)", "1 + 1"
    found = sources.reached([one, two])
    assert found == {code: real(code)[0] for code in (one, two)} and looked == [one, two]
    assert sources.reached([two, one]) == found and looked == [one, two]
    assert sources.reached(["2"]).keys() == {"2"} and sources.reached([one])[one] == found[one]
    assert looked == [one, two, "2"]
    memory = here / "executed" / "reached.json"
    for damage in ("", "[]", "{}", '{"lib": "x"}', memory.read_text()[:-9]):
        memory.write_text(damage)
        assert sources.reached([one]) == {one: found[one]}
    assert looked[3:] == [one] * 5
    monkeypatch.setattr(digests, "of_file", lambda file: of_file(file)[::-1])  # all of lib
    assert sources.reached([one]) == {one: found[one]} and looked[8:] == [one]


def test_reads_of_no_chapter_and_circles_are_refused(here):
    with pytest.raises(ChapterError, match="reads gone, which is no chapter"):
        schedule.run_all([c.source for c in catalogue(here, a="gone").values()])
    with pytest.raises(ChapterError, match=r"(a reads b reads a|b reads a reads b)"):
        schedule.run_all([c.source for c in catalogue(here, a="b", b="a").values()])
    chapters = catalogue(here, a="")
    file = chapters["a"].source
    file.write_text(file.read_text().replace("reads: []", "reads: a"))
    with pytest.raises(ChapterError, match="must be a list"):
        schedule.run_all([file])


def test_a_chapter_comes_when_a_reader_of_the_book_needs_it(here):
    chapters = catalogue(here, a="", b="d c", c="d", d="", e="")
    assert schedule.by_need(chapters) == ["a", "d", "c", "b", "e"]


def test_a_chapter_that_reads_all_waits_for_all(here):
    sorter, found = schedule.order(catalogue(here, z="all", a="", b="a", y="all")), []
    while sorter.is_active():
        found.append(sorter.get_ready())
        sorter.done(*found[-1])
    assert found == [("a",), ("b",), ("z",), ("y",)]


def test_what_is_not_a_notebook_is_not_current(here):
    chapter = catalogue(here, a="")["a"]
    runner.run(chapter.source, digest="key")
    assert schedule.is_current(chapter.executed, "key")
    assert not schedule.is_current(chapter.executed, "other key")
    whole = chapter.executed.read_text()
    changed = whole.replace("# a", "# b")  # a page that nobody made
    for broken in ("", whole[: len(whole) // 2], "{}", "[]", '{"nbformat": 4}', changed):
        chapter.executed.write_text(broken)
        assert not schedule.is_current(chapter.executed, "key")
    chapter.executed.write_text(whole)
    assert schedule.is_current(chapter.executed, "key")
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


def test_a_chapter_that_is_changed_while_it_waits_is_not_sealed(here):
    [chapter] = catalogue(here, a="").values()
    said, failure = schedule._run_one(chapter.source, "key", "other code")
    assert not said and "a.qmd: its code was changed while it waited" in failure
    assert not chapter.executed.exists()


def test_one_chapter_alone_needs_no_other_process(here, monkeypatch, capsys):
    chapters = catalogue(here, a="", b="a")
    monkeypatch.setattr(schedule, "_run_one", fails_without_kernel)
    monkeypatch.setattr(schedule, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("a pool"))
    schedule.run(chapters, only={"b"})
    assert chapters["b"].executed.exists() and "b: 0.0 s, 0 bytes" in capsys.readouterr().out
    with pytest.raises(ChapterFailed, match=r"a\.qmd failed"):
        schedule.run(chapters, only={"a"})
    assert "a: FAILED" in capsys.readouterr().out


def fails_without_kernel(source: Path, wanted: str, code: str) -> tuple[str, str]:
    """As schedule._run_one, but chapter a fails."""
    if source.stem == "a":
        return "", "a.qmd failed"
    peak = runner.memory_of(runner.run(source, digest=wanted))
    return f"0.0 s, {peak} bytes", ""


class Here(schedule.ProcessPoolExecutor):
    """A pool of threads in this process, so that what a test replaced stays replaced."""

    def __new__(cls, jobs, **_):
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(jobs)


SLEEPER = """\
---
kind: generator
reads: []
---

# S {{#sec-{me}}}

```{{python}}
import multiprocessing, os, time
from pathlib import Path
worker = multiprocessing.parent_process()
Path("{me}.pids").write_text(f"{{worker.pid if worker else os.getppid()}} {{os.getpid()}}")
time.sleep(120)
```
"""


@pytest.mark.parametrize("whom", ["run", "worker"])
def test_a_killed_run_or_worker_leaves_no_process_and_says_one_line(project, whom):
    names = ("one/02-a", "one/03-b")
    for name in names:
        write_chapter(project, name, SLEEPER.format(me=name[-1]))
        (project / f"{name[-1]}.pids").unlink(missing_ok=True)
    command = [sys.executable, "-m", "lib", "run", "--jobs", "2"]
    ran = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)
    files = [project / f"{name[-1]}.pids" for name in names]
    wait_for(lambda: all(file.exists() and len(file.read_text().split()) == 2 for file in files))
    found = [[int(pid) for pid in file.read_text().split()] for file in files]
    os.kill(ran.pid if whom == "run" else found[0][0], signal.SIGKILL)
    said = ran.communicate(timeout=30)[1]
    wait_for(lambda: not any(alive(pid) for pids in found for pid in pids))
    if whom == "worker":
        assert ran.returncode == 2
        [line] = [one for one in said.splitlines() if one.startswith("error: ")]
        assert "one/02-a" in line and "one/03-b" in line
        assert "Traceback" not in said and "memory" in line


def wait_for(condition) -> None:
    """Wait until something is true; half a minute at most."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and is not yet buried does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
