"""Which ids can a tokenizer ever emit? One class and one piece of evidence for every row of W.

A token is *reachable* if some text contains it once encoded; the evidence is such a text. For all
others the evidence is the step that prevents it. The classes follow the order of the tokenizer's
steps: normaliser, pre-tokenizer, merging. The idea of asking a vocabulary in this way is Land and
Bartolo's (2024); the exact search for fragments is in `fragments`.
"""

import enum
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, tee
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib import artifacts, progress
from lib.extraction import fragments, merging, vocabulary
from lib.extraction.vocabulary import Vocabulary
from lib.plots import PALETTE

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
    UNDECIDED = "not decided"  # no text was found, and no argument that there is none

    def __str__(self) -> str:
        return self.value

    @property
    def dead(self) -> bool:
        """Whether no text at all makes the tokenizer emit such an id."""
        alive = (Reach.REACHABLE, Reach.COMPLETED, Reach.ADDED)
        return self not in (*alive, Reach.UNDECIDED)

    @property
    def colour(self) -> str:
        """The class's colour in every figure."""
        names = ("blue", "sky", "grey", "purple", "vermillion", "yellow", "orange", "ink", "green")
        return PALETTE[dict(zip(Reach, names, strict=True))[self]]


class Record(NamedTuple):
    """What is known of one id."""

    id: int
    reach: Reach
    bytes: bytes  # empty where the id has none
    text: str  # with U+FFFD for bytes that are no text
    evidence: str  # a text that gives it, or what prevents it
    witness: str | None = None  # a text whose encoding contains the id

    @property
    def script(self) -> str:
        """Unicode script of the text."""
        return vocabulary.script(self.text)

    def as_dict(self) -> dict[str, Any]:
        """As a line of `python -m lib tokens`."""
        named = {"id": self.id, "class": str(self.reach), "bytes": self.bytes.hex()}
        return named | {"text": self.text, "script": self.script, "evidence": self.evidence}


def analyse(vocabulary: Vocabulary, before: Sequence[Record] | None = None) -> list[Record]:
    """One record for every id from 0 to the rows of W, in order.

    `before`: the records of the same tokens under another pre-tokenizer. A token that was
    reachable from its own text stays so where the new one keeps that text in one word.
    """
    search = fragments.Search(vocabulary)
    ids = progress.bar(range(vocabulary.rows), desc=f"reachability of {vocabulary.name}")
    return [classify(id, search, before[id] if before else None) for id in ids]


def classify(id: int, search: fragments.Search, before: Record | None = None) -> Record:
    """The record of one id; `before` as in `analyse`."""
    if before is not None and (
        before.reach in (Reach.ADDED, Reach.PHANTOM, Reach.NORMALISED)
        or (
            before.witness == before.text
            and len(merging.words(before.text, search.vocabulary)) == 1
        )
    ):
        return before
    return record(id, search.vocabulary, *_judged(id, search))


def record(
    id: int, vocabulary: Vocabulary, reach: Reach, evidence: str, witness: str | None = None
) -> Record:
    """A record with the token's bytes and text filled in."""
    token = vocabulary.token(id) or b""
    return Record(id, reach, token, vocabulary.shown(id), evidence, witness)


def _judged(id: int, search: fragments.Search) -> tuple[Reach, str, str | None]:
    """Class, evidence and witness of an id."""
    vocabulary = search.vocabulary
    token = vocabulary.token(id)
    if id in vocabulary.added:
        return Reach.ADDED, "emitted where its own text is written out", None
    if token is None:
        return Reach.PHANTOM, "no token has this id", None
    if vocabulary.ids[token] != id:
        return Reach.UNBUILT, f"same bytes as id {vocabulary.ids[token]}", None
    text = vocabulary.text(id)
    if text is None:
        return _fragment(token, search)
    normal = merging.normalise(text, vocabulary)
    if normal != text:
        return Reach.NORMALISED, f"{code_points(text)} becomes {code_points(normal)}", None
    words = merging.words(text, vocabulary)
    built = token in search.self_encoding
    if len(words) == 1 and (built or vocabulary.ignore_merges):
        return Reach.REACHABLE, "from its own text", text
    if built:
        for before, after in search.contexts.keeping(text):  # few: asked first
            if prevents(before.encode(), token, after.encode(), vocabulary) is None:
                witness = before + text + after
                return Reach.REACHABLE, f"from {witness!r}", witness
    if len(words) > 1:
        return Reach.SPLIT, "cut into " + " | ".join(map(repr, words)), None
    return Reach.UNBUILT, _merged(token, vocabulary), None


def _merged(token: bytes, vocabulary: Vocabulary) -> str:
    """What merging gives instead of the token."""
    parts = (str(vocabulary.ids.get(p, "?")) for p in merging.merge(token, vocabulary))
    return f"merging gives {' '.join(parts) or 'nothing'}"


def _fragment(token: bytes, search: fragments.Search) -> tuple[Reach, str, str | None]:
    """Class, evidence and witness of a token that is no valid UTF-8."""
    vocabulary = search.vocabulary
    cut = fragments.edges(token)
    if cut is None:
        return Reach.INCOMPLETE, f"{token.hex(' ')} occurs in no UTF-8 text", None
    if token not in search.self_encoding:
        return Reach.UNBUILT, _merged(token, vocabulary), None
    reasons: Counter[str] = Counter()
    if cut.tail:
        texts = _begun(cut, token, search, reasons)
    elif cut.head == token:
        texts = search.inside(token)
    else:
        texts = ((before, b"") for before in search.lefts(token, cut.head))
    fallback = None
    for before, after in islice(texts, TEXTS):
        reason = prevents(before, token, after, vocabulary)
        if reason is None:
            witness = (before + token + after).decode("utf-8")
            if all(map(assigned, witness)):
                return Reach.COMPLETED, f"from {witness!r}", witness
            fallback = fallback or witness
            if cut.tail and not assigned(witness[-1]):
                break  # assigned characters come first: there is nothing better ahead
        elif not cut.tail:
            reasons[reason] += 1
    if fallback is not None:
        return Reach.COMPLETED, f"only with unassigned characters: {fallback!r}", fallback
    counted = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
    what = "characters it can begin" if cut.tail else "texts around it"
    return Reach.INCOMPLETE, f"{what}: {counted or 'none'}", None


