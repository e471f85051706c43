"""The book's own tokenizers: deterministic, lossless, mergeable."""

import subprocess
import sys

import numpy as np
import pytest

from lib import paths
from lib.extraction import bpe, corpus, vocabulary

RECIPE = """
import hashlib
from lib.extraction import bpe, corpus
text = corpus.mixed({"english": 0.8, "thai": 0.2}, characters=100_000)
for level in bpe.LEVELS:
    print(hashlib.sha256(bpe.train(text, 600, level).to_str().encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def text():
    return corpus.mixed({"english": 0.8, "thai": 0.2}, characters=100_000)


def test_training_is_deterministic_across_processes():
    runs = {
        subprocess.run(
            [sys.executable, "-c", RECIPE], cwd=paths.ROOT, capture_output=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1
    assert len(set(runs.pop().split())) == 2


@pytest.mark.parametrize("level", bpe.LEVELS)
def test_round_trip(text, level):
    tokenizer = bpe.train(text, 600, level)
    ids = bpe.encode(tokenizer, text)
    assert ids.dtype == np.uint16
    assert tokenizer.decode(ids.tolist()) == text


def test_encoding_by_pieces_equals_encoding_the_whole(text, monkeypatch):
    tokenizer = bpe.train(text, 600)
    monkeypatch.setattr(bpe, "PIECE", 50)
    assert len(list(bpe.pieces(text))) > 100
    assert bpe.encode(tokenizer, text).tolist() == tokenizer.encode(text).ids


def test_english_leaves_the_thai_tokens_dead(text):
    tokenizer = bpe.train(text, 600)
    scripts = np.array([vocabulary.script(token) for token in bpe.token_texts(tokenizer)])
    live = np.isin(np.arange(600), bpe.encode(tokenizer, corpus.text("english", 50_000)))
    assert not live[scripts == "Thai"].any() and (scripts == "Thai").sum() > 50
    assert live[scripts == "Latin"].mean() > 0.9


def test_merge_keeps_the_first_and_adds_the_new(text):
    first = bpe.train(corpus.text("english", 50_000), 300)
    second = bpe.train(corpus.text("thai", 50_000), 300)
    merged = bpe.merge(first, second)
    one, two, both = first.get_vocab(), second.get_vocab(), merged.get_vocab()
    assert set(both) == set(one) | set(two)
    assert all(both[token] == one[token] for token in one)
    assert sorted(both.values()) == list(range(len(both)))
    english = corpus.text("english", 5_000)
    assert merged.encode(english).ids == first.encode(english).ids
    thai = corpus.text("thai", 5_000)
    assert merged.encode(thai).tokens == second.encode(thai).tokens


def test_merge_refuses_different_spelling():
    text = corpus.text("english", 20_000)
    with pytest.raises(bpe.BpeError, match="pre_tokenizer"):
        bpe.merge(bpe.train(text, 300), bpe.train(text, 300, "byte"))


def test_ascii_bytes_are_their_own_ids():
    novel = corpus.text("moby_dick", 20_000)
    ids = bpe.encode(bpe.ascii_bytes(), novel)
    assert ids.astype(np.uint8).tobytes() == novel.encode("ascii")


def test_unknown_characters_are_named():
    with pytest.raises(bpe.BpeError, match="—"):
        bpe.encode(bpe.ascii_bytes(), "a—b")
    with pytest.raises(bpe.BpeError, match="character"):
        bpe.train("abc" * 100, 50, level="word")
    with pytest.raises(bpe.BpeError, match="asked for"):
        bpe.train("abc abc abc", 5000)
    with pytest.raises(bpe.BpeError, match="alphabet"):
        bpe.train("abcdef", 3)
