"""Any tokenizer: the `tokenizers` library's own pipeline says which ids come out of texts.

For every id texts are made that ought to give it, and encoded. An id that comes out is reachable,
and the text is its witness; so much is never wrong. One that never comes out is *dead* only where
an argument about its model or its pipeline holds for every text:

- byte-pair merging: what merging does not make of the token's own characters it makes of no longer
  word (`lib.extraction.merging`);
- Unigram: another cut of the token's own characters has a better score, so the token is on no best
  path (Kudo, 2018);
- a character of the token stands in nothing that the normaliser puts out;
- the pre-tokenizer decides by pairs of adjacent characters, and cuts the token's own text;
- a byte token, all of whose characters have tokens of their own, or which UTF-8 never uses.

All else is *not decided*. Byte-level BPE has an exact search (`reachability`); there the library
is asked for every witness that the search found.
"""

import base64
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from lib import progress
from lib.extraction import families, reachability, vocabulary
from lib.extraction.fragments import CONTEXTS, characters, edges
from lib.extraction.reachability import Reach, Record, assigned, code_points
from lib.extraction.vocabulary import UnsupportedError, VocabularyError

BATCH = 8_192  # texts encoded at a time
EARLY = 6  # texts tried before the arguments are asked
LETTERS = 12  # of a token's script, put before and after it
OF_BYTE = 24  # characters tried for a byte token
UNSEEN = "\U000e0fff"  # a code point that is no character
FEW = 64  # characters with one first byte, tried before all
IMPOSSIBLE = {0xC0, 0xC1, *range(0xF5, 0x100)}  # bytes of no UTF-8 text
FORMS = ("NFC", "NFD", "NFKC", "NFKD")
BY_CHARACTER = ("Lowercase", "StripAccents", "Nmt", "BertNormalizer")  # normalisers
BY_PAIRS = (  # pre-tokenizers that cut, or do not, by two adjacent characters
    *("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits"),
    *("Metaspace", "CharDelimiterSplit"),
)
ALL_CHARACTERS = 0x110000
LEADS = tuple(map(bytes.fromhex, ("c3", "d0", "e0b8", "e4b8", "e381", "f09f", "f09f98")))


def records(name: str | Path, rows: int = 0) -> list[Record]:
    """One record for every id from 0 to the rows of W, of a vocabulary of the catalogue, or of a
    tokenizer in any form that `families` reads. Raises VocabularyError, EditionError.
    """
    if str(name) in vocabulary.catalogue():
        return padded(reachability.records(str(name)), rows)
    path = Path(name)
    if not path.is_file():
        vocabulary.open(name)  # raises, and lists the names that there are
    if twin := families.catalogued(path):
        return padded(reachability.records(twin), rows)
    data = families.as_json(path)
    try:
        known = families.ranks(path, rows) if families.is_ranks(path) else None
        known = known or vocabulary.parse_tokenizer_json(data, str(name), rows)
    except UnsupportedError:
        return padded(analyse(Pipeline(data, str(name))), rows)
    return confirmed(reachability.analyse(known), Pipeline(data, str(name)))


def padded(found: Sequence[Record], rows: int) -> list[Record]:
    """The records, with phantom rows up to `rows`."""
    more = range(len(found), rows)
    return [*found, *(Record(i, Reach.PHANTOM, b"", "", "no token has this id") for i in more)]


