"""Slices of large corpora, streamed from a hub on loopback: whole, cut, changed, refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib import files, paths
from lib.__main__ import main
from lib.extraction import corpus, fetching, ranges
from lib.extraction.catalogue import SpecimenError
from lib.extraction.editions import EditionError
from tests.loopback_hub import COMMIT, Hub, quick_and_nobody, serving
from tests.test_fetching import cut_after, status

REPO, FILE = "someone/texts", "data/tha_Thai/train/000.parquet"
ADDRESS = f"datasets/{REPO}"  # of a data set on the hub
MADE = corpus.Slice("made", "Thai", FILE, REPO, column="text", characters=30_000)


def documents(count: int = 400) -> list[str]:
    """Texts of 20 to 300 characters, Thai and English, that compress badly."""
    rng = np.random.default_rng(42)
    letters = np.array(list("กขคงจฉชabcdefgh \nนบปผฝ" * 2))
    return ["".join(rng.choice(letters, rng.integers(20, 300))) for _ in range(count)]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder of slices, a quick clock, nobody's token, two slices in the catalogue."""
    monkeypatch.setattr(paths, "SLICES", tmp_path / "slices")
    quick_and_nobody(monkeypatch)
    monkeypatch.setitem(corpus.SLICES, "made", MADE)
    plain = replace(MADE, name="plain", file="all.txt", column=None, characters=20_000)
    monkeypatch.setitem(corpus.SLICES, "plain", plain)
    return tmp_path / "slices"


@pytest.fixture
def server(home, tmp_path, monkeypatch):
    text = tmp_path / "all.txt"
    text.write_bytes("\n".join(documents()).encode() * 3)
    with serving(Hub({ADDRESS: {"all.txt": text}})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


@pytest.fixture
def parquet(server, tmp_path) -> Path:
    """A real Parquet file of ten row groups, with a wide column that nobody asks for."""
    pyarrow = pytest.importorskip("pyarrow")
    write = pytest.importorskip("pyarrow.parquet").write_table
    path = tmp_path / "000.parquet"
    texts = documents()
    noise = np.random.default_rng(0).bytes(500 * len(texts))
    other = [noise[500 * i : 500 * (i + 1)] for i in range(len(texts))]
    table = pyarrow.table({"id": other, "text": texts, "score": np.arange(len(texts))})
    write(table, path, row_group_size=40, compression="zstd")
    server.repos[ADDRESS][FILE] = path
    return path


def expected(characters: int) -> str:
    return corpus.BETWEEN.join(documents())[:characters]


def bytes_asked(server: Hub) -> int:
    pairs = (word.removeprefix("bytes=").split("-") for word in server.ranges())
    return sum(int(stop) - int(start) + 1 for start, stop in pairs)


def test_a_slice_is_the_beginning_of_the_column(parquet, server):
    path = corpus.fetch("made")
    assert corpus.text("made") == expected(30_000)
    record = corpus.provenance("made")
    assert record["characters"] == 30_000
    assert f"commit {COMMIT}" in record["version"]
    assert FILE in record["source"]
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "made.json",
        "made.lock",
        "made.txt.xz",
    ]
    assert bytes_asked(server) < 0.5 * parquet.stat().st_size, "whole file instead of a column"
    count = len(server.log)
    assert corpus.fetch("made") == path
    assert len(server.log) == count, "a slice that is here is not asked for again"
    first = path.read_bytes()
    corpus.fetch("made", again=True)
    assert path.read_bytes() == first


def test_a_cut_connection_is_taken_up_where_it_was(parquet, server):
    server.faults = [None, None, cut_after(100), None, cut_after(1000), cut_after(7)]
    corpus.fetch("made")
    assert corpus.text("made") == expected(30_000)
    assert not server.faults


def test_a_fetch_that_was_given_up_goes_on(parquet, server, home):
    server.faults = [None] * 4 + [status(503)] * ranges.PATIENCE
    with pytest.raises(SpecimenError, match="gave up"):
        corpus.fetch("made")
    assert not corpus.slice_file("made").exists()
    before = set(server.ranges())
    count = len(server.ranges())
    corpus.fetch("made")
    assert corpus.text("made") == expected(30_000)
    again = server.ranges()[count:]
    assert len(before & set(again)) <= 1, "only the range that failed is asked for once more"


def test_a_file_that_has_changed_is_begun_anew(parquet, server, home):
    server.faults = [None] * 4 + [status(503)] * ranges.PATIENCE
    with pytest.raises(SpecimenError, match="gave up"):
        corpus.fetch("made")
    server.etag = '"another"'
    count = len(server.ranges())
    corpus.fetch("made")
    assert len(set(server.ranges()[:count]) & set(server.ranges()[count:])) > 1
    assert corpus.text("made") == expected(30_000)


