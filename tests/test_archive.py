"""A release in one file: the same bytes for the same commit, and only what is a release."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from book import archive, render
from lib import paths
from lib.__main__ import main

DAY = "2026-03-04"
FILES = {
    "pyproject.toml": '[project]\nname = "a-book"\nversion = "1.2.0"\n',
    "CITATION.cff": f"cff-version: 1.2.0\nversion: 1.2.0\ndate-released: {DAY}\n",
    ".gitignore": "/_book/\n/build/\n",
    "run.sh": "#!/bin/sh\n",
}


def git(root: Path, *words: str) -> str:
    when = f"{DAY}T23:30:00-0800"  # the next day in Greenwich
    who = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
    return subprocess.run(
        command, env=os.environ | who, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(root: Path, **changes: str) -> Path:
    """A repository with the files above, some of them changed, and a rendered book."""
    root.mkdir(exist_ok=True)
    git(root, "init", "-q")
    for file, text in (FILES | {file.replace("_", "."): t for file, t in changes.items()}).items():
        (root / file).write_text(text)
    (root / "run.sh").chmod(0o755)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "all")
    for file in ("A-Book.pdf", "index.html", "chapters/one.html"):
        path = root / "_book" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    return root


def test_the_same_commit_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_SCALE", "book")
    first = commit(tmp_path / "a book")
    git(first, "tag", "v1.2.0")
    git(tmp_path, "clone", "-q", str(first), str(tmp_path / "other"))
    made = [archive.write(first, first / "_book", first / "build")]
    for file in sorted((first / "_book").rglob("*.*"), reverse=True):  # another order, another time
        path = tmp_path / "other" / "_book" / file.relative_to(first / "_book")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.read_text())
        os.utime(path, (0, 0))
    made.append(archive.write(tmp_path / "other", tmp_path / "other" / "_book", tmp_path))
    assert [path.name for path in made] == ["a-book-1.2.0.zip"] * 2
    assert made[0].read_bytes() == made[1].read_bytes()
    with zipfile.ZipFile(made[0]) as opened:
        names = opened.namelist()
        assert names == sorted(names) and all(n.startswith("a-book-1.2.0/") for n in names)
        inside = {name.removeprefix("a-book-1.2.0/") for name in names}
        assert inside == {*FILES, "_book/A-Book.pdf", "_book/index.html", "_book/chapters/one.html"}
        run = opened.getinfo("a-book-1.2.0/run.sh")
        assert run.external_attr >> 16 & 0o111 and run.date_time == (2026, 3, 5, 7, 30, 0)


def test_without_a_tag_or_at_another_scale_the_name_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    root = commit(tmp_path, CITATION_cff=FILES["CITATION.cff"].replace(DAY, "2020-01-01"))
    assert (
        archive.name(root) == f"a-book-1.2.0-{git(root, 'rev-parse', '--short=12', 'HEAD')}-smoke"
    )


@pytest.mark.parametrize(
    ("old", "new", "tag", "message"),
    [
        (DAY, "2026-03-05", "v1.2.0", "of 2026-03-04"),
        (DAY, "soon", "", "soon is no day"),
        ("n: 1.2.0\nd", "n: 1.1\nd", "", "says 1.2.0"),
        ("version: 1.2.0\ndate", "a: ]", "", "cannot be read"),
        ("", "", "v1.3.0", "the tag is v1.3.0"),
    ],
)
def test_what_is_no_release_is_refused(tmp_path, old, new, tag, message):
    root = commit(tmp_path, CITATION_cff=FILES["CITATION.cff"].replace(old, new))
    if tag:
        git(root, "tag", tag)
    with pytest.raises(archive.ArchiveError, match=message):
        archive.name(root)


def test_a_changed_tree_and_a_missing_book_are_refused(tmp_path):
    root = commit(tmp_path / "a")
    (root / "_book" / "A-Book.pdf").unlink()
    with pytest.raises(archive.ArchiveError, match="no rendered book"):
        archive.write(root, root / "_book", tmp_path)
    (root / "new.txt").touch()
    with pytest.raises(archive.ArchiveError, match="in no commit"):
        archive.write(root, root / "_book", tmp_path)
    assert not list(tmp_path.glob("*.zip"))


def test_the_verb_looks_before_it_renders(monkeypatch, capsys):
    def refuse(_root):
        raise archive.ArchiveError("amiss")

    monkeypatch.setattr(archive, "name", refuse)
    monkeypatch.setattr(render, "book", lambda _jobs: pytest.fail("rendered"))
    assert main(["archive"]) == 2
    assert capsys.readouterr().err == "error: amiss\n"


def test_the_book_is_cited_by_its_version():
    package, version, day = archive.cited(paths.ROOT)
    assert package == "dead-tokens" and version and day
