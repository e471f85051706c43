"""Every way a tokenizer is kept, as a tokenizer.json of the `tokenizers` library.

SentencePiece models, WordPiece's vocab.txt, vocab.json with merges.txt, the ranks of a tiktoken
file, and the vocabulary inside a GGUF file: each becomes the pipeline that the library would run,
and from there on all are read alike. What a file leaves out (the ranks of a tiktoken file say
nothing of the words that texts are cut into) is taken from what lies beside it; where that says
nothing either, something is assumed, and `remark` says what.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel

from lib.extraction import editions, merging, tensor_files, vocabulary
from lib.extraction.catalogue import SpecimenError
from lib.extraction.tensor_files import MERGES, TOKENIZER_SETTINGS, TOKENIZERS
from lib.extraction.vocabulary import GPT2_WORDS, Vocabulary, VocabularyError

MOST = 100_000_000  # bytes of a tokenizer's file
RANKS = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")  # the first line of a tiktoken file
UNKNOWN, CONTROL, USER, BYTE = 2, 3, 4, 6  # kinds of pieces, in SentencePiece and in GGUF alike
UNIGRAM, BPE = 1, 2  # SentencePiece's kinds of models
WORDPIECE = ("Bert", "DistilBert", "Electra", "MobileBert", "MPNet", "ConvBert", "SqueezeBert")
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Words(NamedTuple):
    """What surrounds the merges of a byte-level vocabulary."""

    normaliser: str | None
    patterns: tuple[str, ...]
    ignore_merges: bool = False


def _words(name: str) -> Words | None:
    """The surroundings that GGUF files call `name`; None of a name that the book does not know."""
    if name in ("qwen2", "qwen35"):
        entry = vocabulary.catalogue()[{"qwen2": "qwen3", "qwen35": "qwen3.5"}[name]]
        return Words(entry["normaliser"], tuple(entry["patterns"]))
    known = {"gpt-2": Words(None, (GPT2_WORDS,)), "llama-bpe": Words(None, (LLAMA3,), True)}
    known |= dict.fromkeys(("smollm", "starcoder"), Words(None, (r"\p{N}", GPT2_WORDS)))
    return known.get(name)


# kinds of models in config.json, and classes in tokenizer_config.json -> name for `_words`
OF_MODEL = {"qwen": "qwen2", "qwen2": "qwen2", "qwen3": "qwen2", "llama": "llama-bpe"}
OF_MODEL |= dict.fromkeys(("gpt2", "roberta", "bart", "whisper", "opt"), "gpt-2")
OF_CLASS = dict.fromkeys(("GPT2", "Roberta", "Bart", "Longformer", "LED", "Whisper"), "gpt-2")
OF_CLASS |= {"Qwen2": "qwen2"}


def find(path: Path) -> Path | None:
    """Where a model's tokenizer is kept: in its GGUF file or its folder; None if nowhere."""
    if path.suffix == ".gguf":
        return path
    for name in TOKENIZERS:
        alone = name != "vocab.json" or (path / MERGES).is_file()
        if (path / name).is_file() and alone:
            return path / name
    return next(iter(sorted(path.glob("*.tiktoken"))), None)


def remark(path: Path) -> str:
    """What had to be assumed to read a tokenizer; "" where its files say everything."""
    if twin := catalogued(path):
        return f"the ranks are those of {twin}: what surrounds them is taken from there"
    if is_ranks(path):
        name, sure = _of_folder(path, OF_MODEL, "qwen2")
    elif _plain(path) == "vocab.json":
        name, sure = _of_folder(path, OF_MODEL, "gpt-2")
    else:
        return ""
    said = "" if sure else f"{path.name} does not say how texts are cut into words: "
    return said and f"{said}those of {name} are assumed, and every class below rests on it"


def is_ranks(path: Path) -> bool:
    """Whether a file holds the ranks of tiktoken's format, as Llama 3's tokenizer.model does."""
    if ".tiktoken" in path.name:
        return True
    if ".model" not in path.name or path.suffix == ".xz":
        return False
    with path.open("rb") as file:
        return RANKS.match(file.read(256)) is not None


