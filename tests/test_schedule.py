"""Running all chapters: their order, side by side, and what is reused."""

from pathlib import Path

import pytest

from book import runner, schedule, sources
from book.reader import ChapterError
from book.runner import ChapterFailed
from lib import digests, paths, scale
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

    law = project / "lib" / "law.py"
    law.write_text(law.read_text().replace("OTHER = 1", "OTHER = 2"))  # nobody names it
    again = lib(project, "run", "--jobs", "2")
    assert again.returncode == 0 and again.stdout == ""
    law.write_text(law.read_text().replace("RATE = 1", "RATE = 2"))  # only 02-a names it
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
    keys = schedule.keys(before)
    text = here / "chapters" / "a.qmd"

    def changed(words: str) -> set[str]:
        text.write_text(text.read_text() + words)
        after = schedule.read_all([chapter.source for chapter in before.values()])
        return {name for name, key in schedule.keys(after).items() if key != keys[name]}

    assert changed("More.\n") == set()  # words compute nothing
    assert changed("Half of it is `{python} 1 / 2`.\n") == {"a", "b", "c"}


def test_a_chapters_key_follows_parameters_scale_and_data(here, monkeypatch):
    chapters = catalogue(here, a="")
    keys = [schedule.keys(chapters)["a"]]
    monkeypatch.setattr(scale, "overrides", lambda *_: {"steps": 5})
    keys.append(schedule.keys(chapters)["a"])
    monkeypatch.setattr(sources, "data_digest", lambda: "other data")
    keys.append(schedule.keys(chapters)["a"])
    assert len(set(keys)) == 3


def test_a_chapters_key_follows_the_definitions_it_reaches_and_the_machinery(here, monkeypatch):
    def keyed(code: str) -> str:
        return sources.chapter_key(code, {}, [], "data")

    code = "from lib import lattice\nlattice.ulp(1)"
    before, claims = keyed(code), keyed("from lib.claims import holds\nholds(1)")
    assert keyed("from lib import lattice\nlattice.value(1)") != before
    real = digests.of_file
    for name, changed in (("runner.py", True), ("claims.yaml", False), ("schedule.py", False)):
        other = lambda file, name=name: "x" if file.name == name else real(file)  # noqa: E731
        monkeypatch.setattr(digests, "of_file", other)
        sources._of_file.cache_clear()
        assert (keyed(code) != before) == changed, name
    other = lambda file: "x" if file.name == "claims.yaml" else real(file)  # noqa: E731
    monkeypatch.setattr(digests, "of_file", other)
    sources._of_file.cache_clear()
    assert keyed("from lib.claims import holds\nholds(1)") != claims  # the ledger, if it is asked
    sources._of_file.cache_clear()


def test_the_data_s_digest_sees_committed_bytes_and_what_was_fetched(tmp_path, monkeypatch):
    for name in ("corpora/a.txt", "qwen3/b.json", "specimens/fetched/w.safetensors", "other/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(paths, "FETCHED", tmp_path / "specimens" / "fetched")
    seen = [sources.data_digest()]

    def change(name: str, text: str) -> bool:
        (tmp_path / name).write_text(text)
        seen.append(sources.data_digest())
        return seen[-1] != seen[-2]

    assert change("corpora/a.txt", "other words") and change("qwen3/b.json", "{}")
    assert change("specimens/fetched/w.safetensors", "another size")
    assert not change("other/c.txt", "no chapter may read it")
    assert not change("specimens/fetched/w.safetensors.lock", "")


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


def test_one_chapter_alone_needs_no_other_process(here, monkeypatch, capsys):
    chapters = catalogue(here, a="", b="a")
    monkeypatch.setattr(schedule, "_run_one", fails_without_kernel)
    monkeypatch.setattr(schedule, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("a pool"))
    schedule.run(chapters, only={"b"})
    assert chapters["b"].executed.exists() and "b: 0.0 s" in capsys.readouterr().out
    with pytest.raises(ChapterFailed, match=r"a\.qmd failed"):
        schedule.run(chapters, only={"a"})
    assert "a: FAILED" in capsys.readouterr().out


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
