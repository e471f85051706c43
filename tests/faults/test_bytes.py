"""One flipped bit, anywhere in what is read: it is noticed in one line, or what comes is right."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from book import runner, schedule
from lib import artifacts, claims, files, generators, paths, scale
from lib.analysis.sweeps import CastRows
from lib.artifacts import ArtifactError
from lib.extraction import catalogue, corpus, fetching, ranges, specimens, store
from lib.extraction.catalogue import SpecimenError
from lib.extraction.editions import EditionError
from lib.generators import Generator
from tests.loopback_hub import Hub, quick_and_nobody, serving
from tests.small_project import write_chapter
from tests.test_fetching import (
    DESCRIPTION,
    REPO,
    SOURCE,
    arrived,
    bits,
    cut_after,
    home,
    model,
    server,
    status,
)

__all__ = ["bits", "home", "model", "server"]  # fixtures

pytestmark = pytest.mark.slow


def flipped(file: Path, count: int) -> Iterator[int]:
    """Flip one bit of a file, `count` times, and mend it; gives the byte's place."""
    whole, rng = file.read_bytes(), random.Random(file.name)
    for _ in range(count):
        damaged, at = bytearray(whole), rng.randrange(len(whole))
        damaged[at] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        yield at
        file.write_bytes(whole)


def noticed(error: pytest.ExceptionInfo) -> None:
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_every_committed_file(tmp_path, monkeypatch, counted):
    names = files.committed()
    skip = shutil.ignore_patterns("artifacts", "fetched")
    shutil.copytree(paths.DATA, tmp_path / "data", ignore=skip)
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setattr(files, "SUMS", tmp_path / "data" / "SHA256SUMS")
    for name in names:
        assert files.checked(paths.DATA / name)
        for _ in flipped(paths.DATA / name, 1):
            with pytest.raises(files.FileError, match=f"git checkout data/{name}") as error:
                files.checked(paths.DATA / name)
            noticed(error)
    counted("flipped bits", len(names))


@dataclass(frozen=True)
class Plain(artifacts.Recipe):
    """w (40, 5): numbers."""

    name = "plain"
    suffix = ".safetensors"

    def make(self, *path: Path):
        return {"w": np.arange(200.0).reshape(40, 5)}


@dataclass(frozen=True)
class Hdf(Plain):
    """The same as HDF5."""

    name = "hdf"
    suffix = ".h5"

    def make(self, *path: Path):
        import h5py

        with h5py.File(path[0], "w") as file:
            file["w"] = np.arange(200.0).reshape(40, 5)


def test_artefacts(tmp_path, monkeypatch, counted):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)
    plain, hdf = (artifacts.cached(recipe(), "x/y").path for recipe in (Plain, Hdf))
    for artefact, file, count in (
        (plain, plain, 40),
        (hdf, hdf, 30),
        (hdf, artifacts.beside(hdf), 20),
    ):
        for _ in flipped(file, count):
            with pytest.raises(ArtifactError) as error:
                artifacts.opened(artefact)
            noticed(error)
        counted("flipped bits", count)
        assert artifacts.opened(artefact)


