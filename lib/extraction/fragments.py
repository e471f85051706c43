r"""Between which neighbours does a pre-tokenizer leave a text in one word?

A token whose text is cut where it stands alone may still be kept whole beside other characters. It
is asked between every pair of SURROUNDINGS. The answer depends on a text only through what the
patterns can tell apart, so texts of the same *kinds* of characters share one answer: two characters
beyond ASCII are of one kind if the same property escapes (\p{L}, \s) of the patterns match them,
with and without regard to case. Where a pattern has anything else to say of such characters
(flags, POSIX classes, literals), every character is a kind of its own.

Can a piece of a character ever be emitted? The search for texts that complete it.

A token whose bytes are no valid UTF-8 starts or ends inside a character. It is emitted only between
neighbours that supply the character's other bytes and leave the token alone in merging. By the
second fact of `lib.extraction.merging`, a chain of tokens is what merging gives only if each
adjacent pair is; so the search looks at *every* token that can stand at its left and every one that
can stand at its right, and keeps those whose pair with it is stable. Both lists are complete. Only
where a neighbour is itself unfinished at its far side is the search bounded: DEPTH tokens on either
side, and of the ways to finish such a neighbour the FURTHER first ones.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import regex

from lib.extraction import merging
from lib.extraction.vocabulary import Vocabulary

# One character of each kind that pre-tokenizers tell apart, as neighbours for a token in context.
# The search of a token in context is bounded by the pairs of these.
SURROUNDINGS = ("", " ", "\n", "\r", "\t", "a", "A", "1", "!", "'", "\u0301", "\u0e01", "\u4e00")
ESCAPE = regex.compile(r"\\[pP]\{\w+\}|\\[sS]")  # what patterns say of characters beyond ASCII
REST = regex.compile(r"(?:[\x00-\x5b\x5d-\x7f]|\\[rnt]|\\[^\w])*")  # and what only of ASCII
MORE = regex.compile(r"\[:|\(\?(?!i[:)])[A-Za-z]|\{[^\d,]")  # POSIX classes, flags, fuzzy matching


def contexts() -> Iterator[tuple[str, str]]:
    """Every pair of surroundings but the empty one: the bound of the search in context."""
    for before in SURROUNDINGS:
        for after in SURROUNDINGS:
            if before or after:
                yield before, after


class Contexts:
    """For one vocabulary, which contexts keep a text in one word; each kind of text asked once."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.kinds: dict[str, Hashable] = {}
        self.known: dict[tuple[Hashable, ...], list[tuple[str, str]]] = {}

    def keeping(self, text: str) -> list[tuple[str, str]]:
        """The contexts (before, after), in their order, in which `text` lies within one word."""
        kinds = tuple(map(self.kind, text))
        if kinds not in self.known:
            self.known[kinds] = [
                (before, after)
                for before, after in contexts()
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
        flags = (0, regex.IGNORECASE)
        return tuple(regex.compile(escape, flag) for escape in sorted(found) for flag in flags)


def folds_to_ascii(character: str) -> bool:
    """Whether a pattern that does not mind capitals could take it for an ASCII character."""
    forms = (character, character.casefold(), character.lower(), character.upper())
    return any(map(str.isascii, "".join(forms)))


DEPTH = 3  # tokens on either side; a character has at most four bytes
FURTHER = 6  # ways to finish an unfinished neighbour
LEAD = {2: 0xC0, 3: 0xE0, 4: 0xF0}  # UTF-8: the first byte of a character of so many bytes
LEAST = {2: 0x80, 3: 0x800, 4: 0x10000}  # and the least code point that is spelled so


@dataclass(frozen=True)
class Edges:
    """A byte string cut where characters are cut."""

    head: bytes  # leading continuation bytes, whose first bytes are missing
    body: bytes  # whole characters
    tail: bytes  # the beginning of a character, whose last bytes are missing


def edges(token: bytes) -> Edges | None:
    """The edges of a byte string; None if no UTF-8 text can contain it."""
    head = 0
    while head < len(token) and 0x80 <= token[head] < 0xC0:
        head += 1
    for stop in range(len(token), max(head, len(token) - 3) - 1, -1):
        try:
            token[head:stop].decode("utf-8")
        except UnicodeDecodeError:
            continue
        tail = token[stop:]
        if head <= 3 and (not tail or begins_character(tail)):
            return Edges(token[:head], token[head:stop], tail)
        return None
    return None


def decodes(data: bytes) -> bool:
    """Whether `data` is exactly one character."""
    try:
        return len(data.decode("utf-8")) == 1
    except UnicodeDecodeError:
        return False


def begins_character(data: bytes) -> bool:
    """Whether `data` is the beginning of some character's UTF-8, but not all of it."""
    return any(
        decodes(data + second + b"\x80" * rest)
        for second in (b"", b"\x80", b"\x90", b"\xa0")
        for rest in range(4 - len(data) - len(second) + 1)
        if second or rest
    )


def length(first: int) -> int:
    """How many bytes a character has in UTF-8, by its first byte."""
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def characters(begun: bytes) -> list[str]:
    """All characters whose UTF-8 starts with the bytes `begun` (and goes on), in order."""
    size = length(begun[0])
    point = begun[0] - LEAD[size]
    for byte in begun[1:]:
        point = point << 6 | byte & 0x3F
    step = 1 << 6 * (size - len(begun))  # code points that begin so
    points = range(max(point * step, LEAST[size]), min((point + 1) * step, 0x110000))
    return [chr(point) for point in points if not 0xD800 <= point < 0xE000]


@dataclass(frozen=True)
class Search:
    """A vocabulary's fragments, by what they leave unfinished on each side, shortest first."""

    vocabulary: Vocabulary
    by_tail: dict[bytes, list[bytes]]  # begun character -> tokens that end in it
    by_head: dict[bytes, list[bytes]]  # continuation bytes -> tokens that start with them
    runs_only: tuple[bytes, ...]  # tokens of nothing but continuation bytes
    pairs: dict[bytes, dict[bytes, bool]] = field(default_factory=dict, repr=False)  # memory
    known: dict[bytes, list[bytes]] = field(default_factory=dict, repr=False)  # of beginnings

    @cached_property
    def contexts(self) -> Contexts:
        """Which neighbours keep a text in one word."""
        return Contexts(self.vocabulary)

    @cached_property
    def whole(self) -> frozenset[bytes]:
        """The tokens that merging makes of their own bytes."""
        return merging.whole(self.vocabulary)

    def stable(self, left: bytes, right: bytes) -> bool:
        """Whether merging keeps `left` and `right` apart, and each of them whole."""
        known = self.pairs.setdefault(left, {})
        if right not in known:
            known[right] = merging.merge(left + right, self.vocabulary) == [left, right]
        return known[right]

    def beginnings(self, run: bytes) -> list[bytes]:
        """The tokens whose begun character the continuation bytes `run` finish."""
        if run not in self.known:
            self.known[run] = [
                token
                for tail, tokens in self.by_tail.items()
                if length(tail[0]) == len(tail) + len(run) and decodes(tail + run)
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
                for character in islice(characters(tail), 64)
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


def search(vocabulary: Vocabulary) -> Search:
    """Index the fragments of a vocabulary for the search."""
    by_tail, by_head = defaultdict(list), defaultdict(list)
    for token in sorted(vocabulary.ids, key=lambda t: (len(t), t)):
        if vocabulary.level == "byte" and not token.isascii():
            cut = edges(token)
            if cut and cut.tail:
                by_tail[cut.tail].append(token)
            if cut and cut.head:
                by_head[cut.head].append(token)
    runs_only = tuple(head for head, after in by_head.items() if after[0] == head)
    return Search(vocabulary, dict(by_tail), dict(by_head), runs_only)
