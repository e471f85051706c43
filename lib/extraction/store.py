"""Fetched tensors on disk: hashed as they come, whole or not there, proven when they are opened.

No hub publishes a digest of one tensor's bytes. So they are hashed as they come from the network,
and what was seen then is what the file is held to ever after: in a few pieces whenever it is
opened, in full where somebody touched it and by `verify`. While it grows, digests of what it holds
so far stand beside it: a transfer that was cut goes on from the last one that is still true.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from lib import artifacts, digests, files, progress
from lib.extraction import catalogue, tensor_files
from lib.extraction.catalogue import SpecimenError, fetched_file, need
from lib.extraction.ranges import BUFFER, OVERLAP, BytesDiffer
from lib.extraction.tensor_files import Entry

PENDING = "0" * 64  # in place of a digest that is not known yet
SPARE = 64 << 20  # bytes of disk that a transfer leaves free
NOTED = 64 << 20  # bytes that come between two digests of an unfinished file
PIECES = 64  # of a finished file that are read when it is opened, each of BUFFER bytes

Known = Callable[[int, int], bytes]  # (start, stop) of a tensor's bytes: those that came


class Arrival:
    """A tensor on its way: `write` takes its bytes from the `done`-th on and hashes them."""

    def __init__(self, part: Path, identity: str, offset: int) -> None:
        """Go on from what `part` holds, if it is `identity`'s and proven, after `offset` bytes."""
        self.part, self.identity, self.offset = part, identity, offset
        self.notes = part.with_name(part.name + ".sums")
        self.sha, self.done, self.last = hashlib.sha256(), 0, b""
        proven = [identity]
        with suppress(OSError, ValueError):
            self._prove(proven)
        part.touch()
        os.truncate(part, offset + self.done)
        self.notes.write_text("\n".join(proven) + "\n", "utf-8")
        self.noted = self.done
        self.last = self.known(max(0, self.done - OVERLAP), self.done)

    def _prove(self, proven: list[str]) -> None:
        """Go through the notes as far as the file agrees with them, and add those to `proven`."""
        identity, *lines = self.notes.read_text("utf-8").splitlines()
        sha, at = hashlib.sha256(), 0
        with self.part.open("rb", buffering=0) as file:
            file.seek(self.offset)
            for line in lines if identity == self.identity else ():
                count, digest = line.split(" ")
                _feed(sha, file, int(count) - at)
                at = int(count)
                if sha.hexdigest() != digest:
                    return
                self.sha, self.done = sha.copy(), at
                proven.append(line)

    @contextmanager
    def growing(self) -> Iterator["Arrival"]:
        """Open for writing; whatever ends it, the digest of what has come is noted."""
        with self.part.open("ab", buffering=0) as self.file:
            try:
                yield self
            finally:
                self._note()

    def write(self, piece: memoryview) -> int:
        """As a file's."""
        count = self.file.write(piece)
        self.sha.update(piece[:count])
        self.last = (self.last + piece[max(0, count - OVERLAP) : count])[-OVERLAP:]
        self.done += count
        if self.done - self.noted >= NOTED:
            self._note()
        return count

    def _note(self) -> None:
        if self.done > self.noted:
            with self.notes.open("a", encoding="utf-8") as notes:
                notes.write(f"{self.done} {self.sha.hexdigest()}\n")
            self.noted = self.done

    def known(self, start: int, stop: int) -> bytes:
        """The tensor's bytes start..stop-1, of those that came."""
        with self.part.open("rb") as file:
            file.seek(self.offset + start)
            return file.read(stop - start)

    def discard(self) -> None:
        """Nothing of it is believed."""
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


Transfer = Callable[[Arrival], None]  # write the tensor's bytes from `done` on