class Pipeline:
    """A tokenizer.json in the library, and what its parts are. Raises VocabularyError."""

    def __init__(self, data: bytes, name: str):
        self.file = vocabulary.read_json(data, name)
        try:
            self.library = Tokenizer.from_str(data.decode("utf-8"))
            self.library.encode(UNSEEN)  # some models have no token for what is unknown
        except Exception as error:  # the library raises nothing narrower
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise VocabularyError(f"{name}: the tokenizers library cannot read it: {why}") from None
        self.library.no_padding()
        self.library.no_truncation()
        self.name, self.model = name, self.file["model"]
        self.kind = self.model.get("type") or _kind(self.model)
        self.added = {int(a["id"]): a["content"] for a in self.file.get("added_tokens") or []}
        pairs = self.library.get_vocab(with_added_tokens=True).items()
        self.tokens = {id: token for token, id in pairs}
        self.rows = 1 + max(self.tokens, default=-1)
        self.normaliser = _parts(self.file.get("normalizer"), "normalizers")
        self.words = _parts(self.file.get("pre_tokenizer"), "pretokenizers")
        self.byte_level = any(p["type"] == "ByteLevel" for p in self.normaliser + self.words)
        self.byte_tokens = bool(self.model.get("byte_fallback"))
        self.space = self._space()
        self.prefix = self.model.get("continuing_subword_prefix") or ""
        self.suffix = self.model.get("end_of_word_suffix") or ""

    def _space(self) -> str:
        """What stands for a space in tokens, " " if nothing does."""
        for part in self.normaliser + self.words:
            if part["type"] == "Metaspace":
                return part.get("replacement", "▁")
            if part["type"] == "Replace" and part["pattern"].get("String") == " ":
                return part["content"] or " "
        return " "

    def normalise(self, text: str) -> str:
        """What the normaliser makes of a text."""
        part = self.library.normalizer
        return part.normalize_str(text) if part else text

    def cut(self, text: str) -> list[str]:
        """Into which words the pre-tokenizer cuts a normalised text."""
        part = self.library.pre_tokenizer
        return [word for word, _ in part.pre_tokenize_str(text)] if part else [text]

    def byte(self, token: str) -> int | None:
        """The byte that a token such as <0x0A> stands for."""
        if self.byte_tokens and len(token) == 6 and token[:3] == "<0x" and token[5] == ">":
            return int(token[3:5], 16)
        return None

    def raw(self, token: str) -> bytes:
        """The bytes that a token stands for in a text."""
        if (byte := self.byte(token)) is not None:
            return bytes([byte])
        if self.byte_level:
            spelled = [_BYTES.get(c) for c in token]
            return token.encode() if None in spelled else bytes(spelled)
        token = token.removeprefix(self.prefix).removesuffix(self.suffix)
        return token.replace(self.space, " ").encode("utf-8", "replace")

    def continues(self, token: str) -> bool:
        """Whether a token stands only inside a word."""
        return bool(self.prefix) and token.startswith(self.prefix) and token != self.prefix

    @cached_property
    def letters(self) -> dict[str, list[str]]:
        """The first single-character tokens of each script, to put beside others."""
        found: dict[str, list[str]] = defaultdict(list)
        for id in sorted(self.tokens):
            text = self.raw(self.tokens[id]).decode("utf-8", "replace")
            if len(text) == 1 and text.isalpha() and id not in self.added:
                listed = found[vocabulary.script(text)]
                if len(listed) < LETTERS and text not in listed:
                    listed.append(text)
        return found

    @cached_property
    def possible(self) -> np.ndarray:
        """(0x110000,) bool: characters that may stand in a text when the words are looked up.

        A superset: what a part does not say, stays possible.
        """
        spelled = self.tokens.values()
        if self.byte_level:
            spelled = (self.raw(token).decode("utf-8", "ignore") for token in spelled)
        return _possible([*self.normaliser, *self.words], "".join(spelled))

    @cached_property
    def scores(self) -> dict[str, float]:
        """Of a Unigram model, the score of each token."""
        return dict(self.model["vocab"])

    @cached_property
    def of_bytes(self) -> dict[int, list[str]]:
        """For each byte characters that have it in UTF-8 and no token: they fall into bytes.

        Some of them; none only if there are none.
        """
        own = set(self.tokens.values())
        found: dict[int, list[str]] = {byte: [] for byte in range(256)}
        for most in (FEW, ALL_CHARACTERS):  # a few of each first byte; all if a byte has none
            for lead in set(range(0xC2, 0x100)) - IMPOSSIBLE:
                whole = characters(bytes([lead]))
                for character in whole[:: max(1, len(whole) // most)]:
                    if character not in own and self.possible[ord(character)]:
                        for byte in character.encode("utf-8"):
                            if len(found[byte]) < OF_BYTE:
                                found[byte].append(character)
            if all(found[byte] for byte in range(128, 256) if byte not in IMPOSSIBLE):
                break
        for byte in range(128):  # of these no other character has the byte
            one = chr(byte)
            found[byte] = [one] if one not in own and self.possible[byte] else []
        return {byte: sorted(some, key=assigned, reverse=True) for byte, some in found.items()}


def _kind(model: Mapping[str, Any]) -> str:
    """The type of a model whose file does not say it, as the library guesses."""
    if "merges" in model:
        return "BPE"
    return "Unigram" if "unk_id" in model else "WordPiece"


def _parts(part: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    """The parts of a normaliser or pre-tokenizer in order, sequences flattened."""
    if not part:
        return []
    if part["type"] == "Sequence":
        return [one for each in part[inner] for one in _parts(each, inner)]
    return [part]


_BYTES = vocabulary.byte_table()


def analyse(pipeline: Pipeline) -> list[Record]:
    """One record for every id of a tokenizer.json, by the library's own pipeline."""
    ids = [id for id in sorted(pipeline.tokens) if id not in pipeline.added]
    witness: dict[int, str] = {}
    makers = {id: texts(pipeline, pipeline.tokens[id]) for id in ids}
    makers |= {id: iter(around(content)) for id, content in pipeline.added.items()}
    search(pipeline, makers, witness, most=EARLY)
    doubtful = [id for id in makers if id not in witness and id not in pipeline.added]
    proofs = {id: proof(pipeline, pipeline.tokens[id], id) for id in doubtful}
    open_ids = [id for id in makers if id not in witness and not proofs.get(id)]
    search(pipeline, {id: makers[id] for id in open_ids}, witness)
    return [_record(pipeline, id, witness.get(id), proofs.get(id)) for id in range(pipeline.rows)]


def search(
    pipeline: Pipeline, makers: Mapping[int, Iterator[str]], witness: dict[int, str], most: int = 0
) -> None:
    """Encode text after text of every id until it comes out; `most` texts each, 0: all there are.

    Whatever else comes out of a text has it for a witness too.
    """
    waiting, rounds = dict(makers), 0
    bar = progress.bar(total=len(waiting), desc=f"texts for {Path(pipeline.name).name}", unit="id")
    with bar:
        while waiting and (not most or rounds < most):
            rounds += 1
            asked = {id: text for id, maker in waiting.items() if (text := next(maker, None))}
            for id, text, out in encoded(pipeline, asked):
                if id in out:
                    witness[id] = text
                for other in out:
                    witness.setdefault(other, text)
            left = {id: waiting[id] for id in asked if id not in witness}
            bar.update(len(waiting) - len(left))
            waiting = left


def encoded(
    pipeline: Pipeline, asked: Mapping[int, str]
) -> Iterator[tuple[int, str, frozenset[int]]]:
    """(id, text, ids that the library makes of the text) for every id and its text."""
    pairs = iter(asked.items())
    while batch := list(islice(pairs, BATCH)):
        given = [text for _, text in batch]
        found = pipeline.library.encode_batch(given, add_special_tokens=False)
        for (id, text), encoding in zip(batch, found, strict=True):
            yield id, text, frozenset(encoding.ids)


def texts(pipeline: Pipeline, token: str) -> Iterator[str]:
    """Texts that ought to give a token, the likeliest first."""
    if (byte := pipeline.byte(token)) is not None:
        return iter(pipeline.of_bytes[byte])
    raw = pipeline.raw(token)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _completed(raw)
    letters = pipeline.letters.get(vocabulary.script(text), [])
    near = letters or pipeline.letters.get("Latin", [])
    beside = (t for a in near for t in (a + text, a + text + a, text + a, f" {a}{text}"))
    two = (a + b + text for a in near for b in near)
    if pipeline.continues(token):
        return chain(beside, two, around(text))
    first = (text, text.removeprefix(" "), token, "a" + text, "\n" + text, text + "a")
    return chain(first, beside, around(text), two)


def around(text: str) -> Iterator[str]:
    """A text by itself and between every two kinds of neighbours."""
    return chain([text], (before + text + after for before, after in CONTEXTS))


def _completed(raw: bytes) -> Iterator[str]:
    """Characters of which a piece that is no text may be a part."""
    if 0xC2 <= raw[0] < 0xF5 and len(raw) < 4:
        yield from characters(raw)[:64]
    for lead in LEADS:
        try:
            yield (lead + raw).decode("utf-8")
        except UnicodeDecodeError:
            continue


def proof(pipeline: Pipeline, token: str, id: int) -> tuple[Reach, str] | None:
    """Why no text at all gives a token, if an argument shows it; in the order of the pipeline."""
    if (byte := pipeline.byte(token)) is not None:
        return _no_byte(pipeline, byte)
    if pipeline.byte_level and edges(raw := pipeline.raw(token)) is None:
        return Reach.INCOMPLETE, f"{raw.hex(' ')} occurs in no UTF-8 text"
    return _changed(pipeline, token) or _cut(pipeline, token) or _unbuilt(pipeline, token, id)


def _no_byte(pipeline: Pipeline, byte: int) -> tuple[Reach, str] | None:
    if byte in IMPOSSIBLE:
        return Reach.INCOMPLETE, f"{byte:02x} occurs in no UTF-8 text"
    if not pipeline.of_bytes[byte]:
        return Reach.INCOMPLETE, f"every character with the byte {byte:02x} has a token of its own"
    return None


def _changed(pipeline: Pipeline, token: str) -> tuple[Reach, str] | None:
    """Whether a character of the token, or the token whole, stands in no normalised text."""
    text = pipeline.raw(token).decode("utf-8", "ignore")
    inner = text if pipeline.byte_level else token.removeprefix(pipeline.prefix)
    inner = inner.removesuffix(pipeline.suffix)
    lost = [c for c in inner if not pipeline.possible[ord(c)]]
    form = _form_of(pipeline, inner)
    if not lost and form:  # a piece of a text in a normal form is in that form
        lost = [inner] if getattr(normalizers, form)().normalize_str(inner) != inner else []
    if not lost:
        return None
    became = pipeline.normalise(text)
    if became != text:
        seen = code_points(became) or "nothing"
        return Reach.NORMALISED, f"{code_points(text)} becomes {seen}"
    return Reach.SPLIT, f"no word has {code_points(''.join(lost))}"


def _form_of(pipeline: Pipeline, text: str) -> str:
    """The normal form that this piece of a normalised text must have; "" if none is sure.

    Parts that come after the form must put in characters that the text has not.
    """
    for part in reversed(pipeline.normaliser):
        if part["type"] in FORMS:
            return part["type"]
        put_in = part.get("content", part.get("prepend"))
        alone = part["type"] == "Prepend" or len(part.get("pattern", {}).get("String", "")) == 1
        if not (alone and put_in and not set(put_in) & set(text)):
            return ""
    return ""


def _cut(pipeline: Pipeline, token: str) -> tuple[Reach, str] | None:
    """Whether the pre-tokenizer cuts the token in every text, deciding by pairs."""
    if not pipeline.words or any(part["type"] not in BY_PAIRS for part in pipeline.words):
        return None
    if pipeline.continues(token):
        inner = token.removeprefix(pipeline.prefix)
        befores = ["a", "!", inner[0]]
    else:
        inner, befores = token.removesuffix(pipeline.suffix), [""]
    by_character = all(part["type"] in BY_CHARACTER for part in pipeline.normaliser)
    normalise = pipeline.normalise if by_character else str
    for before in befores:
        words = pipeline.cut(normalise(before + inner))
        if any(before + inner in word for word in words):
            return None
    words = pipeline.cut(normalise(befores[0] + inner))
    return Reach.SPLIT, "cut into " + " | ".join(map(repr, words))


def _unbuilt(pipeline: Pipeline, token: str, id: int) -> tuple[Reach, str] | None:
    """Whether the model makes something else of the token's own characters, and so of all."""
    if pipeline.kind == "BPE":
        if pipeline.prefix or pipeline.suffix or pipeline.model.get("dropout"):
            return None
        if pipeline.model.get("ignore_merges"):
            return None
        parts = [part.id for part in pipeline.library.model.tokenize(token)]
        if parts == [id]:
            return None
        return Reach.UNBUILT, f"merging gives {' '.join(map(str, parts)) or 'nothing'}"
    if pipeline.kind == "Unigram":
        parts = [part.value for part in pipeline.library.model.tokenize(token)]
        if parts == [token] or any(part not in pipeline.scores for part in parts):
            return None
        better = sum(map(pipeline.scores.__getitem__, parts))
        if better > pipeline.scores[token] + 1e-6:
            own = f"{better:.2f} against {pipeline.scores[token]:.2f}"
            return Reach.UNBUILT, f"{' + '.join(map(repr, parts))} scores higher, {own}"
    return None


def _record(
    pipeline: Pipeline, id: int, witness: str | None, proven: tuple[Reach, str] | None
) -> Record:
    """The record of an id, from a text that gives it, or an argument that none does."""
    token = pipeline.tokens.get(id)
    if token is None:
        return Record(id, Reach.PHANTOM, b"", "", "no token has this id")
    if id in pipeline.added:
        if witness is None:
            return Record(id, Reach.UNDECIDED, b"", token, "added; its own text does not give it")
        said = "emitted where its own text is written out"
        return Record(id, Reach.ADDED, b"", token, said, witness)
    raw = pipeline.raw(token)
    text = pipeline.prefix * pipeline.continues(token) + raw.decode("utf-8", "replace")
    make = partial(Record, id, bytes=raw, text=text)
    if witness is not None:
        piece = pipeline.byte(token) is not None or "\ufffd" in text
        said = "from its own text" if witness == text else f"from {witness!r}"
        reach = Reach.COMPLETED if piece else Reach.REACHABLE
        return make(reach=reach, evidence=said, witness=witness)
    if proven is not None:
        return make(reach=proven[0], evidence=proven[1])
    shown = pipeline.library.encode(text, add_special_tokens=False).tokens
    return make(reach=Reach.UNDECIDED, evidence="its own text gives " + " ".join(map(repr, shown)))


def confirmed(found: Sequence[Record], pipeline: Pipeline) -> list[Record]:
    """The records of the exact search, after the library was asked for each of their witnesses.

    What it does not give is asked for among other neighbours, and is not decided if that fails. A
    token called dead whose own text gives it all the same is reachable.
    """
    own = {r.id: pipeline.added.get(r.id) or r.witness or r.text for r in found}
    asked = {id: text for id, text in own.items() if text and found[id].reach is not Reach.PHANTOM}
    witness: dict[int, str] = {}
    for id, text, out in encoded(pipeline, asked):
        for other in out:
            witness.setdefault(other, text)
        if id in out:
            witness[id] = text
    lacking = [r for r in found if not r.reach.dead and r.id not in witness and r.id in asked]
    search(pipeline, {r.id: iter(around(asked[r.id])) for r in lacking}, witness)
    return [_confirmed(record, witness.get(record.id)) for record in found]


def _confirmed(record: Record, witness: str | None) -> Record:
    if witness is None and record.reach is not Reach.PHANTOM and not record.reach.dead:
        said = f"the search has {record.evidence}; the library gives something else"
        return record._replace(reach=Reach.UNDECIDED, evidence=said, witness=None)
    if witness is not None and record.reach.dead:
        said = f"from {witness!r}"
        return record._replace(reach=Reach.REACHABLE, evidence=said, witness=witness)
    return record


def _possible(parts: Sequence[Mapping[str, Any]], alphabet: str) -> np.ndarray:
    """(0x110000,) bool: the characters that parts of a pipeline can put out, or more.

    Of the characters in `alphabet` it is asked one by one whether a part keeps them.
    """
    mask = np.ones(ALL_CHARACTERS, bool)
    mask[0xD800:0xE000] = False
    own = sorted(set(alphabet))
    for part in parts:
        if part["type"] == "ByteLevel":
            break
        _PASSED.get(part["type"], lambda *_: None)(mask, part, own)
    return mask


def _form(mask: np.ndarray, part: Mapping[str, Any], own: Sequence[str]) -> None:
    keep = getattr(normalizers, part["type"])().normalize_str
    mask[[ord(c) for c in own if keep(c) != c]] = False


def _by_character(mask: np.ndarray, part: Mapping[str, Any], own: Sequence[str]) -> None:
    settings = {name: value for name, value in part.items() if name != "type"}
    given = "".join(map(chr, np.flatnonzero(mask)))
    image = getattr(normalizers, part["type"])(**settings).normalize_str(given)
    mask[:] = False
    mask[np.unique(np.frombuffer(image.encode("utf-32-le"), np.uint32))] = True


def _replaced(mask: np.ndarray, part: Mapping[str, Any], own: Sequence[str]) -> None:
    pattern = part["pattern"].get("String", "")
    if len(pattern) == 1:
        mask[ord(pattern)] = False
    mask[[ord(c) for c in part["content"]]] = True


def _prepended(mask: np.ndarray, part: Mapping[str, Any], own: Sequence[str]) -> None:
    mask[[ord(c) for c in part["prepend"]]] = True


def _precompiled(mask: np.ndarray, part: Mapping[str, Any], own: Sequence[str]) -> None:
    """A table of rules: size of a trie, the trie, and then all that the rules put out."""
    table = base64.b64decode(part["precompiled_charsmap"] or "")
    put_out = set(table[4 + int.from_bytes(table[:4], "little") :].decode("utf-8", "ignore"))
    keep = normalizers.Precompiled(table).normalize_str if table else (lambda c: c)
    mask[[ord(c) for c in own if c not in put_out and keep(c) != c]] = False
    mask[[ord(c) for c in put_out]] = True


def _metaspace(mask: np.ndarray, part: Mapping[str, Any], own: Sequence[str]) -> None:
    mask[ord(" ")], mask[ord(part.get("replacement", "▁"))] = False, True


def _no_space(mask: np.ndarray, part: Mapping[str, Any], own: Sequence[str]) -> None:
    cut = getattr(pre_tokenizers, part["type"])().pre_tokenize_str
    mask[[ord(c) for c in own if not cut(c)]] = False


_PASSED: dict[str, Callable[[np.ndarray, Mapping[str, Any], Sequence[str]], None]] = {
    **dict.fromkeys(FORMS, _form),
    **dict.fromkeys(BY_CHARACTER, _by_character),
    **dict.fromkeys(("Whitespace", "WhitespaceSplit", "BertPreTokenizer"), _no_space),
    "Replace": _replaced,
    "Prepend": _prepended,
    "Precompiled": _precompiled,
    "Metaspace": _metaspace,
}
