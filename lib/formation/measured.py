"""Centres taken from a whole matrix: its cluster's own holes instead of what notebooks printed.

The sources used two: the population-weighted mean of the holes in the matrix as it is
(13.3a_monument_valley_simulation), and the same mean in the mean-centred matrix
(09.1b_black_hole_centroid, 12.2b_sigma_fixed_mps_trials).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib import lattice
from lib.specimens.errors import SpecimenError
from lib.specimens.specimen import Specimen
from lib.survey import census, clusters

KINDS = {
    "holes": "the population-weighted mean of its cluster's holes",
    "largest": "its largest hole, a lattice point",
    "centred": "the holes' weighted mean less the mean of all rows",
}


@dataclass(frozen=True)
class Measured:
    """The holes of a matrix's dead cluster, and the three centres that follow from them."""

    bits: np.ndarray  # (H, D) uint16, the most populous hole first
    populations: np.ndarray  # (H,) int64, descending
    mean_row: np.ndarray  # (D,) float64: the mean of all rows of W

    @cached_property
    def _weighted(self) -> np.ndarray:
        values = lattice.value(self.bits).astype(np.float64)
        return self.populations @ values / self.populations.sum()

    def centre(self, kind: str) -> np.ndarray:
        """(D,) float32 centre of KINDS, computed in float64 and rounded once. Raises ValueError."""
        if kind == "largest":
            return lattice.value(self.bits[0])
        if kind == "holes":
            return self._weighted.astype(np.float32)
        if kind == "centred":
            return (self._weighted - self.mean_row).astype(np.float32)
        raise ValueError(f"no centre {kind!r}; there are {', '.join(KINDS)}")


def of(specimen: Specimen) -> Measured:
    """Holes and mean row of a whole BF16 matrix; of its dead cluster's holes where it has one.

    Raises SpecimenError if only an extract is at hand, in another precision, or without holes.
    """
    if specimen.precision != "BF16":
        raise SpecimenError(
            f"{specimen.id}: is {specimen.precision}, and a snowball needs the bfloat16 lattice; "
            "take a BF16 matrix"
        )
    found = census.duplicates(specimen.bits)
    first = found.first_ids
    if not len(first):
        raise SpecimenError(f"{specimen.id}: no two rows are identical: it has no hole to start at")
    ball = clusters.dead_ball(specimen, found)
    inside = np.isin(first, ball.ids) if ball is not None else np.ones(len(first), bool)
    total = np.zeros(specimen.dim)
    for _, values in specimen.chunks():
        total += values.sum(axis=0, dtype=np.float64)
    bits = np.asarray(specimen.bits[first[inside]], np.uint16)
    return Measured(bits, found.populations[inside], total / specimen.rows)
