"""What was fetched: one tensor a file, a safetensors file with its provenance in the header.

While a transfer runs the file has the ending `.part`; its header already says what it will be, so
that a later attempt goes on only if it is after the very same bytes. Its sha256 stands in the
header too: zeros until all bytes are there and were hashed, then the file gets its name.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import filelock

from lib import paths, progress
from lib.specimens import safetensors_file
from lib.specimens.errors import SpecimenError
from lib.specimens.safetensors_file import Entry

PENDING = "0" * 64
SPARE = 64 << 20  # bytes of disk that a transfer leaves free


@dataclass(frozen=True)
class Origin:
    """Where a tensor's bytes come from: everything that has to agree for a transfer to go on."""

    specimen: str
    source: str  # in words, for the reader
    entry: Entry  # of the tensor in the original file
    version: str  # commit and etag, or the wheel's name and version


def path_of(id: str) -> Path:
    """Where the fetched matrix of specimen `id` lies, or will lie."""
    return paths.FETCHED / f"{id}.safetensors"


def provenance(path: Path) -> dict[str, str]:
    """A fetched file's own words: specimen, source, version, sha256. Raises SpecimenError."""
    metadata = safetensors_file.read_header(path).metadata
    try:
        return json.loads(metadata["provenance"])
    except (KeyError, ValueError):
        raise SpecimenError(f"{path}: says nothing of its origin; fetch it again") from None


def write(origin: Origin, transfer: Callable[[BinaryIO, int], None], sha256: str | None) -> Path:
    """Fetch a tensor's bytes into the store and return the file.

    `transfer(sink, done)` writes the bytes from `done` on; it is called with 0 < done when an
    earlier attempt at the same bytes was cut. With `sha256` the bytes must have that digest.
    Raises SpecimenError; what was transferred stays for the next attempt.
    """
    final = path_of(origin.specimen)
    part = final.with_name(final.name + ".part")
    head = _head(origin, PENDING)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(part.with_name(final.name + ".lock"), timeout=0):
            _transfer(part, head, origin.entry.nbytes, transfer)
            found = digest(part, len(head))
            _accept(part, found, sha256, origin)
            with part.open("r+b") as file:
                file.write(_head(origin, found))
                os.fsync(file.fileno())
            part.replace(final)
    except filelock.Timeout:
        raise SpecimenError(
            f"{final}: another process is fetching it; wait for it to end"
        ) from None
    except OSError as error:
        raise SpecimenError(
            f"{part}: cannot be written ({error.strerror or error}); free some space or mend the "
            "folder, then run the same command again: it goes on from here"
        ) from None
    return final


def _transfer(
    part: Path, head: bytes, total: int, transfer: Callable[[BinaryIO, int], None]
) -> None:
    """Bring `part` to its full length, from nothing or from where an earlier attempt stopped."""
    done = _already(part, head, total)
    _room(part, total - max(done, 0))
    with part.open("r+b" if done >= 0 else "wb", buffering=0) as file:
        if done < 0:
            file.write(head)
        file.seek(0, os.SEEK_END)
        transfer(file, max(done, 0))
        os.fsync(file.fileno())


def digest(path: Path, offset: int) -> str:
    """SHA-256 (hex) of a file's bytes from `offset` on, with a progress bar."""
    total = path.stat().st_size - offset
    sha = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        with progress.bar(total=total, desc="checking", unit="B", unit_scale=True) as bar:
            while count := file.readinto(buffer):
                sha.update(buffer[:count])
                bar.update(count)
    return sha.hexdigest()


def verify(path: Path) -> str:
    """The sha256 of a fetched file, if its bytes still have it. Raises SpecimenError if not."""
    recorded = provenance(path)["sha256"]
    if digest(path, safetensors_file.read_header(path).data_start) != recorded:
        raise SpecimenError(f"{path}: its bytes have changed; delete it and fetch it again")
    return recorded


def _head(origin: Origin, sha256: str) -> bytes:
    """The file's first bytes: length and JSON header, padded so that the data are aligned."""
    entry = origin.entry
    record = {"specimen": origin.specimen, "source": origin.source, "version": origin.version,
              "sha256": sha256}  # fmt: skip
    table = {
        safetensors_file.METADATA: {"provenance": json.dumps(record, sort_keys=True)},
        entry.name: {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [0, entry.nbytes],
        },
    }
    raw = json.dumps(table).encode()
    raw += b" " * (-len(raw) % 64 + 56)  # 8 + length is a multiple of 64
    return len(raw).to_bytes(8, "little") + raw


def _already(part: Path, head: bytes, total: int) -> int:
    """Data bytes that an earlier attempt at the same tensor left; -1 if there was none."""
    try:
        with part.open("rb") as file:
            if file.read(len(head)) != head:
                return -1
        done = part.stat().st_size - len(head)
    except FileNotFoundError:
        return -1
    return done if done <= total else -1


def _room(part: Path, need: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < need + SPARE:
        raise SpecimenError(
            f"{part.parent}: {free / 1e9:.1f} GB are free, {need / 1e9:.1f} GB are needed; "
            "free some space"
        )


def _accept(part: Path, found: str, expected: str | None, origin: Origin) -> None:
    size = part.stat().st_size - len(_head(origin, PENDING))
    if size != origin.entry.nbytes:
        raise SpecimenError(f"{part}: holds {size:,} bytes of {origin.entry.nbytes:,}; fetch again")
    if expected is not None and found != expected:
        part.unlink()
        raise SpecimenError(
            f"{origin.specimen}: the bytes from {origin.source} have sha256 {found[:12]}…, "
            f"not {expected[:12]}…; they were thrown away: fetch again, or from another source"
        )
