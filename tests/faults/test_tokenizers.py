"""Hostile tokenizer files: each is read, or refused in one line, in bounded time and memory.

Most cases are asked in copies of one process, with two seconds of processor: hundreds of them cost
no hundreds of starts. Some that run away or eat memory go through the real confined process.
"""
# ruff: noqa: E501 (many cases a line)

import base64
import json
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import paths
from lib.__main__ import main
from lib.extraction import confined, emission
from lib.extraction.vocabulary import LONGEST, MOST_IDS, VocabularyError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tokenizers")]

LETTERS = {letter: id for id, letter in enumerate("abc ")}
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}


def bpe(**changes) -> dict:
    """A sound tokenizer.json with changes; those of `model` go into the model."""
    merges = [["a", "b"]]
    model = {"type": "BPE", "vocab": LETTERS | {"ab": 4}, "merges": merges} | changes.pop(
        "model", {}
    )
    return {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
            "model": model} | changes  # fmt: skip


def words(**changes) -> dict:
    """The same for a model that only the library reads."""
    model = {"type": "WordLevel", "vocab": LETTERS, "unk_token": "a"} | changes.pop("model", {})
    return bpe(**changes) | {"model": model}


def split(expression: str) -> dict:
    """A pre-tokenizer that cuts by an expression."""
    return SPLIT | {"pattern": {"Regex": expression}}


def replacing(expression: str) -> dict:
    """A normaliser that replaces what an expression finds."""
    return {"type": "Replace", "pattern": {"Regex": expression}, "content": "x"}