def keep(
    record: dict[str, str],
    entry: Entry,
    transfer: Transfer,
    sha256: str | None,
    again: Callable[[Known], None] = lambda known: None,
) -> Path:
    """Fetch a tensor's bytes into the store and return the file.

    `record` says where they come from (specimen, source in words, version), `entry` what they are.
    `transfer` is called with 0 < done when an earlier attempt at the same bytes was cut; `again`
    holds what came to a second reading. With `sha256` the bytes must have that digest. Raises
    SpecimenError; what was transferred stays for the next attempt unless it is disproved.
    """
    final = fetched_file(record["specimen"])
    part = final.with_name(final.name + ".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(part.with_name(final.name + ".lock"), timeout=0):
            now = int(time.time()) // 2 * 2_000_000_000  # a time that every file system can keep
            pending = _head(record, entry, PENDING, PENDING, now)
            identity = digests.of_value(record | {"tensor": _said(entry)})
            arrival = Arrival(part, identity, len(pending))
            try:
                _bring(arrival, entry.nbytes, transfer)
                again(arrival.known)
                found = arrival.sha.hexdigest()
                if sha256 is not None and found != sha256:
                    raise BytesDiffer(
                        f"{record['specimen']}: the bytes from {record['source']} have sha256 "
                        f"{found[:12]}…, not {sha256[:12]}…; fetch again, or from another source"
                    )
            except BytesDiffer as error:
                arrival.discard()
                raise SpecimenError(f"{error} (they were thrown away)") from None
            with part.open("r+b") as file:
                file.write(_head(record, entry, found, _sampled(part, len(pending)), now))
            os.utime(part, ns=(now, now))
            files.replace(part, final)
            arrival.notes.unlink(missing_ok=True)
    except filelock.Timeout:
        why = f"{final}: another process is fetching it; wait for it to end"
        raise SpecimenError(why) from None
    except OSError as error:
        raise SpecimenError(
            f"{part}: cannot be written ({error.strerror or error}); free some space or mend the "
            "folder, then run the same command again: it goes on from here"
        ) from None
    return final


def _bring(arrival: Arrival, total: int, transfer: Transfer) -> None:
    """Bring the file to its full length, from nothing or from where an earlier attempt stopped."""
    folder = arrival.part.parent
    free, left = shutil.disk_usage(folder).free, total - arrival.done
    need(
        free >= left + SPARE,
        f"{folder}: {free / 1e9:.1f} GB are free, {(left + SPARE) / 1e9:.1f} GB are needed; "
        "free some space",
    )
    with arrival.growing():
        transfer(arrival)
    done = arrival.done
    need(done == total, f"{arrival.part}: holds {done:,} bytes of {total:,}; fetch again")


def _head(record: dict[str, str], entry: Entry, sha256: str, sampled: str, kept: int) -> bytes:
    """The file's first bytes: length and JSON header, padded so that the data are aligned.

    As long whatever the digests are. `kept` is the file's time, in nanoseconds.
    """
    whole = record | {"sha256": sha256, "sampled": sampled, "kept": kept, "tensor": _said(entry)}
    tensor = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [0, entry.nbytes]}
    provenance = json.dumps(artifacts.sealed(whole), sort_keys=True)
    table = {tensor_files.METADATA: {"provenance": provenance}, entry.name: tensor}
    raw = json.dumps(table).encode()
    raw += b" " * (-len(raw) % 64 + 56)  # 8 + length is a multiple of 64
    return len(raw).to_bytes(8, "little") + raw


def _said(entry: Entry) -> list[Any]:
    return [entry.name, entry.dtype, list(entry.shape)]


# ----------------------------------------------------------------------------- what is here


def opened(path: Path) -> dict[str, Any]:
    """What a fetched file says of itself, if it is what was fetched as far as a look can tell.

    Its description, and PIECES of its bytes, in files of up to as many megabytes all of them. One
    that was touched after it was fetched is read in full. Raises SpecimenError.
    """
    record, offset = _record(path)
    if path.stat().st_mtime_ns != record["kept"]:
        verify(path)
        with suppress(OSError):  # so that the next look is short again
            os.utime(path, ns=(time.time_ns(), record["kept"]))
    _agree(path, _sampled(path, offset), record["sampled"])
    return record


def verify(path: Path) -> str:
    """The sha256 of a fetched file, if its bytes still have it. Raises SpecimenError if not."""
    record, offset = _record(path)
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        _feed(found, file, path.stat().st_size - offset)
    _agree(path, found.hexdigest(), record["sha256"])
    return record["sha256"]


def is_proven(sha256: str) -> bool:
    """Whether a digest is one that the catalogue names; any other is what the first fetch saw."""
    return sha256 in {description.sha256 for description in catalogue.CATALOGUE}


def said_of(sha256: str) -> str:
    """A digest in words, and whether anybody else has published it."""
    known = "" if is_proven(sha256) else " (unproven: no digest of it is published)"
    return f"sha256 {sha256}{known}"


def _record(path: Path) -> tuple[dict[str, Any], int]:
    """What a fetched file says of itself, held to its seal, and where its bytes begin."""
    header, found = tensor_files.read_header(path), tensor_files.origin_of(path)
    try:
        record = artifacts.unsealed(found)
    except artifacts.MALFORMED:
        _agree(path, found, None)
    _agree(path, [_said(entry) for entry in header.entries.values()], [record["tensor"]])
    return record, header.data_start


def _agree(path: Path, found: Any, recorded: Any) -> None:
    need(found == recorded, f"{path}: its bytes have changed; delete it and fetch it again")


def _sampled(path: Path, offset: int) -> str:
    """SHA-256 (hex) of PIECES pieces of a file's bytes from `offset` on, from end to end."""
    total, sha = path.stat().st_size - offset, hashlib.sha256()
    places = {*range(0, total, max(BUFFER, total // PIECES)), max(0, total - BUFFER)}
    with path.open("rb", buffering=0) as file:
        for at in sorted(places):
            file.seek(offset + at)
            sha.update(file.read(BUFFER))
    return sha.hexdigest()


def _feed(sha: Any, file: BinaryIO, count: int) -> None:
    """Hash the next `count` bytes of a file, with a progress bar."""
    with progress.bar(total=count, desc="checking", unit="B", unit_scale=True) as bar:
        while count and (piece := file.read(min(BUFFER, count))):
            sha.update(piece)
            count -= len(piece)
            bar.update(len(piece))
