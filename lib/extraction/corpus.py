"""Corpora: the committed English texts, the Thai titles, fetched slices, and mixtures of them.

Every text is held to its digest, so that a tokenizer trained here is the same on every machine.
"""

import unicodedata
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from lib import files, paths
from lib.extraction import editions, slices

EDITIONS = files.read_yaml(paths.CORPORA / "catalogue.yaml")["editions"]
# Typographic characters that Moby-Dick's edition uses beside ASCII.
ASCII_SPELLING = str.maketrans({"—": "--", "‘": "'", "’": "'", "“": '"', "”": '"'})
PIECE = 2000  # characters; the longest pieces into which a mixture's corpora are cut


class CorpusError(ValueError):
    """A corpus is unknown, or shorter than asked for."""


@lru_cache
def edition(name: str) -> str:
    """The whole text of one of EDITIONS, as this book reads it. Raises EditionError.

    english: State of the Union addresses, 10.8 million characters; their one control character
    (U+0002, where a hyphen was) is taken out. moby_dick: 1.2 million characters, spelt in ASCII.
    thai: titles of Thai Wikipedia, one a line, 4.3 million characters; the file's order is already
    shuffled, so its beginning is a fair sample of the whole.
    """
    text = editions.catalogued(EDITIONS[name], paths.CORPORA).decode("utf-8")
    if name == "moby_dick":
        return spelt_in_ascii(text)
    if name == "thai":
        lines = text.splitlines()
        return "".join(line + "\n" for line in lines if line and not line.startswith("#"))
    return text.replace("\x02", "")


def spelt_in_ascii(text: str) -> str:
    """The text in ASCII: dashes and quotes respelt, accents and what else is beyond it left out."""
    plain = unicodedata.normalize("NFKD", text.translate(ASCII_SPELLING))
    return plain.encode("ascii", "ignore").decode("ascii")


def text(name: str, characters: int | None = None) -> str:
    """The corpus `name`: one of EDITIONS, or a slice that was fetched; its first `characters`.

    Raises CorpusError for an unknown name or too short a text, EditionError if it is not here.
    """
    if name in EDITIONS:
        return head(edition(name), characters, name)
    if name in slices.CATALOGUE:
        return head(slices.read(name), characters, name)
    known = ", ".join([*EDITIONS, *slices.CATALOGUE])
    raise CorpusError(f"unknown corpus {name!r}; there are {known}")


def origin(name: str) -> str:
    """What the corpus `name` is and where it comes from, for a page. Raises as `text` does."""
    if name in EDITIONS:
        return EDITIONS[name]["origin"]
    if name not in slices.CATALOGUE:
        text(name, 0)  # says which there are
    record = slices.provenance(name)
    return f"the first {record['characters']:,} characters of {record['source']}"


def mixed(shares: Mapping[str, float], *, characters: int, seed: int = 42) -> str:
    """A text of `characters` characters from several corpora, e.g. {"english": 0.8, "thai": 0.2}.

    Each corpus gives its first `share * characters` characters, cut into pieces of at most PIECE
    (at a line's or word's end where there is one) that are then shuffled together. Raises
    CorpusError if the shares do not sum to one, or a corpus is too short.
    """
    if abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) < 0:
        raise CorpusError(f"shares must be positive and sum to 1, got {dict(shares)}")
    pieces: list[str] = []
    for name, share in shares.items():
        pieces += cut(text(name, round(share * characters)), PIECE)
    order = np.random.default_rng(seed).permutation(len(pieces))
    return "".join(pieces[i] for i in order)


def head(text: str, characters: int | None, name: str) -> str:
    """The first `characters` characters. Raises CorpusError if there are not so many."""
    if characters is not None and not 0 <= characters <= len(text):
        raise CorpusError(
            f"corpus {name!r} has {len(text):,} characters; {characters:,} were asked for"
        )
    return text[:characters]


def cut(text: str, piece: int) -> list[str]:
    """Cut `text` into consecutive pieces of at most `piece` characters, after white space."""
    pieces, start = [], 0
    while start < len(text):
        stop = min(start + piece, len(text))
        if stop < len(text):
            gap = max(text.rfind("\n", start, stop), text.rfind(" ", start, stop))
            stop = gap + 1 if gap > start else stop
        pieces.append(text[start:stop])
        start = stop
    return pieces
