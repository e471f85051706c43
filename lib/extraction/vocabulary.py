"""Which script and Unicode block a piece of text belongs to.

Vocabularies: the bytes of every token, and what is done to a text before tokens are looked up.

A vocabulary is read from the catalogue (`open("qwen3")`), a `tokenizer.json`, or a `.tiktoken`
file. Files of packages are found without importing the package.
"""

import base64
import binascii
import hashlib
import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

import regex
from fontTools import unicodedata as ucd

from lib import files, paths

FRAGMENT = "Fragment"  # bytes that are no complete text
NEUTRAL = ("Zyyy", "Zinh", "Zzzz")  # common, inherited, unknown


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


def block(text: str) -> str:
    """Unicode block of the token's first character that is not white space."""
    if "\ufffd" in text:
        return FRAGMENT
    return ucd.block((text.strip() or text or " ")[0])


def printable(text: str) -> str:
    """The text as a page can show it: a mark that begins it on a dotted circle, what has no shape
    as its code point, ⟨009D⟩."""
    circle = "◌" if text and ucd.category(text[0]) == "Mn" else ""
    return circle + "".join(c if c.isprintable() else f"⟨{ord(c):04X}⟩" for c in text)


def character_name(character: str) -> str:
    """Code point and Unicode name, e.g. "U+0E31 THAI CHARACTER MAI HAN-AKAT"."""
    return f"U+{ord(character):04X} {ucd.name(character, '')}".rstrip()


TOKENIZERS = paths.DATA / "tokenizers"
NORMALISERS = ("NFC", "NFD", "NFKC", "NFKD")
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class VocabularyError(ValueError):
    """A vocabulary is unknown, missing, damaged, or of a kind the book cannot analyse."""


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
    whole_words: bool = False  # a word that is a token is emitted without merging
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

    def text(self, id: int) -> str | None:
        """The text of a token; None where its bytes are no valid UTF-8, or it has none."""
        if id in self.added:
            return self.added[id] or None
        token = self.tokens[id] if id < len(self.tokens) else None
        try:
            return None if token is None else token.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def shown(self, id: int) -> str:
        """The text of a token for tables, with U+FFFD for bytes that are no text."""
        if id in self.added:
            return self.added[id]
        token = self.tokens[id] if id < len(self.tokens) else None
        return "" if token is None else token.decode("utf-8", "replace")

    def under(self, *patterns: str) -> "Vocabulary":
        """The same vocabulary with another pre-tokenizer (for counterfactuals)."""
        return replace(self, patterns=tuple(patterns))


def names() -> list[str]:
    """The vocabularies of the catalogue."""
    return list(catalogue())


def catalogue() -> dict[str, dict]:
    """data/tokenizers/catalogue.yaml, by name."""
    return files.read_yaml(TOKENIZERS / "catalogue.yaml")


def open(name: str | Path, rows: int | None = None) -> Vocabulary:
    """A vocabulary by name, or from a tokenizer.json or .tiktoken file; `rows` of its matrix.

    A .tiktoken file says nothing of what surrounds its ranks: Qwen2's normaliser and pattern are
    assumed. Raises VocabularyError with what is wrong and how to mend it.
    """
    entries = catalogue()
    if str(name) in entries:
        return _from_catalogue(str(name), entries[str(name)], rows)
    path = Path(name)
    if not path.is_file():
        raise VocabularyError(
            f"{name}: no such file, and no vocabulary of that name; there are {', '.join(entries)}"
        )
    if ".tiktoken" in path.name:
        qwen = entries["qwen3"]
        tokens = parse_tiktoken(_content(path), str(path))
        return Vocabulary(
            path.name,
            tokens,
            {},
            max(rows or 0, len(tokens)),
            qwen["normaliser"],
            tuple(qwen["patterns"]),
            None,
            origin=f"{path} (normaliser and pattern of Qwen2 assumed)",
        )
    return parse_tokenizer_json(_content(path), str(path), rows)


