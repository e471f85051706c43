"""Corpora: the committed English texts, the Thai titles, slices of larger corpora, and mixtures.

Every text is held to its digest, so that a tokenizer trained here is the same on every machine.

A slice is the first `characters` characters of one file such as the sources trained on: documents
in the file's order, an empty line between them. It is fetched where the network allows, and kept as
`data/corpora/fetched/NAME.txt.xz`; `NAME.json` beside it says where it came from and what its
digest is. No chapter needs one: they default to the committed corpora, and take a slice's name
wherever they take a corpus.
"""

import codecs
import hashlib
import io
import json
import lzma
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from lib import artifacts, files, paths, progress
from lib.extraction import editions, fetching, ranges
from lib.extraction.catalogue import SpecimenError, need
from lib.extraction.editions import EditionError

# Typographic characters that Moby-Dick's edition uses beside ASCII.
ASCII_SPELLING = str.maketrans({"—": "--", "‘": "'", "’": "'", "“": '"', "”": '"'})
PIECE = 2000  # characters; the longest pieces into which a mixture's corpora are cut
READ = 1 << 20  # bytes of a plain text asked for at a time
BETWEEN = "\n\n"  # between two documents
GUTENBERG = ("*** START OF", "*** END OF")  # lines round the text of a Project Gutenberg file


class CorpusError(ValueError):
    """A corpus is unknown, or shorter than asked for."""


@dataclass(frozen=True)
class Slice:
    """Where a slice is cut from."""

    name: str
    language: str
    file: str  # in the repository; or the whole address of a Gutenberg text, if there is none
    repo: str | None = None  # a data set on the Hugging Face hub
    revision: str = "main"  # the commit it stands for is recorded
    column: str | None = None  # of a Parquet file; None: the file is plain UTF-8 text
    characters: int | None = None  # None: all of it
    licence: str = ""
    gated: bool = False  # the hub asks for an accepted licence and a token
    sources: str = ""  # what the sources used, and how much of it


_FILE = files.read_yaml(paths.CORPORA / "catalogue.yaml")
EDITIONS = _FILE["editions"]
SLICES = {name: Slice(name, **entry) for name, entry in _FILE["slices"].items()}


@lru_cache
def edition(name: str) -> str:
    """The whole text of one of EDITIONS, as this book reads it. Raises EditionError.

    english: State of the Union addresses, 10.8 million characters; their one control character
    (U+0002, where a hyphen was) is taken out. moby_dick: 1.2 million characters, in ASCII.
    thai: titles of Thai Wikipedia, one a line, 4.3 million characters; the file's order is already
    shuffled, so its beginning is a fair sample of the whole.
    """
    text = editions.catalogued(EDITIONS[name], paths.CORPORA).decode("utf-8")
    if name == "moby_dick":
        return in_ascii(text)
    if name == "thai":
        lines = text.splitlines()
        return "".join(line + "\n" for line in lines if line and not line.startswith("#"))
    return text.replace("\x02", "")


def in_ascii(text: str) -> str:
    """The text in ASCII: dashes and quotes respelt, accents and what else is beyond it left out."""
    plain = unicodedata.normalize("NFKD", text.translate(ASCII_SPELLING))
    return plain.encode("ascii", "ignore").decode("ascii")


def text(name: str, characters: int | None = None) -> str:
    """The corpus `name`: one of EDITIONS, or a slice that was fetched; its first `characters`.

    Raises CorpusError for an unknown name or too short a text, EditionError if it is not here.
    """
    if name in EDITIONS:
        return head(edition(name), characters, name)
    if name in SLICES:
        sha256, mend = provenance(name)["sha256"], f"`python -m lib fetch {name} --again`"
        kept = editions.held(slice_file(name), sha256, mend).decode("utf-8")
        return head(kept, characters, name)
    known = ", ".join([*EDITIONS, *SLICES])
    raise CorpusError(f"unknown corpus {name!r}; there are {known}")


def origin(name: str) -> str:
    """What the corpus `name` is and where it comes from, for a page. Raises as `text` does."""
    if name in EDITIONS:
        return EDITIONS[name]["origin"]
    if name not in SLICES:
        text(name, 0)  # says which there are
    record = provenance(name)
    try:  # held to its seal here, where it is shown; the text has a digest of its own
        artifacts.unsealed(json.loads((paths.SLICES / f"{name}.json").read_text("utf-8")))
    except (OSError, *artifacts.MALFORMED):
        why = f"the record of corpus {name!r} was changed: `python -m lib fetch {name} --again`"
        raise EditionError(why) from None
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


# ----------------------------------------------------------------------------- slices


def slice_file(name: str) -> Path:
    """Where the slice's text lies, or will lie."""
    return paths.SLICES / f"{name}.txt.xz"


def provenance(name: str) -> dict[str, Any]:
    """Where a fetched slice came from: source, version, characters, sha256. Raises EditionError."""
    file = paths.SLICES / f"{name}.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return {key: record[key] for key in ("source", "version", "characters", "sha256")}
    except FileNotFoundError:
        raise EditionError(f"corpus {name!r} is not here; `python -m lib fetch {name}`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EditionError(
            f"{file}: is damaged ({error!r}); `python -m lib fetch {name} --again`"
        ) from None


