"""Fragments and contexts: edges of characters, and what neighbours keep in one word."""

import numpy as np
import pytest

from lib.extraction import fragments, merging, vocabulary
from lib.extraction.fragments import CONTEXTS, Contexts
from tests.test_merging import tiny


@pytest.mark.parametrize("name", ["qwen3", "qwen3.5", "cl100k", "whisper", "deepseek"])
def test_texts_of_the_same_kinds_are_kept_by_the_same_contexts(name):
    known = vocabulary.open(name)
    memory = Contexts(known)
    rng = np.random.default_rng(42)
    letters = [*"aSs1 \n'!", *"éßſKıกัาฺ漢ぁー", *"\u0301\u0308\u0660\u2028\u00a0\u0085٣①€\u0378"]
    letters += [chr(point) for point in rng.integers(0x80, 0xD000, 40)]
    for _ in range(400):
        text = "".join(rng.choice(letters, rng.integers(1, 6)))
        kept = [
            (before, after)
            for before, after in CONTEXTS
            if merging.together(before + text + after, len(before), len(before + text), known)
        ]
        assert memory.keeping(text) == kept, (text, [hex(ord(c)) for c in text])
    assert len(memory.known) < 400 or memory.escapes is None


@pytest.mark.parametrize(
    ("pattern", "alike"),
    [
        (r"\p{L}+|.", True),
        (r"(?i:\p{Lu})+|.", False),  # regardless of case it takes é, and 漢 it does not
        (r"[[:alpha:]]+|.", None),
        (r"(?a)\s+|.", None),
        (r"(?:ab){e<=1}|.", None),
        (r"é+|.", None),
        (r"\w+|.", None),
    ],
)
def test_only_what_the_patterns_cannot_tell_apart_is_of_one_kind(pattern, alike):
    memory = Contexts(tiny([], patterns=(pattern,)))
    assert (memory.escapes is None) == (alike is None)
    assert (memory.kind("é") == memory.kind("漢")) == bool(alike)


def test_edges_of_fragments():
    assert fragments.edges("é".encode()) == fragments.Edges(b"", "é".encode(), b"")
    assert fragments.edges(b"\xa9x\xe2\x82") == fragments.Edges(b"\xa9", b"x", b"\xe2\x82")
    for hopeless in (b"\xc0", b"\xff", b"\x80\x80\x80\x80", b"a\x80", b"\xed\xa0", b"\xf4\x90"):
        assert fragments.edges(hopeless) is None, hopeless
    assert len(list(fragments.characters(b"\xe0"))) == 2_048
    assert len(list(fragments.characters(b"\xed"))) == 2_048  # surrogates are no characters
