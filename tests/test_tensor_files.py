"""Files that nobody vouches for: read as they are, or refused in one line; GGUF, folders."""

import json
import os
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings, strategies

from lib.analysis import census
from lib.extraction import fetching, specimens, tensor_files
from lib.extraction.catalogue import SpecimenError


def file_of(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def table(**tensors) -> bytes:
    return json.dumps(tensors).encode()


def tensor(dtype="F32", shape=(2, 3), offsets=(0, 24), **more) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


GOOD = file_of(table(W=tensor()), bytes(24))


TWO = {"a": tensor(), "b": tensor(offsets=(24, 48))}


def malformed() -> dict[str, bytes]:
    """Name -> bytes of a file that must be refused."""
    cases = {
        f"cut at {n}": GOOD[:n] for n in (*range(0, 8), *range(8, len(GOOD), 4), len(GOOD) - 1)
    }
    size = len(GOOD)
    for length in (0, 1, 7, size - 8, size - 7, size, 2**24, 25_000_001, 10**8, 2**31,
                   2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1):  # fmt: skip
        cases[f"length {length}"] = length.to_bytes(8, "little") + GOOD[8:]
    inner = table(W=tensor())[1:-1].decode()
    texts = {
        "empty": "", "no JSON": "W", "a list": "[]", "a number": "7", "null": "null",
        "a text": '"W"',
        "two objects": "{}{}", "key twice": "{" + inner + "," + inner + "}",
        "inner key twice": table(W=tensor()).decode().replace('"shape"', '"dtype": "F32", "shape"'),
        "metadata twice": '{"__metadata__": {}, "__metadata__": {}, ' + inner + "}",
        "metadata a list": '{"__metadata__": [], ' + inner + "}",
        "metadata with numbers": '{"__metadata__": {"a": 1}, ' + inner + "}",
        "metadata nested": '{"__metadata__": {"a": {}}, ' + inner + "}",
        "deep lists": "[" * 200_000, "deep objects": '{"a":' * 200_000,
        "deep tensor": '{"W": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "long integer": inner.join("{}").replace("24", "9" * 10_000),
        "infinity": table(W=tensor()).decode().replace("24", "Infinity"),
        "trailing comma": "{" + inner + ",}", "bare": "{W: 1}",
    }  # fmt: skip
    cases |= {name: file_of(text.encode(), bytes(24)) for name, text in texts.items()}
    cases["no UTF-8"] = file_of(b'{"\xff\xfe": 1}', bytes(24))
    cases["zero bytes"] = file_of(bytes(64), bytes(24))
    wrong = {
        "no dtype": {"shape": [2, 3], "data_offsets": [0, 24]},
        "no shape": {"dtype": "F32", "data_offsets": [0, 24]},
        "no offsets": {"dtype": "F32", "shape": [2, 3]},
        "null": None, "a list": [1, 2], "a number": 3, "empty": {},
        "dtype unknown": tensor("F31"), "dtype small": tensor("f32"), "dtype null": tensor(None),
        "dtype number": tensor(32), "dtype list": tensor(["F32"]), "dtype too wide": tensor("F64"),
        "dtype too narrow": tensor("F16"), "dtype sub-byte": tensor("F4"),
        "shape negative": tensor(shape=[-2, -3]), "shape float": tensor(shape=[2.0, 3]),
        "shape bool": tensor("U8", [True], [0, 1]), "shape text": tensor(shape="23"),
        "shape null": tensor(shape=None), "shape too large": tensor(shape=[2, 4]),
        "shape too small": tensor(shape=[2, 2]), "shape overflowing": tensor(shape=[2**40, 2**40]),
        "shape wrapping": tensor(shape=[2**62, 4, 6]), "shape over 64 bits": tensor(shape=[2**64]),
        "rank 1000": tensor(shape=[1] * 1000), "shape nested": tensor(shape=[[2, 3]]),
        "shape zero": tensor(shape=[0, 3]), "scalar": tensor(shape=[]),
        "offsets reversed": tensor(offsets=[24, 0]), "offsets negative": tensor(offsets=[-24, 0]),
        "offsets one": tensor(offsets=[24]), "offsets three": tensor(offsets=[0, 24, 24]),
        "offsets float": tensor(offsets=[0, 24.0]), "offsets text": tensor(offsets=["0", "24"]),
        "offsets late": tensor(offsets=[1, 25]), "offsets beyond": tensor(offsets=[100, 124]),
        "offsets huge": tensor("U8", [2**62], [0, 2**62]), "offsets null": tensor(offsets=None),
    }  # fmt: skip
    cases |= {f"tensor: {k}": file_of(table(W=v), bytes(24)) for k, v in wrong.items()}
    pairs = {
        "overlap": {**TWO, "b": tensor(offsets=(23, 47))}, "same": {**TWO, "b": tensor()},
        "gap": {**TWO, "b": tensor(offsets=(28, 52))},
        "inside": {**TWO, "b": tensor("U8", [4], [4, 8])},
        "missing tail": {"a": tensor()}, "second beyond": {**TWO, "b": tensor(offsets=(48, 72))},
    }  # fmt: skip
    cases |= {f"two: {k}": file_of(table(**v), bytes(48)) for k, v in pairs.items()}
    cases["trailing bytes"] = GOOD + b"x"
    return cases


MALFORMED = malformed()


def test_there_are_a_hundred_malformed_files():
    assert len(set(MALFORMED.values())) >= 100


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_in_one_line_and_little_memory(name, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(MALFORMED[name])
    tracemalloc.start()
    try:
        with pytest.raises(SpecimenError) as raised:
            tensor_files.open_tensor(path, "W")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(path))
    assert peak < 64 * len(MALFORMED[name]) + 1_000_000


def test_what_is_accepted_reads_as_the_safetensors_package_reads_it(tmp_path):
    """Random damage to a sound header: whatever still passes here means the same there."""
    rng = np.random.default_rng(42)
    values = rng.normal(size=(2, 3)).astype(np.float32)
    sound = bytearray(file_of(table(W=tensor(), n=tensor("U8", [0], [24, 24])), values.tobytes()))
    path, accepted = tmp_path / "x.safetensors", 0
    for _ in range(600):
        damaged = sound.copy()
        for at in rng.integers(0, len(sound) - 24, rng.integers(1, 3)):
            damaged[at] = rng.choice(list(b'{}[]",:0123456789WF aU\x00'))
        path.write_bytes(damaged)
        try:
            ours, _ = tensor_files.open_tensor(path, "W")
        except SpecimenError:
            continue
        accepted += 1
        with safetensors.safe_open(path, "numpy") as file:
            theirs = file.get_tensor("W")
        assert theirs.dtype == ours.dtype and np.array_equal(theirs, ours, equal_nan=True)
    assert 0 < accepted < 300


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint16", "int8", "int64"])
def test_a_sound_file_is_mapped_not_copied(tmp_path, dtype):
    W = np.arange(12).reshape(4, 3).astype(dtype)
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"W": W, "v": W[0].copy()}, path)
    array, name = tensor_files.open_tensor(path)
    assert isinstance(array, np.memmap) and array.dtype == dtype and np.array_equal(array, W)
    assert name == {"float32": "F32", "float16": "F16", "float64": "F64", "uint16": "U16",
                    "int8": "I8", "int64": "I64"}[dtype]  # fmt: skip
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_which_tensor_is_the_unembedding(tmp_path):
    path = tmp_path / "x.safetensors"
    W = np.zeros((4, 3), np.float32)
    names = {"model.embed_tokens.weight": W, "lm_head.weight": W + 1, "other": W}
    safetensors.numpy.save_file(names, path)
    assert np.array_equal(tensor_files.open_tensor(path)[0], W + 1)
    safetensors.numpy.save_file({"a": W, "b": W}, path)
    with pytest.raises(SpecimenError, match=r"append :NAME of 'a', 'b'"):
        tensor_files.open_tensor(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(SpecimenError, match="no such file"):
        tensor_files.read_header(tmp_path / "x.safetensors")
    with pytest.raises(SpecimenError, match="no regular file"):
        tensor_files.read_header(tmp_path)


def gguf_of(path: Path, tensors: dict[str, tuple[np.ndarray, str]]) -> Path:
    """A file made by gguf's own writer: name -> (rows or blocks, type)."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def blocks_of(kind: str, rows: int, rng: np.random.Generator) -> np.ndarray:
    """(rows, bytes) uint8 blocks of a k-quant, which gguf reads but does not write."""
    _, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = rng.integers(0, 256, (rows, 2, nbytes), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.01, (rows, 2, 2)).astype(np.float16)
    at = slice(0, 4) if kind == "Q4_K" else slice(nbytes - 2, nbytes)
    blocks[:, :, at] = scales[:, :, : (at.stop - at.start) // 2].view(np.uint8)
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q4_K", "Q6_K"])
def test_every_type_of_gguf_is_read_and_labelled(kind, tmp_path):
    rng = np.random.default_rng(42)
    W = rng.normal(size=(20, 512)).astype(np.float32)
    type_ = gguf.GGMLQuantizationType[kind]
    data = blocks_of(kind, 20, rng) if kind.endswith("K") else gguf.quants.quantize(W, type_)
    data[7] = data[3]  # a black hole
    path = gguf_of(tmp_path / "m.gguf", {"token_embd.weight": (data, kind)})
    s = specimens.open(str(path))
    assert s.precision == kind and f", {kind}" in s.source and (s.rows, s.dim) == (20, 512)
    exact = gguf.quants.dequantize(data, type_)
    assert np.array_equal(s.values(slice(0, 20)), exact) and np.isfinite(exact).all()
    if kind in ("F32", "F16", "BF16", "Q8_0"):
        np.testing.assert_allclose(exact[:3], W[:3], atol=0.02)
    counted = census.of(s)
    assert counted.holes == 1 and counted.members[0].tolist() == [3, 7]
    assert (s.bits.dtype == np.uint8) == kind.startswith("Q")


def test_which_tensor_of_a_gguf_file_and_a_broken_one(tmp_path):
    W = np.random.default_rng(42).normal(size=(20, 64)).astype(np.float32)
    two = {"token_embd.weight": (W, "F32"), "half": (W.astype(np.float16), "F16")}
    path = gguf_of(tmp_path / "m.gguf", two)
    assert specimens.open(str(path)).description.tensor == "token_embd.weight"
    assert np.array_equal(specimens.open(f"{path}:half").bits, W.astype(np.float16).view(np.uint16))
    with pytest.raises(SpecimenError, match="has no tensor 'none'"):
        specimens.open(f"{path}:none")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SpecimenError, match="no sound GGUF file"):
        specimens.open(str(path))
    with pytest.raises(SpecimenError, match="download it and give its path"):
        fetching.fetch("some/repository/m.gguf")


def test_a_models_folder_is_read_sharded_or_not(tmp_path):
    W = np.arange(20, dtype=np.float32).reshape(5, 4)
    safetensors.numpy.save_file({"lm_head.weight": W}, tmp_path / "model-2.safetensors")
    safetensors.numpy.save_file({"other": W}, tmp_path / "model-1.safetensors")
    with pytest.raises(SpecimenError, match=r"2 \.safetensors files"):
        specimens.open(str(tmp_path))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "model-2.safetensors"}}))
    assert np.array_equal(specimens.open(str(tmp_path)).matrix, W)
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../x.safetensors"}}))
    with pytest.raises(SpecimenError, match="not one of its own"):
        specimens.open(str(tmp_path))
    index.unlink()
    (tmp_path / "model-1.safetensors").unlink()
    specimen = specimens.open(str(tmp_path))
    assert specimen.description.tensor == "lm_head.weight" and specimen.dim == 4


@pytest.mark.parametrize(
    ("name", "path", "wanted"),
    [("a.safetensors", "a.safetensors", None), ("a.safetensors:t.w", "a.safetensors", "t.w"),
     ("d/m:x", "d/m", "x"), ("planted", "planted", None)],
)  # fmt: skip
def test_a_tensor_is_named_after_a_colon(name, path, wanted):
    assert specimens.split(name) == (Path(path), wanted)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    for name in ("pipe.safetensors", "pipe.gguf"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(SpecimenError, match="no regular file"):
            specimens.open(str(tmp_path / name))
    with pytest.raises(SpecimenError, match="no regular file"):
        tensor_files.open_tensor("/dev/zero")


def test_a_gguf_file_that_claims_more_than_it_holds_is_refused_at_once(tmp_path):
    def pair(kind: int, value: bytes) -> bytes:
        return struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + value

    def file(pairs: bytes, count: int = 1, tensors: int = 0) -> bytes:
        return b"GGUF" + struct.pack("<IQQ", 3, tensors, count) + pairs

    claims = {
        "array": file(pair(9, struct.pack("<IQ", 0, 2**33))),
        "strings": file(pair(9, struct.pack("<IQ", 8, 2**33))),
        "string": file(pair(8, struct.pack("<Q", 2**62))),
        "nested": file(pair(9, struct.pack("<IQ", 9, 1) * 30)),
        "kind": file(pair(77, b"")),
        "pairs": file(b"", count=2**40),
        "tensors": file(b"", count=0, tensors=2**40),
        "ends": file(pair(4, b"")),
    }
    for name, data in claims.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        with pytest.raises(SpecimenError, match="is no sound GGUF file"):
            specimens.open(str(path))


@given(data=strategies.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_after_the_beginning_of_a_gguf_file_are_refused_in_one_line(
    data, tmp_path_factory
):
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + data)
    with pytest.raises(SpecimenError) as error:
        specimens.open(str(path))
    assert "\n" not in str(error.value)