def keep_slice(name: str, text: str, source: str, version: str) -> Path:
    """Keep the text of a slice with its provenance; returns its file. Raises files.FileError."""
    data = text.encode("utf-8")
    record = {
        "source": source,
        "version": version,
        "characters": len(text),
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": SLICES[name].licence,
    }
    packed = lzma.compress(data)
    words = json.dumps(artifacts.sealed(record), indent=1) + "\n"
    file, beside = slice_file(name), paths.SLICES / f"{name}.json"
    beside.unlink(missing_ok=True)  # a text without its record is not read
    files.write_atomically(file, lambda temporary: temporary.write_bytes(packed))
    files.write_atomically(beside, lambda temporary: temporary.write_text(words))
    return file


def fetch(name: str, *, again: bool = False) -> Path:
    """The file of slice `name`, streamed if it is not here (or `again`).

    Of a file of many gigabytes only the bytes that hold the slice are read: a Parquet file from its
    footer on, row group by row group, and of each only the pages of the text's column. What came is
    kept in a folder beside the slice, so that a fetch that was cut goes on where it was; a file
    that has changed meanwhile is begun anew. Raises SpecimenError saying why it cannot be had.
    """
    wanted, final = SLICES[name], slice_file(name)
    if not again and final.exists():
        text(name)  # damaged: says so
        return final
    parts = final.with_name(f"{name}.parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(final.with_name(f"{name}.lock"), timeout=0):
            if wanted.repo is None:
                remote = ranges.find(wanted.file, name)
            else:
                remote = fetching.dataset_file(wanted.repo, wanted.file, wanted.revision)
            _begin(parts, json.dumps(f"{remote.size} {remote.version}"))
            found = _text(wanted, RangeFile(remote, parts))
            keep_slice(name, found, f"{wanted.repo or ''} {wanted.file}".strip(), remote.version)
            shutil.rmtree(parts)
    except filelock.Timeout:
        raise SpecimenError(f"{final}: another process is fetching it; wait for it") from None
    except OSError as error:
        raise files.unwritable(parts, error) from None
    return final


def _begin(parts: Path, version: str) -> None:
    """Empty the folder of kept ranges if they are of another version of the file."""
    stamp = parts / "version.json"
    if not stamp.exists() or stamp.read_text() != version:
        shutil.rmtree(parts)
        files.write_atomically(stamp, lambda path: path.write_text(version))


class RangeFile(io.RawIOBase):
    """A remote file to read and seek in; each range that was read is kept with its SHA-256."""

    def __init__(self, remote: ranges.Remote, folder: Path) -> None:
        super().__init__()
        self.remote, self.folder, self.at = remote, folder, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.remote.size}[whence]
        self.at = start + offset
        return self.at

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes (-1: the rest), from the folder or from the network."""
        start = self.at
        stop = self.remote.size if size < 0 else min(start + size, self.remote.size)
        if stop <= start:
            return b""
        kept, self.at = self.folder / f"{start}-{stop}", stop
        found = kept.read_bytes() if kept.exists() else b""
        if found[:32] != hashlib.sha256(found[32:]).digest():  # not here, or damaged since
            data = ranges.read_bytes(self.remote, start, stop)
            found = hashlib.sha256(data).digest() + data
            files.write_atomically(kept, lambda path: path.write_bytes(found))
        return found[32:]


def _text(wanted: Slice, source: RangeFile) -> str:
    """The slice's text out of its file. Raises SpecimenError."""
    name = source.remote.name
    if wanted.column is not None:
        return _take(_of_parquet(source, wanted.column), BETWEEN, wanted.characters, name)
    text = _take(_of_text(source), "", wanted.characters, name)
    return text if wanted.repo is not None else _gutenberg(text, name)


def _take(texts: Iterable[str], between: str, characters: int | None, name: str) -> str:
    """The first `characters` characters (None: all) of the texts, joined.

    Raises SpecimenError if there are fewer.
    """
    found, length = [], 0
    with progress.bar(total=characters, desc=name, unit=" characters", unit_scale=True) as bar:
        for text in texts:
            found.append(text)
            length += len(text) + len(between)
            bar.update(len(text) + len(between))
            if characters is not None and length >= characters + len(between):
                break
    joined = between.join(found)
    need(
        characters is None or len(joined) >= characters,
        f"{name}: has {len(joined):,} characters, {characters or 0:,} were asked for; the file has "
        "changed: mend its entry in data/corpora/catalogue.yaml",
    )
    return joined[:characters]


def _of_text(source: RangeFile) -> Iterator[str]:
    """The pieces of a UTF-8 text, lines ended by a newline alone. Raises SpecimenError."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), True)
    try:
        while data := source.read(READ):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise SpecimenError(f"{source.remote.name}: is no UTF-8 text ({error})") from None


def _gutenberg(text: str, name: str) -> str:
    """The book without what Project Gutenberg writes round it. Raises SpecimenError."""
    start, end = (text.find(mark) for mark in GUTENBERG)
    need(0 <= start < end, f"{name}: is no Project Gutenberg text (no START and END lines)")
    return text[text.index("\n", start) : end].strip("\n\ufeff ") + "\n"


def _of_parquet(source: RangeFile, column: str) -> Iterator[str]:
    """The texts of a Parquet file's column in order. Raises SpecimenError."""
    name = source.remote.name
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        why = f"{name}: reading Parquet needs pyarrow: `pip install '.[corpora]'`"
        raise SpecimenError(why) from None
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.PythonFile(source, mode="r"))
        names = file.schema_arrow.names
        need(column in names, f"{name}: has no column {column!r}; there are {', '.join(names)}")
        kind = file.schema_arrow.field(column).type
        is_text = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
        need(is_text, f"{name}: column {column!r} holds {kind}, not text")
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=[column], use_threads=False)
            yield from (text for text in rows.column(0).to_pylist() if text)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the file's
        raise SpecimenError(f"{name}: is no readable Parquet file ({error})") from None
