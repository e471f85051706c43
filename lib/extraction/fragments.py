"""Neighbours of a token: those that keep it in one word, those that complete half a character."""

import codecs
from collections import defaultdict
from collections.abc import Hashable, Iterator
from functools import cache, cached_property
from itertools import islice, product
from typing import NamedTuple

import regex

from lib.extraction import merging
from lib.extraction.vocabulary import Vocabulary

# One character of each kind that pre-tokenizers tell apart, as neighbours for a token in context.
# The search of a token in context is bounded by the pairs of these.
SURROUNDINGS = ("", " ", "\n", "\r", "\t", "a", "A", "1", "!", "'", "\u0301", "\u0e01", "\u4e00")
CONTEXTS = [pair for pair in product(SURROUNDINGS, repeat=2) if any(pair)]  # (before, after)
ESCAPE = regex.compile(r"\\[pP]\{\w+\}|\\[sS]")  # what patterns say of characters beyond ASCII
REST = regex.compile(r"(?:[\x00-\x5b\x5d-\x7f]|\\[rnt]|\\[^\w])*")  # and what only of ASCII
MORE = regex.compile(r"\[:|\(\?(?!i[:)])[A-Za-z]|\{[^\d,]")  # POSIX classes, flags, fuzzy matching

DEPTH = 3  # tokens on either side; a character has at most four bytes
FURTHER = 6  # ways to finish an unfinished neighbour


