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

from lib import artifacts, claims, digests, files, paths, scale

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

    Only artefacts made at the current scale and with its own parameters are taken. Raises
    FullRunError if the chapter settled nothing here.
    """
    mine = {id for id, claim in claims.ledger().items() if claim.chapter == chapter}
    found = {id: record for id, record in claims.verdicts().items() if id in mine}
    if not found:
        raise FullRunError(
            f"{chapter} settled nothing at {scale.current()} scale; run it first:\n"
            f"  BOOK_SCALE={scale.current()} python -m lib run chapters/{chapter}.qmd"
        )
    made = [artifacts.verify(path) | {"file": path.name} for path in artifacts.every()]
    full = [
        one for one in made if one["chapter"] in generators and one.get("scale") == scale.current()
    ]
    return Kept(
        chapter=chapter,
        date=datetime.date.today().isoformat(),
        machine=f"{platform.machine()}, torch {made[0]['versions'].get('torch', '?')}"
        if made
        else platform.machine(),
        artefacts=_groups(full),
        claims={
            id: {name: record[name] for name in ("measured", "setting", "verdict")}
            for id, record in sorted(found.items())
        },
    )


def _groups(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Artefacts of one recipe and chapter as one entry; digests of several are digested together.

    In the order of their files' names.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in made:
        groups.setdefault((one["chapter"], one["name"]), []).append(one)
    return [
        {
            "name": many[0]["file"] if len(many) == 1 else f"{name}, {len(many)} files",
            **{
                kind: many[0][kind]
                if len(many) == 1
                else digests.of_value([one[kind] for one in many])
                for kind in ("digest", "content")
            },
            "chapter": chapter,
            "seconds": round(sum(one["seconds"] for one in many), 3),
        }
        for (chapter, name), many in groups.items()
    ]


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
