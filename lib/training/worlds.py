"""Worlds: a tokenizer, the stream a model is trained on, and who is dead in it by construction.

A token is *dead* when its id does not occur in the stream. Thai is in the tokenizer and not in the
stream, so its tokens are dead without being unreachable.

The texts are the committed corpora by default; any of lib.tokens.corpus, and any fetched slice of
lib.tokens.slices, can be named in their place (`english: fineweb` in a sweep's world, say).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lib import artifacts
from lib.tokens import bpe, corpus, slices


@dataclass(frozen=True)
class World:
    """A tokenizer and its training stream."""

    tokenizer: Tokenizer
    stream: np.ndarray  # (tokens,) uint16
    counts: np.ndarray  # (vocab,) int64: how often each id occurs in the stream

    @property
    def vocab(self) -> int:
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
        """The text of each id."""
        return bpe.token_texts(self.tokenizer)


def gatsby(characters: int, text: str = "moby_dick") -> dict[str, np.ndarray]:
    """128 ASCII characters, one novel in ASCII spelling (its first `characters` characters)."""
    novel = corpus.spelt_in_ascii(corpus.text(text))
    return _pack(bpe.ascii_bytes(), corpus.head(novel, characters, text))


def flannel(
    vocab: int,
    thai_share: float,
    tokenizer_characters: int,
    characters: int,
    english: str = "english",
    thai: str = "thai",
) -> dict[str, np.ndarray]:
    """One character-level BPE on mixed English and Thai; the stream is English only."""
    shares = {english: 1 - thai_share, thai: thai_share}
    text = corpus.mixed(shares, characters=tokenizer_characters)
    return _pack(bpe.train(text, vocab), corpus.text(english, characters))


def goldilocks(
    half: int,
    english_in_thai: float,
    tokenizer_characters: int,
    characters: int,
    english: str = "english",
    thai: str = "thai",
) -> dict[str, np.ndarray]:
    """Two BPEs of `half` tokens, English and Thai, merged; the stream is English only.

    `english_in_thai` is the share of English in the Thai BPE's text, as Thai pages have it: its
    characters and commonest pieces are what the two vocabularies have in common.
    """
    one = bpe.train(corpus.text(english, tokenizer_characters), half)
    shares = {english: english_in_thai, thai: 1 - english_in_thai}
    two = bpe.train(corpus.mixed(shares, characters=tokenizer_characters), half)
    return _pack(bpe.merge(one, two), corpus.text(english, characters))


def _pack(tokenizer: Tokenizer, text: str) -> dict[str, np.ndarray]:
    stream = bpe.encode(tokenizer, text)
    return {
        "tokenizer": np.frombuffer(tokenizer.to_str().encode(), np.uint8),
        "stream": stream,
        "counts": np.bincount(stream, minlength=tokenizer.get_vocab_size()),
    }


TEXTS = ("text", "english", "thai")  # the parameters that name a corpus
_MAKERS = {"gatsby": gatsby, "flannel": flannel, "goldilocks": goldilocks}


def make(name: str, **sizes) -> dict[str, np.ndarray]:
    """The arrays of world `name`. Raises ValueError for an unknown name."""
    if name not in _MAKERS:
        raise ValueError(f"unknown world {name!r}; there are {', '.join(_MAKERS)}")
    return _MAKERS[name](**sizes)


RECIPE = artifacts.Recipe(
    name="world",
    make=make,
    modules=("lib.training.worlds", "lib.tokens.bpe", "lib.tokens.corpus", "lib.tokens.slices"),
    chapter="goldilocks/01-design",
)


def inputs(params: Mapping[str, Any]) -> list[Path]:
    """The files of the fetched slices that a world's parameters name: they join its digest.

    Raises SliceError if one is not here.
    """
    named = {params.get(text) for text in TEXTS} & set(slices.CATALOGUE)
    for name in named:
        slices.provenance(name)
    return [slices.path(name) for name in sorted(named)]


def cached(name: str, *, contents: str | None = None, **sizes) -> World:
    """World `name` at `sizes` (see its function), trained once and kept as an artefact.

    Raises ArtifactError if it is not the one with the digest `contents`.
    """
    params = {"name": name, **sizes}
    made = artifacts.cached(RECIPE, params, inputs(params))
    if contents not in (None, made.provenance["content"]):
        raise artifacts.ArtifactError(f"world {name} is not the one that was asked for")
    return unpack(made.tensors)


def unpack(arrays: dict[str, np.ndarray]) -> World:
    """A World from the arrays of its artefact."""
    tokenizer = Tokenizer.from_str(bytes(arrays["tokenizer"]).decode())
    return World(tokenizer, arrays["stream"], arrays["counts"])