class Contexts:
    r"""For one vocabulary, which contexts keep a text in one word; each kind of text asked once.

    A token whose text is cut where it stands alone may still be kept whole beside other characters.
    The answer depends on a text only through what the patterns can tell apart, so texts of the same
    *kinds* of characters share it: two characters beyond ASCII are of one kind if the same property
    escapes (\p{L}, \s) of the patterns match them, with and without regard to case. Where a pattern
    has anything else to say of such characters (flags, POSIX classes, literals), every character is
    a kind of its own.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.kinds: dict[str, Hashable] = {}
        self.known: dict[tuple[Hashable, ...], list[tuple[str, str]]] = {}

    def keeping(self, text: str) -> list[tuple[str, str]]:
        """Those of CONTEXTS (before, after), in their order, that leave `text` within one word."""
        kinds = tuple(map(self.kind, text))
        if kinds not in self.known:
            self.known[kinds] = [
                (before, after)
                for before, after in CONTEXTS
                if merging.together(
                    before + text + after, len(before), len(before) + len(text), self.vocabulary
                )
            ]
        return self.known[kinds]

    def kind(self, character: str) -> Hashable:
        """What the patterns see of a character: itself, or which of their escapes match it."""
        if character not in self.kinds:
            self.kinds[character] = (
                character
                if self.escapes is None or folds_to_ascii(character)
                else tuple(bool(escape.match(character)) for escape in self.escapes)
            )
        return self.kinds[character]

    @cached_property
    def escapes(self) -> tuple[regex.Pattern, ...] | None:
        """The property escapes of the patterns; None if these name characters beyond ASCII."""
        found: set[str] = set()
        for pattern in self.vocabulary.patterns:
            rest = ESCAPE.sub("", pattern)
            if not REST.fullmatch(rest) or MORE.search(rest):
                return None
            found.update(ESCAPE.findall(pattern))
        return tuple(regex.compile(*pair) for pair in product(sorted(found), (0, regex.IGNORECASE)))


def folds_to_ascii(character: str) -> bool:
    """Whether a pattern that does not mind capitals could take it for an ASCII character."""
    forms = (character, character.casefold(), character.lower(), character.upper())
    return any(map(str.isascii, "".join(forms)))


class Edges(NamedTuple):
    """A byte string cut where characters are cut."""

    head: bytes  # leading continuation bytes, whose first bytes are missing
    body: bytes  # whole characters
    tail: bytes  # the beginning of a character, whose last bytes are missing


def edges(token: bytes) -> Edges | None:
    """The edges of a byte string; None if no UTF-8 text can contain it."""
    body = token.lstrip(bytes(range(0x80, 0xC0)))
    head = token[: len(token) - len(body)]
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(body)
    except UnicodeDecodeError:
        return None
    tail, _ = decoder.getstate()  # what has come of a character that is not whole yet
    if len(head) > 3 or (tail and not characters(tail)):  # a surrogate's beginning is let pass
        return None
    return Edges(head, body[: len(body) - len(tail)], tail)


def length(first: int) -> int:
    """How many bytes a character has in UTF-8, by its first byte."""
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4


@cache
def characters(begun: bytes) -> str:
    """All characters whose UTF-8 starts with the bytes `begun` (and goes on), in order."""
    rests = product(range(0x80, 0xC0), repeat=length(begun[0]) - len(begun))
    return b"".join(begun + bytes(rest) for rest in rests).decode("utf-8", "ignore")


class Search:
    """Of one vocabulary, the tokens beside which a piece of a character is emitted.

    A token whose bytes are no valid UTF-8 starts or ends inside a character. It is emitted only
    between neighbours that supply the character's other bytes and leave the token alone in merging.
    By the second fact of `lib.extraction.merging`, a chain of tokens is what merging gives only if
    each adjacent pair is; so the search looks at *every* token that can stand at its left and every
    one that can stand at its right, and keeps those whose pair with it is stable. Both lists are
    complete. Only where a neighbour is itself unfinished at its far side is the search bounded:
    DEPTH tokens on either side, and of the ways to finish such a neighbour the FURTHER first ones.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.contexts = Contexts(vocabulary)
        # the fragments by what they leave unfinished on each side, shortest first
        self.by_tail: dict[bytes, list[bytes]] = defaultdict(list)
        self.by_head: dict[bytes, list[bytes]] = defaultdict(list)
        for token in sorted(vocabulary.ids, key=lambda t: (len(t), t)):
            if vocabulary.level == "byte" and not token.isascii() and (cut := edges(token)):
                if cut.tail:
                    self.by_tail[cut.tail].append(token)
                if cut.head:
                    self.by_head[cut.head].append(token)
        # tokens of nothing but continuation bytes
        self.runs_only = [head for head, after in self.by_head.items() if after[0] == head]
        self.pairs: dict[tuple[bytes, bytes], bool] = {}  # what is known of them
        self.known: dict[bytes, list[bytes]] = {}  # of beginnings

    @cached_property
    def self_encoding(self) -> frozenset[bytes]:
        """The tokens that merging makes of their own bytes."""
        return merging.self_encoding(self.vocabulary)

    def stable(self, left: bytes, right: bytes) -> bool:
        """Whether merging keeps `left` and `right` apart, and each of them whole."""
        pair = left, right
        if pair not in self.pairs:
            self.pairs[pair] = merging.merge(left + right, self.vocabulary) == [left, right]
        return self.pairs[pair]

    def beginnings(self, run: bytes) -> list[bytes]:
        """The tokens whose begun character the continuation bytes `run` finish."""
        if run not in self.known:
            self.known[run] = [
                token
                for tail, tokens in self.by_tail.items()
                if length(tail[0]) == len(tail) + len(run) and edges(tail + run)
                for token in tokens
            ]
        return self.known[run]

    def lefts(self, token: bytes, run: bytes, depth: int = DEPTH) -> Iterator[bytes]:
        """Bytes to put before `token` so that the continuation bytes `run` get their beginning."""
        if not run:
            yield b""
        elif depth:
            for left in self.beginnings(run):
                if self.stable(left, token):
                    further = self.lefts(left, edges(left).head, depth - 1)
                    yield from (more + left for more in islice(further, FURTHER))
            for left in self.runs_only:
                if len(left) + len(run) <= 3 and self.stable(left, token):
                    yield from (more + left for more in self.lefts(left, left + run, depth - 1))

    def finish(self, token: bytes, missing: bytes, depth: int = DEPTH) -> Iterator[bytes]:
        """Bytes to put after `token` that start with `missing`."""
        if not missing:
            yield b""
        elif depth:
            for right in self.by_head.get(missing, ()):
                if self.stable(token, right):
                    yield from (right + more for more in self.ends(right, depth - 1))
            for cut in range(1, len(missing)):
                right = missing[:cut]
                if right in self.runs_only and self.stable(token, right):
                    yield from (right + m for m in self.finish(right, missing[cut:], depth - 1))

    def ends(self, token: bytes, depth: int = DEPTH) -> Iterator[bytes]:
        """The first few ways to finish the character that `token` itself leaves begun."""
        tail = edges(token).tail
        if not tail:
            yield b""
        elif depth:
            found = (
                more
                for character in characters(tail)[:64]
                for more in self.finish(token, character.encode()[len(tail) :], depth)
            )
            yield from islice(found, FURTHER)

    def runs(self, token: bytes, run: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Ways to go on to the right of continuation bytes: (the whole run, bytes put after)."""
        yield run, b""
        for head, after in self.by_head.items():
            if len(run) + len(head) <= 3:
                for right in after:
                    if self.stable(token, right):
                        if right == head:
                            yield from ((r, right + m) for r, m in self.runs(right, run + head))
                        else:
                            yield from ((run + head, right + more) for more in self.ends(right))

    def inside(self, token: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(before, after) that complete a token which is the middle of one character."""
        for run, after in self.runs(token, token):
            yield from ((before, after) for before in self.lefts(token, run))
