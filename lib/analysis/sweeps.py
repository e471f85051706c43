"""Series of simulated snowballs and cast rows, as artefacts that the generator chapters keep."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch

from lib import artifacts, lattice, progress
from lib.analysis import centres
from lib.analysis.census import demographics
from lib.analysis.graph import Adjacency, Graph, build
from lib.analysis.simulation import simulate
from lib.analysis.snowball import sample

RANKS = 13  # of populations kept: Qwen3-4B has thirteen holes


@dataclass(frozen=True)
class Sweep(artifacts.Recipe):
    """Many trials at each of several scales of the noise.

    scale (count,) float64; unique, holes, tokens, largest (count, trials) int32; ranks (count,
    RANKS) float64, the mean population of each rank, a missing one counted as zero.
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
        ranks = np.zeros((self.count, RANKS))
        label = f"{self.distribution} round {self.centre}"
        for i, scale in enumerate(progress.bar(scales, desc=label)):
            found = simulate(
                row,
                scale=scale,
                rows=self.rows,
                trials=self.trials,
                distribution=self.distribution,
                seed=self.seed + i,
                varying=False,
                populations=True,
            )
            for name, values in table.items():
                values[i] = getattr(found, name)
            for populations in found.populations:
                part = populations[:RANKS]
                ranks[i, : len(part)] += part / self.trials
        return {"scale": scales, "ranks": ranks, **table}


@dataclass(frozen=True)
class Topology(artifacts.Recipe):
    """Graphs of every trial's distinct rows, under the sources' rule and with true lattice steps.

    (trials,) each: unique; for `kissing` and `neighbour` components, touching (share of pairs that
    are adjacent), isolated. Only the active dimensions enter: all rows agree in the others.
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
        kinds = {"kissing": Adjacency.KISSING, "neighbour": Adjacency.NEIGHBOUR}
        known: dict[bytes, dict[str, tuple]] = {}
        results = {key: np.zeros((self.trials, 3)) for key in kinds}
        for i, ordinals in enumerate(progress.bar(found.cells, desc="graphs")):
            ordinals = ordinals[np.lexsort(ordinals.T)]
            key = ordinals.tobytes()
            if key not in known:  # many trials occupy the same cells
                bits = lattice.from_ordinal(ordinals)
                known[key] = {name: _shape(build(bits, rule)) for name, rule in kinds.items()}
            for name, shape in known[key].items():
                results[name][i] = shape
        columns = ("components", "touching", "isolated")
        return {"unique": found.unique} | {
            f"{name}_{what}": values[:, j].copy()
            for name, values in results.items()
            for j, what in enumerate(columns)
        }


def _shape(graph: Graph) -> tuple[float, float, float]:
    pairs = graph.nodes * (graph.nodes - 1) / 2
    return graph.components, len(graph.edges) / pairs if pairs else 1.0, graph.isolated


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
    counts: tuple[int, ...]  # rows
    dim: int
    seeds: int

    name = "cast-rows"

    def make(self) -> dict[str, np.ndarray]:
        """Draw."""
        scales = np.geomspace(self.smallest, self.largest, self.sigmas)
        tensors = {"sigma": scales}
        for noise in Noise:
            for count in self.counts:
                table = np.zeros((self.sigmas, self.seeds, 3), np.int32)
                for i, sigma in enumerate(progress.bar(scales, desc=f"{noise}, {count} rows")):
                    for seed in range(self.seeds):
                        rng = np.random.default_rng([seed, i])
                        centre = unit_vector(self.dim, rng=np.random.default_rng(seed))
                        found = demographics(cast_rows(centre, sigma, count, noise, rng=rng))
                        table[i, seed] = found.unique, found.holes, found.largest
                tensors[f"{noise}_{count}"] = table
        return tensors

    @classmethod
    def restored(cls, parameters: dict) -> "CastRows":
        """From plain parameters, in which tuples are lists."""
        return cls(**{**parameters, "counts": tuple(parameters["counts"])})


class Noise(StrEnum):
    """Where the noise is added."""

    FLOAT32 = "float32"  # bf16(c + sigma z)
    BF16 = "bf16"  # bf16(c) + bf16(sigma bf16(z)), added in bf16


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