def test_plain_text_asks_only_for_its_beginning(server, monkeypatch):
    monkeypatch.setattr(corpus, "READ", 1001)  # cuts Thai letters in two
    corpus.fetch("plain")
    assert corpus.text("plain") == "\n".join(documents())[:20_000]
    whole = server.repos[ADDRESS]["all.txt"].stat().st_size
    assert bytes_asked(server) < 0.7 * whole


def test_the_novel_without_what_stands_round_it(server, monkeypatch):
    book = "\n\nIn my younger years\n\nthe past.\n\n"
    around = f"\ufeffThe eBook\n*** START OF IT ***{book}*** END OF IT ***\nlicence"
    file = server.repos[ADDRESS]["all.txt"]
    file.write_bytes(around.replace("\n", "\r\n").encode())
    address = f"{server.address}/{ADDRESS}/resolve/main/all.txt"
    novel = corpus.Slice("gatsby", "English", address)
    monkeypatch.setitem(corpus.SLICES, "gatsby", novel)
    corpus.fetch("gatsby")
    assert corpus.text("gatsby") == "In my younger years\n\nthe past.\n"
    file.write_bytes(b"no such lines")
    with pytest.raises(SpecimenError, match="START and END"):
        corpus.fetch("gatsby", again=True)
    monkeypatch.setitem(corpus.SLICES, "gatsby", replace(novel, file=address + "x"))
    with pytest.raises(SpecimenError, match="no such file"):
        corpus.fetch("gatsby", again=True)
    monkeypatch.setitem(corpus.SLICES, "gatsby", replace(novel, file="http://127.0.0.1:9/x"))
    with pytest.raises(SpecimenError, match="not reachable"):
        corpus.fetch("gatsby", again=True)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"file": "data/none.parquet"}, "has no file data/none.parquet"),
        ({"repo": "someone/gone"}, "is not on the hub"),
        ({"column": "words"}, "no column 'words'; there are id, text, score"),
        ({"column": "score"}, "holds int64, not text"),
        ({"characters": 10_000_000}, "10,000,000 were asked for"),
        ({"file": "all.txt"}, "no readable Parquet file"),
    ],
)
def test_what_is_wrong_is_named(parquet, server, monkeypatch, wrong, said):
    monkeypatch.setitem(corpus.SLICES, "made", replace(MADE, **wrong))
    with pytest.raises(SpecimenError, match=said):
        corpus.fetch("made")
    assert not corpus.slice_file("made").exists()


def test_a_truncated_file_is_named(parquet, server):
    parquet.write_bytes(parquet.read_bytes()[:-20])
    with pytest.raises(SpecimenError, match="no readable Parquet file"):
        corpus.fetch("made")


def test_bytes_of_another_length_are_refused(parquet, server):
    def short(handler, file, start, stop):
        handler.send_response(206)
        handler.part(file.stat().st_size - 1, start, stop)
        handler.body(file, start, stop)

    server.faults = [short]
    with pytest.raises(SpecimenError, match="was asked for"):
        corpus.fetch("made")


def test_a_gated_corpus_says_so(server, monkeypatch, capsys):
    server.head_errors[ADDRESS] = (403, "GatedRepo")
    monkeypatch.setitem(corpus.SLICES, "made", replace(MADE, gated=True))
    assert main(["fetch", "made"]) == 2
    said = capsys.readouterr()
    assert "made is gated" in said.out
    assert f"accept its licence at {server.address}/datasets/{REPO} and set HF_TOKEN" in said.err
    assert corpus.SLICES["culturax"].gated


def test_without_pyarrow_the_extra_is_named(server, monkeypatch):
    server.repos[ADDRESS][FILE] = server.repos[ADDRESS]["all.txt"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SpecimenError, match="corpora"):
        corpus.fetch("made")


def test_no_network_is_one_line(home, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["fetch", "tinystories"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: roneneldan/TinyStories") and "not reachable" in said
    assert fetching.endpoint() in said


def test_a_damaged_slice_says_how_to_mend_it(home):
    with pytest.raises(EditionError, match="python -m lib fetch made"):
        corpus.text("made")
    path = corpus.keep_slice("made", "some text", "nowhere", "1")
    assert corpus.text("made") == "some text"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(EditionError, match="--again"):
        corpus.text("made")
    other = corpus.keep_slice("plain", "other text", "nowhere", "1")
    path.write_bytes(other.read_bytes())
    with pytest.raises(EditionError, match="not the edition that was meant"):
        corpus.text("made")
    path.with_name("made.json").write_text(json.dumps([1]))
    with pytest.raises(EditionError, match="damaged"):
        corpus.provenance("made")


def test_a_full_disk_is_named(server, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(corpus, "_begin", full)
    with pytest.raises(files.FileError, match="free some space"):
        corpus.fetch("plain")
