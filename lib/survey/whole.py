"""The dead cluster of a whole matrix, on its lattice: what an extract or a table cannot say.

The book is written so that it can be read without Qwen3-4B's matrix. Where the matrix has been
fetched, the chapters ask here for what had to wait for it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib import lattice, specimens
from lib.specimens.specimen import Specimen
from lib.survey import census, clusters, voids
from lib.survey.census import Census
from lib.survey.clusters import Rule

MODEL = "qwen3-4b"
PHANTOMS_FROM = 151_669  # Qwen's last token is 151,668; rows from here on belong to none


@dataclass(frozen=True)
class Cluster:
    """A dead cluster in a whole bf16 matrix."""

    specimen: Specimen
    census: Census

    @cached_property
    def distances(self) -> np.ndarray:
        """(rows,) float64 L2 distances to the anchor, a row of the most populous hole."""
        return clusters.anchor_distances(self.specimen, self.census)[0]

    def members(self, rule: Rule) -> np.ndarray:
        """(n,) int64 ids of the cluster under one of the rules EXPONENTS, CORE, KISSING, GRAPH or
        WIDEST_GAP, ascending. Raises ValueError for another rule, or a graph that is too large."""
        if rule is Rule.EXPONENTS:
            return np.flatnonzero(clusters.exponent_gaps(self.specimen, self.anchor) == 0)
        if rule is Rule.CORE:
            return np.flatnonzero(self.distances < clusters.CORE_RADIUS)
        if rule is Rule.WIDEST_GAP:
            holes = np.flatnonzero(np.isin(self.census.group, self.census.first_ids))
            return clusters.void_rule(self.specimen, self.census, holes).ids
        if rule not in (Rule.KISSING, Rule.GRAPH):
            raise ValueError(f"{rule} is not offered here; see lib.survey.clusters.memberships")
        joined = getattr(clusters, rule.name.lower())(self.specimen, self.census, self.distances)
        if joined is None:
            raise ValueError(f"{self.specimen.id}: the component under {rule} is too large to draw")
        return joined

    @property
    def anchor(self) -> int:
        """Id of the row that the distances are from."""
        return clusters.anchor(self.specimen, self.census)

    def rows(self, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
        """((n, dim) uint16 distinct rows, most populous first, (n,) tokens on each)."""
        first, tokens = np.unique(self.census.group[self.members(rule)], return_counts=True)
        order = np.argsort(-tokens, kind="stable")
        return np.ascontiguousarray(self.specimen.bits[first[order]]), tokens[order]

    @cached_property
    def holes(self) -> tuple[np.ndarray, np.ndarray]:
        """The black holes of the cluster, as `rows`: those no farther than the void."""
        ids = self.census.first_ids
        void = voids.significant(self.distances)
        near = ids[self.distances[ids] <= (np.inf if void is None else void.inner)]
        counts = np.bincount(self.census.group, minlength=self.census.rows)
        return np.ascontiguousarray(self.specimen.bits[near]), counts[near]

    def sample(self, size: int, *, rng: np.random.Generator) -> np.ndarray:
        """(size, dim) float32: rows drawn from those outside the void, ids ascending."""
        void = voids.significant(self.distances)
        outside = np.flatnonzero(self.distances > (0 if void is None else void.inner))
        drawn = rng.choice(outside, min(size, len(outside)), replace=False)
        return self.specimen.values(np.sort(drawn))

    def phantoms(self) -> list[int]:
        """Rows without a token in each black hole, most populous hole first."""
        return [int((ids >= PHANTOMS_FROM).sum()) for _, ids in self.census.every_hole()]


def constant_dimensions(bits: np.ndarray, mean: np.ndarray | None = None) -> int:
    """Dimensions in which all rows of `bits` (n, dim) uint16 agree; less the float32 `mean` (dim,),
    in float32, if one is given (the subtraction can merge values, and never parts them)."""
    if mean is None:
        return int((np.ptp(lattice.ordinal(bits), axis=0) == 0).sum())
    return int((np.ptp(lattice.value(bits) - mean.astype(np.float32), axis=0) == 0).sum())


def find(id: str = MODEL) -> Cluster | None:
    """The cluster of specimen `id` if its whole bf16 matrix is at hand, else None; says which."""
    try:
        specimen = specimens.open(id)
    except specimens.SpecimenError as error:
        print(f"without the whole matrix: {error}")
        return None
    if not specimen.is_full or specimen.precision != "BF16":
        print(f"without a whole bfloat16 matrix of {id}: {specimen.source}")
        return None
    print(f"read {specimen.source}")
    return Cluster(specimen, census.duplicates(specimen.bits))
