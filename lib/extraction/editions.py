"""The one edition of a file that is meant: read, decompressed, and held to its digest."""

import hashlib
import lzma
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from lib import files


class EditionError(RuntimeError):
    """A text or vocabulary is not here, is damaged, or is of another edition; says how to mend."""


def content(path: Path, mend: str = "check the file") -> bytes:
    """The bytes of a file, decompressed if it is .xz. Raises EditionError ending in `mend`."""
    try:
        data = files.checked(path).read_bytes()
        return lzma.decompress(data) if path.suffix == ".xz" else data
    except (OSError, lzma.LZMAError) as error:
        raise EditionError(f"{path}: cannot be read ({error}); {mend}") from None


def held(path: Path, sha256: str, mend: str) -> bytes:
    """The `content` of a file, whose SHA-256 (hex) must be this one. Raises EditionError."""
    data = content(path, mend)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise EditionError(f"{path}: is not the edition that was meant; {mend}")
    return data


def catalogued(entry: Mapping[str, str], folder: Path) -> bytes:
    """The `content` of a catalogue's entry: a committed `file` of the folder, or of a `package`.

    The package is found without importing it. Raises EditionError.
    """
    package = entry.get("package")
    if package is None:
        return held(folder / entry["file"], entry["sha256"], "restore it with `git checkout`")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise EditionError(f"{entry['file']}: package {package} is not installed; run `make setup`")
    return held(Path(spec.origin).parent / entry["file"], entry["sha256"], "run `make setup`")