def ranks(path: Path, rows: int = 0) -> Vocabulary:
    """The vocabulary of a tiktoken file with what surrounds its ranks, see `remark`."""
    if twin := catalogued(path):
        return vocabulary.open(twin, rows)
    tokens = vocabulary.parse_tiktoken(_content(path), str(path))
    words = _words(_of_folder(path, OF_MODEL, "qwen2")[0])
    size, parts = max(rows, len(tokens)), (words.normaliser, words.patterns, None)
    merging = {"ignore_merges": words.ignore_merges, "origin": str(path)}
    return Vocabulary(str(path), tokens, {}, size, *parts, **merging)


def as_json(path: Path) -> bytes:
    """A tokenizer of any family as a tokenizer.json. Raises EditionError, VocabularyError."""
    name = _plain(path)
    if is_ranks(path):
        return merging.as_tokenizer(ranks(path)).to_str().encode()
    make: Callable[[Path], Tokenizer] | None = None
    if path.suffix == ".gguf":
        make = _of_gguf
    elif name.endswith(".model"):
        make = _of_sentencepiece
    elif name.endswith(".txt"):
        make = _of_wordpiece
    elif name == "vocab.json":
        make = _of_merges
    if make is None:
        return _content(path)
    try:
        return make(path).to_str().encode()
    except (VocabularyError, editions.EditionError):
        raise
    except Exception as error:  # the library raises nothing narrower
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise VocabularyError(f"{path}: cannot be made a tokenizer: {why}") from None


def _plain(path: Path) -> str:
    return path.name.removesuffix(".xz")


def _content(path: Path) -> bytes:
    if path.is_file() and path.stat().st_size > MOST:
        raise VocabularyError(f"{path}: has {path.stat().st_size:,} bytes; it is no tokenizer")
    return editions.content(path)


def catalogued(path: Path) -> str | None:
    """The name of the catalogue's vocabulary whose ranks a file holds; None of all others."""
    if not is_ranks(path):
        return None
    sha256 = hashlib.sha256(_content(path)).hexdigest()
    entries = vocabulary.catalogue().items()
    return next((name for name, entry in entries if entry["sha256"] == sha256), None)


def _settings(path: Path, name: str) -> Mapping[str, Any]:
    """A JSON object that lies beside a file; {} where there is none that can be read."""
    if not (path.parent / name).is_file():
        return {}
    try:
        found = json.loads(_content(path.parent / name))
    except (ValueError, RecursionError, editions.EditionError):
        return {}
    return found if isinstance(found, dict) else {}


def _class(path: Path) -> str:
    """The class in tokenizer_config.json without its endings: "Bert", "Qwen2"; "" if none."""
    found = str(_settings(path, TOKENIZER_SETTINGS[0]).get("tokenizer_class", ""))
    return found.removesuffix("Fast").removesuffix("Tokenizer")


def _of_folder(path: Path, known: Mapping[str, str], otherwise: str) -> tuple[str, bool]:
    """(name for `_words`, whether the files beside `path` say it)."""
    found = OF_CLASS.get(_class(path)) or known.get(
        str(_settings(path, "config.json").get("model_type"))
    )
    return found or otherwise, found is not None


def _add(made: Tokenizer, path: Path, also: Sequence[str] = ()) -> Tokenizer:
    """With the added tokens that the files beside name, as far as their ids go on from it."""
    settings = _settings(path, TOKENIZER_SETTINGS[0])
    wanted = {name: made.token_to_id(name) for name in also}
    for id, one in dict(settings.get("added_tokens_decoder") or {}).items():
        wanted[one["content"]] = int(id)
    wanted |= {name: int(id) for name, id in _settings(path, TOKENIZER_SETTINGS[1]).items()}
    for name, id in sorted(wanted.items(), key=lambda item: (item[1] is None, item[1])):
        if id is not None and made.token_to_id(name) in (id, None) and name:
            if made.token_to_id(name) is None and made.get_vocab_size() != id:
                break
            made.add_special_tokens([AddedToken(name, normalized=False, special=True)])
    return made


# ----------------------------------------------------------------------------- WordPiece


