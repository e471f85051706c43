"""Reachability is exact: checked against an independent tokenizer, brute force, and real rows."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lib import paths
from lib.extraction import (
    bpe,
    corpus,
    fragments,
    merging,
    merging_compiled,
    reachability,
    vocabulary,
)
from lib.extraction.fragments import Contexts, contexts
from lib.extraction.reachability import Reach


@pytest.fixture(scope="module")
def qwen():
    return vocabulary.open("qwen3")


@pytest.fixture(scope="module")
def library(qwen):
    return merging.as_tokenizer(qwen)


@pytest.fixture(scope="module")
def search(qwen):
    return fragments.search(qwen)


def look(qwen, search, id):
    return reachability.classify(id, qwen, search)


@pytest.mark.parametrize(
    ("id", "reach", "says"),
    [
        (9_707, Reach.REACHABLE, "own text"),
        (123_828, Reach.SPLIT, "'ท' | "),
        (77_150, Reach.SPLIT, "'１' | '０'"),
        (145_344, Reach.NORMALISED, "U+F9E1 becomes U+674E"),
        (145_522, Reach.NORMALISED, "U+FB35 becomes U+05D5 U+05BC"),
        (124, Reach.INCOMPLETE, "no UTF-8"),
        (123_821, Reach.INCOMPLETE, "64 changed by normalisation"),
        (119_347, Reach.INCOMPLETE, "4,096 split"),
        (124_250, Reach.COMPLETED, "unassigned"),
        (139_793, Reach.COMPLETED, "from"),
        (151_643, Reach.ADDED, "written out"),
        (151_669, Reach.PHANTOM, "no token"),
    ],
)
def test_classes_of_known_ids(qwen, search, id, reach, says):
    record = look(qwen, search, id)
    assert record.reach is reach and says in record.evidence and record.id == id
    assert reach.dead == (reach not in (Reach.REACHABLE, Reach.COMPLETED, Reach.ADDED))


def test_merging_and_witnesses_agree_with_the_tokenizers_library(qwen, search, library):
    text = corpus.thai(3_000) + corpus.english(20_000) + "naïve ﷺ 李 Å 12345 \n\n  x\r\n 🏳️‍🌈 ê̄"
    assert merging.encode(text, qwen) == library.encode(text).ids
    rng = np.random.default_rng(42)
    fragments = [i for i in range(len(qwen.tokens)) if qwen.text(i) is None]
    ids = {*rng.choice(len(qwen.tokens), 800).tolist(), *rng.choice(fragments, 60).tolist()}
    seen = 0
    for id in ids:
        record = look(qwen, search, id)
        if not record.reach.dead:
            assert id in library.encode(record.witness).ids, record
            seen += 1
    assert seen > 800


def test_no_text_emits_a_token_called_unreachable(qwen, search, library):
    """Brute force: random texts made of the very characters of the unreachable tokens."""
    rng = np.random.default_rng(42)
    texts_of = {id: qwen.text(id) for id in range(119_346, len(qwen.tokens), 7)}
    dead = {
        id: text
        for id, text in texts_of.items()
        if text is not None and look(qwen, search, id).reach.dead
    }
    assert len(dead) > 200
    letters = sorted({c for text in dead.values() for c in text} | set(" a1!\n'กา"))
    near = lambda: "".join(rng.choice(letters, 2))  # noqa: E731
    texts = ["".join(rng.choice(letters, 12)) for _ in range(2_000)]
    texts += [near() + name + near() for name in dead.values() for _ in range(5)]
    emitted = {id for encoding in library.encode_batch(texts) for id in encoding.ids}
    assert emitted and not emitted & dead.keys()


def test_the_chapters_own_merging_is_the_librarys(qwen):

    cells = reader.read(paths.CHAPTERS / "discovery" / "06-who.qmd").cells
    [cell] = [c for c in cells if c.cell_type == "code" and "def merge_word" in c.source]
    names = {}
    exec(cell.source, names)  # the chapter's cell is ours
    rng = np.random.default_rng(42)
    for id in rng.choice(len(qwen.tokens), 300):
        word = qwen.tokens[id] + qwen.tokens[(int(id) * 7) % len(qwen.tokens)]
        assert names["merge_word"](word, qwen.ids) == merging.merge(word, qwen)


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
    library, text = merging.as_tokenizer(qwen), corpus.thai(2_000)
    before = library.encode(text).ids
    library.pre_tokenizer = merging.pre_tokenizer(other)
    assert library.encode(text).ids == merging.encode(text, other) != before


def last_pair(token, rank, ranks):
    """The two parts that merging leaves of a token while it and all later ones are unknown."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        joined = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        if min(joined) >= rank:
            break
        at = joined.index(min(joined))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return tuple(parts) if len(parts) == 2 else None


