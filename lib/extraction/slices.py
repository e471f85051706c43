"""Slices of larger corpora, such as the sources trained on: fetched where the network allows.

A slice is the first `characters` characters of one file: documents in the file's order, an empty
line between them. It is kept as `data/corpora/fetched/NAME.txt.xz`; `NAME.json` beside it says
where it came from and what its digest is. No chapter needs one: they default to the committed
corpora, and take a slice's name wherever they take a corpus.

Of a file of many gigabytes only the bytes that hold the slice are read: a Parquet file from its
footer on, row group by row group, and of each only the pages of the text's column. What came is
kept in a folder beside the slice, so that a fetch that was cut goes on where it was; a file that
has changed meanwhile is begun anew.
"""

import codecs
import hashlib
import io
import json
import lzma
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from lib import files, paths, progress
from lib.extraction import editions, fetching, ranges
from lib.extraction.catalogue import SpecimenError
from lib.extraction.editions import EditionError

PIECE = 1 << 20  # bytes of a plain text asked for at a time
BETWEEN = "\n\n"  # between two documents
GUTENBERG = ("*** START OF", "*** END OF")  # lines round the text of a Project Gutenberg file


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


CATALOGUE = {
    name: Slice(name, **entry)
    for name, entry in files.read_yaml(paths.CORPORA / "catalogue.yaml")["slices"].items()
}


def path(name: str) -> Path:
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


def read(name: str) -> str:
    """The text of a fetched slice, held to its digest. Raises EditionError with the mend."""
    sha256, mend = provenance(name)["sha256"], f"`python -m lib fetch {name} --again`"
    return editions.held(path(name), sha256, mend).decode("utf-8")


def write(name: str, text: str, source: str, version: str) -> Path:
    """Keep the text of a slice with its provenance; returns its file. Raises files.FileError."""
    data = text.encode("utf-8")
    record = {
        "source": source,
        "version": version,
        "characters": len(text),
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": CATALOGUE[name].licence,
    }
    packed, words = lzma.compress(data), json.dumps(record, indent=1) + "\n"
    file, beside = path(name), paths.SLICES / f"{name}.json"
    beside.unlink(missing_ok=True)  # a text without its record is not read
    files.write_atomically(file, lambda temporary: temporary.write_bytes(packed))
    files.write_atomically(beside, lambda temporary: temporary.write_text(words))
    return file


def fetch(name: str, *, again: bool = False) -> Path:
    """The file of slice `name`, streamed if it is not here (or `again`).

    Raises SpecimenError saying why it cannot be had; what came stays for the next attempt.
    """
    wanted, final = CATALOGUE[name], path(name)
    if not again and final.exists():
        read(name)  # damaged: says so
        return final
    parts = final.with_name(f"{name}.parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(final.with_name(f"{name}.lock"), timeout=0):
            if wanted.repo is None:
                remote = ranges.find(wanted.file, name)
            else:
                remote = fetching.dataset_file(wanted.repo, wanted.file, wanted.revision)
            _begin(parts, f"{remote.size} {remote.version}")
            text = _text(wanted, RangeFile(remote, parts))
            write(name, text, f"{wanted.repo or ''} {wanted.file}".strip(), remote.version)
            shutil.rmtree(parts)
    except filelock.Timeout:
        raise SpecimenError(f"{final}: another process is fetching it; wait for it") from None
    except OSError as error:
        raise files.unwritable(parts, error) from None
    return final


def _begin(parts: Path, version: str) -> None:
    """Empty the folder of kept ranges if they are of another version of the file."""
    stamp = parts / "version.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != version:
        shutil.rmtree(parts)
        parts.mkdir()
        files.write_atomically(stamp, lambda path: path.write_text(json.dumps(version)))


class RangeFile(io.RawIOBase):
    """A remote file to read and seek in; each range that was read is kept in a folder."""

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
        kept = self.folder / f"{start}-{stop}"
        done = kept.stat().st_size if kept.exists() else 0
        if done < stop - start:
            with kept.open("ab") as sink:
                ranges.read_range(self.remote, start + done, stop, sink, quiet=True)
        self.at = stop
        return kept.read_bytes()


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
    if characters is not None and len(joined) < characters:
        raise SpecimenError(
            f"{name}: has {len(joined):,} characters, {characters:,} were asked for; the file has "
            "changed: mend its entry in data/corpora/catalogue.yaml"
        )
    return joined[:characters]


def _of_text(source: RangeFile) -> Iterator[str]:
    """The pieces of a UTF-8 text, lines ended by a newline alone. Raises SpecimenError."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), True)
    try:
        while data := source.read(PIECE):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise SpecimenError(f"{source.remote.name}: is no UTF-8 text ({error})") from None


def _gutenberg(text: str, name: str) -> str:
    """The book without what Project Gutenberg writes round it. Raises SpecimenError."""
    start, end = (text.find(mark) for mark in GUTENBERG)
    if not 0 <= start < end:
        raise SpecimenError(f"{name}: is no Project Gutenberg text (no START and END lines)")
    return text[text.index("\n", start) : end].strip("\n\ufeff ") + "\n"


def _of_parquet(source: RangeFile, column: str) -> Iterator[str]:
    """The texts of a Parquet file's column in order. Raises SpecimenError."""
    name = source.remote.name
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SpecimenError(
            f"{name}: reading Parquet needs pyarrow: `pip install '.[corpora]'`"
        ) from None
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.PythonFile(source, mode="r"))
        if column not in file.schema_arrow.names:
            names = ", ".join(file.schema_arrow.names)
            raise SpecimenError(f"{name}: has no column {column!r}; there are {names}")
        kind = file.schema_arrow.field(column).type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise SpecimenError(f"{name}: column {column!r} holds {kind}, not text")
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=[column], use_threads=False)
            yield from (text for text in rows.column(0).to_pylist() if text)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the file's
        raise SpecimenError(f"{name}: is no readable Parquet file ({error})") from None
