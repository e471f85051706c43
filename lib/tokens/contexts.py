"""Between which neighbours does a pre-tokenizer leave a text in one word?

A token whose text is cut where it stands alone may still be kept whole beside other characters. It
is asked between every pair of SURROUNDINGS. The answer depends on a text only through what the
patterns can tell apart, so texts of the same *kinds* of characters share one answer: two characters
beyond ASCII are of one kind if the same property escapes (\\p{L}, \\s) of the patterns match them,
with and without regard to case. Where a pattern has anything else to say of such characters
(flags, POSIX classes, literals), every character is a kind of its own.
"""

from collections.abc import Hashable, Iterator
from functools import cached_property

import regex

from lib.tokens import merging
from lib.tokens.vocabulary import Vocabulary

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
