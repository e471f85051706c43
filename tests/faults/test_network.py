"""A hub that lies, cuts, shifts, stalls and changes: what arrives is right, or nothing does.

What cannot be noticed, and is therefore not here: a server that alters a few bytes of a tensor once
(HTTPS keeps others from it) where nobody publishes a digest. Where somebody does, it is noticed.
"""

import hashlib
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lib.extraction import catalogue, fetching, ranges, specimens, store
from lib.extraction.catalogue import SpecimenError
from tests.loopback_hub import COMMIT, Fault, Hub, etag, serving
from tests.test_fetching import (
    DESCRIPTION,
    REPO,
    SOURCE,
    arrived,
    bits,
    cut_after,
    home,
    longer_than_asked,
    model,
    other_range,
    server,
    status,
    whole_file,
)

__all__ = ["bits", "home", "model", "server"]  # fixtures

pytestmark = pytest.mark.slow
TENSOR = 1  # number of the request that asks for the tensor; the header's is 0


def sends(change, tag: str = "") -> Fault:
    """An honest answer but for its body: `change(whole file, start, stop)`."""

    def fault(handler, file: Path, start: int, stop: int) -> None:
        handler.send_response(206)
        handler.send_header("ETag", tag or etag(file))
        handler.part(file.stat().st_size, start, stop)
        handler.wfile.write(change(file.read_bytes(), start, stop))

    return fault


def shifted(by: int) -> Fault:
    return sends(lambda whole, start, stop: (whole + whole)[start + by : stop + by])


def shifted_but_the_first(by: int) -> Fault:
    return sends(lambda w, start, stop: (w + w)[start + by * (start > 0) : stop + by * (start > 0)])


def flipped(at: int) -> Fault:
    def change(whole: bytes, start: int, stop: int) -> bytes:
        body = bytearray(whole[start:stop])
        body[at % len(body)] ^= 1 << at % 8
        return bytes(body)

    return sends(change)


zeros = sends(lambda _, start, stop: bytes(stop - start))
others = sends(lambda _, start, stop: random.Random(7).randbytes(stop - start))
renamed = sends(lambda whole, start, stop: whole[start:stop], tag='"another"')


def stalled(handler, file: Path, start: int, stop: int) -> None:
    handler.send_response(206)
    handler.part(file.stat().st_size, start, stop)
    handler.body(file, start, start + (stop - start) // 2)
    handler.wfile.flush()
    time.sleep(0.5)


def zipped(handler, file: Path, start: int, stop: int) -> None:
    handler.send_response(206)
    handler.send_header("Content-Encoding", "gzip")
    handler.part(file.stat().st_size, start, stop)
    handler.body(file, start, stop)


HEALED = {  # the transfer goes on and ends well
    **{f"cut {seed}": [None, *(cut_after(random.Random(seed + i).randrange(60_000))
       for i in range(5))] for seed in range(0, 40, 10)},
    "cut inside what is repeated": [None, cut_after(9_000), cut_after(100), cut_after(255)],
    "stalled": [None, stalled],
    "stalled twice, then cut": [None, stalled, cut_after(0), stalled],
    "busy": [status(503), None, status(429), status(500), cut_after(10), status(408)],
}  # fmt: skip
REFUSED = {  # one line, no file; the next fetch, of an honest server, ends well
    **{f"shifted by {n}": [None, shifted(n)] for n in (1, 2, 191, 192, -1, 4096)},
    "shifted after a cut": [None, cut_after(30_000), shifted(1)],
    "all but the first shifted by 1": [shifted_but_the_first(1)] * 20,
    "all but the first shifted by a row": [shifted_but_the_first(192)] * 20,
    "everything shifted": [shifted(1)] * 20,
    "zeros": [None, zeros],
    "zeros after a cut": [None, cut_after(30_000), zeros],
    "other bytes": [None, others],
    "renamed before the tensor": [None, renamed],
    "renamed after a cut": [None, cut_after(30_000), renamed],
    "renamed in the second reading": [None, None, renamed],
    "the whole file": [None, whole_file],
    "another range": [None, other_range],
    "longer": [None, longer_than_asked],
    "compressed": [None, zipped],
}


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(ranges, "TIMEOUT", 0.25)
    monkeypatch.setattr(catalogue, "CATALOGUE", (DESCRIPTION,))


@pytest.mark.parametrize("name", HEALED)
def test_a_transfer_that_is_cut_or_stalls_ends_well(name, server, bits, quick, counted):
    server.faults = list(HEALED[name])
    assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)
    assert not server.faults
    counted("network faults", 1)


@pytest.mark.parametrize("name", REFUSED)
def test_a_server_that_lies_is_refused_in_one_line(name, server, bits, home, quick, counted):
    server.faults = list(REFUSED[name])
    with pytest.raises(SpecimenError) as raised:
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    assert "\n" not in str(raised.value) and REPO in str(raised.value)
    assert not catalogue.fetched_file("small").exists()
    server.faults = []
    assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)
    assert store.opened(catalogue.fetched_file("small"))
    assert sorted(path.suffix for path in home.iterdir()) == [".lock", ".safetensors"]
    counted("network faults", 1)


@pytest.mark.parametrize("at", [12_345, 70_000])
def test_one_flipped_bit_is_noticed_where_a_digest_is_published(at, server, bits, quick, counted):
    right = replace(DESCRIPTION, sha256=hashlib.sha256(bits.tobytes()).hexdigest())
    server.faults = [None, flipped(at)]
    with pytest.raises(SpecimenError, match="thrown away"):
        fetching.fetch_from_hub(right, SOURCE)
    assert arrived(fetching.fetch_from_hub(right, SOURCE), bits)
    counted("network faults", 1)


def test_a_small_file_is_held_to_the_digest_that_the_hub_publishes(
    server, bits, model, tmp_path, quick, counted
):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text('{"model": {"vocab": {"a": 0}}}')
    server.repos[REPO] = {"model.safetensors": model, "tokenizer.json": tokenizer}
    names = [None] * 2  # of the tensors: the header twice
    again = [None] * (1 + 2 + ranges.AGAIN)
    server.faults = [*names, *again, flipped(20)]
    with pytest.raises(SpecimenError, match="not the file that the hub publishes"):
        fetching.fetch_model(REPO)
    folder = fetching.fetch_model(REPO)
    assert (folder / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    assert specimens.open(str(folder)).rows == len(bits)
    tokenizer_here = folder / "tokenizer.json"
    tokenizer_here.write_text(tokenizer_here.read_text().replace("a", "b"))
    with pytest.raises(SpecimenError, match="has changed"):
        fetching.fetch_model(REPO)
    counted("network faults", 2)


def test_what_the_delivery_network_names_otherwise_is_no_change(server, model, bits, quick):
    """Its ETags are its own; they must only stay the same."""
    with serving(Hub({REPO: {"model.safetensors": model}}, etag='W/"of the network"')) as network:
        server.redirect = network.address
        path = fetching.fetch_from_hub(DESCRIPTION, SOURCE)
        assert arrived(path, bits) and COMMIT in store.opened(path)["version"]
        path.unlink()
        network.faults = [None, renamed]
        with pytest.raises(SpecimenError, match="changed while it was read"):
            fetching.fetch_from_hub(DESCRIPTION, SOURCE)
