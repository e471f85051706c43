"""Which ids can a tokenizer ever emit? One class and one piece of evidence for every row of W.

A token is *reachable* if some text contains it once encoded; the evidence is such a text. For all
others the evidence is the step that prevents it. The classes follow the order of the tokenizer's
steps: normaliser, pre-tokenizer, merging. The idea of asking a vocabulary in this way is Land and
Bartolo's (2024); the exact search for fragments is in `lib.tokens.completion`.
"""

import enum
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from tqdm.auto import tqdm

from lib.plots import PALETTE
from lib.tokens import completion, merging, scripts
from lib.tokens.vocabulary import Vocabulary

# One character of each kind that pre-tokenizers tell apart, as neighbours for a token in context.
# The search of a token in context is bounded by the pairs of these.
SURROUNDINGS = ("", " ", "\n", "\r", "\t", "a", "A", "1", "!", "'", "\u0301", "\u0e01", "\u4e00")

TEXTS = 20_000  # texts tried for one fragment


class Reach(enum.Enum):
    """What becomes of an id."""

    REACHABLE = "reachable"
    COMPLETED = "fragment, completed by some context"
    ADDED = "added token"
    NORMALISED = "changed by normalisation"
    SPLIT = "split by the pre-tokenizer"
    UNBUILT = "never built by merges"
    INCOMPLETE = "fragment that no context completes"
    PHANTOM = "phantom row"

    def __str__(self) -> str:
        return self.value

    @property
    def dead(self) -> bool:
        """Whether no text at all makes the tokenizer emit such an id."""
        return self not in (Reach.REACHABLE, Reach.COMPLETED, Reach.ADDED)

    @property
    def colour(self) -> str:
        """The class's colour in every figure."""
        names = ("blue", "sky", "grey", "purple", "vermillion", "yellow", "orange", "ink")
        return PALETTE[dict(zip(Reach, names, strict=True))[self]]


@dataclass(frozen=True)
class Record:
    """What is known of one id."""

    id: int
    reach: Reach
    bytes: bytes  # empty where the id has none
    text: str  # with U+FFFD for bytes that are no text
    script: str
    evidence: str  # a text that gives it, or what prevents it
    witness: str | None = None  # a text whose encoding contains the id


def analyse(vocabulary: Vocabulary, progress: bool = True) -> list[Record]:
    """One record for every id from 0 to the rows of W, in order."""
    search = completion.search(vocabulary)
    ids = range(vocabulary.rows)
    if progress:
        ids = tqdm(ids, desc=f"reachability of {vocabulary.name}", disable=None)
    return [classify(id, vocabulary, search) for id in ids]


def classify(id: int, vocabulary: Vocabulary, search: completion.Search) -> Record:
    """The record of one id."""
    text = vocabulary.shown(id)

    def record(reach: Reach, evidence: str, witness: str | None = None) -> Record:
        return Record(id, reach, token or b"", text, scripts.script(text), evidence, witness)

    token = vocabulary.tokens[id] if id < len(vocabulary.tokens) else None
    if id in vocabulary.added:
        return record(Reach.ADDED, "emitted where its own text is written out")
    if token is None:
        return record(Reach.PHANTOM, "no token has this id")
    if vocabulary.ids[token] != id:
        return record(Reach.UNBUILT, f"same bytes as id {vocabulary.ids[token]}")
    if vocabulary.text(id) is None:
        return record(*_fragment(token, search))
    normal = merging.normalise(text, vocabulary)
    if normal != text:
        evidence = f"{code_points(text)} becomes {code_points(normal)}"
        return record(Reach.NORMALISED, evidence)
    words = merging.words(text, vocabulary)
    built = merging.merge(token, vocabulary)
    whole = built == [token] or (vocabulary.whole_words and token in vocabulary.ids)
    if len(words) == 1 and whole:
        return record(Reach.REACHABLE, "from its own text", text)
    if built == [token]:
        for before, after in contexts():
            if emits(before.encode(), token, after.encode(), vocabulary):
                witness = before + text + after
                return record(Reach.REACHABLE, f"from {witness!r}", witness)
    if len(words) != 1:
        return record(Reach.SPLIT, "cut into " + " | ".join(map(repr, words)))
    cut = " ".join(str(vocabulary.ids.get(part, "?")) for part in built)
    return record(Reach.UNBUILT, f"merging gives {cut or 'nothing'}")


def _fragment(token: bytes, search: completion.Search) -> tuple[Reach, str, str | None]:
    """Class, evidence and witness of a token that is no valid UTF-8."""
    vocabulary = search.vocabulary
    cut = completion.edges(token)
    if cut is None:
        return Reach.INCOMPLETE, f"{token.hex(' ')} occurs in no UTF-8 text", None
    built = merging.merge(token, vocabulary)
    if built != [token]:
        parts = " ".join(str(vocabulary.ids.get(part, "?")) for part in built)
        return Reach.UNBUILT, f"merging gives {parts}", None
    if cut.tail:
        return _begun(token, cut, search)
    if cut.head == token:
        return _judge(token, search.inside(token), Counter(), vocabulary)
    befores = search.lefts(token, cut.head)
    return _judge(token, ((before, b"") for before in befores), Counter(), vocabulary)


