"""Matrices that nobody vouches for: each is a specimen that can be counted, or one line.

Sound files are damaged by generated changes; what `test_tensor_files` lists by hand stays there.
"""

import json
import os
import random
import socket
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.__main__ import main
from lib.analysis import census
from lib.extraction import models, specimens, tensor_files
from lib.extraction.catalogue import SpecimenError
from tests.test_tensor_files import file_of, gguf_of, tensor

pytestmark = pytest.mark.slow
CASES = 150  # of each generated kind
MOST = 30_000_000  # bytes of memory for files of a few kilobytes


def ended(path: Path, name: str = "") -> str:
    """How opening and counting a matrix ended: "" for a specimen, else the line."""
    tracemalloc.start()
    try:
        specimen = specimens.open(f"{path}:{name}" if name else str(path))
        if specimen.precision in ("BF16", "F16", "F32", "Q8_0"):
            found = census.of(specimen)
            assert found.rows == specimen.rows and len(specimen.source) < 1_000
        return ""
    except SpecimenError as error:
        assert "\n" not in str(error) and len(str(error)) < 1_500
        return str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST


NAMES = st.text(max_size=12) | st.sampled_from(
    ["W", "lm_head.weight", "a/../b", "\x00", "\ud800", "\x1b[2J", "__metadata__", "x" * 1_000_000]
)
SCALARS = (
    st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | NAMES | st.none() | st.booleans()
)
SIZES = st.integers(-1, 30) | st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64, 2**70])
DTYPES = st.sampled_from([*tensor_files.DTYPES, "F4", "F8_E8M0", "C64", "", "bf16"]) | SCALARS
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": DTYPES,
        "shape": st.lists(SIZES, max_size=4) | SCALARS,
        "data_offsets": st.lists(SIZES, max_size=3) | SCALARS,
        "more": SCALARS,
    },
)
METADATA = st.dictionaries(NAMES | st.just("provenance"), NAMES | SCALARS, max_size=3)
HEADERS = st.dictionaries(NAMES, ENTRY | SCALARS, max_size=3)