def test_records_of_generators_and_verdicts(tmp_path, monkeypatch, counted):
    for name in ("ARTIFACTS", "MADE", "VERDICTS"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    monkeypatch.setattr(scale, "settings", lambda chapter: {"rows": 4})
    monkeypatch.setattr(scale, "literals", lambda chapter: {"rows": 4})
    monkeypatch.setenv("BOOK_SCALE", "book")
    monkeypatch.setenv(scale.GIVEN, "")
    Generator("one/01-make", {"rows": 4}).keep("one", CastRows(2, 1e-6, 1e-5, 4, 6, 2))
    [record] = paths.MADE.rglob("*.json")
    for _ in flipped(record, 20):
        with pytest.raises(artifacts.ArtifactMissing, match="is damaged"):
            generators.load("one/01-make")
    assert generators.load("one/01-make").parameters.rows == 4
    claims.settled({"census-holes": claims.Measured(13, "in this test")})
    [verdict] = paths.VERDICTS.rglob("*.json")
    for _ in flipped(verdict, 20):
        try:
            assert not claims.verdicts(), "without its seal it settles nothing"
        except claims.ClaimError as error:
            assert "run discovery/02-census again" in str(error) and "\n" not in str(error)
    assert claims.verdicts()["census-holes"]["measured"] == 13
    counted("flipped bits", 40)


def test_executed_notebooks_and_their_seals(here, counted):
    source = write_chapter(here, "a", "---\nkind: page\nreads: []\n---\n\n# A {#sec-a}\n\nText.\n")
    ran = runner.run(source, digest="key")
    for file in (ran, runner.seal_of(ran)):
        for _ in flipped(file, 20):
            assert not schedule.is_current(ran, "key")
    assert schedule.is_current(ran, "key")
    counted("flipped bits", 40)


@pytest.fixture
def fetched(server, monkeypatch) -> Path:
    monkeypatch.setattr(catalogue, "CATALOGUE", (DESCRIPTION,))
    return fetching.fetch_from_hub(DESCRIPTION, SOURCE)


def test_a_fetched_matrix(fetched, bits, counted):
    """As rot leaves it, its time unchanged, or as a person does."""
    kept = fetched.stat().st_mtime_ns
    for number, _ in enumerate(flipped(fetched, 60)):
        if number % 2:
            os.utime(fetched, ns=(kept, kept))
        with pytest.raises(SpecimenError, match="fetch") as error:
            specimens.open("small")
        noticed(error)
        with pytest.raises(SpecimenError):
            specimens.open(str(fetched))
    assert np.array_equal(specimens.open("small").bits, bits)
    assert fetched.stat().st_mtime_ns == kept, "read in full once, then a look will do"
    counted("flipped bits", 60)


def test_of_a_large_matrix_a_look_sees_a_hole_and_verifying_a_bit(fetched, monkeypatch):
    """Zeros that a power cut left would be counted as a black hole."""
    monkeypatch.setattr(store, "BUFFER", 64)  # of some 130,000 bytes a look sees 4,096
    (data, offset), kept = store._record(fetched), fetched.stat().st_mtime_ns
    size = fetched.stat().st_size
    with fetched.open("r+b") as file:
        file.write(store._head(
            {key: data[key] for key in ("specimen", "source", "version")},
            next(iter(specimens.tensor_files.read_header(fetched).entries.values())),
            data["sha256"], store._sampled(fetched, offset), kept,
        ))  # fmt: skip
    os.utime(fetched, ns=(kept, kept))
    assert store.opened(fetched)
    whole, stretch = fetched.read_bytes(), (size - offset) // store.PIECES + 64
    for start in random.Random(1).sample(range(offset, size - stretch), 20):
        fetched.write_bytes(whole[:start] + bytes(stretch) + whole[start + stretch :])
        os.utime(fetched, ns=(kept, kept))
        with pytest.raises(SpecimenError, match="have changed"):
            store.opened(fetched)
    rotten = bytearray(whole)
    rotten[offset + 64 * 10] ^= 1
    fetched.write_bytes(rotten)
    os.utime(fetched, ns=(kept, kept))
    assert store.opened(fetched), "between two pieces: the limit of a look"
    with pytest.raises(SpecimenError, match="have changed"):
        store.verify(fetched)


def test_an_unfinished_transfer_and_the_digests_beside_it(server, bits, monkeypatch, counted):
    """Whatever of it is true is gone on with; the end is right."""
    monkeypatch.setattr(store, "NOTED", 20_000)
    monkeypatch.setattr(ranges, "BUFFER", 10_000)
    part = catalogue.fetched_file("small").with_name("small.safetensors.part")
    notes, asked = part.with_name(part.name + ".sums"), []
    for number in range(45):
        server.faults = [None, cut_after(100_000), *[cut_after(0)] * ranges.PATIENCE]
        with pytest.raises(SpecimenError, match="run the same command again"):
            fetching.fetch_from_hub(DESCRIPTION, SOURCE)
        for _ in flipped(notes if number % 3 == 0 else part, 1 + number % 2):
            damaged = (part.read_bytes(), notes.read_bytes())
        part.write_bytes(damaged[0])
        notes.write_bytes(damaged[1])
        server.log.clear()
        assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)
        assert store.verify(catalogue.fetched_file("small"))
        start, stop = map(int, server.ranges()[1].removeprefix("bytes=").split("-"))
        asked.append(stop - start + 1)
    assert min(asked) < 60_000 < max(asked), "some began anew, most went on"
    counted("flipped bits", 45)