@pytest.mark.parametrize("name", ["qwen3", "qwen3.5", "cl100k", "whisper"])
def test_compiled_merging_is_the_definition(name):
    known = vocabulary.open(name)
    whole, pairs = merging.whole(known), merging.derived_merges(known)
    rng = np.random.default_rng(42)
    some = [known.tokens[i] for i in rng.choice(len(known.tokens), 2_000) if known.tokens[i]]
    some += sorted(known.ids, key=len)[-50:]  # the longest
    unlike = {t for t in some if merging.merge(t, known) != [t]}
    assert {t for t in some if t not in whole} == unlike
    built = {a + b: (a, b) for a, b in pairs}
    for token in some:
        assert built.get(token) == last_pair(token, known.ids[token], known.ids), token
    assert all(rank == known.ids[a + b] for (a, b), rank in pairs.items())


def test_compiled_merging_of_odd_vocabularies():
    rng = np.random.default_rng(42)
    for _ in range(200):  # few letters, so that merges compete, and holes, copies, empty tokens
        words = {bytes(rng.choice([0, 97, 98], rng.integers(1, 7))) for _ in range(40)}
        tokens = [b"", None, *words, *list(words)[:3], None]
        rng.shuffle(tokens)
        known = tiny(tokens)
        parts, first = merging_compiled.pieces(known.tokens)
        for id, token in enumerate(tokens):
            cut = merging.merge(token or b"", known)
            assert (parts[id], first[id]) == (len(cut), len(cut[0]) if cut else 0)
        pairs = {t: last_pair(t, rank, known.ids) for t, rank in known.ids.items() if len(t) > 1}
        assert {a + b: (a, b) for a, b in merging.derived_merges(known)} == {
            token: pair for token, pair in pairs.items() if pair
        }
    assert merging.whole(tiny([])) == frozenset()


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
            for before, after in contexts()
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


def tiny(tokens, **fields):
    base = vocabulary.Vocabulary(
        "tiny", tuple(tokens), {}, len(tokens), None, (r"\w+|\W",), None, "byte"
    )
    return replace(base, **fields)


def test_exhaustive_on_tiny_vocabularies():
    """All texts of up to five characters from a small alphabet, against the class of every id."""
    from itertools import product

    alphabet = "aé€"  # one, two and three bytes
    units = [bytes([b]) for b in sorted(set("".join(alphabet).encode()))]
    rng = np.random.default_rng(42)
    everything = ["".join(p).encode() for n in range(1, 6) for p in product(alphabet, repeat=n)]
    dead_total = 0
    for _ in range(8):
        tokens = list(units)
        while len(tokens) < 16:
            joined = tokens[rng.integers(len(tokens))] + tokens[rng.integers(len(tokens))]
            if joined not in tokens and any(joined in text for text in everything):
                tokens.append(joined)
        order = rng.permutation(len(tokens) - len(units))
        tokens = tokens[: len(units)] + [tokens[len(units) + i] for i in order]
        small = tiny(tokens)
        emitted = {t for text in everything for t in merging.tokenize(text.decode(), small)}
        for record in reachability.analyse(small, progress=False):
            if record.bytes in emitted:
                assert not record.reach.dead, (tokens, record)
            elif record.reach in (Reach.REACHABLE, Reach.COMPLETED):
                assert record.bytes in merging.tokenize(record.witness, small)
            else:
                dead_total += 1
    assert dead_total > 5


def test_whole_words_and_merges_that_never_build():
    tokens = [b"a", b"b", b"c", b"bc", b"abc", b"ab"]  # ab ranks last, so abc = a + bc
    assert merging.merge(b"abc", tiny(tokens)) == [b"abc"]
    odd = tiny([b"a", b"b", b"c", b"abc"])  # no pair leads to abc
    found = reachability.analyse(odd, progress=False)
    assert found[3].reach is Reach.UNBUILT and "0 1 2" in found[3].evidence
    assert reachability.analyse(replace(odd, whole_words=True), False)[3].reach is Reach.REACHABLE


