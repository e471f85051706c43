"""Files that are whole or not there, and committed data that are what was committed.

What is written goes to a temporary name, is flushed and renamed. Every committed file of data/ has
its digest in data/SHA256SUMS (`sha256sum -c` reads it too) and is held to it when it is read. What
a process has read of data/ is remembered: an executed chapter depends on that and on no other file.
"""

import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lib import paths

# libyaml where PyYAML was built with it (its wheels are): the same values, parsed in C
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(UMASK)
SUMS = paths.DATA / "SHA256SUMS"
FETCHED = (paths.FETCHED, paths.SLICES)  # what lies below data/ and is not committed
ABSENT = "absent"
noted: dict[str, str] = {}  # what this process has read of data/: name below it -> its state
TEMPORARY = re.compile(r"\..+-\d+(\.\w+)?")  # the names that write_atomically gives
OLD = 86_400.0  # seconds after which nobody writes to a temporary file any more
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the quota, the size of one file


class FileError(RuntimeError):
    """The disk refuses a file; the message names the file and the mend."""


def read_yaml(path: Path, *, noting: bool = True) -> Any:
    """The plain values of a YAML file. Raises OSError, UnicodeDecodeError or yaml.YAMLError."""
    return yaml.load(checked(path, noting=noting).read_text(encoding="utf-8"), Loader=YAML_LOADER)


def checked(path: Path, *, noting: bool = True) -> Path:
    """The same path; a file of committed data must hold the bytes that were committed.

    A file of data/ is `noted` as read unless told otherwise. Raises FileError naming the mend.
    """
    path = path.absolute()
    if not path.is_relative_to(paths.DATA) or path.is_relative_to(paths.ARTIFACTS):
        return path
    name = path.relative_to(paths.DATA).as_posix()
    found = state(name)
    if not _is_fetched(path) and found != _sums(*_stamp(SUMS)).get(name):
        raise FileError(
            f"data/{name} is not the file that was committed: restore it with "
            f"`git checkout data/{name}`; a change that is meant is recorded by `make sums`"
        )
    if noting:
        noted[name] = found
    return path


def is_here(path: Path) -> bool:
    """Whether a file below data/ that need not be there (a fetched one) is; noted either way."""
    name = os.path.relpath(path, paths.DATA)
    noted[name] = state(name)
    return noted[name] != ABSENT


def state(name: str) -> str:
    """What decides whether the file `name` below data/ is still the same.

    The SHA-256 (hex) of a committed file, size and time of a fetched one, or ABSENT.
    """
    path = paths.DATA / name
    try:
        stamp = _stamp(path)
    except OSError:
        return ABSENT
    return "{}-{}".format(*stamp) if _is_fetched(path) else _digest(path, *stamp)


def record() -> int:
    """Write SUMS anew from the committed files as they stand; how many there are."""
    names = committed()
    text = "".join(f"{state(name)}  {name}\n" for name in names)
    write_atomically(SUMS, lambda path: path.write_text(text, encoding="utf-8"))
    return len(names)


def committed() -> list[str]:
    """The names below data/ of all files that belong to the book, sorted."""
    return sorted(
        path.relative_to(paths.DATA).as_posix()
        for path in paths.DATA.rglob("*")
        if path.is_file()
        and path != SUMS
        and not path.name.startswith(".")
        and not path.is_relative_to(paths.ARTIFACTS)
        and not _is_fetched(path)
    )


def _is_fetched(path: Path) -> bool:
    return any(map(path.is_relative_to, FETCHED))


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=1024)
def _digest(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _sums(_size: int, _modified: int) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in SUMS.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in pairs}


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write(temporary)` and put the result at `path` in one step, flushed to disk.

    On any error the temporary file is removed and `path` is left as it was. Raises FileError if
    the disk refuses (full, read-only).
    """
    temporary = path.with_name(f".{path.stem}-{threading.get_native_id()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        replace(temporary, path)
    except Exception as error:
        if isinstance(error, OSError) or is_full(error):
            raise unwritable(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove the temporary files that killed processes left below a folder.

    One is taken for left when it is OLD: another machine may share the folder.
    """
    for path in folder.rglob(".*"):
        if TEMPORARY.fullmatch(path.name) and untouched(path) > OLD:
            with suppress(OSError):
                path.unlink()


def untouched(path: Path) -> float:
    """Seconds since a file, or anything in a folder, was last written (0 if it is gone)."""
    with suppress(OSError):
        return time.time() - max(file.stat().st_mtime for file in (path, *path.rglob("*")))
    return 0.0


def reserve(path: Path, size: int) -> None:
    """Hold a new file's bytes on the disk for a moment. Raises OSError if it has not so many.

    For libraries that crash where a write is refused.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(1, size))


def replace(temporary: Path, path: Path) -> None:
    """Rename a finished file to `path` once its bytes are on the disk.

    Others may read it as they may any new file here: safetensors writes for the owner alone.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o666 & ~UMASK)
    temporary.replace(path)


def unwritable(path: Path, error: Exception) -> FileError:
    """The error to raise when `path` cannot be written."""
    reason = getattr(error, "strerror", None) or error
    return FileError(f"cannot write {path}: {reason}; free some space or mend the folder")


def is_full(error: BaseException | None) -> bool:
    """Whether `error`, or what led to it, is a disk that is full.

    HDF5 and safetensors say so with errors of their own, and the number in words.
    """
    while error is not None:
        said = re.search(r"\b(?:errno =|os error) (\d+)", str(error))
        if getattr(error, "errno", None) in FULL or (said and int(said.group(1)) in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False