def test_the_small_files_of_a_fetched_model(server, tmp_path, counted):
    vocabulary = {f"token{i}": i for i in range(200)}
    tokenizer, config = tmp_path / "tokenizer.json", tmp_path / "config.json"
    tokenizer.write_text(json.dumps({"model": {"vocab": vocabulary}}))
    config.write_text(json.dumps({"tie_word_embeddings": True, "hidden_size": 96}))
    server.repos[REPO] |= {file.name: file for file in (tokenizer, config)}
    folder = fetching.fetch_model(REPO)
    asked = len(server.log)
    for name, count in (("tokenizer.json", 20), ("config.json", 10)):
        for _ in flipped(folder / name, count):
            with pytest.raises(SpecimenError, match="has changed") as error:
                fetching.fetch_model(REPO)
            noticed(error)
        counted("flipped bits", count)
    assert fetching.fetch_model(REPO) == folder and len(server.log) == asked


TEXT = "".join(random.Random(3).choices("abc ทดสอบ\n", k=3_000))


@pytest.fixture
def plain(tmp_path, monkeypatch) -> corpus.Slice:
    """A slice in the catalogue, and the hub that has its text."""
    monkeypatch.setattr(paths, "SLICES", tmp_path / "slices")
    quick_and_nobody(monkeypatch)
    monkeypatch.setattr(corpus, "READ", 1_000)
    one = corpus.Slice("plain", "Thai", "all.txt", "someone/texts", characters=2_000)
    monkeypatch.setitem(corpus.SLICES, "plain", one)
    text = tmp_path / "all.txt"
    text.write_text(TEXT, "utf-8")
    with serving(Hub({"datasets/someone/texts": {"all.txt": text}})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def test_a_slice_of_a_corpus_its_record_and_its_parts(plain, counted):
    file = corpus.fetch("plain")
    for one, read in ((file, corpus.text), (file.with_name("plain.json"), corpus.origin)):
        for _ in flipped(one, 15):
            with pytest.raises(EditionError, match="--again") as error:
                read("plain")
            noticed(error)
    assert corpus.text("plain") == TEXT[:2_000]
    for _ in range(15):
        plain.faults = [None, None, *[status(503)] * ranges.PATIENCE]
        with pytest.raises(SpecimenError, match="gave up"):
            corpus.fetch("plain", again=True)
        [part, *_] = sorted(file.with_name("plain.parts").glob("[0-9]*"))
        damaged = [part.read_bytes() for _ in flipped(part, 1)]
        part.write_bytes(damaged[0])
        corpus.fetch("plain", again=True)
        assert corpus.text("plain") == TEXT[:2_000]
    counted("flipped bits", 45)


def test_slices_too_are_verified(plain, tmp_path, monkeypatch, capsys):
    from lib.__main__ import main

    for name in ("ARTIFACTS", "FETCHED"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    file = corpus.fetch("plain")
    assert main(["verify"]) == 0 and "the first 2,000 characters" in capsys.readouterr().out
    for _ in flipped(file, 1):
        assert main(["verify"]) == 1 and "DAMAGED" in capsys.readouterr().out
