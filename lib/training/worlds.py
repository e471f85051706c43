"""Worlds: a tokenizer, the stream a model is trained on, and who is dead in it by construction.

A token is *dead* when its id does not occur in the stream. Thai is in the tokenizer and not in the
stream, so its tokens are dead without being unreachable.

A world is a recipe: its fields say what it is made of, `get()` makes or reads it. The texts are the
committed corpora by default; any of lib.extraction.corpus, and any fetched slice of
lib.extraction.corpus, can be named in their place (`english="fineweb"`, say).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer

from lib import artifacts
from lib.extraction import bpe, corpus, merging, vocabulary


@dataclass(frozen=True)
class World:
    """A tokenizer and its training stream."""

    tokenizer: Tokenizer
    stream: np.ndarray  # (tokens,) uint16
    counts: np.ndarray  # (vocab,) int64: how often each id occurs in the stream
    later: np.ndarray | None = None  # (tokens,) uint16: the stream without its rare tokens, if any

    @property
    def vocab(self) -> int:
        """Rows of the (un)embedding: ids without a token included."""
        return len(self.counts)

    @property
    def live(self) -> np.ndarray:
        """Ids that occur: (live,) int64, ascending."""
        return np.flatnonzero(self.counts)

    @property
    def dead(self) -> np.ndarray:
        """Ids that never occur: (dead,) int64, ascending."""
        return np.flatnonzero(self.counts == 0)

    @cached_property
    def texts(self) -> list[str]:
        """The text of each id that has a token."""
        return bpe.token_texts(self.tokenizer)


class Recipe(artifacts.Recipe):
    """What a world is made of."""

    name: ClassVar[str] = "world"
    corpora: ClassVar[tuple[str, ...]] = ("english", "thai")  # the fields that name one

    def inputs(self) -> list[Path]:
        """The files of the fetched slices that the fields name. Raises EditionError without one."""
        named = {getattr(self, field) for field in self.corpora} & set(corpus.SLICES)
        for name in named:
            corpus.provenance(name)
        return [corpus.slice_file(name) for name in sorted(named)]

    def artefact(self) -> artifacts.Artifact:
        """The world's artefact, made if it is not there."""
        return artifacts.cached(self, "any chapter that trains in this world")

    def get(self) -> World:
        """The world, made if it is not there."""
        arrays = self.artefact().tensors
        tokenizer = Tokenizer.from_str(bytes(arrays["tokenizer"]).decode())
        return World(tokenizer, arrays["stream"], arrays["counts"], arrays.get("later"))


@dataclass(frozen=True)
class Gatsby(Recipe):
    """128 ASCII characters, one novel in ASCII spelling."""

    characters: int  # of the novel, from its beginning
    text: str = "moby_dick"

    corpora = ("text",)

    def make(self) -> dict[str, Any]:
        """Arrays of the world: see `_pack`."""
        novel = corpus.in_ascii(corpus.text(self.text))
        return _pack(bpe.ascii_bytes(), corpus.head(novel, self.characters, self.text))


@dataclass(frozen=True)
class Crowd(Gatsby):
    """Gatsby with rows above the characters, so that `dead` of its ids never occur."""

    dead: int = 2221  # as many as Qwen3-4B has

    def make(self) -> dict[str, Any]:
        """Arrays of the world: see `_pack`."""
        arrays = super().make()
        more = self.dead - np.count_nonzero(arrays["counts"] == 0)
        return arrays | {"counts": np.pad(arrays["counts"], (0, more))}


@dataclass(frozen=True)
class Published(Recipe):
    """A published vocabulary of data/tokenizers/catalogue.yaml; the stream is English."""

    vocabulary: str
    characters: int
    english: str = "english"

    corpora = ("english",)

    def make(self) -> dict[str, Any]:
        """Arrays of the world: see `_pack`."""
        found = vocabulary.open(self.vocabulary)
        text = corpus.text(self.english, self.characters)
        arrays = _pack(merging.as_tokenizer(found), text)
        return arrays | {"counts": np.bincount(arrays["stream"], minlength=found.rows)}


@dataclass(frozen=True)
class Flannel(Recipe):
    """One character-level BPE on mixed English and Thai; the stream is English only."""

    vocab: int
    thai_share: float  # of the tokenizer's text
    tokenizer_characters: int  # of the tokenizer's text
    characters: int  # of the stream
    english: str = "english"
    thai: str = "thai"

    def make(self) -> dict[str, Any]:
        """Arrays of the world: see `_pack`."""
        shares = {self.english: 1 - self.thai_share, self.thai: self.thai_share}
        text = corpus.mixed(shares, characters=self.tokenizer_characters)
        return _pack(bpe.train(text, self.vocab), corpus.text(self.english, self.characters))


