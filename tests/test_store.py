"""What was fetched is held to what was seen when it came; without a digest it is unproven."""

import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from lib import paths
from lib.__main__ import main
from lib.extraction import catalogue, fetching, ranges, specimens, store
from lib.extraction.catalogue import SpecimenError
from tests.test_fetching import DESCRIPTION, SOURCE, arrived, bits, cut_after, home, model, server

__all__ = ["bits", "home", "model", "server"]  # fixtures


@pytest.fixture
def known(monkeypatch):
    """Makes the catalogue of this one specimen, with or without its digest."""

    def put(sha256: str | None = None) -> catalogue.Description:
        one = replace(DESCRIPTION, sha256=sha256, sources=(SOURCE,))
        monkeypatch.setattr(catalogue, "CATALOGUE", (one,))
        monkeypatch.setattr(catalogue, "ROLES", {"subject": ("small", "small")})
        return one

    return put


@pytest.mark.parametrize("is_published", [True, False])
def test_it_is_said_where_nobody_publishes_a_digest(
    is_published, server, bits, known, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(paths, "SLICES", tmp_path / "slices")
    sha256 = hashlib.sha256(bits.tobytes()).hexdigest()
    known(sha256 if is_published else None)
    for words in (["fetch", "small"], ["verify"]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert sha256 in said and ("unproven" in said) != is_published
    assert main(["specimens", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["here"] == ("whole" if is_published else "unproven")
    path = catalogue.fetched_file("small")
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    assert specimens.here(catalogue.find("small")) == "damaged"
    assert main(["census", str(path)]) == 2 and "have changed" in capsys.readouterr().err
    assert main(["fetch", "small"]) == 2 and main(["fetch", "small", "--again"]) == 0
    assert main(["verify"]) == 0
    path.write_bytes(bytes(10))
    assert main(["verify", "--remove"]) == 1 and not path.exists()


def test_a_file_that_was_copied_is_read_in_full_once(server, bits, known, monkeypatch):
    known()
    path = fetching.fetch("small")
    kept = path.stat().st_mtime_ns
    os.utime(path)
    assert path.stat().st_mtime_ns != kept and np.array_equal(specimens.open("small").bits, bits)
    assert path.stat().st_mtime_ns == kept
    monkeypatch.setattr(store, "verify", lambda _: pytest.fail("read in full again"))
    assert store.opened(path)["specimen"] == "small"


def test_an_unfinished_file_goes_on_from_the_last_digest_that_is_true(
    server, bits, known, monkeypatch
):
    known()
    monkeypatch.setattr(store, "NOTED", 20_000)
    monkeypatch.setattr(ranges, "BUFFER", 10_000)
    server.faults = [None, cut_after(100_000), *[cut_after(0)] * ranges.PATIENCE]
    with pytest.raises(SpecimenError, match="run the same command again"):
        fetching.fetch("small")
    part = catalogue.fetched_file("small").with_name("small.safetensors.part")
    whole = bytearray(part.read_bytes())
    whole[-100_000 + 50_000] ^= 1
    part.write_bytes(whole)
    server.log.clear()
    assert arrived(fetching.fetch("small"), bits)
    start, stop = map(int, server.ranges()[1].removeprefix("bytes=").split("-"))
    assert stop - start + 1 == bits.nbytes - 40_000 + ranges.OVERLAP


def test_a_server_that_counts_wrongly_is_not_believed(server, home, known):
    def shifted(handler, file, start, stop):
        handler.send_response(206)
        handler.part(file.stat().st_size, start, stop)
        handler.body(file, start + 2, stop + 2)

    known()
    server.faults = [None, shifted]
    with pytest.raises(SpecimenError, match=r"other bytes the second time.*thrown away"):
        fetching.fetch("small")
    assert [path.suffix for path in home.iterdir()] == [".lock"]
