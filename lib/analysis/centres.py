"""Centres of snowballs: built from what the notebooks printed, or taken from a whole matrix.

The sources used two: the population-weighted mean of the holes in the matrix as it is
(13.3a_monument_valley_simulation), and the same mean in the mean-centred matrix
(09.1b_black_hole_centroid, 12.2b_sigma_fixed_mps_trials), of which only tables were printed.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import optimize, special, stats

from lib import lattice
from lib.analysis import census, clusters, qwen3, snowball
from lib.extraction import catalogue, specimens, tensor_files
from lib.extraction.catalogue import SpecimenError
from lib.extraction.specimens import Specimen

NAMES = {
    "qwen3-holes": "the population-weighted mean of Qwen3-4B's 13 holes, norm 0.3709",
    "qwen3-lattice": "its largest hole, a lattice point, norm 0.3709",
    "qwen3-rebuilt": "its mean-centred centre, rebuilt from printed tables, norm 0.1661",
    "qwen3-centred": "a random surrogate of the mean-centred centre, norm 0.1661",
}
MEASURED_KINDS = {
    "holes": "the population-weighted mean of its cluster's holes",
    "largest": "its largest hole, a lattice point",
    "centred": "the holes' weighted mean less the mean of all rows",
}


def named(name: str, *, seed: int = 42) -> np.ndarray:
    """(2560,) float32 centre `name` of NAMES; `seed` draws what no notebook printed."""
    if name not in NAMES:
        raise ValueError(f"no centre {name!r}; there are {', '.join(NAMES)}")
    rng = np.random.default_rng(seed)
    if name == "qwen3-rebuilt":
        return rebuilt(rng=rng)
    if name == "qwen3-centred":
        return centred(rng=rng)
    centre = on_lattice(rng=rng)
    if name == "qwen3-holes":  # off the lattice in the 20 varying dimensions, and only there
        hole = qwen3.thirteen()
        centre[hole.dims] = weighted_mean(hole.bits, hole.populations)
    return centre


def resolve(name: str, *, seed: int = 42) -> tuple[np.ndarray, str]:
    """(D,) float32 centre and its source, from any of the ways that the command line knows.

    `name` is one of NAMES, a tensor with one row (FILE.safetensors[:TENSOR]), or SPECIMEN[:KIND]
    for a whole matrix, KIND being one of MEASURED_KINDS. Raises SpecimenError.
    """
    if name in NAMES:
        return named(name, seed=seed), NAMES[name]
    path, tensor = specimens.split(name)
    if path.exists():
        return _row_of(path, tensor, name), name
    id, _, kind = name.partition(":")
    if id not in {description.id for description in catalogue.CATALOGUE}:
        raise SpecimenError(
            f"{name}: no such file, no built-in centre and no specimen; check the path, or take "
            f"one of {', '.join(NAMES)}"
        )
    kind = kind or next(iter(MEASURED_KINDS))
    if kind not in MEASURED_KINDS:
        raise SpecimenError(f"{name}: no centre {kind!r}; there are {', '.join(MEASURED_KINDS)}")
    specimen = specimens.open(id)
    return measured(specimen)[0][kind], f"{specimen.source}: {MEASURED_KINDS[kind]}"


def _row_of(path: Path, tensor: str | None, name: str) -> np.ndarray:
    """The one row of a tensor in a file, (D,) float32."""
    entries = list(tensor_files.read_header(path).entries)
    if tensor is None and len(entries) == 1:
        tensor = entries[0]
    array, dtype = tensor_files.open_tensor(path, tensor)
    if array.size != max(array.shape, default=0):
        raise SpecimenError(
            f"{name}: a centre is one row, this tensor has shape {tuple(array.shape)}; "
            "name another tensor, or save the row you mean"
        )
    if dtype not in ("BF16", "F32", "F16"):
        raise SpecimenError(f"{name}: a centre is F32, F16 or BF16, this tensor is {dtype}")
    return specimens.to_float32(np.array(array).ravel(), dtype)


def weighted_mean(bits: np.ndarray, populations: np.ndarray) -> np.ndarray:
    """(D,) float64 mean of holes (H, D) uint16, each counted with its population (H,)."""
    return populations @ lattice.value(bits).astype(np.float64) / populations.sum()


def measured(specimen: Specimen) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(D,) float32 centres of a whole BF16 matrix by MEASURED_KINDS; populations (H,) of its holes.

    The holes are those of its dead cluster where it has one, the most populous first. Means are
    taken in float64 and rounded once. Raises SpecimenError if only an extract is at hand, in
    another precision, or without holes.
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
    cluster = clusters.Cluster(specimen, found)
    inside = cluster.distances[first] <= (cluster.void.inner if cluster.void else np.inf)
    bits = np.asarray(specimen.bits[first[inside]], np.uint16)
    populations = found.populations[inside]
    total = np.zeros(specimen.dim)
    for _, values in specimen.chunks():
        total += values.sum(axis=0, dtype=np.float64)
    mean = weighted_mean(bits, populations)
    centres = {
        "holes": mean.astype(np.float32),
        "largest": lattice.value(bits[0]),
        "centred": (mean - total / specimen.rows).astype(np.float32),
    }
    return centres, populations


# ---------------------------------------------------------------- from printed figures
def on_lattice(*, rng: np.random.Generator) -> np.ndarray:
    """(2560,) float32 lattice point: the largest hole as far as it is known.

    The 20 varying dimensions hold its own bits. In the 2,540 others the exponents are the printed
    ones, in random order; signs and mantissas, which no notebook printed, are random, the mantissas
    drawn until the norm is within 1e-4 of the hole's. A mantissa of zero, which halves the way to
    the next cell, is as likely as any other.
    """
    hole = qwen3.thirteen()
    norm = qwen3.printed("figures")["largest_hole_norm"]
    known = Counter(lattice.fields(hole.bits[0]).exponent.tolist())
    others = Counter(qwen3.exponents().tolist()) - known
    exponent = rng.permutation(np.sort(list(others.elements())))
    mantissa = rng.integers(0, 128, len(exponent))
    sign = np.where(rng.random(len(exponent)) < 0.5, -1, 1)
    centre = np.empty(hole.dim, np.float32)
    centre[hole.dims] = lattice.value(hole.bits[0])
    free = np.setdiff1d(np.arange(hole.dim), hole.dims)
    for _ in range(100_000):
        centre[free] = np.ldexp(sign * (1 + mantissa / 128), exponent - lattice.BIAS)
        off = np.linalg.norm(centre.astype(np.float64)) - norm
        if abs(off) < 1e-4 * norm:
            return centre
        # redraw the mantissa of one component; keep it if the norm comes closer
        k = rng.integers(len(exponent))
        old = mantissa[k]
        mantissa[k] = rng.integers(0, 128)
        if (mantissa[k] > old) == (off > 0):
            mantissa[k] = old
    raise RuntimeError("no mantissas give the printed norm")


def centred(*, rng: np.random.Generator, tails: float = 4.5) -> np.ndarray:
    """(2560,) float32: a surrogate of the mean-centred centre, norm 0.1661, off the lattice.

    Subtracting the mean row of W leaves components that have nothing to do with the lattice.
    Assumption: they are independent draws of a Student t with `tails` degrees of freedom, scaled to
    the printed norm. 4.5 gives the printed excess kurtosis, 11.9; inf gives Gaussian components.
    """
    size = len(qwen3.exponents())
    left = rng.standard_normal(size) if np.isinf(tails) else rng.standard_t(tails, size)
    norm = qwen3.printed("figures")["centred_norm"]
    return (left * (norm / np.linalg.norm(left))).astype(np.float32)


# Lattice steps (powers of two) of the seven borders. Printed largest distances between rows are
# 2^-16, 2^-19 and 2^-21; float16 storage merges rows that differ in the fourth dimension only, so
# its step is below float16's 2^-24. Which of the others is 2^-21 does not matter here.
BORDER_STEPS = (-21, -21, -21, -26, -16, -19, -21)
# Means of `expected_tables` that are held out. The ranks 2, 3 and 5, the largest hole as stored and
# the trials without the widest step say one flip each, given the others; the tokens say the rare.
HELD = (0, 3, 6, 7, 10)
MERGED = 3  # index of the dimension that float16 cannot tell
WIDEST = 4  # index of the dimension with the widest step


@dataclass(frozen=True)
class Borders:
    """Cell borders near the centred centre."""

    flip: np.ndarray  # (7,) float64: probability of crossing at the printed sigma
    distance: np.ndarray  # (7,) float64: in the units of W
    data: np.ndarray  # (11, 3) float64: printed means, their standard errors, what the flips say
    error: np.ndarray  # (11,) float64: standard errors of what the flips say
    held: np.ndarray  # (11,) bool: means that had no part in the flips, and are foretold by them
    chi_square: float  # of the held means, with as many degrees of freedom


@lru_cache
def fit_borders(rare: int = 2) -> Borders:
    """Six numbers from six printed means; five more means, HELD, are left to test them on.

    The numbers are the flips of five borders and one that the last `rare` borders share: how much
    of it each has, the means that are fitted do not say.

    Round a centre off the lattice only the few dimensions with a border within about three sigma
    move, each with its own flip probability p. Independent flips make cells with product
    populations, so the means of the largest populations give the p of the restless dimensions, one
    by one, and the rare ones show in the number of rows that are alone. The distance of border k is
    then sigma * z(p_k), and with it the centre's behaviour at nearby sigmas is known, too.
    """
    facts = qwen3.printed("figures")
    direct, stored = facts["direct"], facts["direct_float16"]
    rows, few, many = direct["rows"], direct["trials"], stored["trials"]
    rank, tokens = np.array(direct["rank_means"][:5]), direct["tokens"]
    rank_std = np.sqrt(rank * (1 - rank / rows))
    wide = stored["max_linf"]
    second = 2.0**-19 / direct["epsilon"]  # the largest distance where the widest step is absent
    absent = (wide["largest"] - wide["mean"]) / (wide["largest"] - 0.7 * second)
    after = [stored[name] for name in ("unique", "holes", "largest")]
    holes = direct["holes"]
    theirs = [*rank, tokens["mean"], *(item["mean"] for item in after), absent, holes["mean"]]
    printed, held = np.array(theirs), np.isin(np.arange(len(theirs)), HELD)
    error = np.array(
        [
            *np.hypot(rank_std / np.sqrt(few), 0.03),  # printed to one decimal
            np.hypot(tokens["std"] / np.sqrt(few), 0.03),
            *(item["std"] / np.sqrt(many) for item in after),
            np.sqrt(absent / many),
            np.hypot(holes["std"] / np.sqrt(few), 0.03),
        ]
    )

    def flips(x: np.ndarray) -> np.ndarray:
        """(5 + rare,) flips from six logits."""
        return special.expit(np.concatenate([x, [x[-1]] * (rare - 1)]))

    def off(x: np.ndarray) -> np.ndarray:
        """(11,) how far what the flips say is from what was printed, in its standard errors."""
        return (expected_tables(flips(x), rows) - printed) / error

    start = special.logit([0.27, 0.24, 0.03, 0.015, 0.002, 0.0003])
    x = optimize.least_squares(lambda x: off(x)[~held], start).x
    data = np.stack([printed, error, expected_tables(flips(x), rows)], axis=1)
    slope = optimize.approx_fprime(x, off)  # (11, 6)
    spread = slope @ np.linalg.inv(slope[~held].T @ slope[~held]) @ slope.T
    total = np.eye(held.sum()) + spread[np.ix_(held, held)]  # of what was printed and foretold
    chi_square = off(x)[held] @ np.linalg.solve(total, off(x)[held])
    distance = direct["sigma"] * stats.norm.isf(flips(x))
    unsure = error * np.sqrt(np.diag(spread))
    return Borders(flips(x), distance, data, unsure, held, float(chi_square))


def expected_tables(p: np.ndarray, rows: int) -> np.ndarray:
    """What the printed tables say, as the flip probabilities predict it: (11,) float64."""
    home = rows * np.prod(1 - p)
    odds = p / (1 - p)
    stored = snowball.expected(snowball.two_cells(np.delete(p, MERGED)), rows, floor=0)
    drawn = snowball.expected(snowball.two_cells(p), rows, floor=0)
    return np.array(
        [
            home,
            home * odds[0],
            home * odds[1],
            home * odds[0] * odds[1],
            home * odds[2],
            drawn.tokens,
            stored.unique,
            stored.holes,
            home / (1 - p[MERGED]),
            (1 - p[WIDEST]) ** rows,  # trials in which nobody crosses its border
            drawn.holes,
        ]
    )


def rebuilt(*, rng: np.random.Generator) -> np.ndarray:
    """(2560,) float32 with the seven fitted borders at their distances and the printed norm.

    The other components stand on the lattice, where noise far below their step cannot move them.
    """
    steps = np.array(BORDER_STEPS)
    home = ((steps + 134) << 7) + 2 * rng.integers(0, 64, len(steps))  # even pattern: ties stay
    value = lattice.value(home.astype(np.uint16)).astype(np.float64)
    near = value + 2.0**steps * (0.5 + 2.0**-17) - fit_borders().distance
    others = len(qwen3.exponents()) - len(steps)
    quiet = rng.choice([-1.0, 1.0], others) * rng.uniform(0.5, 1.5, others)
    quiet = quiet * qwen3.printed("figures")["centred_norm"] / np.linalg.norm(quiet)
    on_lattice = lattice.value(lattice.round_nearest(quiet.astype(np.float32)))
    return np.concatenate([near.astype(np.float32), on_lattice])
