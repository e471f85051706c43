"""Vocabularies are read exactly, and what is not a vocabulary gets one clear error."""

import json

import pytest

from lib.extraction import bpe, corpus, merging, vocabulary
from lib.extraction.editions import EditionError
from lib.extraction.vocabulary import VocabularyError


def test_qwen3_is_the_real_one(qwen):
    assert len(qwen.tokens) == 151_643 and qwen.rows == 151_936
    assert qwen.tokens[0] == b"!" and qwen.tokens[151_642] == b"\xe2\xbd\x97"
    assert len(qwen.added) == 26
    assert qwen.text(151_643) == "<|endoftext|>" and qwen.text(151_668) == "</think>"
    assert qwen.text(151_669) is None and qwen.shown(151_669) == ""
    assert qwen.text(124) is None and qwen.shown(124) == "\ufffd"
    assert qwen.ids[qwen.tokens[9_707]] == 9_707


def test_every_name_of_the_catalogue_opens():
    for name in vocabulary.catalogue():
        found = vocabulary.open(name)
        assert found.expressions and len(found.tokens) <= found.rows
        assert found.origin


def test_byte_table_is_the_librarys():
    from tokenizers.pre_tokenizers import ByteLevel

    table = vocabulary.byte_table()
    assert sorted(table.values()) == list(range(256))
    assert set(table) == set(ByteLevel.alphabet())
    for byte in range(0x80):  # one byte each in UTF-8, so the library shows its spelling
        [(spelled, _)] = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(
            chr(byte)
        )
        assert table[spelled] == byte


@pytest.mark.parametrize("level", bpe.LEVELS)
def test_tokenizer_json_of_our_own(level, tmp_path):
    text = corpus.mixed({"english": 0.7, "thai": 0.3}, characters=60_000)
    tokenizer = bpe.train(text, 500, level)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    found = vocabulary.open(path, rows=512)
    assert found.level == level and found.rows == 512 and len(found.tokens) == 500
    sample = corpus.text("thai", 500) + corpus.text("english", 1_500)
    assert merging.encode(sample, found) == tokenizer.encode(sample).ids


def test_tiktoken_file(tmp_path):
    path = tmp_path / "small.tiktoken"
    path.write_text("IQ== 0\nIg== 1\nISI= 3\n")
    found = vocabulary.open(path)
    assert found.tokens == (b"!", b'"', None, b'!"')
    assert merging.encode('!"', found) == [3]


BPE = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.tiktoken", "IQ== 0\nIg==\n", "line 2"),
        ("x.tiktoken", "IQ== 0\nI!== 1\n", "line 2"),
        ("x.tiktoken", "IQ== 0\nIg== 0\n", "twice"),
        ("x.tiktoken", "IQ== 99999999999\n", "absurd"),
        ("x.tiktoken", "", "no tokens"),
        ("x.json", "{", "not a tokenizer.json"),
        ("x.json", "[]", "not a tokenizer.json"),
        ("x.json", '{"model": {"type": "WordPiece", "vocab": {}}}', "WordPiece"),
        ("x.json", json.dumps(BPE | {"normalizer": {"type": "Lowercase"}}), "Lowercase"),
        ("x.json", json.dumps(BPE | {"pre_tokenizer": {"type": "Metaspace"}}), "Metaspace"),
        ("x.tiktoken.xz", "not compressed", "cannot be read"),
    ],
)
def test_bad_files_get_one_clear_error(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises((VocabularyError, EditionError), match=says) as error:
        vocabulary.open(path)
    assert name in str(error.value)


def test_unknown_names_and_other_editions(monkeypatch):
    with pytest.raises(VocabularyError, match=r"qwen3.*whisper"):
        vocabulary.open("klingon")
    entries = vocabulary.catalogue()
    entries["whisper"]["sha256"] = "0" * 64
    entries["qwen3"]["package"] = "no_such_package"
    monkeypatch.setattr(vocabulary, "catalogue", lambda: entries)
    with pytest.raises(EditionError, match="edition"):
        vocabulary.open("whisper")
    with pytest.raises(EditionError, match="make setup"):
        vocabulary.open("qwen3")
    broken = vocabulary.open("cl100k").under("(")
    with pytest.raises(VocabularyError, match="pattern"):
        _ = broken.expressions


@pytest.mark.parametrize(
    ("text", "script"),
    [(" ที่", "Thai"), ("ั", "Thai"), ("שלום", "Hebrew"), ("\uf90a", "Han"), (" the", "Latin"),
     ("123", "Common"), ("\ufffd", "Fragment"), ("", "Common")],
)  # fmt: skip
def test_script(text, script):
    assert vocabulary.script(text) == script
