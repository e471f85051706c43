"""Keep what a chapter settled at full scale: hours of computing that no reader need repeat."""

import datetime
import platform
from pathlib import Path
from typing import Any

import yaml

from lib import artifacts, claims, digests, files, paths, scale

HEADER = """\
# Results of runs at full scale, the sources' own sizes: what a chapter settled, and the artefacts
# that it stands on, by digest. `BOOK_SCALE=full python -m lib keep CHAPTER` writes this file.
"""


def gather(chapter: str, generators: list[str]) -> claims.Kept:
    """What `chapter` settled at the current scale and the artefacts of its `generators`.

    Only artefacts made at the current scale and with its own parameters are taken. Raises
    claims.ClaimError if the chapter settled nothing here.
    """
    mine = {id for id, claim in claims.ledger().items() if claim.chapter == chapter}
    found = {id: record for id, record in claims.verdicts().items() if id in mine}
    if not found:
        raise claims.ClaimError(
            f"{chapter} settled nothing at {scale.current()} scale; run it first:\n"
            f"  BOOK_SCALE={scale.current()} python -m lib run chapters/{chapter}.qmd"
        )
    made = [artifacts.opened(path).provenance | {"file": path.name} for path in artifacts.every()]
    full = [
        one for one in made if one["chapter"] in generators and one.get("scale") == scale.current()
    ]
    torch = f", torch {made[0]['versions'].get('torch', '?')}" if made else ""
    return claims.Kept(
        chapter=chapter,
        date=datetime.date.today().isoformat(),
        machine=f"{platform.machine()}{torch}",
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
    entries = []
    for (chapter, name), many in groups.items():
        entry = {"name": many[0]["file"] if len(many) == 1 else f"{name}, {len(many)} files"}
        for kind in ("digest", "content"):
            together = [one[kind] for one in many]
            entry[kind] = together[0] if len(many) == 1 else digests.of_value(together)
        seconds = round(sum(one["seconds"] for one in many), 3)
        entries.append(entry | {"chapter": chapter, "seconds": seconds})
    return entries


def keep(entry: claims.Kept, path: Path = paths.FULL_RUNS) -> None:
    """Write `entry` into the file, in place of what was kept of the same chapter."""
    kept = claims.full_runs(path) | {entry.chapter: entry}
    fields = ("date", "machine", "artefacts", "claims")
    plain = {
        name: {field: getattr(one, field) for field in fields} for name, one in sorted(kept.items())
    }
    text = HEADER + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1000)
    files.write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
    if path == paths.FULL_RUNS:
        files.record()
