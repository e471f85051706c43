"""Every way a tokenizer is kept gives the tokenizer that made it, and then the same classes."""

import io
import json
import sys
from itertools import product

import gguf
import numpy as np
import pytest
import sentencepiece
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer, Tokenizer

from lib import paths
from lib.extraction import emission, families, merging, vocabulary
from lib.extraction.reachability import Reach
from lib.extraction.vocabulary import VocabularyError
from tests.test_emission import TEXT, byte_level, wordpiece

KEPT = paths.DATA / "tokenizers"
LETTERS = "abcté .B1中\u00a0ﬁ\tⅣ"  # no mark that could stand on a rewritten character


def texts(letters=LETTERS, count=3_000):
    rng = np.random.default_rng(42)
    some = ["".join(rng.choice(list(letters), rng.integers(1, 14))) for _ in range(count)]
    return some + ["".join(p) for n in (1, 2, 3) for p in product("ab é.", repeat=n)]


def made(path) -> Tokenizer:
    return Tokenizer.from_str(families.as_json(path).decode())


def assert_same(one: Tokenizer, other: Tokenizer, given=None):
    given = given or texts()
    both = [each.encode_batch(given, add_special_tokens=False) for each in (one, other)]
    for text, a, b in zip(given, *both, strict=True):
        assert a.ids == b.ids, (text, a.tokens, b.tokens)


def trained(path, **settings):
    """A model trained by SentencePiece itself, written to `path`."""
    kept = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=kept, minloglevel=2, hard_vocab_limit=False,
        **settings)  # fmt: skip
    path.write_bytes(kept.getvalue())
    return path


SENTENCEPIECE = {
    "BPE with byte fallback": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 330,
                               "normalization_rule_name": "identity",
                               "remove_extra_whitespaces": False, "character_coverage": 0.98},
    "BPE that squeezes spaces": {"model_type": "bpe", "vocab_size": 70},
    "BPE without a space put before": {"model_type": "bpe", "vocab_size": 70,
                                       "add_dummy_prefix": False},
    "Unigram": {"model_type": "unigram", "vocab_size": 60},
    "Unigram with byte fallback": {"model_type": "unigram", "vocab_size": 320,
                                   "byte_fallback": True, "character_coverage": 0.98},
}  # fmt: skip


@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_sentencepiece_models_say_what_sentencepiece_says(kind, tmp_path):
    path = trained(tmp_path / "tokenizer.model", **SENTENCEPIECE[kind])
    assert_as_sentencepiece(path, path.read_bytes(), texts())


@pytest.mark.parametrize("name", ["mistral-7b-v1.model.xz", "seqio-test.model.xz"])
def test_real_sentencepiece_models(name):
    path = KEPT / name
    data = families._content(path)
    given = texts(count=1_000) + texts("the of ▁Ünicöde 漢字ไทย🏳 \n12", 1_000)
    assert_as_sentencepiece(path, data, given)


def assert_as_sentencepiece(path, data, given):
    """But for unknown characters, which the library joins and SentencePiece joins too."""
    own, ours = sentencepiece.SentencePieceProcessor(model_proto=data), made(path)
    for text, ids in zip(given, own.encode(given), strict=True):
        assert ours.encode(text, add_special_tokens=False).ids == ids, (
            text,
            own.encode(text, out_type=str),
        )


def test_pieces_that_are_matched_first_are_added_tokens(tmp_path):
    path = trained(tmp_path / "spiece.model", model_type="unigram", vocab_size=60,
                   user_defined_symbols=["<x>"], control_symbols=["<c>"])  # fmt: skip
    found = {r.text: r for r in emission.records(path)}
    assert found["<x>"].reach is found["<c>"].reach is found["<s>"].reach is Reach.ADDED


def test_without_the_package_one_line_says_what_is_missing(tmp_path, monkeypatch):
    path = trained(tmp_path / "tokenizer.model", model_type="bpe", vocab_size=60)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(VocabularyError, match=r"takes `pip install sentencepiece protobuf`$"):
        emission.records(path)


def test_ids_of_xlm_r_are_counted_as_it_counts_them(tmp_path):
    path = trained(tmp_path / "sentencepiece.bpe.model", model_type="unigram", vocab_size=60)
    with pytest.raises(VocabularyError, match=r"in different ways; give its tokenizer\.json"):
        families.as_json(path)
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    own = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    for text in texts(count=300):
        ids = [3 if id == own.unk_id() else id + 1 for id in own.encode(text)]
        assert made(path).encode(text, add_special_tokens=False).ids == ids
    assert made(path).token_to_id("<mask>") == own.vocab_size() + 1


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocab_txt_is_berts(lower, tmp_path):
    vocab = wordpiece().get_vocab()
    vocab |= {} if lower else {"A": len(vocab), "##A": len(vocab) + 1, "[SEP]": len(vocab) + 2}
    lines = sorted(vocab, key=vocab.get)
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    theirs = BertWordPieceTokenizer(dict(vocab) | {"[SEP]": 990, "[CLS]": vocab["[CLS]"]},
                                    lowercase=lower)  # fmt: skip
    assert_same(made(tmp_path / "vocab.txt"), theirs._tokenizer)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert made(tmp_path / "vocab.txt").encode("B").ids == [vocab["B"]]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PhobertTokenizer"}')
    with pytest.raises(VocabularyError, match="Phobert cuts words in a way of its own"):
        families.as_json(tmp_path / "vocab.txt")


