"""Corpora: the committed English texts, the Thai titles, fetched slices, and mixtures of them.

Every text is checked against the digest of the edition the book was written on, so that a
tokenizer trained here is the same on every machine.
"""

import hashlib
import lzma
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lib import files, paths
from lib.extraction import slices


class CorpusError(RuntimeError):
    """A corpus is missing, damaged, of another edition, or shorter than asked for."""


@dataclass(frozen=True)
class Source:
    """Where a corpus comes from, and the digest of the edition the book uses."""

    name: str
    language: str
    file: str  # a name in data/corpora, or a path inside `package`
    sha256: str  # of the file's bytes after decompression
    origin: str
    licence: str
    package: str | None = None  # the installed package that carries the file; None: data/corpora

    def path(self) -> Path:
        """The file. Raises CorpusError if its package is not installed."""
        if self.package is None:
            return paths.CORPORA / self.file
        spec = find_spec(self.package)
        if spec is None or spec.origin is None:
            raise CorpusError(
                f"corpus {self.name!r}: package {self.package} is not installed; run `make setup`"
            )
        return Path(spec.origin).parent / self.file


SOURCES = {
    name: Source(name, **entry)
    for name, entry in files.read_yaml(paths.CORPORA / "catalogue.yaml")["editions"].items()
}


# Typographic characters that Moby-Dick's edition uses beside ASCII.
ASCII_SPELLING = str.maketrans({"—": "--", "‘": "'", "’": "'", "“": '"', "”": '"'})


@lru_cache
def read(name: str) -> str:
    """The whole text of one source. Raises CorpusError (missing, damaged, another edition)."""
    if name not in SOURCES:
        raise CorpusError(f"unknown corpus {name!r}; there are {', '.join(SOURCES)}")
    source = SOURCES[name]
    file = source.path()
    mend = "run `make setup`" if source.package else "restore it with `git checkout`"
    try:
        data = file.read_bytes()
        if file.suffix == ".xz":
            data = lzma.decompress(data)
    except (OSError, lzma.LZMAError) as error:
        raise CorpusError(f"corpus {name!r}: cannot read {file}: {error}; {mend}") from error
    if hashlib.sha256(data).hexdigest() != source.sha256:
        raise CorpusError(f"corpus {name!r}: {file} is not the edition the book uses; {mend}")
    return data.decode("utf-8")


def english(characters: int | None = None) -> str:
    """The State of the Union addresses: 10.8 million characters, or the first `characters`.

    The one control character of the edition (U+0002, where a hyphen was) is taken out.
    """
    return head(read("sotu").replace("\x02", ""), characters, "english")


def moby_dick(characters: int | None = None, *, ascii_only: bool = True) -> str:
    """Moby-Dick, 1.2 million characters; with `ascii_only`, dashes and quotes spelt in ASCII."""
    text = read("moby_dick")
    return head(spelt_in_ascii(text) if ascii_only else text, characters, "moby_dick")


def spelt_in_ascii(text: str) -> str:
    """The text in ASCII: dashes and quotes respelt, accents and what else is beyond it left out."""
    plain = unicodedata.normalize("NFKD", text.translate(ASCII_SPELLING))
    return plain.encode("ascii", "ignore").decode("ascii")


def thai(characters: int | None = None) -> str:
    """Titles of Thai Wikipedia, one a line: 4.3 million characters, or the first `characters`.

    The file's order is already shuffled, so its beginning is a fair sample of the whole.
    """
    lines = read("thai_titles").splitlines()
    titles = [line for line in lines if line and not line.startswith("#")]
    return head("\n".join(titles) + "\n", characters, "thai")


TEXTS = {"english": english, "moby_dick": moby_dick, "thai": thai}
_EDITIONS = {"english": "sotu", "moby_dick": "moby_dick", "thai": "thai_titles"}


def text(name: str, characters: int | None = None) -> str:
    """The corpus `name`: one of TEXTS, or a slice that was fetched; its first `characters`.

    Raises CorpusError for an unknown name or too short a text, SliceError if it is not here.
    """
    if name in TEXTS:
        return TEXTS[name](characters)
    if name in slices.CATALOGUE:
        return head(slices.read(name), characters, name)
    known = ", ".join([*TEXTS, *slices.CATALOGUE])
    raise CorpusError(f"unknown corpus {name!r}; there are {known}")


def origin(name: str) -> str:
    """What the corpus `name` is and where it comes from, for a page. Raises as `text` does."""
    if name in _EDITIONS:
        return SOURCES[_EDITIONS[name]].origin
    if name not in slices.CATALOGUE:
        text(name, 0)  # says which there are
    record = slices.provenance(name)
    return f"the first {record['characters']:,} characters of {record['source']}"


def mixed(
    shares: Mapping[str, float], *, characters: int, seed: int = 42, piece: int = 2000
) -> str:
    """A text of `characters` characters from several corpora, e.g. {"english": 0.8, "thai": 0.2}.

    Each corpus gives its first `share * characters` characters, cut into pieces of `piece`
    characters (at a line's or word's end where there is one) that are then shuffled together.
    Raises CorpusError if the shares do not sum to one, or a corpus is too short.
    """
    if abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) < 0:
        raise CorpusError(f"shares must be positive and sum to 1, got {dict(shares)}")
    pieces: list[str] = []
    for name, share in shares.items():
        pieces += cut(text(name, round(share * characters)), piece)
    order = np.random.default_rng(seed).permutation(len(pieces))
    return "".join(pieces[i] for i in order)


def head(text: str, characters: int | None, name: str) -> str:
    """The first `characters` characters. Raises CorpusError if there are not so many."""
    if characters is None:
        return text
    if not 0 <= characters <= len(text):
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
