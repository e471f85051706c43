"""Reachability is exact: checked against an independent tokenizer, brute force, and real rows."""

import hashlib
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import yaml

from lib import paths
from lib.__main__ import main
from lib.analysis import qwen3
from lib.extraction import bpe, corpus, fragments, merging, reachability, vocabulary
from lib.extraction.reachability import Reach
from tests.test_merging import tiny


@pytest.fixture(scope="module")
def search(qwen):
    return fragments.Search(qwen)


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
    record = reachability.classify(id, search)
    assert record.reach is reach and says in record.evidence and record.id == id
    assert reach.dead == (reach not in (Reach.REACHABLE, Reach.COMPLETED, Reach.ADDED))


def test_witnesses_give_their_tokens_in_the_tokenizers_library(qwen, search, library):
    rng = np.random.default_rng(42)
    fragments = [i for i in range(len(qwen.tokens)) if qwen.text(i) is None]
    ids = {*rng.choice(len(qwen.tokens), 800).tolist(), *rng.choice(fragments, 60).tolist()}
    seen = 0
    for id in ids:
        record = reachability.classify(id, search)
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
        if text is not None and reachability.classify(id, search).reach.dead
    }
    assert len(dead) > 200
    letters = sorted({c for text in dead.values() for c in text} | set(" a1!\n'กา"))
    near = lambda: "".join(rng.choice(letters, 2))  # noqa: E731
    texts = ["".join(rng.choice(letters, 12)) for _ in range(2_000)]
    texts += [near() + name + near() for name in dead.values() for _ in range(5)]
    emitted = {id for encoding in library.encode_batch(texts) for id in encoding.ids}
    assert emitted and not emitted & dead.keys()


def test_exhaustive_on_tiny_vocabularies():
    """All texts of up to five characters from a small alphabet, against the class of every id."""
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
        for record in reachability.analyse(small):
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
    found = reachability.analyse(odd)
    assert found[3].reach is Reach.UNBUILT and "0 1 2" in found[3].evidence
    assert reachability.analyse(replace(odd, ignore_merges=True))[3].reach is Reach.REACHABLE


def test_a_space_token_that_needs_a_neighbour(qwen, search):
    """Found only in context: alone its text is cut, before a newline it is whole."""
    id = qwen.ids.get(b"\n  ")
    small = tiny([b"\n", b" ", b"\n "], patterns=qwen.patterns)
    record = reachability.analyse(small)[2]
    assert len(merging.words("\n ", small)) == 2
    assert record.reach is Reach.REACHABLE and record.witness != "\n "
    assert b"\n " in merging.tokenize(record.witness, small)
    assert id is None or not reachability.classify(id, search).reach.dead


def test_an_empty_token_is_built_by_nothing():
    found = reachability.analyse(tiny([b"a", b""]))
    assert found[1].reach is Reach.UNBUILT and "nothing" in found[1].evidence


def test_another_rule_reuses_records_without_changing_them():
    text = corpus.mixed({"english": 0.5, "thai": 0.5}, characters=20_000)
    own = vocabulary.parse_tokenizer_json(bpe.train(text, 500, "byte").to_str().encode(), "own")
    other = own.under(*vocabulary.open("qwen3").patterns)
    before = reachability.analyse(own)
    direct = reachability.analyse(other)
    assert reachability.analyse(other, before) == direct
    assert sum(r.reach.dead for r in direct) > sum(r.reach.dead for r in before)


def test_agreement_counts():
    found = [
        reachability.Record(i, reach, b"", "", "")
        for i, reach in enumerate((Reach.SPLIT, Reach.REACHABLE, Reach.PHANTOM, Reach.ADDED))
    ]
    agreement = reachability.compare(found, [0, 3])
    assert (agreement.precision, agreement.recall) == (0.5, 0.5)
    assert (agreement.false_alarms, agreement.missed) == ([2], [3])


TINY = {
    "file": "tiny.tiktoken", "rows": 8, "normaliser": None, "patterns": ["a+|.+"], "origin": "made",
    "added": {"first": 5, "count": 1, "texts": ["<end>"]},
}  # fmt: skip


def test_records_are_kept_and_read_back(tmp_path, monkeypatch):
    """Also of a vocabulary with another's tokens, and under another's pre-tokenizer."""
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(vocabulary, "TOKENIZERS", tmp_path)
    text = "YQ== 0\nYg== 1\nYWI= 2\nwA== 3\nYmI= 4\n"
    (tmp_path / "tiny.tiktoken").write_text(text)
    one = TINY | {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    two = one | {"added": {"first": 5, "count": 2, "texts": ["<x>", "<y>"]}}
    entries = {"tiny": one, "twin": two | {"same_tokens_as": "tiny"}, "rule": one}
    entries["rule"] = one | {"patterns": ["."]}
    (tmp_path / "catalogue.yaml").write_text(yaml.safe_dump(entries))
    for name, words_of in (("tiny", ""), ("twin", ""), ("tiny", "rule")):
        known = reachability.opened(name, words_of)
        found = reachability.records(name, words_of)
        assert list(found) == reachability.analyse(known)
        assert found[4].reach is (Reach.SPLIT if words_of else Reach.REACHABLE)
    assert [r.reach for r in reachability.records("twin")[5:]] == [
        *(Reach.ADDED, Reach.ADDED, Reach.PHANTOM),
    ]


@pytest.mark.slow
def test_the_real_dead_rows():
    found = reachability.analyse(vocabulary.open("qwen3"))
    agreement = reachability.compare(found, qwen3.cluster_ids())
    assert not agreement.false_alarms
    assert len(agreement.both) == 2_199 and len(agreement.missed) == 13
    printed = json.loads((paths.DATA / "released" / "norms.json").read_text("utf-8"))["models"]
    report = next(one for one in printed if one["model"] == "Qwen/Qwen3-32B")
    listed = reachability.compare(found, [id for id, _ in report["group"]["pairs"]])
    assert len(listed.both) == 1_906 and not listed.missed  # what encoding finds unreachable is


def test_command_line(tmp_path, capsys):
    source, out = tmp_path / "tiny.tiktoken", tmp_path / "out.jsonl"
    source.write_text("YQ== 0\nYg== 1\nYWI= 2\nwA== 3\n")
    assert main(["tokens", str(source), "--rows", "6", "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(6))
    assert [line["class"] for line in lines[2:]] == [
        str(reach) for reach in (Reach.REACHABLE, Reach.INCOMPLETE, Reach.PHANTOM, Reach.PHANTOM)
    ]
    assert set(lines[0]) == {"id", "class", "bytes", "text", "script", "evidence"}
    assert "phantom row" in capsys.readouterr().out
    assert main(["tokens", "nothing", "--out", str(out)]) == 2
    assert "qwen3" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == {source, out}
