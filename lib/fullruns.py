"""Results of runs at full scale, kept: hours of computing that a reader need not repeat to read of.

`data/full_runs.yml` is written by `BOOK_SCALE=full python -m lib keep CHAPTER` on the machine where
the chapter has just run: what it settled, and which artefacts stand behind it, by digest. A chapter
may quote it, beside its own numbers and never in their place.
"""

import datetime
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lib import artifacts, claims, files, paths, scale

FILE = paths.DATA / "full_runs.yml"
HEADER = """\
# Results of runs at full scale, the sources' own sizes: what a chapter settled, and the artefacts
# that it stands on, by digest. `BOOK_SCALE=full python -m lib keep CHAPTER` writes this file.
"""


class FullRunError(ValueError):
    """There is nothing to keep, or the file of kept runs is malformed."""


@dataclass(frozen=True)
class Kept:
    """One chapter's results at full scale."""

    chapter: str
    date: str  # ISO
    machine: str
    artefacts: list[dict[str, Any]]  # name, digest, content (both SHA-256), chapter, seconds
    claims: dict[str, dict[str, Any]]  # id -> measured, setting, verdict

    @property
    def seconds(self) -> float:
        """Seconds that the artefacts took to make."""
        return sum(artefact["seconds"] for artefact in self.artefacts)


def read(path: Path = FILE) -> dict[str, Kept]:
    """Kept results by chapter; empty if there is no file. Raises FullRunError if malformed."""
    if not path.exists():
        return {}
    try:
        entries = files.read_yaml(path) or {}
        return {name: Kept(chapter=name, **entry) for name, entry in entries.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise FullRunError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def measured(id: str, kept: dict[str, Kept]) -> dict[str, Any] | None:
    """What was measured of claim `id` at full scale (measured, setting, verdict), or None."""
    return next((entry.claims[id] for entry in kept.values() if id in entry.claims), None)


def gather(chapter: str, generators: list[str]) -> Kept:
    """What `chapter` settled at the current scale and the artefacts of its `generators`.

    Only artefacts made with the parameters of the current scale are taken. Raises FullRunError if
    the chapter settled nothing here.
    """
    mine = {id for id, claim in claims.ledger().items() if claim.chapter == chapter}
    found = {id: record for id, record in claims.verdicts().items() if id in mine}
    if not found:
        raise FullRunError(
            f"{chapter} settled nothing at {scale.current()} scale; run it first:\n"
            f"  BOOK_SCALE={scale.current()} python -m lib run chapters/{chapter}.qmd"
        )
    made = [artifacts.verify(path) | {"file": path.name} for path in artifacts.every()]
    wanted = {name: scale.overrides(name, scale.current()) for name in generators}
    kept = [
        {
            "name": one["file"],
            "digest": one["digest"],
            "content": one["content"],
            "chapter": one["chapter"],
            "seconds": one["seconds"],
        }
        for one in made
        if one["chapter"] in wanted and agrees(one["parameters"], wanted[one["chapter"]])
    ]
    return Kept(
        chapter=chapter,
        date=datetime.date.today().isoformat(),
        machine=f"{platform.machine()}, torch {made[0]['versions'].get('torch', '?')}"
        if made
        else platform.machine(),
        artefacts=kept,
        claims={
            id: {name: record[name] for name in ("measured", "setting", "verdict")}
            for id, record in sorted(found.items())
        },
    )


def agrees(parameters: Any, changes: dict[str, Any]) -> bool:
    """Whether each of `changes` that occurs anywhere in nested `parameters` has the value there."""
    if isinstance(parameters, list):
        return all(agrees(item, changes) for item in parameters)
    if not isinstance(parameters, dict):
        return True
    return all(
        (name not in changes or changes[name] == value) and agrees(value, changes)
        for name, value in parameters.items()
    )


def keep(entry: Kept, path: Path = FILE) -> None:
    """Write `entry` into the file, in place of what was kept of the same chapter."""
    kept = read(path) | {entry.chapter: entry}
    plain = {
        name: {
            "date": one.date,
            "machine": one.machine,
            "artefacts": one.artefacts,
            "claims": one.claims,
        }
        for name, one in sorted(kept.items())
    }
    text = HEADER + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1000)
    files.write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
