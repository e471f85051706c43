"""Merging is that of the tokenizers library, readable and compiled."""

from dataclasses import replace

import numpy as np
import pytest

from lib.extraction import corpus, merging, merging_compiled, vocabulary


def tiny(tokens, **fields):
    base = vocabulary.Vocabulary(
        "tiny", tuple(tokens), {}, len(tokens), None, (r"\w+|\W",), None, "byte"
    )
    return replace(base, **fields)


def test_texts_are_cut_as_the_library_cuts_them(qwen, library):
    text = corpus.text("thai", 3_000) + corpus.text("english", 20_000)
    text += "naïve ﷺ 李 Å 12345 \n\n  x\r\n 🏳️‍🌈 ê̄"
    assert merging.encode(text, qwen) == library.encode(text).ids


def test_what_no_pattern_takes_is_a_word_of_its_own():
    rows = tiny([], patterns=(r"\d",))
    assert merging.words("1aé2b", rows) == ["1", "aé", "2", "b"]
    assert merging.words("a1", rows) == ["a", "1"] and merging.words("", rows) == []
    decomposed = "e\u0301"
    assert merging.normalise(decomposed, rows) == decomposed
    assert merging.normalise(decomposed, tiny([], normaliser="NFC")) == "é"


def test_together_is_what_the_words_say(qwen):
    rng = np.random.default_rng(42)
    letters = [*list("aB1 \n'!"), "é", "ก", "ั", "漢", "́"]
    for _ in range(300):
        text = "".join(rng.choice(letters, rng.integers(1, 9)))
        start, stop = sorted(rng.choice(len(text) + 1, 2, replace=False))
        ends = np.cumsum([len(word) for word in merging.words(text, qwen)])
        inside = [i for i in range(start, stop) if i and i in ends and start < i]
        assert merging.together(text, start, stop, qwen) == (not inside), (text, start, stop)


def test_a_tokenizer_takes_another_rule(qwen):
    other = qwen.under(*vocabulary.open("qwen3.5").patterns)
    library, text = merging.as_tokenizer(qwen), corpus.text("thai", 2_000)
    before = library.encode(text).ids
    library.pre_tokenizer = merging.pre_tokenizer(other)
    assert library.encode(text).ids == merging.encode(text, other) != before


@pytest.mark.parametrize("name", ["qwen3", "qwen3.5", "cl100k", "whisper"])
def test_compiled_merging_is_the_definition(name):
    known = vocabulary.open(name)
    unchanged = merging.self_encoding(known)
    rng = np.random.default_rng(42)
    some = [known.tokens[i] for i in rng.choice(len(known.tokens), 2_000) if known.tokens[i]]
    some += sorted(known.ids, key=len)[-50:]  # the longest
    unlike = {t for t in some if merging.merge(t, known) != [t]}
    assert {t for t in some if t not in unchanged} == unlike


def odd_vocabularies(count):
    """Few letters, so that merges compete, and holes, copies, empty tokens."""
    rng = np.random.default_rng(42)
    for _ in range(count):
        words = {bytes(rng.choice([0, 97, 98], rng.integers(1, 7))) for _ in range(40)}
        tokens = [b"", None, *sorted(words), *sorted(words)[:3], None]
        rng.shuffle(tokens)
        yield tiny(tokens, patterns=(r"[\s\S]+",))


def test_compiled_merging_of_odd_vocabularies():
    for known in odd_vocabularies(200):
        parts = merging_compiled.pieces(known.tokens)
        for id, token in enumerate(known.tokens):
            assert parts[id] == len(merging.merge(token or b"", known))
    assert merging.self_encoding(tiny([])) == frozenset()


def test_the_library_is_given_every_pair_that_joins():
    """Id 99,655 of Qwen3.5 comes out of its own text through tokens of higher rank than its own.

    A list that has for each token only the pair that builds it from lower ranks says otherwise.
    """
    known = vocabulary.open("qwen3.5")
    text = known.tokens[99_655].decode()
    assert merging.encode(text, known) == [99_655]
    assert merging.as_tokenizer(known).encode(text).ids == [99_655]
    texts = [t.decode(errors="ignore") for t in known.ids][::50]
    library = merging.as_tokenizer(known)
    for text, given in zip(texts, library.encode_batch(texts), strict=True):
        assert given.ids == merging.encode(text, known), text


def test_the_library_and_the_rule_differ_only_where_pairs_for_one_token_overlap():
    rng, differ = np.random.default_rng(42), 0
    for known in odd_vocabularies(60):
        single = {bytes([b]) for b in (0, 97, 98)} - set(known.ids)
        known = replace(known, tokens=(*known.tokens, *sorted(single)))
        library = merging.as_tokenizer(known)
        for _ in range(50):
            text = bytes(rng.choice([0, 97, 98], rng.integers(1, 12))).decode()
            ours, theirs = merging.encode(text, known), library.encode(text).ids
            differ += ours != theirs
    assert differ <= 30, differ
