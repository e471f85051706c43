"""The records of a whole vocabulary as an artefact, and what a set of dead rows says of them."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lib import artifacts
from lib.tokens import completion, reachability, vocabulary
from lib.tokens.reachability import Reach, Record
from lib.tokens.vocabulary import Vocabulary

INPUTS = (vocabulary.TOKENIZERS / "catalogue.yaml",)
CLASSES = tuple(Reach)  # the order in which classes are stored


@lru_cache(maxsize=4)
def opened(name: str, words_of: str | None = None) -> Vocabulary:
    """A vocabulary of the catalogue, under its own pre-tokenizer or that of `words_of`."""
    found = vocabulary.open(name)
    return found.under(*vocabulary.open(words_of).patterns) if words_of else found


def make(name: str, words_of: str | None = None) -> dict[str, np.ndarray]:
    """reach: (rows,) uint8, index into CLASSES; evidence: (bytes,) uint8, JSON, a pair a row.

    Under another vocabulary's pre-tokenizer the records under its own are used where they hold.
    """
    known, twin = opened(name, words_of), vocabulary.catalogue()[name].get("same_tokens_as")
    if twin and not words_of:  # only the added tokens differ: nothing to search again
        search = completion.search(known)
        found = [r if r.bytes else reachability.classify(r.id, known, search) for r in cached(twin)]
    else:
        found = reachability.analyse(known, before=cached(name) if words_of else None)
    text = json.dumps([[r.evidence, r.witness] for r in found], ensure_ascii=False)
    return {
        "reach": np.array([CLASSES.index(r.reach) for r in found], np.uint8),
        "evidence": np.frombuffer(text.encode("utf-8"), np.uint8),
    }


RECORDS = artifacts.Recipe(
    name="reachability",
    make=make,
    modules=(
        "lib.tokens.vocabulary",
        "lib.tokens.merging",
        "lib.tokens.completion",
        "lib.tokens.reachability",
        "lib.tokens.records",
    ),
    chapter="discovery/06-who",
)


def unpack(arrays: dict[str, np.ndarray], name: str) -> tuple[Record, ...]:
    """The records of the vocabulary `name` out of a stored artefact."""
    known = opened(name)
    evidence = json.loads(arrays["evidence"].tobytes().decode("utf-8"))
    return tuple(
        reachability.record(id, known, CLASSES[reach], *evidence[id])
        for id, reach in enumerate(arrays["reach"])
    )


@lru_cache(maxsize=4)
def cached(name: str, words_of: str | None = None) -> tuple[Record, ...]:
    """One record for each row of a catalogued vocabulary, computed once."""
    params = {"name": name} | ({"words_of": words_of} if words_of else {})
    return unpack(artifacts.cached(RECORDS, params, INPUTS).tensors, name)


@dataclass(frozen=True)
class Agreement:
    """A prediction (ids that no text gives) against an observation (rows that lie dead)."""

    predicted: frozenset[int]
    observed: frozenset[int]

    @property
    def both(self) -> frozenset[int]:
        return self.predicted & self.observed

    @property
    def precision(self) -> float:
        """Share of the predicted that are observed."""
        return len(self.both) / len(self.predicted)

    @property
    def recall(self) -> float:
        """Share of the observed that are predicted."""
        return len(self.both) / len(self.observed)

    @property
    def false_alarms(self) -> list[int]:
        return sorted(self.predicted - self.observed)

    @property
    def missed(self) -> list[int]:
        return sorted(self.observed - self.predicted)


def compare(found: Iterable[Record], observed: Collection[int]) -> Agreement:
    """Predict death for every id that no text gives; compare with the observed dead rows."""
    predicted = frozenset(record.id for record in found if record.reach.dead)
    return Agreement(predicted, frozenset(int(id) for id in observed))


def by_script(found: Iterable[Record]) -> dict[str, Counter]:
    """For each script, how many ids of each class; scripts with most unreachable ids first."""
    table: dict[str, Counter] = {}
    for record in found:
        table.setdefault(record.script, Counter())[record.reach] += 1
    dead = lambda name: sum(n for reach, n in table[name].items() if reach.dead)  # noqa: E731
    return {name: table[name] for name in sorted(table, key=lambda n: (-dead(n), n))}


def fails_round_trip(found: Sequence[Record]) -> list[int]:
    """Ids with a token whose decoded text (U+FFFD for broken bytes) does not encode to that id."""
    gone = {Reach.NORMALISED, Reach.SPLIT, Reach.UNBUILT, Reach.INCOMPLETE, Reach.COMPLETED}
    return [
        r.id
        for r in found
        if r.reach in gone or (r.reach is Reach.REACHABLE and r.witness != r.text)
    ]
