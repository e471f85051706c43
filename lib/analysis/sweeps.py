"""Series of simulated snowballs and cast rows, as artefacts that the generator chapters keep."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch

from lib import artifacts, lattice, progress
from lib.analysis import centres, qwen3
from lib.analysis.census import demographics
from lib.analysis.graph import Adjacency, build
from lib.analysis.simulation import simulate
from lib.analysis.snowball import sample

RANKS = 13  # of populations kept: Qwen3-4B has thirteen holes


@dataclass(frozen=True)
class Sweep(artifacts.Recipe):
    """Many trials at each of several scales of the noise.

    scale (count,) float64; unique, holes, tokens, largest (count, trials) int32; delta (count,
    trials) float64, see `delta`; ranks (count, RANKS) float64, the mean population of the hole of
    each rank, a missing one counted as zero.
    """

    centre: str  # see centres.NAMES
    distribution: str
    smallest: float  # scale
    largest: float
    count: int  # scales, equal steps of their logarithm
    rows: int
    trials: int
    seed: int

    name = "snowball-sweep"

    def make(self) -> dict[str, np.ndarray]:
        """Simulate."""
        row = centres.named(self.centre, seed=self.seed)
        scales = np.geomspace(self.smallest, self.largest, self.count)
        counts = ("unique", "holes", "tokens", "largest")
        table = {name: np.zeros((self.count, self.trials), np.int32) for name in counts}
        ranks, far = np.zeros((self.count, RANKS)), np.zeros((self.count, self.trials))
        target = qwen3.thirteen().populations
        trials = {"rows": self.rows, "trials": self.trials, "varying": False}
        label = f"{self.distribution} round {self.centre}"
        for i, scale in enumerate(progress.bar(scales, desc=label)):
            noise = {"scale": scale, "distribution": self.distribution}
            found = simulate(row, **noise, **trials, seed=self.seed + i)
            for name, values in table.items():
                values[i] = getattr(found, name)
            for j, populations in enumerate(found.populations):
                far[i, j] = delta(populations, target)
                part = populations[populations > 1][:RANKS]
                ranks[i, : len(part)] += part / self.trials
        return {"scale": scales, "ranks": ranks, "delta": far, **table}


def delta(populations: np.ndarray, target: np.ndarray) -> float:
    """How far two lists of populations, descending, lie apart: sum of differences rank by rank.

    All holes of both count and no single row of either; as a share of the target's tokens.
    """
    lists = [populations[populations > 1], target[target > 1]]
    ranks = max(map(len, lists))
    first, second = (np.pad(one, (0, ranks - len(one))) for one in lists)
    return float(np.abs(first - second).sum() / lists[1].sum())


@dataclass(frozen=True)
class Topology(artifacts.Recipe):
    """Graphs of every trial's distinct rows, under the sources' rule and with true lattice steps.

    (trials,) each: unique int64; float64 for `kissing` and `neighbour`: components, touching (share
    of pairs that are adjacent), isolated. Only the active dimensions enter: all rows agree in the
    others.
    """

    centre: str  # see centres.NAMES
    scale: float
    rows: int
    trials: int
    seed: int

    name = "snowball-topology"

    def make(self) -> dict[str, np.ndarray]:
        """Simulate."""
        row = centres.named(self.centre, seed=self.seed)
        found = simulate(
            row, scale=self.scale, rows=self.rows, trials=self.trials, seed=self.seed, cells=True
        )
        known: dict[bytes, dict[str, float]] = {}  # many trials occupy the same cells
        shapes = []
        for ordinals in progress.bar(found.cells, desc="graphs"):
            ordinals = ordinals[np.lexsort(ordinals.T)]
            key = ordinals.tobytes()
            if key not in known:
                known[key] = _shape(lattice.from_ordinal(ordinals))
            shapes.append(known[key])
        columns = {name: np.array([shape[name] for shape in shapes], float) for name in shapes[0]}
        return {"unique": found.unique, **columns}


def _shape(bits: np.ndarray) -> dict[str, float]:
    """What Topology says of the graphs of distinct rows (n, K)."""
    shape = {}
    for name, rule in (("kissing", Adjacency.KISSING), ("neighbour", Adjacency.NEIGHBOUR)):
        graph = build(bits, rule)
        pairs = graph.nodes * (graph.nodes - 1) / 2
        shape[f"{name}_components"] = graph.components
        shape[f"{name}_touching"] = len(graph.edges) / pairs if pairs else 1.0
        shape[f"{name}_isolated"] = graph.isolated
    return shape


@dataclass(frozen=True)
class Abc(artifacts.Recipe):
    """Approximate Bayesian computation from populations alone, centre anywhere.

    Draws log-uniform sigma and a centre uniform in its cell in every dimension, simulates `rows`
    rows, leaves out those that stand alone, and keeps for each draw (draws,) float64: sigma, delta
    (distance to Qwen's populations), holes, varying dimensions, widest step.
    """

    draws: int
    smallest: float  # sigma
    largest: float
    rows: int
    seed: int

    name = "snowball-abc"

    def make(self) -> dict[str, np.ndarray]:
        """Simulate."""
        rng = np.random.default_rng(self.seed)
        target = qwen3.thirteen().populations
        ulp = 2.0 ** (qwen3.exponents() - 134.0)
        table = np.empty((self.draws, 5))
        for draw in progress.bar(table, desc="ABC"):
            sigma = np.exp(rng.uniform(np.log(self.smallest), np.log(self.largest)))
            s = sigma / ulp
            offset = rng.uniform(-0.5, 0.5, len(ulp))
            near = np.flatnonzero(np.abs(offset) > 0.5 - 6 * s)
            noise = rng.standard_normal((self.rows, len(near)))
            steps = np.rint(offset[near] + s[near] * noise).astype(np.int64)
            if not len(near):
                steps = np.zeros((self.rows, 1), np.int64)
            key = steps @ rng.integers(1, 1 << 62, steps.shape[1])  # rows by hash: wraps around
            _, of_row, n = np.unique(key, return_inverse=True, return_counts=True)
            shared = steps[n[of_row] > 1]  # rows in holes
            span = np.ptp(shared, axis=0) if len(shared) else np.zeros(1)
            far = delta(np.sort(n)[::-1], target)
            draw[:] = sigma, far, (n > 1).sum(), (span > 0).sum(), span.max()
        names = ("sigma", "delta", "holes", "varying", "widest")
        return dict(zip(names, table.T, strict=True))


class Noise(StrEnum):
    """Where the noise is added."""

    FLOAT32 = "float32"  # bf16(c + sigma z)
    BF16 = "bf16"  # bf16(c) + bf16(sigma bf16(z)), added in bf16


@dataclass(frozen=True)
class CastRows(artifacts.Recipe):
    """Rows made in float32 and cast to bf16, against rows whose noise was added in bf16.

    sigma (sigmas,), and `<noise>_<rows>` (sigmas, seeds, 3) int32: distinct rows, holes, largest.
    All rows are one random unit vector plus noise. Cast from float32, the vector stands anywhere in
    its cell, so borders are near; added in bf16, it stands on the lattice, and most noise is
    rounded away. Source: seed document 001, hypothesis 3, and the notebooks 13.4a, 13.5a, 15.1a-c.
    """

    sigmas: int  # standard deviations of the noise, equal steps of their logarithm
    smallest: float
    largest: float
    rows: int
    dim: int
    seeds: int

    name = "cast-rows"

    def make(self) -> dict[str, np.ndarray]:
        """Draw."""
        scales = np.geomspace(self.smallest, self.largest, self.sigmas)
        tensors = {"sigma": scales}
        for noise in Noise:
            table = np.zeros((self.sigmas, self.seeds, 3), np.int32)
            for i, sigma in enumerate(progress.bar(scales, desc=f"{noise}, {self.rows} rows")):
                for seed in range(self.seeds):
                    rng = np.random.default_rng([seed, i])
                    centre = unit_vector(self.dim, rng=np.random.default_rng(seed))
                    found = demographics(cast_rows(centre, sigma, self.rows, noise, rng=rng))
                    table[i, seed] = found.unique, found.holes, found.largest
            tensors[f"{noise}_{self.rows}"] = table
        return tensors


def unit_vector(dim: int, *, rng: np.random.Generator) -> np.ndarray:
    """(dim,) float32, uniform on the sphere of radius 1."""
    c = rng.standard_normal(dim, dtype=np.float32)
    return c / np.linalg.norm(c)


def cast_rows(
    centre: np.ndarray, sigma: float, count: int, noise: Noise, *, rng: np.random.Generator
) -> np.ndarray:
    """(count, D) uint16: rows round (D,) float32 centre, noise added the given way."""
    if noise is Noise.FLOAT32:
        return sample(centre, scale=sigma, rows=count, rng=rng)
    z = torch.from_numpy(rng.standard_normal((count, centre.size), dtype=np.float32))
    added = z.to(torch.bfloat16) * sigma
    return lattice.bits(torch.from_numpy(centre).to(torch.bfloat16) + added).numpy()