@dataclass(frozen=True)
class Unanswerable(Flannel):
    """Flannel without right answers: no token says anything about the one that follows it.

    The tokens of the stream stand in a random order; with `uniform` each is drawn from the living,
    all alike, so that frequencies cannot be learnt either.
    """

    uniform: bool = False
    seed: int = 42  # of the order

    def make(self) -> dict[str, Any]:
        """Arrays of the world: see `_pack`."""
        arrays, rng = super().make(), np.random.default_rng(self.seed)
        stream, counts = arrays["stream"], arrays["counts"]
        live = np.flatnonzero(counts).astype(stream.dtype)
        order = rng.choice(live, len(stream)) if self.uniform else rng.permutation(stream)
        return arrays | {"stream": order, "counts": np.bincount(order, minlength=len(counts))}


@dataclass(frozen=True)
class Goldilocks(Recipe):
    """Two BPEs of `half` tokens, English and Thai, merged; the stream is English only."""

    half: int  # tokens of each BPE
    english_in_thai: float  # share of English in the Thai BPE's text, as Thai pages have it: what
    # the two vocabularies have in common are its characters and commonest pieces
    tokenizer_characters: int  # of each BPE's text
    characters: int  # of the stream
    english: str = "english"
    thai: str = "thai"

    def make(self) -> dict[str, Any]:
        """Arrays of the world: see `_pack`."""
        one = bpe.train(corpus.text(self.english, self.tokenizer_characters), self.half)
        shares = {self.english: self.english_in_thai, self.thai: 1 - self.english_in_thai}
        two = bpe.train(corpus.mixed(shares, characters=self.tokenizer_characters), self.half)
        return _pack(bpe.merge(one, two), corpus.text(self.english, self.characters))


@dataclass(frozen=True)
class Phantoms(Recipe):
    """English in a few hundred tokens, and above them rows that no text ever uses.

    With `rare` > 0 the first of these rows are nearly dead: they replace tokens at random places of
    the stream, the first of equal shares of them at copies[0] places each, the next at copies[1].
    """

    live: int  # tokens learned from English
    phantoms: int  # rows above them
    characters: int  # of English
    rare: int = 0
    copies: tuple[int, ...] = (1,)
    seed: int = 42  # of the places
    english: str = "english"

    corpora = ("english",)

    def make(self) -> dict[str, Any]:
        """Arrays of the world: see `_pack`."""
        text = corpus.text(self.english, self.characters)
        arrays = _pack(bpe.train(text, self.live, level="character"), text)
        if self.rare:
            rng = np.random.default_rng(self.seed)
            each = np.repeat(self.copies, -(-self.rare // len(self.copies)))[: self.rare]
            arrays["later"], ids = arrays["stream"].copy(), arrays["stream"]
            places = rng.choice(len(ids) - 1, each.sum(), replace=False)
            ids[places] = np.repeat(np.arange(self.live, self.live + self.rare), each)
        arrays["counts"] = np.bincount(arrays["stream"], minlength=self.live + self.phantoms)
        return arrays

    @classmethod
    def restored(cls, parameters: dict[str, Any]) -> "Phantoms":
        """From plain parameters, in which tuples are lists."""
        return cls(**{**parameters, "copies": tuple(parameters["copies"])})


def _pack(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """tokenizer (bytes,) uint8 JSON; stream (tokens,) uint16; counts (vocab,) int64."""
    stream = bpe.encode(tokenizer, text)
    return {
        "tokenizer": np.frombuffer(tokenizer.to_str().encode(), np.uint8),
        "stream": stream,
        "counts": np.bincount(stream, minlength=tokenizer.get_vocab_size()),
    }


KINDS = {kind.__name__.lower(): kind for kind in (Gatsby, Flannel, Goldilocks, Phantoms)}


def named(name: str, **fields: Any) -> Recipe:
    """The world `name` ("flannel") with these fields. Raises ValueError for an unknown name."""
    if name not in KINDS:
        raise ValueError(f"unknown world {name!r}; there are {', '.join(KINDS)}")
    return KINDS[name](**fields)