def _of_wordpiece(path: Path) -> Tokenizer:
    kind = _class(path)
    if kind and kind not in WORDPIECE:
        raise VocabularyError(
            f"{path}: {kind} cuts words in a way of its own; give its tokenizer.json"
        )
    lines = _content(path).decode("utf-8").removesuffix("\n").split("\n")
    vocab = {line.rstrip("\r"): id for id, line in enumerate(lines)}
    return _add(_wordpiece(vocab, _settings(path, TOKENIZER_SETTINGS[0])), path, _bracketed(vocab))


def _bracketed(vocab: Mapping[str, int]) -> list[str]:
    return [name for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if name in vocab]


def _wordpiece(vocab: Mapping[str, int], settings: Mapping[str, Any]) -> Tokenizer:
    """BERT's pipeline. Whether it lowers, if the settings are silent, its own capitals say."""
    unknown = str(settings.get("unk_token") or "[UNK]")
    made = Tokenizer(models.WordPiece(dict(vocab), unk_token=unknown))
    lower = settings.get("do_lower_case", not any(name in vocab for name in ("A", "##A")))
    made.normalizer = normalizers.BertNormalizer(
        lowercase=bool(lower),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


# ----------------------------------------------------------------------------- byte-level BPE


def _of_merges(path: Path) -> Tokenizer:
    """vocab.json and the merges.txt beside it."""
    kind = _class(path)
    if kind and kind not in OF_CLASS:
        raise VocabularyError(f"{path}: the book does not know how {kind} cuts texts into words; "
                              "give its tokenizer.json")  # fmt: skip
    vocab = json.loads(_content(path))
    lines = _content(path.parent / MERGES).decode("utf-8").splitlines()
    merges = [tuple(x.split(" ", 1)) for x in lines if x and not x.startswith("#version")]
    words = _words(_of_folder(path, OF_MODEL, "gpt-2")[0])
    return _add(_byte_level(vocab, merges, words), path)


def _byte_level(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], words: Words
) -> Tokenizer:
    model = models.BPE(dict(vocab), list(merges), ignore_merges=words.ignore_merges)
    made = Tokenizer(model)
    if words.normaliser:
        made.normalizer = getattr(normalizers, words.normaliser)()
    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in words.patterns]
    last = ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([*splits, last])
    return made


# ----------------------------------------------------------------------------- SentencePiece


class Pieces(NamedTuple):
    """A SentencePiece model, wherever it is kept."""

    pieces: Sequence[tuple[str, float, int]]  # text, score and kind of each id
    unigram: bool
    rules: bytes  # the normaliser's, compiled; b"" if it has none
    prefix: bool  # whether a space is put before the text
    squeeze: bool  # whether spaces at the ends and repeated ones are taken out
    bytes: bool  # whether unknown characters fall into bytes


def _of_sentencepiece(path: Path) -> Tokenizer:
    try:
        from sentencepiece import sentencepiece_model_pb2 as stored
    except ImportError:
        raise VocabularyError(
            f"{path}: to read it takes `pip install sentencepiece protobuf`"
        ) from None
    model = stored.ModelProto.FromString(_content(path))
    rules, kind = model.normalizer_spec, model.trainer_spec.model_type
    if kind not in (UNIGRAM, BPE) or model.trainer_spec.treat_whitespace_as_suffix:
        raise VocabularyError(f"{path}: is neither a Unigram nor a BPE model with spaces in front")
    pieces = [(one.piece, one.score, one.type) for one in model.pieces]
    if path.name.startswith("sentencepiece.bpe"):
        pieces = _in_xlm_r(pieces, path)
    squeeze, prefix = rules.remove_extra_whitespaces, rules.add_dummy_prefix
    settings = (rules.precompiled_charsmap, prefix, squeeze, model.trainer_spec.byte_fallback)
    return _add(_sentencepiece(Pieces(pieces, kind == UNIGRAM, *settings), str(path)), path)


