"""`open(id)`: the best of a specimen that is at hand, and a line that says which it was."""

from lib.specimens import catalogue, extracts, planted
from lib.specimens.errors import SpecimenError
from lib.specimens.specimen import Specimen


def open(id: str) -> Specimen:
    """The specimen `id` of the catalogue: its whole matrix if fetched, else its committed extract.

    Raises SpecimenError where neither is at hand, with the command that fetches it.
    """
    description = catalogue.find(id)
    for source in description.sources:
        if isinstance(source, catalogue.Extract):
            return extracts.read(description, source)
        if isinstance(source, catalogue.Planted):
            return planted.read(description, source)
    raise SpecimenError(f"{id}: not at hand; run `python -m lib fetch {id}`")
