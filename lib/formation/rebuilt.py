"""The sources' mean-centred centre, rebuilt where it matters from the tables they printed.

Round a centre off the lattice only the few dimensions with a cell border within about three sigma
move, each with its own flip probability p. Independent flips make cells with product populations,
so the means of the largest populations give the p of the restless dimensions, one by one, and the
rare ones show in the number of rows that are alone. The distance of border k is then
sigma * z(p_k), and with it the centre's behaviour at nearby sigmas is known, too.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from lib import lattice
from lib.formation import centres, closed_forms
from lib.formation.cells import Cells

# Lattice steps (powers of two) of the seven borders. Printed largest distances between rows are
# 2^-16, 2^-19 and 2^-21; float16 storage merges rows that differ in the fourth dimension only, so
# its step is below float16's 2^-24. Which of the others is 2^-21 does not matter here.
STEPS = (-21, -21, -21, -26, -16, -19, -21)
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


def flips(p: np.ndarray) -> Cells:
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


def expected(p: np.ndarray, rows: int) -> np.ndarray:
    """What the printed tables say, as seven flip probabilities predict it: (10,) float64."""
    home = rows * np.prod(1 - p)
    odds = p / (1 - p)
    stored = flips(np.delete(p, MERGED))
    return np.array(
        [
            home,
            home * odds[0],
            home * odds[1],
            home * odds[0] * odds[1],
            home * odds[2],
            closed_forms.expected_tokens(flips(p), rows, floor=0).value,
            closed_forms.expected_unique(stored, rows, floor=0).value,
            closed_forms.expected_holes(stored, rows, floor=0).value,
            home / (1 - p[MERGED]),
            (1 - p[4]) ** rows,  # trials in which nobody crosses the border of the widest step
        ]
    )


@lru_cache
def fit() -> Borders:
    """Borders fitted to the ten printed means; the rest of the tables is left to test them on."""
    facts = centres.printed()
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
        lambda x: (expected(1 / (1 + np.exp(-x)), rows) - printed) / error,
        np.log(start / (1 - start)),
    )
    p = 1 / (1 + np.exp(-found.x))
    data = np.stack([printed, error, expected(p, rows)], axis=1)
    spread = found.jac @ np.linalg.inv(found.jac.T @ found.jac) @ found.jac.T
    unsure = error * np.sqrt(np.diag(spread))
    return Borders(p, direct["sigma"] * stats.norm.isf(p), data, unsure)


def further(reach: float, *, rng: np.random.Generator) -> np.ndarray:
    """(K,) float64 distances of borders up to `reach`: the seven fitted, and what may follow them.

    Assumption: beyond the seventh, borders go on as densely as up to it, at random places (a
    Poisson process), because in thousands of dimensions offsets are as good as uniform.
    """
    known = np.sort(fit().distance)
    density = len(known) / known[-1]
    more = rng.poisson(density * max(0.0, reach - known[-1]))
    return np.concatenate([known, rng.uniform(known[-1], max(reach, known[-1]), more)])


def centre(*, rng: np.random.Generator) -> np.ndarray:
    """(2560,) float32 with the seven fitted borders at their distances and the printed norm.

    The other components stand on the lattice, where noise far below their step cannot move them.
    """
    facts, borders = centres.printed(), fit()
    size = len(centres.exponents())
    exponent = np.array(STEPS) + 134
    home = (exponent << 7) + 2 * rng.integers(0, 64, len(STEPS))  # an even pattern: ties stay
    value = lattice.value(home.astype(np.uint16)).astype(np.float64)
    step = 2.0 ** np.array(STEPS)
    border = value + step * (0.5 + 2.0**-17)
    row = np.empty(size)
    row[: len(STEPS)] = border - borders.distance
    quiet = rng.choice([-1.0, 1.0], size - len(STEPS)) * rng.uniform(0.5, 1.5, size - len(STEPS))
    row[len(STEPS) :] = quiet * facts["centred_norm"] / np.linalg.norm(quiet)
    row = row.astype(np.float32)
    row[len(STEPS) :] = lattice.value(lattice.round_nearest(row[len(STEPS) :]))
    return row
