"""The makers of the committed extracts: what of a released matrix is small enough to keep here.

Each takes a whole matrix and writes one safetensors file of data/specimens with the metadata key
`extract`, which says what every array is. `python -m lib cut ID` runs them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from lib import files
from lib.analysis import census, geometry
from lib.extraction.catalogue import Description, SpecimenError
from lib.extraction.specimens import Specimen

SEED = 42
Q8_BLOCK = 32  # values of a Q8_0 matrix that share one scale
AXES = 6  # principal axes that are kept, and
VARIANCES = 10  # variances along the first


def cut_q8_0(
    whole: Specimen, description: Description, path: Path, *, ids: np.ndarray, ball: float,
    beyond: float, draw: int,
) -> None:  # fmt: skip
    """Write an extract of a Q8_0 GGUF matrix: numbers about every row, the dead ball, live rows.

    ids: rows without a token, whose median is the middle of the dead ball; ball: its radius; draw:
    how many rows are taken at random from those farther than `beyond`. Lengths in the units of W.
    Raises SpecimenError if the matrix is not Q8_0.
    """
    if whole.precision != "Q8_0":
        raise SpecimenError(f"{whole.id}: is {whole.precision}, not Q8_0; give the 8-bit GGUF file")
    distances = geometry.distances(whole, np.median(whole.values(ids), axis=0))
    dead = np.flatnonzero(distances < ball)
    live = _drawn(np.flatnonzero(distances > beyond), draw)
    mean = geometry.centroid(whole)
    cov = geometry.covariance(whole, mean)
    axes, variances = geometry.principal_axes(cov, VARIANCES)
    arrays = {
        "norm": whole.norms.astype(np.float32),
        "dist": distances.astype(np.float32),
        "projection": geometry.project(whole, axes[:, :3]).astype(np.float32),
        "axes": axes[:, :AXES].astype(np.float32),
        "mean": mean.astype(np.float32),
        "row_group": census.of(whole).group.astype(np.int32),
        "dead_ids": dead.astype(np.int32),
        "live_ids": live.astype(np.int32),
    }
    for name, chosen in (("dead", dead), ("live", live)):
        blocks = np.asarray(whole.bits[chosen]).reshape(len(chosen), -1, 2 + Q8_BLOCK)
        arrays[f"{name}_scale"] = blocks[..., :2].copy().view(np.uint16)[..., 0]
        arrays[f"{name}_q"] = blocks[..., 2:].reshape(len(chosen), -1).view(np.int8)
    facts = {
        "precision": "GGUF Q8_0: blocks of 32 int8 with one float16 scale; rows merged by "
        "quantisation, never split",
        "eigenvalues_first10": variances.tolist(),
        "trace": float(np.trace(cov)),
        "all_centroid_norm": float(np.linalg.norm(mean)),
        "arrays": {
            "norm": "L2 norm of every dequantised row",
            "dist": "L2 distance of every row to the median of the rows without a token "
            f"(ids {ids[0]}..{ids[-1]})",
            "projection": "uncentred rows on principal axes 1..3 of the covariance, sign: "
            "largest-magnitude loading positive",
            "axes": "principal axes 1..6, columns",
            "dead_ids": f"rows with dist < {ball:g}",
            "dead_scale/dead_q": "their Q8_0 blocks",
            "live_ids/live_scale/live_q": f"{draw:,} rows drawn at random (seed {SEED}) from "
            f"dist > {beyond:g}",
            "row_group": "for every row the id of the first row with identical Q8_0 bytes",
        },
    }
    _write(path, whole, description, arrays, facts)


def cut_core(
    whole: Specimen, description: Description, path: Path, *, middle: int, core: float, draw: int
) -> None:
    """Write an extract of an F16 matrix: norms, distances, a tight core and other rows, all exact.

    middle: id of a row of the core; core: radius round it, in the units of W; draw: how many of the
    other rows are taken at random. Raises SpecimenError if the matrix is not float16.
    """
    if whole.precision != "F16":
        raise SpecimenError(f"{whole.id}: is {whole.precision}, not float16; fetch it again")
    distances = geometry.distances(whole, whole.values([middle])[0])
    inside = np.flatnonzero(distances < core)
    others = _drawn(np.setdiff1d(np.arange(whole.rows), inside), draw)
    arrays = {
        "norm": whole.norms.astype(np.float32),
        "dist": distances.astype(np.float32),
        "core_ids": inside.astype(np.int32),
        "core_bits": np.ascontiguousarray(whole.bits[inside]),
        "sample_ids": others.astype(np.int32),
        "sample_bits": np.ascontiguousarray(whole.bits[others]),
    }
    facts = {
        "precision": "float16 as released",
        "core_tokens": [whole.tokens.shown(int(id)) for id in inside],
        "arrays": {
            "norm": "L2 norm of every row",
            "dist": f"L2 distance of every row to row {middle}",
            "core_ids/core_bits": f"the {len(inside)} rows with dist < {core:g}, float16 bit "
            "patterns",
            "sample_ids/sample_bits": f"{draw:,} other rows drawn at random (seed {SEED}), float16 "
            "bit patterns",
        },
    }
    _write(path, whole, description, arrays, facts)


def cut_unused(whole: Specimen, description: Description, path: Path, *, ids: np.ndarray) -> None:
    """Write rows `ids` (n,) of an F32 matrix, and the norm of every row, as an extract.

    The rows are kept as float16 bit patterns; SpecimenError if that would change a single number.
    """
    rows = whole.values(ids)
    half = rows.astype(np.float16)
    if not (half.astype(np.float32) == rows).all():
        raise SpecimenError(f"{whole.id}: its rows are no float16 numbers; nothing was written")
    arrays = {
        "norm": whole.norms.astype(np.float32),
        "unused_ids": ids.astype(np.int32),
        "unused_bits": half.view(np.uint16),
    }
    facts = {
        "precision": "float32 whose values are all float16 numbers",
        "arrays": {
            "norm": "L2 norm of every row",
            "unused_ids/unused_bits": "the rows whose tokens are named [unused...], as float16 "
            "bit patterns, exact",
        },
    }
    _write(path, whole, description, arrays, facts)


# How each committed extract is cut; ids and radii are explained in data/README.md.
CUTS = {
    "qwen2.5-coder-0.5b": (
        cut_q8_0, {"ids": np.arange(151_669, 151_936), "ball": 1e-3, "beyond": 0.05, "draw": 2_000}
    ),
    "whisper-base": (cut_core, {"middle": 187, "core": 3e-5, "draw": 1_000}),
    "minilm-l6": (cut_unused, {"ids": np.r_[1:100, 104:999]}),
}  # fmt: skip


def _drawn(ids: np.ndarray, count: int) -> np.ndarray:
    """`count` of the ids, each equally likely, ascending."""
    return np.sort(np.random.default_rng(SEED).choice(ids, min(count, len(ids)), replace=False))


def _write(
    path: Path,
    whole: Specimen,
    description: Description,
    arrays: Mapping[str, np.ndarray],
    facts: dict[str, Any],
) -> None:
    """The extract file, with what every extract says of itself."""
    facts |= {
        "model": description.model,
        "licence": description.licence,
        "tensor": description.tensor,
        "shape": [whole.rows, whole.dim],
        "tensor_sha256": description.sha256 or "",
    }
    metadata = {"extract": json.dumps(facts, sort_keys=True)}
    ordered = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # or it is torn
    files.write_atomically(path, lambda temporary: save_file(ordered, temporary, metadata))
