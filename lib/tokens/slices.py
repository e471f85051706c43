"""Slices of larger corpora, such as the sources trained on: fetched where the network allows.

A slice is the first `characters` characters of one file: documents in the file's order, an empty
line between them. It is kept as `data/corpora/fetched/NAME.txt.xz`; `NAME.json` beside it says
where it came from and what its digest is. No chapter needs one: they default to the committed
corpora, and take a slice's name wherever they take a corpus.

No digest stands here: no machine on which the book was written could reach these hosts, so the
addresses are those that public code uses, and the first fetch records the digest it saw.
"""

import hashlib
import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import files, paths


class SliceError(RuntimeError):
    """A slice is not here, or is not what was fetched."""


@dataclass(frozen=True)
class Slice:
    """Where a slice is cut from."""

    name: str
    language: str
    file: str  # in the repository; or the whole address, if there is no repository
    repo: str | None = None  # a data set on the Hugging Face hub
    revision: str = "main"  # the commit it stands for is recorded
    column: str | None = None  # of a Parquet file; None: the file is plain UTF-8 text
    characters: int | None = None  # None: all of it
    licence: str = ""
    gated: bool = False  # the hub asks for an accepted licence and a token
    sources: str = ""  # what the sources used, and how much of it


CATALOGUE = {
    entry.name: entry
    for entry in (
        Slice(
            name="fineweb2",
            language="Thai",
            repo="HuggingFaceFW/fineweb-2",
            file="data/tha_Thai/train/000_00000.parquet",
            column="text",
            characters=20_000_000,
            licence="ODC-By 1.0, and the terms of Common Crawl",
            sources="20 MB of Thai in the text of Flannel's tokenizer",
        ),
        Slice(
            name="fineweb",
            language="English",
            repo="HuggingFaceFW/fineweb",
            file="sample/10BT/000_00000.parquet",
            column="text",
            characters=80_000_000,
            licence="ODC-By 1.0, and the terms of Common Crawl",
            sources="80 MB of English in that text (asked of FineWeb-2, which is the collection "
            "without English), and 2 to 5 MB to train the model on",
        ),
        Slice(
            name="culturax",
            language="Thai",
            repo="uonlp/CulturaX",
            file="th/th_part_00000.parquet",
            column="text",
            characters=20_000_000,
            licence="that of mC4 and OSCAR",
            gated=True,
            sources="the sources print no size",
        ),
        Slice(
            name="tinystories",
            language="English",
            repo="roneneldan/TinyStories",
            file="TinyStoriesV2-GPT4-train.txt",
            characters=10_000_000,
            licence="CDLA-Sharing 1.0",
            sources="the sources print no size",
        ),
        Slice(
            name="gatsby",
            language="English",
            file="https://www.gutenberg.org/files/64317/64317-0.txt",
            licence="public domain in the United States (Project Gutenberg 64317)",
            sources="the whole novel, about 270 KB",
        ),
    )
}


def find(name: str) -> Slice:
    """The catalogue's entry. Raises SliceError with the names there are."""
    if name not in CATALOGUE:
        raise SliceError(f"unknown slice {name!r}; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def path(name: str) -> Path:
    """Where the slice's text lies, or will lie."""
    return paths.SLICES / f"{find(name).name}.txt.xz"


def provenance(name: str) -> dict[str, Any]:
    """Where a fetched slice came from: source, version, characters, sha256. Raises SliceError."""
    file = path(name).with_name(f"{name}.json")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return {key: record[key] for key in ("source", "version", "characters", "sha256")}
    except FileNotFoundError:
        raise SliceError(f"corpus {name!r} is not here; `python -m lib fetch {name}`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SliceError(
            f"{file}: is damaged ({error!r}); `python -m lib fetch {name} --again`"
        ) from None


def read(name: str) -> str:
    """The text of a fetched slice, held to its digest. Raises SliceError with the mend."""
    record, file = provenance(name), path(name)
    try:
        data = lzma.decompress(file.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise SliceError(
            f"{file}: cannot be read ({error}); `python -m lib fetch {name} --again`"
        ) from None
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise SliceError(f"{file}: is not what was fetched; `python -m lib fetch {name} --again`")
    return data.decode("utf-8")


def write(name: str, text: str, source: str, version: str) -> Path:
    """Keep the text of a slice with its provenance; returns its file. Raises files.FileError."""
    data = text.encode("utf-8")
    record = {
        "source": source,
        "version": version,
        "characters": len(text),
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": find(name).licence,
    }
    packed = lzma.compress(data)
    file, beside = path(name), path(name).with_name(f"{name}.json")
    beside.unlink(missing_ok=True)  # a text without its record is not read
    files.write_atomically(file, lambda temporary: temporary.write_bytes(packed))
    words = json.dumps(record, indent=1) + "\n"
    files.write_atomically(beside, lambda temporary: temporary.write_text(words))
    return file
