"""Disks that are full and folders that are closed: one line, and nothing is lost.

Every place where the book writes is met: each fails in a child for which no file may grow over a
limit (as on a full disk), and ends well when there is room again.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from book import runner
from lib import artifacts, claims, files, generators, paths, scale
from lib.__main__ import main
from lib.analysis.sweeps import CastRows
from lib.extraction import catalogue, corpus, fetching, store
from lib.generators import Generator
from lib.training import films
from tests import made_book
from tests.faults.children import ended, open_to_all, pressing
from tests.faults.test_bytes import TEXT, Hdf, Plain, plain
from tests.small import FILMED, filmed_world
from tests.small_project import write_chapter
from tests.test_fetching import (
    DESCRIPTION,
    REPO,
    SOURCE,
    arrived,
    bits,
    home,
    model,
    server,
)

__all__ = ["bits", "home", "model", "plain", "server"]  # fixtures

pytestmark = pytest.mark.slow


def one_line(said: str, *words: str) -> None:
    """An error of the book's own, in one line that names the mend."""
    kind, _, text = said.partition(": ")
    assert kind in ("FileError", "SpecimenError", "PressError", "SystemExit"), said
    assert "\n" not in text and all(word in text for word in words), said


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder for all that is computed, at book scale."""
    for name in ("ARTIFACTS", "MADE", "VERDICTS", "EXECUTED", "FETCHED", "SLICES"):
        monkeypatch.setattr(paths, name, tmp_path / "made" / name)
    monkeypatch.setattr(paths, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setenv("BOOK_SCALE", "book")
    monkeypatch.setenv(scale.GIVEN, "")
    monkeypatch.setattr(scale, "settings", lambda chapter: {"rows": 4})
    return tmp_path


def left(folder: Path) -> list[str]:
    """Names of the files below a folder, without locks and notes of what is unfinished."""
    known = (".lock", ".begun")
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix not in known)


# ----------------------------------------------------------------------------- full


@dataclass(frozen=True)
class Large(Plain):
    """w: 800 kB."""

    name = "large"

    def make(self, *path: Path):
        return {"w": np.arange(100_000.0)}


def generator(place: Path) -> None:
    labels = {f"run {i}": CastRows(2, 1e-6, 1e-5, 4, 3, i) for i in range(1, 21)}
    Generator("one/01-make", {"rows": 4}).keep("many", labels)


def notebook(place: Path) -> None:
    runner.run(place / "chapters" / "a.qmd")


def verdict(place: Path) -> None:
    claims.settled({"census-holes": claims.Measured(13, "words " * 5_000)})


def main_or_exit(*words: str) -> None:
    if status := main(list(words)):
        raise SystemExit(f"status {status}")


STAGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "an artefact": (lambda place: artifacts.cached(Large(), "x/y"), 20_000),
    "a generator's record": (generator, 1_500),
    "a verdict": (verdict, 5_000),
    "an executed notebook": (notebook, 20_000),
    "digests of data": (lambda place: files.write_atomically(
        place / "SHA256SUMS", lambda path: path.write_text("x" * 9_000)), 4_000),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_a_full_disk_at_a_stage(name, place, counted):
    work, limit = STAGES[name]
    text = "# A {#sec-a}\n\n" + "Much text. " * 5_000
    write_chapter(place, "a", f"---\nkind: page\nreads: []\n---\n\n{text}\n")
    one_line(ended(lambda: work(place), disk=limit), "cannot write", "free some space")
    assert not [n for n in left(place) if n.startswith(".") or "large" in n or "hdf" in n]
    assert ended(lambda: work(place)) == ""
    counted("disks and permissions", 1)


@pytest.mark.parametrize("stage", ["segment", "checkpoint", "film"])
def test_a_film_on_a_full_disk_goes_on_where_it_was(stage, place, monkeypatch, counted):
    watch = films.Film(() if stage == "checkpoint" else ("W", "mean_h")).watch
    whole, film = place / "whole.h5", place / "film.h5"
    with monkeypatch.context() as patch:
        patch.setattr(films.shutil, "rmtree", lambda *_, **__: None)
        watch(FILMED, filmed_world(), whole)
    parts: dict[str, int] = {}
    for file in place.glob("whole.h5.parts/*"):
        parts[file.stem[:4]] = max(parts.get(file.stem[:4], 0), file.stat().st_size)
    first = parts["segm"]
    sizes = {"segment": (0, first), "checkpoint": (first, parts["chec"]),
             "film": (max(parts.values()), whole.stat().st_size)}  # fmt: skip
    enough, needed = sizes[stage]
    assert enough + 200 < needed
    limit = (enough + needed) // 2
    one_line(ended(lambda: watch(FILMED, filmed_world(), film), disk=limit), "free some space")
    kept = {file.stem[:4] for file in place.glob("film.h5.parts/*")}
    assert not film.exists() and kept == {"segment": set(), "checkpoint": {"segm"}}.get(
        stage, {"segm", "chec"}
    )
    assert ended(lambda: watch(FILMED, filmed_world(), film)) == ""
    assert film.read_bytes() == whole.read_bytes() and not list(place.glob("film.h5.parts"))
    counted("disks and permissions", 1)


@pytest.mark.parametrize("limit", [300, 20_000, 120_000])
def test_a_fetched_matrix_on_a_full_disk(limit, server, bits, monkeypatch, counted):
    """In the notes beside it, in its bytes; what came is gone on with."""
    monkeypatch.setattr(catalogue, "CATALOGUE", (DESCRIPTION,))
    fetch = lambda: fetching.fetch_from_hub(DESCRIPTION, SOURCE)  # noqa: E731
    one_line(ended(fetch, disk=limit), "no temporary file can be written", "free some space")
    found = fetching.locate(SOURCE)
    monkeypatch.setattr(fetching, "locate", lambda _: found)
    one_line(ended(fetch, disk=limit), "it goes on from here")
    server.log.clear()
    assert arrived(fetch(), bits) and store.verify(catalogue.fetched_file("small"))
    begin = int(server.ranges()[0].removeprefix("bytes=").split("-")[0])
    assert (begin > found[2].start) == (limit > 300)
    counted("disks and permissions", 2)


def test_a_slice_on_a_full_disk(plain, monkeypatch, counted):
    monkeypatch.setattr(corpus, "READ", 3_000)
    one_line(ended(lambda: corpus.fetch("plain"), disk=500), "free some space")
    assert ended(lambda: corpus.fetch("plain")) == "" and corpus.text("plain") == TEXT[:2_000]
    counted("disks and permissions", 1)


def test_the_small_files_of_a_model(server, tmp_path, monkeypatch, counted):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(json.dumps({"vocab": {f"token{i}": i for i in range(30_000)}}))
    server.repos[REPO]["tokenizer.json"] = tokenizer
    names, found = fetching._tensor_names(REPO, "main"), fetching.locate(SOURCE)
    monkeypatch.setattr(fetching, "_tensor_names", lambda *_: names)
    monkeypatch.setattr(fetching, "locate", lambda _: found)
    one_line(ended(lambda: fetching.fetch_model(REPO), disk=350_000), "tokenizer.json", "free some")
    assert ended(lambda: fetching.fetch_model(REPO)) == ""
    counted("disks and permissions", 1)


def test_a_book_on_a_full_disk_leaves_the_old_one(tmp_path, counted):
    made_book.write(tmp_path)
    out = tmp_path / "_book"
    out.mkdir()
    (out / "index.html").write_text("the old book")
    press = pressing(tmp_path, out, "pdf", disk=6_000)
    said = press.communicate()[1]
    assert press.returncode == 1 and said.count("\n") == 1, said
    assert said.startswith(("FileError", "PressError"))
    assert [p.name for p in out.iterdir()] == ["index.html"]
    assert not list(tmp_path.glob("._book-*"))
    counted("disks and permissions", 1)


def test_what_a_film_needs_covers_segments_and_film(tmp_path, monkeypatch, capsys):
    """Watched while it is made: never more lies on the disk than was announced."""
    path, most = tmp_path / "film.h5", [0]

    def weigh(*given, whole=films.assemble):
        whole(*given)
        most.append(sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()))

    monkeypatch.setattr(films, "assemble", weigh)
    films.Film(("W", "mean_h")).watch(FILMED, filmed_world(), path)
    monkeypatch.setattr(
        films.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, max(most))
    )
    with pytest.raises(files.FileError, match="free some space"):
        films.Film(("W", "mean_h")).watch(FILMED, filmed_world(), tmp_path / "other.h5")


# ----------------------------------------------------------------------------- closed


@dataclass(frozen=True)
class Closed:
    """What is tried as nobody in folders of somebody else; what it says ("" where it works)."""

    work: Callable[[], object]
    words: tuple[str, ...] = field(default=())


def test_folders_that_cannot_be_written_do_for_reading(place, counted):
    generator(place)
    artifacts.cached(Hdf(), "x/y")
    verdict(place)
    write_chapter(place, "a", "---\nkind: page\nreads: []\n---\n\n# A {#sec-a}\n\nText.\n")
    matrix, out = place / "W.safetensors", place / "out"
    save_file({"W": np.ones((300, 40), np.float32)}, matrix)
    shut = place / "shut.safetensors"
    shut.write_bytes(matrix.read_bytes())
    out.mkdir()
    open_to_all(place)
    for path in place.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    shut.chmod(0)
    place.chmod(0o555)
    cases = {
        "an artefact is read": Closed(lambda: artifacts.cached(Hdf(), "x/y")),
        "a record": Closed(lambda: generators.load("one/01-make")["many"]["run 3"].tensors),
        "verdicts": Closed(claims.verdicts),
        "all are verified": Closed(lambda: main_or_exit("verify")),
        "a census": Closed(lambda: main_or_exit("census", str(matrix))),
        "another artefact": Closed(lambda: artifacts.cached(Large(), "x/y"), ("cannot write",)),
        "another record": Closed(lambda: generator(place), ("cannot write",)),
        "another verdict": Closed(lambda: verdict(place), ("cannot write",)),
        "a notebook": Closed(lambda: notebook(place), ("cannot write",)),
        "a fetched matrix": Closed(
            lambda: store.keep(RECORD, ENTRY, lambda sink: None, None), ("cannot be written",)
        ),
        "a matrix that is closed": Closed(lambda: main_or_exit("census", str(shut)), ("status 2",)),
    }
    try:
        for name, case in cases.items():
            said = ended(case.work, nobody=True)
            assert (said == "") == (not case.words), f"{name}: {said}"
            if case.words:
                one_line(said, *case.words)
    finally:
        for path in (place, *place.rglob("*")):
            path.chmod(0o755)
    counted("disks and permissions", len(cases))


RECORD = {"specimen": "closed", "source": "nowhere", "version": "1"}
ENTRY = store.Entry("W", "F32", (2, 3), 0, 24)
