"""The Hugging Face hub: find the one tensor in a repository, read its bytes and no others.

`huggingface_hub` builds the addresses, sends the token and names the errors; HF_ENDPOINT and
HF_TOKEN are honoured. Of a repository of 8 GB the book reads a header and one matrix.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from lib.specimens import ranges, safetensors_file, store
from lib.specimens.catalogue import Description, Hub
from lib.specimens.errors import SpecimenError
from lib.specimens.local import INDEX, INDEX_LIMIT, SINGLE, shard_of
from lib.specimens.safetensors_file import Entry

HOME = "https://huggingface.co"
FIRST_READ = 1 << 16  # bytes: the header of most files comes with the first request
ADDRESS_TRIES = 3  # an address on the delivery network may expire during a long transfer

T = TypeVar("T")


@dataclass(frozen=True)
class Located:
    """A tensor found on the hub."""

    remote: ranges.Remote
    entry: Entry
    file: str
    version: str  # commit and etag


def fetch(description: Description, source: Hub) -> Path:
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
    origin = store.Origin(description.id, where, found.entry, found.version)
    sha256 = description.sha256 if wanted == description.dtype else None
    return store.write(origin, partial(_transfer, source, found), sha256)


def locate(source: Hub) -> Located:
    """Find the file, its header and the tensor's bytes. Raises SpecimenError."""
    name, remote, version = _file_of(source)
    head = ranges.read_bytes(remote, 0, min(FIRST_READ, remote.size))
    length = safetensors_file.header_length(head[:8], remote.size, remote.name)
    if 8 + length > len(head):
        head += ranges.read_bytes(remote, len(head), 8 + length)
    header = safetensors_file.parse_header(head[8 : 8 + length], remote.size, remote.name)
    entry = safetensors_file.choose(header, source.tensor, remote.name)
    return Located(remote, entry, name, version)


def dataset_file(repo: str, file: str, revision: str) -> tuple[ranges.Remote, str]:
    """(remote file, version) of a file of a data set on the hub. Raises SpecimenError."""
    try:
        return _remote(repo, file, revision, "dataset")
    except _NoSuchFile:
        raise SpecimenError(
            f"{repo}: has no file {file} at revision {revision!r}; the data set has changed: look "
            f"at {endpoint()}/datasets/{repo} and mend its entry in lib/tokens/slices.py"
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