@settings(
    max_examples=CASES, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(header=HEADERS, metadata=st.none() | METADATA, size=st.integers(0, 200), cut=SIZES)
def generated_headers(folder, header, metadata, size, cut):
    if metadata is not None:
        header["__metadata__"] = metadata
    raw = json.dumps(header).encode()
    length = cut if 0 <= cut < 2**64 and cut % 3 == 0 else len(raw)
    (folder / "m.safetensors").write_bytes(file_of(raw, bytes(size), length))
    ended(folder / "m.safetensors")


def test_generated_headers(tmp_path, counted):
    generated_headers(tmp_path)
    counted("hostile matrices", CASES)


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """A file with a few changes: bits, numbers that are much too large, pieces that go or come."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 3)):
        at, kind = rng.randrange(len(data)), rng.randrange(5)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 8] = rng.choice([2**33, 2**62, 2**64 - 1, 0, 7]).to_bytes(8, "little")
        elif kind == 2:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 40))
        else:
            data = data[: max(at, 1)]
    return bytes(data)


def sound(folder: Path) -> dict[str, bytes]:
    """Small sound files: safetensors with metadata, and GGUF as its own writer makes it."""
    W = np.random.default_rng(42).normal(size=(12, 32)).astype(np.float32)
    header = {
        "__metadata__": {"format": "pt", "provenance": json.dumps({"source": "x", "sha256": "0"})},
        "lm_head.weight": tensor(shape=W.shape, offsets=(0, W.nbytes)),
    }
    plain = file_of(json.dumps(header).encode(), W.tobytes())
    two = {"token_embd.weight": (W, "F32"), "half": (W.astype(np.float16), "F16")}
    floats = gguf_of(folder / "f.gguf", two).read_bytes()
    blocks = gguf.quants.quantize(W, gguf.GGMLQuantizationType.Q8_0)
    blocks = gguf_of(folder / "q.gguf", {"output.weight": (blocks, "Q8_0")}).read_bytes()
    return {"m.safetensors": plain, "f.gguf": floats, "q.gguf": blocks}


@pytest.mark.parametrize("name", ["m.safetensors", "f.gguf", "q.gguf"])
def test_a_sound_file_with_random_damage(name, tmp_path, counted):
    whole, rng, path = sound(tmp_path)[name], random.Random(name), tmp_path / name
    head = min(len(whole), 400)  # what comes later are numbers
    lines = set()
    for _ in range(CASES):
        changed = damaged(whole[:head], rng) + whole[head:]
        path.write_bytes(changed if rng.random() < 0.9 else damaged(whole, rng))
        lines.add(ended(path))
    assert len(lines) > 5
    counted("hostile matrices", CASES)


def claims() -> dict[str, bytes]:
    """GGUF files whose metadata claim what they do not hold; gigabytes of it, in some."""

    def pair(kind: int, value: bytes, key: bytes = b"k") -> bytes:
        return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value

    def file(pairs: bytes, count: int = 1, tensors: int = 0, version: int = 3) -> bytes:
        return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + pairs

    def array(kind: int, count: int) -> bytes:
        return file(pair(9, struct.pack("<IQ", kind, count)))

    name = struct.pack("<Q", 1) + b"W"
    shape = struct.pack("<I", 2) + struct.pack("<QQ", 2**40, 2**40)
    return {
        **{f"array of {k} by 2^{p}": array(k, 2**p) for k in (0, 1, 4, 8, 9, 12) for p in (33, 63)},
        "name of 2^40": file(struct.pack("<Q", 2**40)),
        "tensor too large": file(name + shape + struct.pack("<IQ", 0, 0), 0, 1),
        "tensor far away": file(name + struct.pack("<IQQIQ", 2, 2, 2, 0, 2**60), 0, 1),
        "a hundred dimensions": file(name + struct.pack("<I", 100) + bytes(900), 0, 1),
        "unknown type": file(name + struct.pack("<IQQIQ", 2, 2, 2, 999, 0), 0, 1),
        "no UTF-8": file(pair(4, bytes(4), b"\xff\xfe\xed\xa0\x80")),
        "key twice": file(pair(4, bytes(4)) * 2, 2),
        "version 0": file(b"", 0, 0, 0),
        "version 2^31": file(b"", 0, 0, 2**31),
    }


@pytest.mark.parametrize("name", claims())
def test_a_gguf_file_that_claims_too_much(name, tmp_path, counted):
    (tmp_path / "m.gguf").write_bytes(claims()[name])
    assert ended(tmp_path / "m.gguf")
    counted("hostile matrices", 1)


ODD = {
    "lone surrogate": '"\\ud800"',
    "NUL": '"\\u0000"',
    "escape": '"\\u001b[2J\\n"',
    "direction": '"\\u202e"',
    "a megabyte": '"' + "n" * 1_000_000 + '"',
    "empty": '""',
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("shape", ["[2, 3]", "[6]"])
def test_odd_names_of_tensors(name, shape, tmp_path, capsys, counted):
    entry = f'{{"dtype": "F32", "shape": {shape}, "data_offsets": [0, 24]}}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of(f"{{{ODD[name]}: {entry}}}".encode(), bytes(24)))
    for words in (["census", str(path)], ["census", f"{path}:W"], ["census", str(path), "--json"]):
        status = main(words)
        said = capsys.readouterr()
        assert (
            status in (0, 2) and len(said.out + said.err) < 3_000_000 * ("--json" in words) + 3_000
        )
        assert all(line.isprintable() for line in (said.out + said.err).splitlines())
        assert status == 0 or said.err.count("\n") == 1
    counted("hostile matrices", 3)


def test_odd_paths(tmp_path, capsys, counted):
    """A pipe, devices, a socket, a loop, a folder, names that no file may have."""
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    (tmp_path / "dangling.safetensors").symlink_to("nowhere")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "empty.gguf").touch()
    here = Path.cwd()
    os.chdir(tmp_path)  # a socket's path has a limit
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.safetensors")
    finally:
        os.chdir(here)
    index = tmp_path / "indexed"
    index.mkdir()
    (index / tensor_files.INDEX).write_text(
        '{"weight_map": {"lm_head.weight": "pipe.safetensors"}}'
    )
    os.mkfifo(index / "pipe.safetensors")
    paths = [*tmp_path.iterdir(), "/dev/zero", "/dev/full", "/proc/self/mem", "a:b:c", ":"]
    paths += [tmp_path / ("n" * 300), f"{tmp_path}/{'n' * 5_000}.safetensors"]
    paths += [tmp_path / "a\0b.safetensors", tmp_path / "\udcff.safetensors"]
    paths += [f"{tmp_path}/empty.gguf:{'t' * 1_000}"]
    for path in paths:
        assert main(["census", str(path)]) == 2, path
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and len(said) < 6_000
    counted("hostile matrices", len(paths))


def test_metadata_that_say_too_much_of_their_origin(tmp_path, counted):
    """As a fetched file says its own; a foreign one may say anything."""
    whole = json.dumps({"source": "\x1b[2J" + "s" * 10_000})
    texts = ("", "[", "[1]", "7", "null", '"x"', "{}", '{"source": 1}', "[" * 100_000, whole)
    for text in texts:
        header = {"__metadata__": {"provenance": text}, "lm_head.weight": tensor()}
        path = tmp_path / "m.safetensors"
        path.write_bytes(file_of(json.dumps(header).encode(), bytes(24)))
        assert ended(path) == "" and models.open(str(path)).specimen.rows == 2
    counted("hostile matrices", len(texts))
