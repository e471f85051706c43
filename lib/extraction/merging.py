"""From text to tokens, exactly: normalise, split into words, merge by rank.

The merge rule is tiktoken's: in each word, join the adjacent pair whose union has the lowest rank,
the leftmost first among equals, until no pair joins to a token (or, for a tokenizer.json, until
none is in its list of merges). It is written for reading and for single tokens; `as_tokenizer`
gives the same tokenizer in the `tokenizers` library for whole texts.

Two facts about it carry the whole analysis of reachability. Both follow from the rule's order:
merges on disjoint stretches do not see each other, and a token once joined is never cut again.

1. *Alone or never*: if merging the bytes of a token alone does not give the token, no longer word
   gives it either.
2. *Neighbours decide*: a word is cut into the tokens t1 ... tn only if every adjacent pair, merged
   alone, is cut into just these two (compare Berglund and van der Merwe, 2023).
"""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import AnyStr

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel

from lib.extraction.vocabulary import Vocabulary, byte_table

NEVER = 1 << 60


def merge(word: bytes, vocabulary: Vocabulary) -> list[bytes]:
    """The byte strings into which merging by rank cuts `word`; the word's units are kept whole."""
    parts = units(word, vocabulary)
    ranks, pairs = vocabulary.ids, vocabulary.merges
    while len(parts) > 1:
        best, at = NEVER, -1
        for i in range(len(parts) - 1):
            if pairs is None:
                rank = ranks.get(parts[i] + parts[i + 1], NEVER)
            else:
                rank = pairs.get((parts[i], parts[i + 1]), NEVER)
            if rank < best:
                best, at = rank, i
        if at < 0:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def units(word: bytes, vocabulary: Vocabulary) -> list[bytes]:
    """What merging starts from: single bytes, or single characters."""
    if vocabulary.level == "byte":
        return [word[i : i + 1] for i in range(len(word))]
    return [character.encode() for character in word.decode("utf-8")]


def normalise(text: str, vocabulary: Vocabulary) -> str:
    """The text as the rest of the tokenizer sees it."""
    if vocabulary.normaliser is None or text.isascii():  # no normal form changes ASCII
        return text
    return unicodedata.normalize(vocabulary.normaliser, text)


def words(text: str, vocabulary: Vocabulary) -> list[str]:
    """The words into which the pre-tokenizer's patterns cut a (normalised) text."""
    pieces = [text] if text else []
    for expression in vocabulary.expressions:
        cut: list[str] = []
        for piece in pieces:
            end = 0
            for match in expression.finditer(piece):
                cut += piece[end : match.start()], match.group()
                end = match.end()
            cut.append(piece[end:])
        pieces = [piece for piece in cut if piece]
    return pieces


def together(text: str, start: int, stop: int, vocabulary: Vocabulary) -> bool:
    """Whether the pre-tokenizer leaves the characters `start` to `stop` of a text in one word."""
    begin = 0
    for word in words(text, vocabulary):
        end = begin + len(word)
        if end >= stop:
            return begin <= start
        begin = end
    return False


def cut(word: bytes, vocabulary: Vocabulary) -> list[bytes]:
    """The byte strings of the tokens of one word."""
    if vocabulary.ignore_merges and word in vocabulary.ids:
        return [word]
    return merge(word, vocabulary)


def tokenize(text: str, vocabulary: Vocabulary) -> list[bytes]:
    """The byte strings of the tokens of `text` (added tokens are not looked for)."""
    found = words(normalise(text, vocabulary), vocabulary)
    return [token for word in found for token in cut(word.encode("utf-8"), vocabulary)]


def encode(text: str, vocabulary: Vocabulary) -> list[int]:
    """The ids of `text`. A unit without a token has none and is left out."""
    ids = vocabulary.ids
    return [ids[token] for token in tokenize(text, vocabulary) if token in ids]


def self_encoding(vocabulary: Vocabulary) -> frozenset[bytes]:
    """The tokens that merging makes of their own bytes."""
    tokens = vocabulary.tokens
    if vocabulary.merges is not None or vocabulary.level != "byte":
        return frozenset(t for t in vocabulary.ids if merge(t, vocabulary) == [t])
    from lib.extraction import merging_compiled  # slow to import: a command line answers before

    parts = merging_compiled.pieces(tokens)
    return frozenset(tokens[id] for id in np.flatnonzero(parts == 1))


def joining(ranks: Mapping[AnyStr, float]) -> Iterator[tuple[AnyStr, AnyStr]]:
    """Every pair of tokens that joins to a token, in the order of the joined token's rank.

    This is the rule "any pair that joins to a token merges" as a list of merges. A list cannot say
    one thing that the rule says: of two pairs that overlap and join to the same token, the leftmost
    goes first.
    """
    for whole in sorted(ranks, key=ranks.__getitem__):
        for at in range(1, len(whole)):
            if whole[:at] in ranks and whole[at:] in ranks:
                yield whole[:at], whole[at:]


def as_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """The same tokenizer in the `tokenizers` library, without the added tokens."""
    if vocabulary.level == "byte":
        table = {b: c for c, b in byte_table().items()}
        spell = lambda token: "".join(table[b] for b in token)  # noqa: E731
    else:
        spell = lambda token: token.decode("utf-8")  # noqa: E731
    merges = vocabulary.merges
    pairs = joining(vocabulary.ids) if merges is None else sorted(merges, key=merges.get)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={spell(token): id for token, id in vocabulary.ids.items()},
            merges=[(spell(a), spell(b)) for a, b in pairs],
            ignore_merges=vocabulary.ignore_merges,
        )
    )
    if vocabulary.normaliser:
        tokenizer.normalizer = getattr(normalizers, vocabulary.normaliser)()
    if vocabulary.level == "byte":
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizer(vocabulary)
    return tokenizer


def pre_tokenizer(vocabulary: Vocabulary) -> pre_tokenizers.PreTokenizer:
    """The vocabulary's patterns in the `tokenizers` library."""
    parts = [pre_tokenizers.Split(Regex(p), "isolated") for p in vocabulary.patterns]
    if vocabulary.level == "byte":
        parts.append(ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(parts)