def added(id: int, content: str) -> dict:
    """An added token, as the library wants it."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, "special": True} | flags


WRONG = [None, 1, -1, 1.5, True, "", "x", [], [1], {}, {"a": 1}, [[]], "\ud800", 10**30]


def typed():
    """Wrong types at every place of the file that is read."""
    for value in WRONG:
        for make in (bpe, words):
            yield make(model={"vocab": value})
            yield make(added_tokens=value)
            yield make(normalizer=value)
            yield make(pre_tokenizer=value)
        yield bpe(model={"merges": value})
        yield bpe(model={"type": value})
        yield value
        yield {"model": value}


def numbered():
    """Ids that are no ids, stand twice or are absurd; tokens that are too long."""
    for id in (-1, 10**9, MOST_IDS, MOST_IDS - 1, 2**31, 2**63, 10**30, 1.5, "1", None, True):
        yield bpe(model={"vocab": {"a": id}, "merges": []})
        yield words(model={"vocab": {"a": id}})
        yield bpe(added_tokens=[added(id, "<x>")])
    yield bpe(model={"vocab": {"a": 0, "b": 0}, "merges": []})
    yield bpe(model={"vocab": {"a": 0, "x" * (LONGEST + 1): 1}, "merges": []})
    yield bpe(added_tokens=[added(9, "x" * (LONGEST + 1))])
    yield bpe(added_tokens=[{"id": 9}])
    yield bpe(added_tokens=[{"content": "x"}])


def parts():
    """Parts of the pipeline that lack what they need, or say what the library panics at."""
    for kind in ("Klingon", "", "Sequence", "Split", "Replace", "Precompiled", "ByteLevel", "Prepend",
                 "Metaspace", "Digits", "CharDelimiterSplit", "Strip", "BertNormalizer"):  # fmt: skip
        yield bpe(normalizer={"type": kind})
        yield bpe(pre_tokenizer={"type": kind})
    for table in ("", "AAAA", "!", base64.b64encode(b"\xff\xff\xff\x7f" + bytes(8)).decode(), 1):
        yield words(normalizer={"type": "Precompiled", "precompiled_charsmap": table})
    for expression in ("", "(", "[", "a{99999999}", "(?R)", "(?<x>a\\g<x>?b)", "\\", "(?i", "*", "\x00",
                       "(?P<n>a)(?P<n>b)", "\\p{Klingon}", "x" * 5000, "(" * 400 + ")" * 400):  # fmt: skip
        yield bpe(pre_tokenizer=split(expression))
        yield bpe(normalizer=replacing(expression))
    for content in ("", "\ud800", "\x00", None, 7):
        yield bpe(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": content})
    yield bpe(pre_tokenizer=SPLIT | {"pattern": {}})
    yield bpe(pre_tokenizer=SPLIT | {"pattern": {"String": ""}})
    nested = {"type": "Lowercase"}
    for _ in range(300):
        nested = {"type": "Sequence", "normalizers": [nested]}
    yield bpe(normalizer=nested)
    yield bpe(model={"merges": [["a", "z"]]})
    yield bpe(model={"merges": [["a"]]})
    yield bpe(model={"merges": ["ab"]})
    yield bpe(model={"continuing_subword_prefix": 3})
    yield bpe(model={"dropout": -1})
    yield bpe(model={"unk_token": "z"})
    yield bpe(model={"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 9})
    yield bpe(model={"type": "Unigram", "vocab": [["a", "b"]], "unk_id": 0})
    yield bpe(model={"type": "Unigram", "vocab": [["a"]], "unk_id": 0})
    yield bpe(model={"type": "Unigram", "vocab": [], "unk_id": None})


def raw():
    """Files that are no JSON object, or no text."""
    sound = json.dumps(bpe()).encode()
    yield from (b"", b"{", b"[]", b"\xff\xfe", b"null", b"NaN", b'"x"', b"\x00" * 100, sound[:-9])
    yield from (b"[" * 100_000, b'{"a":' * 100_000, b'{"model":' * 900 + b"1" + b"}" * 900)
    yield sound.decode().encode("utf-16")
    yield sound + sound
    yield sound.replace(b'"a": 0', b'"a": ' + b"9" * 5000)
    chance = random.Random(42)
    for _ in range(12):
        damaged = bytearray(sound)
        for _ in range(3):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        yield bytes(damaged)


def ranks():
    """Rank files."""
    yield from (b"", b"\n", b"YQ==", b"YQ== x", b"YQ== -1", b"YQ== 1.5", b"!! 1", b"YQ== 0\nYQ== 0")
    yield from (b"YQ== 16777215", b"YQ== 2097151", b"YQ== " + b"9" * 5000, b"YQ== 0 0", b"\xff 1")
    yield base64.b64encode(b"x" * (LONGEST + 1)) + b" 0"


PIECES = b"".join(
    b"\x0a" + bytes([len(piece) + 7]) + b"\x0a" + bytes([len(piece)]) + piece + b"\x15\0\0\0\0"
    for piece in (b"<unk>", b"a", b"b", "\u2581ab".encode())
)
FORMS = {
    "tokenizer.model": PIECES + b"\x12\x02\x18\x02",
    "vocab.txt": b"[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\na\n##b\n",
    "vocab.json": json.dumps(LETTERS).encode(),
    "x.gguf": b"GGUF\x03\0\0\0" + bytes(8) + b"\x01" + bytes(7) + b"\x04" + bytes(7) + b"name",
}


def forms():
    """Other forms, whole, cut and damaged."""
    chance = random.Random(42)
    for name, sound in FORMS.items():
        yield name, sound
        yield name, b""
        yield name, sound * 2
        for _ in range(8):
            damaged = bytearray(sound[: chance.randrange(1, len(sound) + 1)])
            for _ in range(3):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            yield name, bytes(damaged)


CLASSES = {
    "types": typed,
    "ids and lengths": numbered,
    "parts": parts,
    "files": raw,
    "ranks": ranks,
    "forms": forms,
}


# a process of its own, which no other thread has entered, makes a copy of itself for each file
ASKED = """
import json, os, resource, signal, sys
from lib.extraction import confined, vocabulary
vocabulary._schema()
for line in sys.stdin:
    child = os.fork()
    if not child:
        signal.alarm(20)
        resource.setrlimit(resource.RLIMIT_CPU, (2, 3))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        print(json.dumps(confined.answer(line.rstrip(), 0)), flush=True)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        print(json.dumps(signal.Signals(-code).name), flush=True)
