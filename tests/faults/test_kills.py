"""Killed at a random moment, and two at once: the end is what it would have been.

What is killed is a fork that has everything imported, so the moments fall into the work itself;
`test_films`, `test_artifacts` and `test_schedule` kill whole commands.
"""

import os
import time
from pathlib import Path

import pytest

from lib import artifacts, claims, files, generators, paths
from lib.__main__ import main
from lib.extraction import catalogue, corpus, fetching, store
from lib.training import films, worlds
from lib.training.experiments import Experiment
from lib.training.films import Film
from tests import made_book
from tests.faults.children import FORK, at_once, killed, pressing
from tests.faults.test_bytes import TEXT, Hdf, plain
from tests.faults.test_disk import Large, generator, place, verdict
from tests.test_fetching import DESCRIPTION, SOURCE, arrived, bits, home, model, server
from tests.test_films import RUN

__all__ = ["bits", "home", "model", "place", "plain", "server"]  # fixtures

pytestmark = pytest.mark.slow
FILMED = Experiment(worlds.Gatsby(3_000), RUN.replace(vocab=128), Film(("W", "mean_h")))


def seconds(work) -> float:
    """How long the work takes here, undisturbed."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def litter(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if files.TEMPORARY.fullmatch(path.name)]


def test_a_film(place, monkeypatch, counted):
    FILMED.world.artefact()
    work = lambda: artifacts.cached(FILMED, "x/y")  # noqa: E731
    took, hits = seconds(work), 0
    whole = work()
    wanted = whole.path.read_bytes()
    for seed in range(6):
        whole.path.unlink()
        hits += killed(work, 5, took, seed)
        assert {path.parent.name for path in artifacts.every()} <= {"film", "world"}
        film = work()
        assert film.path.read_bytes() == wanted and film.digest == whole.digest
    counted("kills at random moments", hits)


def test_an_unfinished_film_is_not_called_damaged_and_its_time_adds_up(place, monkeypatch, capsys):
    """`verify --remove` leaves its checkpoint; what was spent before the kill is counted."""

    def stop(recorder, moment, observe=films.Recorder.observe):
        observe(recorder, moment)
        if moment.step == 280:
            os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr(films.Recorder, "observe", stop)
        process = FORK.Process(target=lambda: artifacts.cached(FILMED, "x/y"))
        process.start()
        process.join()
    assert process.exitcode == 9
    [parts] = paths.ARTIFACTS.glob("film/.*.parts")
    before = sorted(path.name for path in parts.iterdir())
    assert "checkpoint.safetensors" in before
    assert main(["verify", "--remove"]) == 0
    assert "film" not in capsys.readouterr().out
    artifacts.clear()
    assert sorted(path.name for path in parts.iterdir()) == before
    [note] = paths.ARTIFACTS.glob("film/.*.begun")
    begun, spent = map(float, note.read_text().split())
    note.write_text(f"{begun - 1_000} {spent}")  # as if it had taken so long
    film = artifacts.cached(FILMED, "x/y")
    assert 1_000 < film.seconds < 2_000 and not note.exists()
    assert "going on after step" in capsys.readouterr().out


def test_a_film_that_was_killed_when_it_was_whole_is_not_made_again(place, monkeypatch):
    whole = artifacts.cached(FILMED, "x/y").path
    partial = whole.with_name(f".{whole.stem}-partial{whole.suffix}")
    whole.replace(partial)
    monkeypatch.setattr(films.loop, "train", lambda *_, **__: pytest.fail("trained again"))
    assert artifacts.cached(FILMED, "x/y").path == whole


def test_artefacts(place, counted):
    for recipe, times in ((Large(), 14), (Hdf(), 8)):
        work = lambda recipe=recipe: artifacts.cached(recipe, "x/y")  # noqa: E731
        took = seconds(work)
        artifacts.cached(recipe, "x/y").path.unlink()
        counted("kills at random moments", killed(work, times, took, seed=2))
        made = artifacts.cached(recipe, "x/y")
        assert artifacts.opened(made.path) and main(["verify"]) == 0


def slowly(handler, file: Path, start: int, stop: int) -> None:
    """An honest answer that takes its time."""
    handler.send_response(206)
    handler.part(file.stat().st_size, start, stop)
    whole = file.read_bytes()
    for at in range(start, stop, 4_000):
        handler.wfile.write(whole[at : min(at + 4_000, stop)])
        handler.wfile.flush()
        time.sleep(0.003)


def test_a_fetched_matrix(server, bits, monkeypatch, counted):
    monkeypatch.setattr(store, "NOTED", 10_000)
    monkeypatch.setattr(catalogue, "CATALOGUE", (DESCRIPTION,))
    work = lambda: fetching.fetch_from_hub(DESCRIPTION, SOURCE)  # noqa: E731
    server.faults = [slowly] * 1_000
    took = seconds(work)
    catalogue.fetched_file("small").unlink()
    for seed in range(4):
        counted("kills at random moments", killed(work, 6, took, seed))
        server.faults = []
        assert arrived(work(), bits) and store.verify(catalogue.fetched_file("small"))
        server.faults = [slowly] * 1_000
        catalogue.fetched_file("small").unlink()


def test_a_slice(plain, counted):
    work = lambda: corpus.fetch("plain", again=True)  # noqa: E731
    counted("kills at random moments", killed(work, 8, seconds(work), seed=4))
    assert corpus.fetch("plain", again=True) and corpus.text("plain") == TEXT[:2_000]


def test_what_killed_processes_leave_is_removed_at_the_next_start(place, monkeypatch, capsys):
    """By age, and never what somebody may still want or is working on."""
    folder = paths.ARTIFACTS / "film"
    folder.mkdir(parents=True)
    old = time.time() - files.OLD - 1
    ancient = time.time() - artifacts.ABANDONED - 1
    kept = {"film-1.h5", "film-1.h5.lock", ".film-2-partial.h5.parts", "segment.h5",
            "film-2.h5.lock", ".film-2-partial.begun", ".noise-77.safetensors"}  # fmt: skip
    gone = {".noise-76.safetensors", ".01-norms-4711.ipynb", ".film-3-partial.begun",
            ".film-3-partial.h5.parts", ".film-3-partial.h5"}  # fmt: skip
    for name in kept | gone:
        path = folder / name
        if name.endswith(".parts"):
            path.mkdir()
            path = path / "segment.h5"
        path.touch()
        time_of = ancient if "-3-" in name else old
        if name != ".noise-77.safetensors":
            os.utime(path, (time_of, time_of))
            os.utime(folder / name, (time_of, time_of))
    artifacts.clear()
    assert {path.name for path in folder.rglob("*")} - {"film-3.h5.lock"} == kept
    # one of another process's that is at work on it
    monkeypatch.setattr(artifacts, "ABANDONED", 0)
    with artifacts.filelock.FileLock(folder / "film-2.h5.lock"):
        artifacts.clear()
        assert (folder / ".film-2-partial.begun").exists()
    artifacts.clear()
    assert not (folder / ".film-2-partial.begun").exists()


# ----------------------------------------------------------------------------- two at once


def test_two_at_once(place, counted):
    made = {
        "an artefact": lambda: artifacts.cached(Large(), "x/y"),
        "HDF5": lambda: artifacts.cached(Hdf(), "x/y"),
        "a film": lambda: artifacts.cached(FILMED, "x/y"),
        "a record": lambda: generator(place),
        "a verdict": lambda: verdict(place),
        "a file": lambda: [
            files.write_atomically(place / "x", lambda p: p.write_text("y" * 50_000))
            for _ in range(20)
        ],
    }
    for name, work in made.items():
        assert at_once(work, work) == ["", ""], name
    assert main(["verify"]) == 0 and not litter(place)
    assert generators.load("one/01-make")["many"]["run 3"].seconds >= 0
    assert claims.verdicts() and (place / "x").read_text() == "y" * 50_000
    counted("pairs at once", len(made))


def test_two_fetches_of_one_matrix(server, bits, monkeypatch, counted):
    monkeypatch.setattr(catalogue, "CATALOGUE", (DESCRIPTION,))
    server.faults = [slowly] * 1_000
    work = lambda: fetching.fetch_from_hub(DESCRIPTION, SOURCE)  # noqa: E731
    said = sorted(at_once(work, work))
    assert said[0] == "" and (said[1] == "" or "another process is fetching it" in said[1])
    assert arrived(catalogue.fetched_file("small"), bits)
    counted("pairs at once", 1)


def test_two_fetches_of_one_slice(plain, counted):
    said = sorted(at_once(*[lambda: corpus.fetch("plain", again=True)] * 2))
    assert said[0] == "" and (said[1] == "" or "another process is fetching it" in said[1])
    assert corpus.text("plain") == TEXT[:2_000]
    counted("pairs at once", 1)


def bytes_of(book: Path) -> dict[str, bytes]:
    return {str(p.relative_to(book)): p.read_bytes() for p in book.rglob("*") if p.is_file()}


def test_two_presses_give_the_same_bytes_one_after_another_or_at_once(tmp_path, counted):
    """HTML, PDF and search index; what a press that was killed left is removed."""
    made_book.write(tmp_path)
    one, two = tmp_path / "one", tmp_path / "_book"
    press = lambda out: pressing(tmp_path, out, "html", "pdf")  # noqa: E731
    assert press(one).wait() == 0
    (tmp_path / "._book-abandoned").mkdir()
    old = tmp_path / "._book-killed-old"  # between two renamings
    old.mkdir()
    (old / "index.html").write_text("the old book")
    assert [process.wait() for process in (press(two), press(two))] == [0, 0]
    assert bytes_of(one) == bytes_of(two) and any(name.endswith(".pdf") for name in bytes_of(one))
    assert not list(tmp_path.glob("._book-*"))
    counted("pairs at once", 2)
