"""Vocabularies: the bytes of every token, and what is done to a text before tokens are looked up.

A vocabulary is read from the catalogue (`open("qwen3")`), a `tokenizer.json`, or a `.tiktoken`
file.
"""

import base64
import binascii
import json
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import fastjsonschema
import regex
from fontTools import unicodedata as ucd

from lib import files, paths
from lib.extraction import editions

TOKENIZERS = paths.DATA / "tokenizers"
FRAGMENT = "Fragment"  # bytes that are no complete text
NEUTRAL = ("Zyyy", "Zinh", "Zzzz")  # scripts: common, inherited, unknown
NORMALISERS = ("NFC", "NFD", "NFKC", "NFKD")
PUNCTUATION = r"[\p{P}$+<=>\^`|~]"  # as the `tokenizers` library has it: Unicode's and ASCII's
ALONE = ("Isolated", "Contiguous")
MOST_IDS = 1 << 21  # twice the largest vocabulary known
LONGEST = 1 << 16  # characters of a token or an expression
ID = {"type": "integer", "minimum": 0, "maximum": MOST_IDS - 1}
TEXT = {"type": "string", "maxLength": LONGEST}
PART = {"$ref": "#/definitions/part"}
PARTS = {"type": "array", "maxItems": 1000, "items": PART}
ADDED = {"type": "object", "required": ["id", "content"], "properties": {"id": ID, "content": TEXT}}
SCHEMA = {  # of a tokenizer.json: what is read of it here, and no other file is so large
    "$schema": "http://json-schema.org/draft-04/schema#",
    "type": "object",
    "required": ["model"],
    "properties": {
        "added_tokens": {"type": ["array", "null"], "maxItems": MOST_IDS, "items": ADDED},
        "normalizer": PART,
        "pre_tokenizer": PART,
        "model": {
            "type": "object",
            "required": ["vocab"],
            "properties": {
                "type": TEXT,
                "vocab": {
                    "type": ["object", "array"],
                    "maxProperties": MOST_IDS,
                    "maxItems": MOST_IDS,
                    "additionalProperties": ID,
                    "items": {"type": "array", "minItems": 2, "items": [TEXT, {"type": "number"}]},
                },
                "merges": {"type": ["array", "null"], "items": {"type": ["string", "array"]}},
                "continuing_subword_prefix": {"type": ["string", "null"], "maxLength": 64},
                "end_of_word_suffix": {"type": ["string", "null"], "maxLength": 64},
            },
        },
    },
    "definitions": {
        "part": {
            "type": ["object", "null"],
            "required": ["type"],
            "properties": {
                "type": TEXT,
                "pattern": {"type": "object", "properties": {"String": TEXT, "Regex": TEXT}},
                "content": TEXT,
                "prepend": TEXT,
                "replacement": TEXT,
                "behavior": TEXT,
                "normalizers": PARTS,
                "pretokenizers": PARTS,
            },
        },
    },
}
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class VocabularyError(ValueError):
    """A vocabulary is unknown, missing, damaged, or of a kind the book cannot analyse."""


class UnsupportedError(VocabularyError):
    """A sound tokenizer.json of a kind that the exact search does not read; `emission` does."""


@dataclass(frozen=True)
class Vocabulary:
    """Everything that decides which ids a text becomes."""

    name: str
    tokens: tuple[bytes | None, ...]  # the bytes of each id; None: an id without bytes of its own
    added: Mapping[int, str]  # ids matched literally, before anything else ("" where not known)
    rows: int  # rows of the model's matrix; ids without token or text are phantom rows
    normaliser: str | None  # NFC, NFD, NFKC or NFKD, applied first
    patterns: tuple[str, ...]  # the pre-tokenizer's expressions, applied one after the other
    merges: Mapping[tuple[bytes, bytes], int] | None  # None: any pair that joins to a token merges
    level: str = "byte"  # the units that merging starts from: "byte" or "character"
    ignore_merges: bool = False  # a word that is a token is emitted without merging
    origin: str = ""

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """Id of each byte string (the smallest, should two ids have the same bytes)."""
        return {b: i for i, b in reversed(list(enumerate(self.tokens))) if b is not None}

    @cached_property
    def expressions(self) -> tuple[regex.Pattern, ...]:
        """The compiled patterns. Raises VocabularyError on one that cannot be compiled."""
        try:
            return tuple(regex.compile(pattern) for pattern in self.patterns)
        except regex.error as error:
            raise VocabularyError(f"{self.name}: pre-tokenizer pattern: {error}") from error

    def token(self, id: int) -> bytes | None:
        """The bytes of an id; None if it has none of its own."""
        return self.tokens[id] if id < len(self.tokens) else None

    def text(self, id: int) -> str | None:
        """The text of a token; None where its bytes are no valid UTF-8, or it has none."""
        if id in self.added:
            return self.added[id] or None
        token = self.token(id)
        try:
            return None if token is None else token.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def shown(self, id: int) -> str:
        """The text of a token for tables, with U+FFFD for bytes that are no text."""
        return (
            self.added[id] if id in self.added else (self.token(id) or b"").decode(errors="replace")
        )

    def under(self, *patterns: str) -> "Vocabulary":
        """The same vocabulary with another pre-tokenizer (for counterfactuals)."""
        return replace(self, patterns=tuple(patterns))