"""


@pytest.fixture(scope="module")
def asked():
    """What the confined process would answer of a file; the name of the signal that ended it."""
    pipe, command = subprocess.PIPE, [sys.executable, "-c", ASKED]
    settings = {"cwd": paths.ROOT, "stdin": pipe, "stdout": pipe, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **settings) as process:

        def ask(path) -> list | str:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.mark.parametrize("name", CLASSES)
def test_each_is_read_or_refused_in_one_line(name, asked, tmp_path, record_property):
    count = Counter()
    for case in CLASSES[name]():
        path = tmp_path / ("x.tiktoken" if name == "ranks" else "tokenizer.json")
        if name == "forms":
            path, case = tmp_path / case[0], case[1]
        path.write_bytes(case if isinstance(case, bytes) else json.dumps(case).encode())
        answer = asked(path)
        if isinstance(answer, list):
            assert len(answer) < 100_000
            count["read"] += 1
        elif answer.startswith("SIG"):
            count[f"ended by {answer}"] += 1
        else:
            assert str(tmp_path) in answer and "\n" not in answer and len(answer) < 600, answer
            count["refused"] += 1
    counts = ", ".join(f"{number} {what}" for what, number in count.items())
    record_property("cases", f"tokenizers, {name}: {counts}")


AWAY = {
    "(a|aa)+$": bpe(
        model={"vocab": LETTERS | {"a" * 60 + "c": 4}, "merges": []},
        pre_tokenizer=split("(a|aa)+$"),
    ),
    "^(a|ab|aa)*$": bpe(
        model={"vocab": LETTERS | {"a" * 80 + "c": 4}, "merges": []},
        pre_tokenizer=split("^(a|ab|aa)*$"),
    ),
    "(a+)+$": words(model={"vocab": {"a" * 60 + "!": 0, "a": 1}}, pre_tokenizer=split("(a+)+$")),
}


@pytest.mark.parametrize("name", AWAY)
def test_what_runs_away_is_ended(name, tmp_path, monkeypatch, record_property):
    """In the real process, given a few seconds: one line, whether it ran away or not."""
    monkeypatch.setattr(confined, "SECONDS", 3)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(AWAY[name]))
    try:
        said = f"read, {len(confined.records(path))} records"
    except VocabularyError as error:
        said = str(error)
        assert "\n" not in said and path.name in said
    record_property("cases", f"tokenizers, an expression that runs away, {name}: {said[-90:]}")


def test_what_eats_memory_is_ended(tmp_path, monkeypatch, capsys, record_property):
    """A file that unpacks to more than there may be; and the command says it in one line."""
    import lzma

    monkeypatch.setattr(confined, "MEMORY", 1 << 29)
    path = tmp_path / "tokenizer.json.xz"
    with lzma.open(path, "wb", preset=0) as file:
        for _ in range(400):
            file.write(bytes(1 << 20))
    out = tmp_path / "out.jsonl"
    assert main(["tokens", str(path), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and not out.exists()
    record_property("cases", "tokenizers, memory: 1 refused")


def test_the_confined_process_answers_as_this_one_does(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(bpe(added_tokens=[added(5, "<|x|>")])))
    assert confined.records(path, 9) == emission.records(path, 9)
    path.write_text("{")
    with pytest.raises(VocabularyError, match=r"tokenizer\.json: not a tokenizer\.json"):
        confined.records(path)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
PLACES = (
    "vocab",
    "merges",
    "type",
    "normalizer",
    "pre_tokenizer",
    "added_tokens",
    "model",
    "decoder",
)


@settings(max_examples=60, derandomize=True, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(place=st.sampled_from(PLACES), value=VALUES, make=st.sampled_from([bpe, words]))
def test_any_value_at_any_place(asked, place, value, make, tmp_path):
    file = make()
    (file["model"] if place in ("vocab", "merges", "type") else file)[place] = value
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file))
    answer = asked(path)
    assert isinstance(answer, list) or "\n" not in answer
