"""Centres taken from a whole matrix: its cluster's own holes instead of what notebooks printed.

The sources used two: the population-weighted mean of the holes in the matrix as it is
(13.3a_monument_valley_simulation), and the same mean in the mean-centred matrix
(09.1b_black_hole_centroid, 12.2b_sigma_fixed_mps_trials).

The sources' mean-centred centre, rebuilt where it matters from the tables they printed.

Round a centre off the lattice only the few dimensions with a cell border within about three sigma
move, each with its own flip probability p. Independent flips make cells with product populations,
so the means of the largest populations give the p of the restless dimensions, one by one, and the
rare ones show in the number of rows that are alone. The distance of border k is then
sigma * z(p_k), and with it the centre's behaviour at nearby sigmas is known, too.

The centres that the chapters and the command line know by name.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from scipy import optimize, stats

from lib import lattice
from lib.analysis import census, clusters, qwen3, snowball
from lib.analysis.snowball import Cells
from lib.extraction import catalogue, specimens, tensor_files
from lib.extraction.catalogue import SpecimenError
from lib.extraction.specimens import Specimen

BIAS = 127


def on_lattice(*, rng: np.random.Generator) -> np.ndarray:
    """(2560,) float32 lattice point: the largest hole as far as it is known.

    The 20 varying dimensions hold its own bits. In the 2,540 others the exponents are the printed
    ones, in random order; signs and mantissas, which no notebook printed, are random, the mantissas
    drawn until the norm is within 1e-4 of the hole's. A mantissa of zero, which halves the way to
    the next cell, is as likely as any other.
    """
    hole = qwen3.thirteen()
    norm = qwen3.printed("figures")["largest_hole_norm"]
    known = lattice.fields(hole.bits[0]).exponent
    rest = qwen3.exponents().tolist()
    for exponent in known.tolist():
        rest.remove(exponent)
    rest = rng.permutation(np.array(rest))
    centre = np.empty(len(rest) + len(hole.dims), np.float32)
    free = np.setdiff1d(np.arange(centre.size), hole.dims)
    centre[hole.dims] = lattice.value(hole.bits[0])
    mantissa = rng.integers(0, 128, len(rest))
    sign = np.where(rng.random(len(rest)) < 0.5, -1, 1)

    def value() -> np.ndarray:
        return np.ldexp(sign * (1 + mantissa / 128), rest - BIAS).astype(np.float32)

    centre[free] = value()
    for _ in range(100_000):
        off = np.linalg.norm(centre.astype(np.float64)) - norm
        if abs(off) < 1e-4 * norm:
            return centre
        # redraw the mantissa of one component; keep it if the norm comes closer
        k = rng.integers(len(rest))
        old = mantissa[k]
        mantissa[k] = rng.integers(0, 128)
        if (mantissa[k] > old) == (off > 0):
            mantissa[k] = old
        centre[free] = value()
    raise RuntimeError("no mantissas give the printed norm")


def weighted_mean(lattice_point: np.ndarray) -> np.ndarray:
    """(2560,) float32: the population-weighted mean of the 13 holes, the sources' 0.3709 centre.

    `lattice_point` is a centre of `on_lattice`. The mean leaves the lattice in the 20 varying
    dimensions, and only there.
    """
    hole = qwen3.thirteen()
    centre = lattice_point.copy()
    value = lattice.value(hole.bits).astype(np.float64)
    mean = hole.populations @ value / hole.populations.sum()
    centre[hole.dims] = mean.astype(np.float32)
    return centre


def centred(*, rng: np.random.Generator, tails: float = 4.5) -> np.ndarray:
    """(2560,) float32: a surrogate of the mean-centred centre, norm 0.1661, off the lattice.

    Subtracting the mean row of W leaves components that have nothing to do with the lattice.
    Assumption: they are independent draws of a Student t with `tails` degrees of freedom, scaled to
    the printed norm. 4.5 gives the printed excess kurtosis, 11.9; inf gives Gaussian components.
    """
    size = len(qwen3.exponents())
    left = rng.standard_normal(size) if np.isinf(tails) else rng.standard_t(tails, size)
    return (left * (qwen3.printed("figures")["centred_norm"] / np.linalg.norm(left))).astype(
        np.float32
    )


MEASURED_KINDS = {
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
        raise ValueError(f"no centre {kind!r}; there are {', '.join(MEASURED_KINDS)}")


def measured(specimen: Specimen) -> Measured:
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
    cluster = clusters.Cluster(specimen, found)
    inside = cluster.distances[first] <= (cluster.void.inner if cluster.void else np.inf)
    total = np.zeros(specimen.dim)
    for _, values in specimen.chunks():
        total += values.sum(axis=0, dtype=np.float64)
    bits = np.asarray(specimen.bits[first[inside]], np.uint16)
    return Measured(bits, found.populations[inside], total / specimen.rows)


# Lattice steps (powers of two) of the seven borders. Printed largest distances between rows are
# 2^-16, 2^-19 and 2^-21; float16 storage merges rows that differ in the fourth dimension only, so
# its step is below float16's 2^-24. Which of the others is 2^-21 does not matter here.
BORDER_STEPS = (-21, -21, -21, -26, -16, -19, -21)
MERGED = 3  # index of the dimension that float16 cannot tell


@dataclass(frozen=True)
class Borders:
    """Seven cell borders near the centred centre."""

    flip: np.ndarray  # (7,) float64: probability of crossing at the printed sigma
    distance: np.ndarray  # (7,) float64: in the units of W
    data: np.ndarray  # (n, 3) float64: what was fitted: printed, standard error, fitted
    error: np.ndarray  # (n,) float64: standard errors of the fitted values

    @property
    def chi_square(self) -> float:
        """Sum of squared deviations in standard errors, over len(data) - 7 degrees of freedom."""
        printed, error, fitted = self.data.T
        return float((((fitted - printed) / error) ** 2).sum())


def flip_cells(p: np.ndarray) -> Cells:
    """A table of two-cell dimensions with crossing probabilities p (K,)."""
    order = np.argsort(np.maximum(p, 1 - p), kind="stable")
    both = np.stack([1 - p, p], axis=1)[order]
    return Cells(
        np.arange(len(p))[order],
        np.zeros(len(p), np.int32),
        np.full(len(p), 2, np.int32),
        both,
        both.max(axis=1),
    )


def expected_tables(p: np.ndarray, rows: int) -> np.ndarray:
    """What the printed tables say, as seven flip probabilities predict it: (10,) float64."""
    home = rows * np.prod(1 - p)
    odds = p / (1 - p)
    stored = flip_cells(np.delete(p, MERGED))
    return np.array(
        [
            home,
            home * odds[0],
            home * odds[1],
            home * odds[0] * odds[1],
            home * odds[2],
            snowball.expected_tokens(flip_cells(p), rows, floor=0).value,
            snowball.expected_unique(stored, rows, floor=0).value,
            snowball.expected_holes(stored, rows, floor=0).value,
            home / (1 - p[MERGED]),
            (1 - p[4]) ** rows,  # trials in which nobody crosses the border of the widest step
        ]
    )


@lru_cache
def fit_borders() -> Borders:
    """Borders fitted to the ten printed means; the rest of the tables is left to test them on."""
    facts = qwen3.printed("figures")
    direct, stored = facts["direct"], facts["direct_float16"]
    rows, many = direct["rows"], stored["trials"]
    rank = np.array(direct["rank_means"][:5])
    spread = np.sqrt(rank * (1 - rank / rows))
    wide = stored["max_linf"]
    second = 2.0**-19 / direct["epsilon"]  # the largest distance where the widest step is absent
    absent = (wide["largest"] - wide["mean"]) / (wide["largest"] - 0.7 * second)
    printed = np.array(
        [
            *rank,
            direct["tokens"]["mean"],
            stored["unique"]["mean"],
            stored["holes"]["mean"],
            stored["largest"]["mean"],
            absent,
        ]
    )
    error = np.array(
        [
            *np.hypot(spread / np.sqrt(direct["trials"]), 0.03),  # printed to one decimal
            np.hypot(direct["tokens"]["std"] / np.sqrt(direct["trials"]), 0.03),
            stored["unique"]["std"] / np.sqrt(many),
            stored["holes"]["std"] / np.sqrt(many),
            stored["largest"]["std"] / np.sqrt(many),
            np.sqrt(absent / many),
        ]
    )
    start = np.array([0.27, 0.24, 0.03, 0.015, 0.002, 0.0005, 0.0002])
    found = optimize.least_squares(
        lambda x: (expected_tables(1 / (1 + np.exp(-x)), rows) - printed) / error,
        np.log(start / (1 - start)),
    )
    p = 1 / (1 + np.exp(-found.x))
    data = np.stack([printed, error, expected_tables(p, rows)], axis=1)
    spread = found.jac @ np.linalg.inv(found.jac.T @ found.jac) @ found.jac.T
    unsure = error * np.sqrt(np.diag(spread))
    return Borders(p, direct["sigma"] * stats.norm.isf(p), data, unsure)


def further_borders(reach: float, *, rng: np.random.Generator) -> np.ndarray:
    """(K,) float64 distances of borders up to `reach`: the seven fitted, and what may follow them.

    Assumption: beyond the seventh, borders go on as densely as up to it, at random places (a
    Poisson process), because in thousands of dimensions offsets are as good as uniform.
    """
    known = np.sort(fit_borders().distance)
    density = len(known) / known[-1]
    more = rng.poisson(density * max(0.0, reach - known[-1]))
    return np.concatenate([known, rng.uniform(known[-1], max(reach, known[-1]), more)])


def rebuilt(*, rng: np.random.Generator) -> np.ndarray:
    """(2560,) float32 with the seven fitted borders at their distances and the printed norm.

    The other components stand on the lattice, where noise far below their step cannot move them.
    """
    facts, borders = qwen3.printed("figures"), fit_borders()
    size = len(qwen3.exponents())
    exponent = np.array(BORDER_STEPS) + 134
    home = (exponent << 7) + 2 * rng.integers(
        0, 64, len(BORDER_STEPS)
    )  # an even pattern: ties stay
    value = lattice.value(home.astype(np.uint16)).astype(np.float64)
    step = 2.0 ** np.array(BORDER_STEPS)
    border = value + step * (0.5 + 2.0**-17)
    row = np.empty(size)
    row[: len(BORDER_STEPS)] = border - borders.distance
    quiet = rng.choice([-1.0, 1.0], size - len(BORDER_STEPS)) * rng.uniform(
        0.5, 1.5, size - len(BORDER_STEPS)
    )
    row[len(BORDER_STEPS) :] = quiet * facts["centred_norm"] / np.linalg.norm(quiet)
    row = row.astype(np.float32)
    row[len(BORDER_STEPS) :] = lattice.value(lattice.round_nearest(row[len(BORDER_STEPS) :]))
    return row


NAMES = {
    "qwen3-holes": "the population-weighted mean of Qwen3-4B's 13 holes, norm 0.3709",
    "qwen3-lattice": "its largest hole, a lattice point, norm 0.3709",
    "qwen3-rebuilt": "its mean-centred centre, rebuilt from printed tables, norm 0.1661",
    "qwen3-centred": "a random surrogate of the mean-centred centre, norm 0.1661",
}


def named(name: str, *, seed: int = 42) -> np.ndarray:
    """(2560,) float32 centre `name` of NAMES; `seed` draws what no notebook printed."""
    rng = np.random.default_rng(seed)
    if name == "qwen3-rebuilt":
        return rebuilt(rng=rng)
    if name == "qwen3-centred":
        return centred(rng=rng)
    if name not in NAMES:
        raise ValueError(f"no centre {name!r}; there are {', '.join(NAMES)}")
    point = on_lattice(rng=rng)
    return weighted_mean(point) if name == "qwen3-holes" else point


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
    return measured(specimen).centre(kind), f"{specimen.source}: {MEASURED_KINDS[kind]}"


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