def _in_xlm_r(pieces: list[tuple[str, float, int]], path: Path) -> list[tuple[str, float, int]]:
    """The pieces in the order of XLM-R's ids, which are not the file's."""
    kind = _settings(path, "config.json").get("model_type", "")
    if _class(path) != "XLMRoberta" and not str(kind).startswith("xlm-roberta"):
        raise VocabularyError(f"{path}: models count the ids of such a file in different ways; "
                              "give its tokenizer.json")  # fmt: skip
    first = [("<s>", 0.0, CONTROL), ("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    return [*first, ("<unk>", 0.0, UNKNOWN), *pieces[3:], ("<mask>", 0.0, CONTROL)]


def _sentencepiece(model: Pieces, where: str) -> Tokenizer:
    """The pipeline of a SentencePiece model: its rules, its spaces, then the model itself.

    The library applies the rules to whole graphemes: of a character that they rewrite and a mark
    on it, it loses the mark, which SentencePiece keeps.
    """
    unknown = next((i for i, piece in enumerate(model.pieces) if piece[2] == UNKNOWN), None)
    if unknown is None:
        raise VocabularyError(f"{where}: has no piece for what is unknown; it is no whole model")
    if model.unigram:
        pairs = [(text, score) for text, score, _ in model.pieces]
        made = Tokenizer(models.Unigram(pairs, unknown, model.bytes))
    else:
        own = {text: -score for text, score, kind in model.pieces if kind not in (CONTROL, BYTE)}
        made = Tokenizer(
            models.BPE(
                {text: id for id, (text, _, _) in enumerate(model.pieces)},
                list(merging.joining(own)),
                unk_token=model.pieces[unknown][0],
                fuse_unk=True,
                byte_fallback=model.bytes,
            )
        )
    made.normalizer = normalizers.Sequence(list(_spaced(model)))
    for text, _, kind in model.pieces:
        if kind in (UNKNOWN, CONTROL, USER) and text:
            made.add_tokens([AddedToken(text, normalized=False, special=kind != USER)])
    return made


def _spaced(model: Pieces) -> Iterator[normalizers.Normalizer]:
    """The steps of a SentencePiece normaliser."""
    if model.rules:
        yield normalizers.Precompiled(model.rules)
    if model.squeeze:
        yield normalizers.Strip()
        yield normalizers.Replace(Regex(" {2,}"), " ")
    if model.prefix:
        yield normalizers.Prepend("▁")
    yield normalizers.Replace(" ", "▁")


# ----------------------------------------------------------------------------- GGUF


def _of_gguf(path: Path) -> Tokenizer:
    """The vocabulary inside a GGUF file."""
    try:
        fields = tensor_files.gguf_tokenizer(path)
    except SpecimenError as error:
        raise VocabularyError(str(error)) from None
    family, tokens = fields.get("model"), fields.get("tokens")
    if not tokens:
        raise VocabularyError(f"{path}: holds no vocabulary")
    kinds = fields.get("token_type") or [1] * len(tokens)
    if family == "gpt2":
        name = fields.get("pre", "default")
        if (words := _words(name)) is None:
            raise VocabularyError(f"{path}: the book does not know how {name!r} cuts texts into "
                                  "words; give --tokenizer")  # fmt: skip
        vocab = {token: id for id, token in enumerate(tokens)}
        made = _byte_level(vocab, [tuple(x.split(" ", 1)) for x in fields["merges"]], words)
    elif family == "bert":
        whole = {t: i for i, t in enumerate(map(_marked, tokens, kinds))}
        made = _wordpiece(whole, {})
    elif family in ("llama", "t5"):
        pieces = list(zip(tokens, fields["scores"], kinds, strict=True))
        rules = bytes(fields.get("precompiled_charsmap") or b"")
        prefix = bool(fields.get("add_space_prefix", True))
        squeeze = bool(fields.get("remove_extra_whitespaces", False))
        settings = (family == "t5", rules, prefix, squeeze, BYTE in kinds)
        return _sentencepiece(Pieces(pieces, *settings), str(path))
    else:
        raise VocabularyError(f"{path}: its vocabulary is of a kind that is not read: {family!r}")
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (UNKNOWN, CONTROL, USER):
            made.add_tokens([AddedToken(token, normalized=False, special=kind != USER)])
    return made


def _marked(token: str, kind: int) -> str:
    """A WordPiece token as BERT spells it; GGUF marks where words begin, not where they go on."""
    if kind in (UNKNOWN, CONTROL, USER) or token.startswith("["):
        return token
    return token[1:] if token.startswith("▁") else "##" + token