def _begun(
    cut: fragments.Edges, token: bytes, search: fragments.Search, reasons: Counter[str]
) -> Iterator[tuple[bytes, bytes]]:
    """Texts (before, after) for a token that begins a character: every such character is asked.

    Assigned characters go first. `reasons` counts, for each character, what stands against it.
    """
    vocabulary, body = search.vocabulary, cut.body.decode()
    befores = search.lefts(token, cut.head)
    divided: list[str] = []
    for character in sorted(fragments.characters(cut.tail), key=assigned, reverse=True):
        text = body + character
        if merging.normalise(text, vocabulary) != text:
            reasons[str(Reach.NORMALISED)] += 1
        elif body and not merging.together(text, 0, len(text), vocabulary):
            reasons[str(Reach.SPLIT)] += 1
            divided.append(character)
        else:
            for after in search.finish(token, character.encode()[len(cut.tail) :]):
                befores, again = tee(befores)  # computed once, and only as far as someone walks
                yield from ((before, after) for before in again)
            reasons["absorbed in merging"] += 1
    for character in divided[:64]:  # a surrounding may keep together what stands divided alone
        text, rest = body + character, character.encode()[len(cut.tail) :]
        for before, after in search.contexts.keeping(text):
            if prevents(before.encode(), text.encode(), after.encode(), vocabulary) is None:
                yield before.encode(), rest + after.encode()


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
            for part in merging.cut(data, vocabulary):
                if at == start and part == token:
                    return None
                at += len(part)
            return "absorbed in merging"
        at += len(data)
    return "split by the pre-tokenizer"


def assigned(character: str) -> bool:
    """Whether Unicode (of this Python's version) has assigned the code point to a character."""
    return unicodedata.category(character) != "Cn"


def code_points(text: str) -> str:
    """ "U+0E31 U+0E01", for evidence that no font and no normaliser can change."""
    return " ".join(f"U+{ord(character):04X}" for character in text)


CLASSES = tuple(Reach)  # the order in which classes are stored


@dataclass(frozen=True)
class Records(artifacts.Recipe):
    """The records of a catalogued vocabulary: `reach` (rows,) uint8, index into CLASSES;
    `evidence` (bytes,) uint8, JSON, a pair a row.

    Under another vocabulary's pre-tokenizer the records under its own are used where they hold.
    """

    vocabulary: str
    words_of: str = ""  # the vocabulary whose pre-tokenizer is put in place of its own

    name = "reachability"

    def inputs(self) -> list[Path]:
        """The catalogue, which knows the digest of every vocabulary."""
        return [vocabulary.TOKENIZERS / "catalogue.yaml"]

    def make(self) -> dict[str, np.ndarray]:
        """Analyse."""
        known = opened(self.vocabulary, self.words_of)
        twin = vocabulary.catalogue()[self.vocabulary].get("same_tokens_as")
        if twin and not self.words_of:  # only the added tokens differ: nothing to search again
            search = fragments.Search(known)
            found = [r if r.bytes else classify(r.id, search) for r in records(twin)]
        else:
            found = analyse(known, before=records(self.vocabulary) if self.words_of else None)
        text = json.dumps([[r.evidence, r.witness] for r in found], ensure_ascii=False)
        return {
            "reach": np.array([CLASSES.index(r.reach) for r in found], np.uint8),
            "evidence": np.frombuffer(text.encode("utf-8"), np.uint8),
        }


@lru_cache(maxsize=4)
def opened(name: str, words_of: str = "") -> Vocabulary:
    """A vocabulary of the catalogue, under its own pre-tokenizer or that of `words_of`."""
    found = vocabulary.open(name)
    return found.under(*vocabulary.open(words_of).patterns) if words_of else found


@lru_cache(maxsize=4)
def records(name: str, words_of: str = "") -> tuple[Record, ...]:
    """One record for each row of a catalogued vocabulary, computed once."""
    arrays = artifacts.cached(Records(name, words_of), "discovery/06-who").tensors
    evidence = json.loads(arrays["evidence"].tobytes().decode("utf-8"))
    known = opened(name)
    return tuple(
        record(id, known, CLASSES[reach], *evidence[id]) for id, reach in enumerate(arrays["reach"])
    )


class Agreement(NamedTuple):
    """A prediction (ids that no text gives) against an observation (rows that lie dead)."""

    predicted: set[int]
    observed: set[int]
    both: set[int]
    false_alarms: list[int]  # predicted and not observed, ascending
    missed: list[int]  # observed and not predicted, ascending
    precision: float  # share of the predicted that are observed; NaN if nothing is predicted
    recall: float  # share of the observed that are predicted; NaN if nothing is observed


def compare(found: Iterable[Record], observed: Collection[int]) -> Agreement:
    """Predict death for every id that no text gives; compare with the observed dead rows."""
    predicted, observed = {r.id for r in found if r.reach.dead}, {int(id) for id in observed}
    both = predicted & observed
    return Agreement(
        predicted,
        observed,
        both,
        false_alarms=sorted(predicted - observed),
        missed=sorted(observed - predicted),
        precision=len(both) / len(predicted) if predicted else math.nan,
        recall=len(both) / len(observed) if observed else math.nan,
    )