def test_a_space_token_that_needs_a_neighbour(qwen, search):
    """Found only in context: alone its text is cut, before a newline it is whole."""
    id = qwen.ids.get(b"\n  ")
    small = tiny([b"\n", b" ", b"\n "], patterns=qwen.patterns)
    record = reachability.analyse(small, progress=False)[2]
    assert len(merging.words("\n ", small)) == 2
    assert record.reach is Reach.REACHABLE and record.witness != "\n "
    assert b"\n " in merging.tokenize(record.witness, small)
    assert id is None or not look(qwen, search, id).reach.dead


def test_edges_of_fragments():
    assert fragments.edges("é".encode()) == fragments.Edges(b"", "é".encode(), b"")
    assert fragments.edges(b"\xa9x\xe2\x82") == fragments.Edges(b"\xa9", b"x", b"\xe2\x82")
    for hopeless in (b"\xc0", b"\xff", b"\x80\x80\x80\x80", b"a\x80", b"\xed\xa0", b"\xf4\x90"):
        assert fragments.edges(hopeless) is None, hopeless
    assert len(list(fragments.characters(b"\xe0"))) == 2_048
    assert len(list(fragments.characters(b"\xed"))) == 2_048  # surrogates are no characters


def test_another_rule_reuses_records_without_changing_them():
    text = corpus.mixed({"english": 0.5, "thai": 0.5}, characters=20_000)
    own = vocabulary.parse_tokenizer_json(bpe.train(text, 500, "byte").to_str().encode(), "own")
    other = own.under(*vocabulary.open("qwen3").patterns)
    before = reachability.analyse(own, False)
    direct = reachability.analyse(other, False)
    assert reachability.analyse(other, False, before) == direct
    assert sum(r.reach.dead for r in direct) > sum(r.reach.dead for r in before)


def test_agreement_counts():
    found = [
        reachability.Record(i, reach, b"", "", "")
        for i, reach in enumerate((Reach.SPLIT, Reach.REACHABLE, Reach.PHANTOM, Reach.ADDED))
    ]
    agreement = reachability.compare(found, [0, 3])
    assert (agreement.precision, agreement.recall) == (0.5, 0.5)
    assert (agreement.false_alarms, agreement.missed) == ([2], [3])


def test_an_empty_token_is_built_by_nothing():
    found = reachability.analyse(tiny([b"a", b""]), progress=False)
    assert found[1].reach is Reach.UNBUILT and "nothing" in found[1].evidence


@pytest.mark.slow
def test_the_real_dead_rows():
    found = reachability.analyse(vocabulary.open("qwen3"), progress=False)
    printed = json.loads((paths.QWEN3 / "qwen3_cluster_2212.json").read_text())["token_ids"]
    agreement = reachability.compare(found, printed)
    assert not agreement.false_alarms
    assert len(agreement.both) == 2_199 and len(agreement.missed) == 13
    assert len(reachability.fails_round_trip(found)) == 3_357


def test_command_line(tmp_path, capsys):
    import argparse

    source, out = tmp_path / "tiny.tiktoken", tmp_path / "out.jsonl"
    source.write_text("YQ== 0\nYg== 1\nYWI= 2\nwA== 3\n")
    parser = argparse.ArgumentParser()
    tokens.add(parser.add_subparsers())
    args = parser.parse_args(["tokens", str(source), "--rows", "6", "--out", str(out)])
    assert args.run(args) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(6))
    assert [line["class"] for line in lines[2:]] == [
        str(reach) for reach in (Reach.REACHABLE, Reach.INCOMPLETE, Reach.PHANTOM, Reach.PHANTOM)
    ]
    assert set(lines[0]) == {"id", "class", "bytes", "text", "script", "evidence"}
    assert "phantom row" in capsys.readouterr().out
    bad = parser.parse_args(["tokens", "nothing", "--out", str(out)])
    with pytest.raises(vocabulary.VocabularyError, match="qwen3"):
        bad.run(bad)
    assert set(tmp_path.iterdir()) == {source, out}
