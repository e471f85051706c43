"""A release in one file: the sources of the commit and the book that was rendered from them.

The same commit and the same rendered book give the same bytes: members in the order of their
names, dated as the commit is, nothing of the machine. Deposited as it is, it can bear a DOI.
"""

import datetime
import io
import subprocess
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path

import yaml

from lib import files, scale

CITATION = "CITATION.cff"


class ArchiveError(RuntimeError):
    """What is here is no release; the message says what is amiss and how to mend it."""


def cited(root: Path) -> tuple[str, str, str]:
    """The package's name, and version and day as CITATION.cff says them.

    Raises ArchiveError if pyproject.toml says another version, or if the day is none.
    """
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        package, wanted = project["name"], project["version"]
        said = dict(files.read_yaml(root / CITATION))
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ArchiveError(f"{CITATION} or pyproject.toml cannot be read: {reason}") from error
    version, day = str(said.get("version")), said.get("date-released")
    if version != wanted:
        raise ArchiveError(f"{CITATION}: version {version}, but pyproject.toml says {wanted}")
    if not isinstance(day, datetime.date):
        raise ArchiveError(f"{CITATION}: date-released {day} is no day: write it as 2026-01-31")
    return package, version, day.isoformat()


def name(root: Path) -> str:
    """What the archive is called: `dead-tokens-0.1.0`; untagged, the commit too.

    Raises ArchiveError if the tree has changes, as `cited` does, or if the commit's tag or day
    are not those that CITATION.cff says.
    """
    if _git(root, "status", "--porcelain"):
        raise ArchiveError("the tree has changes that are in no commit: commit or remove them")
    package, version, day = cited(root)
    words = [package, version]
    if tags := [tag for tag in _git(root, "tag", "--points-at").split() if tag.startswith("v")]:
        if f"v{version}" not in tags:
            raise ArchiveError(f"{CITATION}: version {version}, but the tag is {', '.join(tags)}")
        if day != (committed := _git(root, "log", "-1", "--format=%cs")):
            raise ArchiveError(f"{CITATION}: date-released {day}, but the commit is of {committed}")
    else:
        words.append(_git(root, "rev-parse", "--short=12", "HEAD"))
    if scale.current() != "book":
        words.append(scale.current())
    return "-".join(words)


def write(root: Path, rendered: Path, folder: Path) -> Path:
    """Pack the sources of HEAD and the book at `rendered` into one zip in `folder`.

    Raises ArchiveError as `name` does, and where there is no rendered book.
    """
    stem = name(root)
    if not (rendered / "index.html").is_file() or not list(rendered.glob("*.pdf")):
        raise ArchiveError(f"{rendered.name}: no rendered book with its PDF: run make book")
    tar = io.BytesIO(_output(root, "archive", "--format=tar", "HEAD"))
    with tarfile.open(fileobj=tar) as sources:
        members = {
            member.name: (sources.extractfile(member).read(), member.mode & 0o777)
            for member in sources
            if member.isfile()
        }
    for file in rendered.rglob("*"):
        if file.is_file():
            members[f"_book/{file.relative_to(rendered).as_posix()}"] = file.read_bytes(), 0o644
    committed = time.gmtime(int(_git(root, "log", "-1", "--format=%ct")))

    def pack(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, (content, mode) in sorted(members.items()):
                entry = zipfile.ZipInfo(f"{stem}/{member}", committed[:6])
                entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
                entry.external_attr = (0o100000 | mode) << 16
                archive.writestr(entry, content)

    path = folder / f"{stem}.zip"
    files.write_atomically(path, pack)
    return path


def _git(root: Path, *words: str) -> str:
    return _output(root, *words).decode().strip()


def _output(root: Path, *words: str) -> bytes:
    answer = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=False)
    if answer.returncode:
        raise ArchiveError(f"git {words[0]}: {answer.stderr.decode().strip()}")
    return answer.stdout
