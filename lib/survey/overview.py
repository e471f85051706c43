"""The survey of many matrices: census, void and spike of each, on one line."""

from dataclasses import dataclass

import numpy as np

from lib import plots
from lib.specimens import catalogue, opening, store, trained
from lib.specimens.catalogue import Description, Extract, Planted, Trained
from lib.specimens.specimen import Specimen
from lib.survey import census, clusters, spike
from lib.survey.census import Census
from lib.survey.clusters import DeadBall
from lib.survey.spike import Spike

HEADERS = ("matrix", "rows", "width", "bits", "black holes", "rows in them", "largest",
           "rows in the void", "surprise", "spike")  # fmt: skip
ALIGN = "lrrlrrrrrr"


@dataclass(frozen=True)
class Surveyed:
    """What the instruments say of one matrix. `census` is None where no row is whole."""

    specimen: Specimen
    census: Census | None
    ball: DeadBall | None  # None: no void beyond chance
    spike: Spike

    def cells(self) -> list[str]:
        """One line of the table, under HEADERS; quantised counts in brackets."""
        s, exact = self.specimen, self.specimen.precision in ("BF16", "F16", "F32")
        counts = ["–"] * 3
        if self.census is not None:
            largest = int(self.census.populations[0]) if self.census.holes else 0
            counts = [plots.fmt(n) for n in (self.census.holes, self.census.hole_rows, largest)]
            counts = counts if exact else [f"({n})" for n in counts]
        void = ["none", "–"]
        if self.ball is not None:
            void = [plots.fmt(len(self.ball.ids)), plots.fmt(round(self.ball.void.surprise))]
        return [s.description.model, plots.fmt(s.rows), plots.fmt(s.dim), s.precision, *counts,
                *void, plots.fmt(round(self.spike.surprise))]  # fmt: skip


def at_hand() -> list[Specimen]:
    """Every specimen of the catalogue of which every row's length and place is on this machine.

    Of the matrices that this book trains, those that were trained at the scale in force.
    """
    found = [opening.open(d.id) for d in catalogue.CATALOGUE if _is_here(d)]
    return [s for s in found if s.is_full or "dist" in s.arrays]  # some extracts hold a few rows


def survey(specimen: Specimen) -> Surveyed:
    """Point all instruments at one matrix."""
    counted = None
    if specimen.is_full or "row_group" in specimen.arrays:
        counted = census.of(specimen)
    start = counted or Census(np.arange(specimen.rows))  # no two rows are known to be equal
    ball = clusters.dead_ball(specimen, start)
    return Surveyed(specimen, counted, ball, spike.find(specimen.norms))


def to_train() -> list[Description]:
    """The specimens that this book trains and has not trained here, at the scale in force."""
    return [d for d in catalogue.CATALOGUE if is_trained(d) and not _is_here(d)]


def is_trained(description: Description) -> bool:
    """Whether a chapter of this book trains the specimen."""
    return any(isinstance(source, Trained) for source in description.sources)


def _is_here(description: Description) -> bool:
    if is_trained(description):
        return trained.find(description.id) is not None
    local = any(isinstance(s, Extract | Planted) for s in description.sources)
    return local or store.path_of(description.id).exists()