def _from_catalogue(name: str, entry: dict, rows: int | None) -> Vocabulary:
    path = TOKENIZERS / entry["file"]
    if "package" in entry:
        spec = find_spec(entry["package"])
        if spec is None or spec.origin is None:
            raise VocabularyError(
                f"{name}: package {entry['package']} is not installed; run `make setup`"
            )
        path = Path(spec.origin).parent / entry["file"]
    data = _content(path)
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise VocabularyError(f"{name}: {path} is not the edition the book uses; run `make setup`")
    rows = rows or entry["rows"]
    if path.suffix == ".json":
        return replace(parse_tokenizer_json(data, name, rows), name=name, origin=entry["origin"])
    added = entry["added"]
    texts = added.get("texts") or [""] * added["count"]
    return Vocabulary(
        name,
        parse_tiktoken(data, name),
        dict(enumerate(texts, added["first"])),
        rows,
        entry["normaliser"],
        tuple(entry["patterns"]),
        None,
        whole_words=entry.get("whole_words", False),
        origin=entry["origin"],
    )


def _content(path: Path) -> bytes:
    """The bytes of a file, decompressed if it is .xz. Raises VocabularyError."""
    try:
        data = path.read_bytes()
        return lzma.decompress(data) if path.suffix == ".xz" else data
    except (OSError, lzma.LZMAError) as error:
        raise VocabularyError(f"{path}: cannot be read: {error}") from error


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
        if id in found or not 0 <= id < 1 << 24:
            raise VocabularyError(f"{where}: line {number}: rank {id} stands twice or is absurd")
        found[id] = token
    if not found:
        raise VocabularyError(f"{where}: holds no tokens")
    return tuple(found.get(id) for id in range(max(found) + 1))


def parse_tokenizer_json(data: bytes, where: str, rows: int | None = None) -> Vocabulary:
    """A BPE `tokenizer.json` of the `tokenizers` library. Raises VocabularyError on other kinds."""
    try:
        file = json.loads(data)
        model = file["model"]
        kind = model.get("type", "BPE")
        vocabulary, merges = model["vocab"], model.get("merges")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VocabularyError(f"{where}: not a tokenizer.json: {error!r}") from error
    if kind != "BPE" or model.get("byte_fallback") or not isinstance(merges, list):
        raise VocabularyError(f"{where}: only BPE without byte fallback is supported, not {kind}")
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
        raise VocabularyError(f"{where}: a token is not spelled in bytes: {error!r}") from error
    return Vocabulary(
        where,
        tuple(tokens),
        added,
        max(rows or 0, size),
        _normaliser(file.get("normalizer"), where),
        patterns,
        ranks,
        level="byte" if byte_level else "character",
        whole_words=bool(model.get("ignore_merges")),
        origin=where,
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
    raise VocabularyError(f"{where}: normaliser {part['type']} is not supported")


def _patterns(part: dict | None, where: str) -> tuple[tuple[str, ...], bool]:
    """The patterns of a pre-tokenizer, and whether it ends in bytes."""
    parts = part["pretokenizers"] if part and part["type"] == "Sequence" else [part] if part else []
    patterns, byte_level = [], False
    for one in parts:
        if one["type"] == "ByteLevel":
            if one.get("add_prefix_space"):
                raise VocabularyError(f"{where}: a pre-tokenizer that adds a space: not supported")
            byte_level = True
            patterns += [GPT2_WORDS] if one.get("use_regex", True) else []
        elif one["type"] == "Split" and one["behavior"] == "Isolated" and not one.get("invert"):
            pattern = one["pattern"]
            patterns.append(pattern.get("Regex") or regex.escape(pattern["String"]))
        else:
            raise VocabularyError(f"{where}: pre-tokenizer {one['type']} is not supported")
    return tuple(patterns), byte_level


def byte_table() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 as itself, the other bytes from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (b for b in range(256) if b not in set(printable))
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
