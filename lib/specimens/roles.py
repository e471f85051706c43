"""Roles: what a chapter asks for when it means "the model of this book", whatever is here.

A role is a list of specimens, the one that is meant first. Of the first only the whole matrix will
do; where it has not been fetched the next one stands in, and the specimen's source line says so.
"""

from lib.specimens import catalogue, store

ROLES: dict[str, tuple[str, ...]] = {
    "subject": ("qwen3-4b", "qwen2.5-coder-0.5b"),  # any rows of the dead cluster
    "released": ("qwen3-4b", "whisper-base"),  # rows as released, bit by bit
}


def resolve(name: str) -> str:
    """The id of the catalogue that `name`, a role or an id, stands for on this machine."""
    if name not in ROLES:
        return name
    *wanted, last = ROLES[name]
    return next((id for id in wanted if store.path_of(id).exists()), last)


def remark(name: str) -> str:
    """What the reader must be told of the stand-in for a role; "" where there is none."""
    if name not in ROLES or resolve(name) == ROLES[name][0]:
        return ""
    meant = catalogue.find(ROLES[name][0])
    return (
        f" (it stands in for {meant.model}, which is not here; "
        f"`python -m lib fetch {meant.id}` brings it)"
    )
