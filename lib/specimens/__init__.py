"""Specimens: one unembedding matrix each, with its tokenizer, dtype and provenance."""

from lib.specimens.errors import SpecimenError, need
from lib.specimens.local import of_array
from lib.specimens.opening import open
from lib.specimens.specimen import Specimen

__all__ = ["Specimen", "SpecimenError", "need", "of_array", "open"]