def script(text: str) -> str:
    """Unicode script of a token: of its first character that is neither common nor inherited.

    Without such a character: "Fragment" if it has undecodable bytes (U+FFFD), else "Common".
    """
    for character in text:
        if (code := _code(character)) not in NEUTRAL:
            return ucd.script_name(code)
    return FRAGMENT if "\ufffd" in text else "Common"


@lru_cache(maxsize=1 << 16)
def _code(character: str) -> str:
    """ISO 15924 code of a character's script."""
    return ucd.script(character)


def catalogue() -> dict[str, dict]:
    """data/tokenizers/catalogue.yaml, by name."""
    return files.read_yaml(TOKENIZERS / "catalogue.yaml")


def open(name: str | Path, rows: int | None = None) -> Vocabulary:
    """A vocabulary by name, or from a tokenizer.json or .tiktoken file; `rows` of its matrix.

    A .tiktoken file says nothing of what surrounds its ranks: Qwen2's normaliser and pattern are
    assumed. Raises EditionError or VocabularyError with what is wrong and how to mend it.
    """
    name, entries = str(name), catalogue()
    if name in entries:
        entry = entries[name]
        data = editions.catalogued(entry, TOKENIZERS)
        ranks = ".tiktoken" in entry["file"]
    elif Path(name).is_file():
        data = editions.content(Path(name))
        ranks = ".tiktoken" in Path(name).name
        assumed = " (normaliser and pattern of Qwen2 assumed)" if ranks else ""
        entry = {key: entries["qwen3"][key] for key in ("normaliser", "patterns")}
        entry["origin"] = name + assumed
    else:
        raise VocabularyError(
            f"{name}: no such file, and no vocabulary of that name; there are {', '.join(entries)}"
        )
    rows = rows or entry.get("rows", 0)
    if ranks:
        return _surrounded(parse_tiktoken(data, name), name, rows, entry)
    return replace(parse_tokenizer_json(data, name, rows), origin=entry["origin"])


def _surrounded(
    tokens: tuple[bytes | None, ...], name: str, rows: int, entry: Mapping[str, Any]
) -> Vocabulary:
    """The tokens with what the catalogue's entry says of all that surrounds them."""
    added = entry.get("added", {"first": 0, "count": 0})
    texts = added.get("texts") or [""] * added["count"]
    return Vocabulary(
        name,
        tokens,
        dict(enumerate(texts, added["first"])),
        max(rows, len(tokens)),
        entry["normaliser"],
        tuple(entry["patterns"]),
        None,
        ignore_merges=entry.get("ignore_merges", False),
        origin=entry["origin"],
    )


def parse_tiktoken(data: bytes, where: str) -> tuple[bytes | None, ...]:
    """The tokens of a .tiktoken file: base64 and rank on each line. Raises VocabularyError."""
    found: dict[int, bytes] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            spelled, rank = line.split()
            id = int(rank)
            # a lone "=" is how Whisper's file spells the empty token
            token = b"" if spelled == b"=" else base64.b64decode(spelled, validate=True)
        except (ValueError, binascii.Error) as error:
            raise VocabularyError(
                f"{where}: line {number} is not 'base64 rank': {line[:40]!r}"
            ) from error
        if id in found or not 0 <= id < MOST_IDS:
            raise VocabularyError(f"{where}: line {number}: rank {id} stands twice or is absurd")
        found[id] = token
    if not found:
        raise VocabularyError(f"{where}: holds no tokens")
    _held([*found], map(len, found.values()), where)
    return tuple(found.get(id) for id in range(max(found) + 1))