def test_a_vocab_json_with_merges(tmp_path):
    ours = byte_level()
    theirs = ByteLevelBPETokenizer.from_file(*ours.model.save(str(tmp_path)))
    path = families.find(tmp_path)
    assert path.name == "vocab.json" and "those of gpt-2 are assumed" in families.remark(path)
    assert_same(made(path), theirs._tokenizer)
    size = ours.get_vocab_size()
    settings = {"tokenizer_class": "Qwen2TokenizerFast",
                "added_tokens_decoder": {str(size): {"content": "<|im_end|>"}}}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<b>": size + 1, "<d>": size + 9}))
    assert not families.remark(path) and made(path).normalizer is not None
    assert made(path).token_to_id("<b>") == size + 1 and made(path).token_to_id("<d>") is None
    found = emission.records(path)
    assert found[size].reach is Reach.ADDED and found[size].text == "<|im_end|>"
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    with pytest.raises(VocabularyError, match="does not know how CLIP cuts texts"):
        families.as_json(path)


def test_ranks_by_any_name_and_what_is_assumed_of_them(tmp_path):
    """Llama 3's tokenizer.model holds ranks; a known file takes all that surrounds it."""
    table, vocab = vocabulary.byte_table(), byte_level().get_vocab()
    tokens = [bytes(table[c] for c in t) for t in sorted(vocab, key=vocab.get)]
    encode = __import__("base64").b64encode
    text = "".join(f"{encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    path = tmp_path / "tokenizer.model"
    path.write_text(text)
    assert families.is_ranks(path) and "those of qwen2 are assumed" in families.remark(path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    known = families.ranks(path)
    assert not families.remark(path) and known.ignore_merges and known.normaliser is None
    assert_same(made(path), merging.as_tokenizer(known))
    found = emission.records(path)
    assert len(found) == len(tokens) and not any(r.reach is Reach.UNDECIDED for r in found)
    twin = KEPT / "gpt2.tiktoken.xz"
    assert "the ranks are those of gpt2" in families.remark(twin)
    assert families.ranks(twin).added == {50256: "<|endoftext|>"}


# ----------------------------------------------------------------------------- GGUF


def in_gguf(path, model, tokens, **more):
    """A GGUF file with a vocabulary and a small matrix."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.ones((len(tokens) + 2, 32), np.float32))
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    for name, value in more.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def by_id(tokenizer):
    return [tokenizer.id_to_token(id) for id in range(tokenizer.get_vocab_size())]


def kinds_of(tokenizer):
    added = tokenizer.get_added_tokens_decoder()
    return [3 if id in added else 1 for id in range(tokenizer.get_vocab_size())]


def test_byte_level_bpe_in_a_gguf(tmp_path):
    ours = byte_level()
    merges = [" ".join(pair) for pair in json.loads(ours.to_str())["model"]["merges"]]
    settings = {"token_merges": merges, "token_types": kinds_of(ours)}
    path = in_gguf(tmp_path / "m.gguf", "gpt2", by_id(ours), tokenizer_pre="gpt-2", **settings)
    assert_same(made(path), ours)
    assert emission.records(path) == found_in_json(ours, tmp_path)
    path = in_gguf(tmp_path / "n.gguf", "gpt2", by_id(ours), tokenizer_pre="viking", **settings)
    with pytest.raises(VocabularyError, match="does not know how 'viking' cuts texts"):
        families.as_json(path)


def found_in_json(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    return emission.records(path)


def test_sentencepiece_in_a_gguf(tmp_path):
    for name, family in (("BPE with byte fallback", "llama"), ("Unigram", "t5")):
        path = trained(tmp_path / f"{family}.model", **SENTENCEPIECE[name])
        own = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
        ids = range(own.vocab_size())
        kinds = [2 if own.is_unknown(i) else 3 if own.is_control(i) else 6 if own.is_byte(i) else 1
                 for i in ids]  # fmt: skip
        stored = families.as_json(path)
        rules = json.loads(stored)["normalizer"]["normalizers"][0].get("precompiled_charsmap")
        more = {"token_scores": [own.get_score(i) for i in ids], "token_types": kinds}
        if rules:
            more["precompiled_charsmap"] = __import__("base64").b64decode(rules)
            more["remove_extra_whitespaces"] = True
        kept = in_gguf(tmp_path / f"{family}.gguf", family, own.id_to_piece(list(ids)), **more)
        assert_same(made(kept), made(path))


def test_wordpiece_in_a_gguf(tmp_path):
    ours = wordpiece()
    spelled = [t if t[0] == "[" else t[2:] if t[:2] == "##" else "▁" + t for t in by_id(ours)]
    path = in_gguf(tmp_path / "m.gguf", "bert", spelled, token_types=kinds_of(ours))
    assert_same(made(path), ours)


def test_a_gguf_without_a_vocabulary_and_of_another_kind(tmp_path):
    for model, tokens, why in (("rwkv", ["a"], "kind that is not read: 'rwkv'"),
                               ("gpt2", [], "holds no vocabulary")):  # fmt: skip
        with pytest.raises(VocabularyError, match=why):
            families.as_json(in_gguf(tmp_path / "m.gguf", model, tokens))
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(VocabularyError, match=r"m\.gguf: is no sound GGUF file"):
        families.as_json(tmp_path / "m.gguf")


def test_the_best_form_in_a_folder_is_found(tmp_path):
    assert families.find(tmp_path) is None
    for name in ("x.tiktoken", "vocab.json", "merges.txt", "vocab.txt", "spiece.model",
                 "tokenizer.model", "tokenizer.json"):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
        expected = "x.tiktoken" if name == "vocab.json" else name
        expected = "vocab.json" if name == "merges.txt" else expected
        assert families.find(tmp_path).name == expected


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.txt", "vocab.json", "x.tiktoken"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{}", b"\x0a\x04\x0a\x02ab"])
def test_a_broken_file_is_one_line(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "merges.txt").write_bytes(content)
    try:
        emission.records(tmp_path / name)
    except VocabularyError as error:
        assert "\n" not in str(error) and name in str(error)
