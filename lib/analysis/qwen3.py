"""Qwen3-4B-Instruct-2507 as the original notebooks printed it: every fact of data/qwen3, once.

Of its elder sister Qwen2.5-3B-Instruct they printed who sits in which hole, which is here too.

The matrix itself is not in the book. But of each of the 20 dimensions in which the thirteen holes
differ the notebooks printed the bf16 pattern of every hole, and in the other 2,540 all thirteen
agree, so their differences are known completely; so are the ids of the cluster, and the exponents
of the largest hole's components.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from lib import files, lattice, paths
from lib.claims import Measured
from lib.extraction.specimens import Specimen

MODEL = "qwen3-4b"  # its id in the catalogue
MEMBERS = {
    MODEL: "qwen3_black_holes_membership_partial.json",
    "qwen2.5-3b": "qwen2.5_3b_black_holes_membership_partial.json",
}
PHANTOMS_FROM = 151_669  # Qwen's last token is 151,668; rows from here on belong to none


@lru_cache
def _read(file: str) -> dict[str, Any]:
    return json.loads(files.checked(paths.QWEN3 / file).read_text(encoding="utf-8"))


def printed(topic: str) -> dict[str, Any]:
    """Printed figures about "census", "lattice", "spike", "figures" (sampling) or "comparison"."""
    return _read("qwen3_comparison.json" if topic == "comparison" else f"printed_{topic}.json")


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
    data = _read("qwen3_black_hole_bits_13x20.json")
    bits = np.array(data["uint16"], dtype=np.uint16)
    dims, populations = np.array(data["dims"]), np.array(data["populations"])
    if bits.shape != (len(populations), len(dims)) or len(np.unique(bits, axis=0)) != len(bits):
        raise ValueError("data/qwen3: patterns, dims and populations do not fit together")
    return Holes(bits, dims, populations, printed("lattice")["dim"])


def exponents() -> np.ndarray:
    """(2560,) int64 exponent fields of the largest hole's components, ascending.

    Raises ValueError if the printed counts do not add up to the dimensions.
    """
    table = printed("lattice")["exponents_of_largest_hole"]
    fields = np.repeat([int(exponent) for exponent in table], list(table.values()))
    if len(fields) != printed("lattice")["dim"]:
        raise ValueError("data/qwen3: the exponents' counts do not add up to the dimensions")
    return fields


def measured_on(matrix: Specimen, what: str) -> Callable[[Any], Measured]:
    """value -> Measured: a claim about Qwen3-4B's matrix is settled by nothing else but itself."""
    itself = matrix.id == MODEL and matrix.is_full
    setting = f"{what} of {matrix.description.model}" if itself else ""
    return lambda value: Measured(value if itself else None, setting)


def membership(model: str = MODEL) -> list[tuple[int, np.ndarray]]:
    """[(population, (n,) ids known, ascending)] of each hole by rank.

    Of Qwen3-4B the lists of holes 5 to 13 are complete; those of holes 1 to 4 hold at least the
    twenty smallest and the ten largest ids. Of "qwen2.5-3b" every list holds the twenty smallest
    ids, and is complete where the hole has no more. So whatever lies below a list's first id is
    not in that hole, nor, for Qwen3-4B, what lies above its last. KeyError for another model.
    """
    holes = _read(MEMBERS[model])["holes"]
    return [(hole["size"], np.array(hole["known_ids"])) for hole in holes]


def outliers() -> dict[str, Any]:
    """The ten outliers of seed 001, IV C: `token_ids`, `distances`, and what else is printed."""
    return _read("qwen3_outliers_10.json")


def hole_ids() -> np.ndarray:
    """(2100,) ids in black holes, ascending."""
    return np.array(_read("qwen3_black_hole_tokens_2100.json")["token_ids"])


def singleton_ids() -> np.ndarray:
    """(112,) ids of the L2 graph's singletons, ascending."""
    return np.array(_read("qwen3_cluster_singletons_112.json")["singletons_112"])


def cluster_ids() -> np.ndarray:
    """(2212,) ids of the cluster under the L2 graph's rule: holes and singletons, ascending."""
    return np.array(_read("qwen3_cluster_2212.json")["token_ids"])