def read_json(data: bytes, where: str) -> dict[str, Any]:
    """The contents of a tokenizer.json, held to SCHEMA. Raises VocabularyError."""
    try:
        file = _schema()(json.loads(data))
    except fastjsonschema.JsonSchemaException as error:
        why = " ".join(f"{error.message[:120]}, not {reprlib.repr(error.value)}".split())
        raise VocabularyError(f"{where}: not a tokenizer.json: {why}") from None
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{where}: not a tokenizer.json: {error!r}") from None
    tokens, added = file["model"]["vocab"], file.get("added_tokens") or []
    ids = range(len(tokens)) if isinstance(tokens, list) else tokens.values()
    _held([*ids, *(one["id"] for one in added)], map(len, tokens), where)
    return file


def _held(ids: Sequence[int], lengths: Iterable[int], where: str) -> None:
    """Raises VocabularyError where a token is absurdly long, or most of the ids stand for none."""
    longest, last = max(lengths, default=0), max(ids, default=0)
    if longest > LONGEST:
        raise VocabularyError(f"{where}: a token of {longest:,} letters; {LONGEST:,} are the most")
    if last >= 4 * len(ids) + (1 << 16):
        raise VocabularyError(f"{where}: the id {last:,} among only {len(ids):,} tokens is absurd")


@lru_cache(maxsize=1)
def _schema() -> Callable[[Any], Any]:
    return fastjsonschema.compile(SCHEMA)


def parse_tokenizer_json(data: bytes, where: str, rows: int = 0) -> Vocabulary:
    """A BPE `tokenizer.json` of the `tokenizers` library. Raises VocabularyError on other kinds."""
    file = read_json(data, where)
    model = file["model"]
    kind = model.get("type", "BPE")
    vocabulary, merges = model["vocab"], model.get("merges")
    if kind != "BPE" or model.get("byte_fallback") or not isinstance(merges, list):
        raise UnsupportedError(f"{where}: only BPE without byte fallback is supported, not {kind}")
    patterns, byte_level = _patterns(file.get("pre_tokenizer"), where)
    if byte_level:
        table = byte_table()
        spell = lambda token: bytes(table[c] for c in token)  # noqa: E731
    else:
        spell = lambda token: token.encode("utf-8")  # noqa: E731
    added = {int(a["id"]): a["content"] for a in file.get("added_tokens") or []}
    size = 1 + max([*vocabulary.values(), *added, -1])
    tokens: list[bytes | None] = [None] * size
    pairs = (m.split(" ", 1) if isinstance(m, str) else m for m in merges)
    try:
        for token, id in vocabulary.items():
            if id not in added:
                tokens[id] = spell(token)
        ranks = {(spell(a), spell(b)): rank for rank, (a, b) in enumerate(pairs)}
    except (KeyError, ValueError, TypeError) as error:
        raise UnsupportedError(f"{where}: a token is not spelled in bytes: {error!r}") from error
    return Vocabulary(
        where,
        tuple(tokens),
        added,
        max(rows, size),
        _normaliser(file.get("normalizer"), where),
        patterns,
        ranks,
        level="byte" if byte_level else "character",
        ignore_merges=bool(model.get("ignore_merges")),
    )


def _normaliser(part: dict | None, where: str) -> str | None:
    if part is None:
        return None
    if part["type"] == "Sequence":
        inner = [_normaliser(p, where) for p in part["normalizers"]]
        if len(inner) <= 1:
            return inner[0] if inner else None
    elif part["type"] in NORMALISERS:
        return part["type"]
    raise UnsupportedError(f"{where}: normaliser {part['type']} is not supported")


def _patterns(part: dict | None, where: str) -> tuple[tuple[str, ...], bool]:
    """The patterns of a pre-tokenizer, and whether it ends in bytes."""
    parts = part["pretokenizers"] if part and part["type"] == "Sequence" else [part] if part else []
    patterns, byte_level = [], False
    for one in parts:
        if one["type"] == "ByteLevel":
            if one.get("add_prefix_space"):
                raise UnsupportedError(f"{where}: a pre-tokenizer that adds a space: not supported")
            byte_level = True
            patterns += [GPT2_WORDS] if one.get("use_regex", True) else []
        elif one["type"] == "Digits":
            patterns.append(r"\p{N}" if one.get("individual_digits") else r"\p{N}+")
        elif one["type"] == "Punctuation" and one.get("behavior", "Isolated") in ALONE:
            patterns.append(PUNCTUATION + "+" * (one.get("behavior") == "Contiguous"))
        elif one["type"] == "Split" and one["behavior"] == "Isolated" and not one.get("invert"):
            pattern = one["pattern"]
            patterns.append(pattern.get("Regex") or regex.escape(pattern["String"]))
        else:
            raise UnsupportedError(f"{where}: pre-tokenizer {one['type']} is not supported")
    return tuple(patterns), byte_level


def byte_table() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 as itself, the other bytes from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (b for b in range(256) if b not in set(printable))
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
