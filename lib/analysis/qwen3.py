"""The thirteen holes of Qwen3-4B-Instruct-2507, from their printed bit patterns.

The original notebooks printed, for each of the 20 dimensions in which the holes differ, the bf16
pattern of every hole; in the other 2,540 dimensions all thirteen are alike. So their differences
are known completely although the matrix itself is not in the book.
"""

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from lib import lattice, paths

PATTERNS = paths.QWEN3 / "qwen3_black_hole_bits_13x20.json"
PRINTED = paths.QWEN3 / "printed_lattice.json"
MEMBERS = paths.QWEN3 / "qwen3_black_holes_membership_partial.json"


@dataclass(frozen=True)
class Holes:
    """Black holes by population, and their patterns in the dimensions where they differ."""

    bits: np.ndarray  # (holes, varying dims) uint16
    dims: np.ndarray  # (varying dims,) which of the `dim` dimensions
    populations: np.ndarray  # (holes,) rows in each hole, descending
    dim: int  # dimensions of the whole row

    @cached_property
    def ordinals(self) -> np.ndarray:
        """(holes, varying dims) int32 lattice coordinates."""
        return lattice.ordinal(self.bits)

    @cached_property
    def displacement(self) -> np.ndarray:
        """(holes, varying dims) int32 steps from the largest hole."""
        return lattice.steps(self.bits[:1], self.bits)

    @property
    def names(self) -> list[str]:
        """H1 (the most populous) to H13."""
        return [f"H{rank}" for rank in range(1, len(self.populations) + 1)]


def thirteen() -> Holes:
    """The printed thirteen holes. Raises ValueError if the file does not fit together."""
    data = json.loads(PATTERNS.read_text(encoding="utf-8"))
    bits = np.array(data["uint16"], dtype=np.uint16)
    dims, populations = np.array(data["dims"]), np.array(data["populations"])
    if bits.shape != (len(populations), len(dims)) or len(np.unique(bits, axis=0)) != len(bits):
        raise ValueError(f"{PATTERNS.name}: patterns, dims and populations do not fit together")
    return Holes(bits, dims, populations, printed_lattice()["dim"])


def printed_lattice() -> dict:
    """Other figures that the original notebooks printed about the cluster on the lattice."""
    return json.loads(PRINTED.read_text(encoding="utf-8"))


def printed_exponents() -> tuple[np.ndarray, np.ndarray]:
    """((k,), (k,)) int: exponent fields of the largest hole's components, and their counts."""
    table = printed_lattice()["exponents_of_largest_hole"]
    exponents = np.array([int(e) for e in table])
    counts = np.array(list(table.values()))
    if counts.sum() != printed_lattice()["dim"]:
        raise ValueError(f"{PRINTED.name}: the exponents' counts do not add up to the dimensions")
    return exponents, counts


def known_members() -> list[tuple[int, np.ndarray]]:
    """[(population, (n,) ids known)] of each hole by rank.

    The lists of holes 5 to 13 are complete; those of holes 1 to 4 hold at least the ten largest
    ids, so whatever lies above a list's largest id is not in that hole.
    """
    data = json.loads(MEMBERS.read_text(encoding="utf-8"))
    return [(hole["size"], np.array(hole["known_ids"])) for hole in data["holes"]]


def cluster_ids() -> tuple[np.ndarray, np.ndarray]:
    """((2100,) ids in black holes, (112,) ids of the L2 graph's singletons), ascending."""
    holes = json.loads((paths.QWEN3 / "qwen3_black_hole_tokens_2100.json").read_text("utf-8"))
    single = json.loads((paths.QWEN3 / "qwen3_cluster_singletons_112.json").read_text("utf-8"))
    return np.array(holes["token_ids"]), np.array(single["singletons_112"])


@lru_cache
def printed_figures() -> dict:
    """The figures that the original notebooks printed: data/qwen3/printed_figures.json."""
    return json.loads((paths.QWEN3 / "printed_figures.json").read_text(encoding="utf-8"))


def exponents() -> np.ndarray:
    """(2560,) int64 exponent fields of the largest hole, ascending: the printed histogram."""
    histogram = printed_figures()["largest_hole_exponents"]
    return np.repeat([int(e) for e in histogram], list(histogram.values()))


MODEL = "qwen3-4b"
PHANTOMS_FROM = 151_669  # Qwen's last token is 151,668; rows from here on belong to none