def _begun(
    token: bytes, cut: completion.Edges, search: completion.Search
) -> tuple[Reach, str, str | None]:
    """The same for a token that ends in the beginning of a character: each character is asked."""
    vocabulary, body = search.vocabulary, cut.body.decode()
    reasons: Counter[str] = Counter()
    possible: list[list[str]] = [[], []]  # assigned characters, then unassigned ones
    divided: list[str] = []
    for character in completion.characters(cut.tail):
        text = body + character
        if merging.normalise(text, vocabulary) != text:
            reasons[str(Reach.NORMALISED)] += 1
        elif len(merging.words(text, vocabulary)) > 1:
            divided.append(character)
        else:
            possible[not assigned(character)].append(character)
    for character in divided[:64] if not any(possible) else ():
        if any(
            emits(before.encode(), (body + character).encode(), after.encode(), vocabulary)
            for before, after in contexts()
        ):
            possible[not assigned(character)].append(character)
    if divided:
        reasons[str(Reach.SPLIT)] += len(divided)
    befores = list(search.lefts(token, cut.head)) if any(possible) else []
    pairs = (
        (before, after)
        for group in possible
        for after in search.rights(token, cut.tail, (c.encode() for c in group))
        for before in befores
    )
    if any(possible):
        reasons["absorbed in merging"] += sum(map(len, possible))
    return _judge(token, pairs, reasons, vocabulary)


def _judge(
    token: bytes,
    pairs: Iterable[tuple[bytes, bytes]],
    reasons: Counter[str],
    vocabulary: Vocabulary,
) -> tuple[Reach, str, str | None]:
    """Try the texts (before, token, after), those of assigned characters first in line to win."""
    fallback, tried = None, Counter()
    for before, after in islice(pairs, TEXTS):
        reason = prevents(before, token, after, vocabulary)
        if reason is None:
            witness = (before + token + after).decode("utf-8")
            if all(map(assigned, witness)):
                return Reach.COMPLETED, f"from {witness!r}", witness
            fallback = fallback or witness
            if reasons:  # the characters were sorted: no assigned one is left
                break
        else:
            tried[reason] += 1
    if fallback is not None:
        return Reach.COMPLETED, f"only with unassigned characters: {fallback!r}", fallback
    what = "characters it can begin" if reasons else "texts around it"
    found = reasons or tried
    if not found:
        return Reach.INCOMPLETE, "every neighbour absorbs it in merging", None
    counted = ", ".join(f"{n:,} {reason}" for reason, n in found.most_common())
    return Reach.INCOMPLETE, f"{what}: {counted}", None


def prevents(before: bytes, token: bytes, after: bytes, vocabulary: Vocabulary) -> str | None:
    """Which step keeps `token` from being emitted between `before` and `after`; None if none does.

    The three together must be valid UTF-8.
    """
    text = (before + token + after).decode("utf-8")
    if merging.normalise(text, vocabulary) != text:
        return "changed by normalisation"
    start, stop, at = len(before), len(before) + len(token), 0
    for word in merging.words(text, vocabulary):
        data = word.encode("utf-8")
        if at <= start and stop <= at + len(data):
            if vocabulary.whole_words and data in vocabulary.ids:
                return None if data == token else "absorbed in merging"
            for part in merging.merge(data, vocabulary):
                if at == start and part == token:
                    return None
                at += len(part)
            return "absorbed in merging"
        at += len(data)
    return "split by the pre-tokenizer"


def emits(before: bytes, token: bytes, after: bytes, vocabulary: Vocabulary) -> bool:
    """Whether the encoding of the three together has `token` at its place."""
    return prevents(before, token, after, vocabulary) is None


def contexts() -> Iterator[tuple[str, str]]:
    """Every pair of surroundings but the empty one: the bound of the search in context."""
    for before in SURROUNDINGS:
        for after in SURROUNDINGS:
            if before or after:
                yield before, after


def assigned(character: str) -> bool:
    """Whether Unicode (of this Python's version) has assigned the code point to a character."""
    return unicodedata.category(character) != "Cn"


def code_points(text: str) -> str:
    """ "U+0E31 U+0E01", for evidence that no font and no normaliser can change."""
    return " ".join(f"U+{ord(character):04X}" for character in text)


def counts(records: Iterable[Record]) -> dict[Reach, int]:
    """How many ids each class has, in the order of the enum."""
    found = Counter(record.reach for record in records)
    return {reach: found[reach] for reach in Reach}
