"""The one error of the specimen room: a line that names the file and the mend."""


class SpecimenError(ValueError):
    """A specimen cannot be had or read; the message is one line for the reader."""


def need(condition: object, why: str) -> None:
    """Raise SpecimenError(why) unless `condition` holds: a chapter cannot show this specimen."""
    if not condition:
        raise SpecimenError(why)
