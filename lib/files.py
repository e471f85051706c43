"""Files that are whole or not there: written to a temporary name, flushed, renamed; YAML read."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

# libyaml where PyYAML was built with it (its wheels are): the same values, parsed in C
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(UMASK)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the quota, the size of one file


class FileError(RuntimeError):
    """The disk refuses a file; the message names the file and the mend."""


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file. Raises OSError, UnicodeDecodeError or yaml.YAMLError."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=YAML_LOADER)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write(temporary)` and put the result at `path` in one step, flushed to disk.

    On any error the temporary file is removed and `path` is left as it was. Raises FileError if
    the disk refuses (full, read-only).
    """
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
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
