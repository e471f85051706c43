"""One way from a generator chapter to its readers.

A generator keeps what it makes under names; a reader asks for the chapter and gets artefacts,
recipes (worlds and runs among them) and parameters as they were made. Between the two lies a small
file a chapter, scale and set of parameters, so what was made with given parameters is found only by
a reader to whom the same were given.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lib import artifacts, digests, files, paths, progress, scale
from lib.artifacts import Artifact, ArtifactMissing, Recipe

Entry = Artifact | dict[str, Artifact]  # one artefact, or several by label


class Generator:
    """The running generator chapter: `keep` makes an artefact and remembers it by name."""

    def __init__(self, chapter: str, parameters: Mapping[str, Any]):
        self.chapter, self.parameters = chapter, dict(parameters)
        self.entries: dict[str, Entry] = {}

    def keep(self, name: str, recipe: Recipe | Mapping[str, Recipe]) -> Any:
        """The artefact of `recipe`, or a dict of those of several, made where they are not there.

        Each of several is an artefact of its own: what was done of many survives a kill.
        """
        if isinstance(recipe, Recipe):
            self.entries[name] = artifacts.cached(recipe, self.chapter)
        else:
            watched = progress.bar(recipe.items(), desc=name, unit="run")
            self.entries[name] = {
                label: artifacts.cached(one, self.chapter) for label, one in watched
            }
        record = {
            "chapter": self.chapter,
            "parameters": digests.plain(self.parameters),
            "entries": {name: _places(entry) for name, entry in self.entries.items()},
        }
        text = json.dumps(artifacts.sealed(record), indent=1)
        path = _file(self.chapter, self.parameters)
        files.write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
        return self.entries[name]


class Made:
    """What a generator chapter made; each artefact is opened and verified when it is asked for."""

    def __init__(self, chapter: str, parameters: Mapping[str, Any], places: Mapping[str, Any]):
        self.chapter = chapter
        self.parameters = SimpleNamespace(**parameters)  # of the chapter, as they stood
        self.places = dict(places)
        self.opened: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Any:
        """The artefact, or the dict of artefacts by label, kept under `name`.

        Raises ArtifactMissing, with the command that makes it, if there is none or it is stale,
        ArtifactError if its file is damaged.
        """
        if name not in self.places:
            raise ArtifactMissing(
                f"{self.chapter} kept no {name!r}; it kept {', '.join(self.places) or 'nothing'}. "
                f"Run it again:\n  {_command(self.chapter)}"
            )
        if name not in self.opened:
            self.opened[name] = _opened(self.places[name], self.chapter)
        return self.opened[name]

    @property
    def summary(self) -> str:
        """One line: what was read so far, and how long it took to make."""
        every = []
        for entry in self.opened.values():
            every += entry.values() if isinstance(entry, dict) else [entry]
        seconds = sum(one.seconds for one in every)
        what = f"{len(every)} artefact{'s' * (len(every) != 1)}"
        size = artifacts.size(one.path for one in every)
        return f"read {what} of {self.chapter} ({size}), made in {seconds:.1f} s"


def stack(artefacts: Mapping[str, Artifact], name: str) -> np.ndarray:
    """The arrays `name` of several artefacts, one along the first axis."""
    return np.stack([artefact[name] for artefact in artefacts.values()])


def load(chapter: str) -> Made:
    """What generator `chapter` made at the scale in force, never computed here.

    Raises ArtifactMissing, with the command that runs it, if it has not run.
    """
    settings = scale.settings(chapter)
    path = _file(chapter, settings)
    try:
        record = artifacts.unsealed(json.loads(path.read_text(encoding="utf-8")))
        return Made(chapter, record["parameters"], record["entries"])
    except FileNotFoundError:
        raise ArtifactMissing(
            f"{chapter} has not run at {scale.current()} scale with these parameters; run it:\n"
            f"  {_command(chapter)}"
        ) from None
    except (OSError, *artifacts.MALFORMED) as error:
        raise ArtifactMissing(
            f"{path}: is damaged ({error!r}); run the chapter again:\n  {_command(chapter)}"
        ) from None


def _opened(place: Any, chapter: str) -> Entry:
    """The artefacts at a place of the record, if today's code would make the same."""
    if isinstance(place, dict):
        return {label: _opened(inner, chapter) for label, inner in place.items()}
    path = paths.ARTIFACTS / place
    if not path.exists():
        raise ArtifactMissing(f"{path.name} is missing; make it with\n  {_command(chapter)}")
    found = artifacts.opened(path)
    if artifacts.identify(found.recipe)[1] != found.digest:
        raise ArtifactMissing(
            f"{path.name} is stale (its sources or inputs changed); make it again with\n"
            f"  {_command(chapter)}"
        )
    return found


def _places(entry: Entry) -> Any:
    """Where the artefacts of an entry lie, from the artefacts' folder."""
    if isinstance(entry, dict):
        return {label: _places(one) for label, one in entry.items()}
    return entry.path.relative_to(paths.ARTIFACTS).as_posix()


def _file(chapter: str, parameters: Mapping[str, Any]) -> Path:
    digest = digests.of_value(parameters)[: artifacts.DIGEST_CHARACTERS]
    return paths.MADE / scale.current() / f"{chapter}-{digest}.json"


def _command(chapter: str) -> str:
    """The command line that runs the chapter with the parameters it is read with."""
    settings = scale.settings(chapter)
    usual = {**scale.literals(chapter), **scale.overrides(chapter, scale.current())}
    given = [f"-p {name}={value}" for name, value in settings.items() if usual[name] != value]
    return " ".join(["python -m lib run", f"chapters/{chapter}.qmd", *given])
