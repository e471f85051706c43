"""Sweeps over sigma and radius, as artefacts: what the sweep chapters compute and read.

One artefact holds one sweep: every trial's distinct rows, holes, tokens in holes and largest hole,
and the mean populations by rank.
"""

import numpy as np

from lib import artifacts, lattice, progress
from lib.formation import exact, gallery
from lib.formation.snowball import Distribution
from lib.survey.graph import Rule, build

RANKS = 13  # of populations kept: Qwen3-4B has thirteen holes
CHAPTER = "monument-valley/03-sweeps"
MODULES = (
    "lib.formation.cells",
    "lib.formation.centres",
    "lib.formation.exact",
    "lib.formation.gallery",
    "lib.formation.rebuilt",
    "lib.formation.snowball",
    "lib.formation.spherical",
    "lib.formation.splitting",
    "lib.formation.sweeps",
)


def make_sweep(
    *,
    centre: str,
    distribution: str,
    smallest: float,
    largest: float,
    count: int,
    rows: int,
    trials: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Tensors of one sweep: scale (count,), unique, holes, tokens, largest (count, trials) int32,
    ranks (count, RANKS) float64: mean population of each rank, a missing one counted as zero.
    """
    row = gallery.named(centre, seed=seed)
    scales = np.geomspace(smallest, largest, count)
    table = {
        name: np.zeros((count, trials), np.int32)
        for name in ("unique", "holes", "tokens", "largest")
    }
    ranks = np.zeros((count, RANKS))
    for i, scale in enumerate(progress.bar(scales, desc=f"{distribution} round {centre}")):
        found = exact.simulate(
            row,
            scale=scale,
            rows=rows,
            trials=trials,
            distribution=distribution,
            seed=seed + i,
            varying=False,
            populations=True,
        )
        for name, values in table.items():
            values[i] = getattr(found, name)
        for populations in found.populations:
            part = populations[:RANKS]
            ranks[i, : len(part)] += part / trials
    return {"scale": scales, "ranks": ranks, **table}


def make_topology(
    *, centre: str, scale: float, rows: int, trials: int, seed: int
) -> dict[str, np.ndarray]:
    """Graphs of every trial's distinct rows, under the sources' rule and with true lattice steps.

    Tensors (trials,): unique; for `kissing` and `neighbour` components, touching (share of pairs
    that are adjacent), isolated. Only the active dimensions enter: all rows agree in the others.
    """
    row = gallery.named(centre, seed=seed)
    found = exact.simulate(row, scale=scale, rows=rows, trials=trials, seed=seed, cells=True)
    tensors = {"unique": found.unique}
    known: dict[bytes, dict[str, tuple]] = {}
    kinds = {"kissing": Rule.KISSING, "neighbour": Rule.NEIGHBOUR}
    results = {key: np.zeros((trials, 3)) for key in kinds}
    for i, ordinals in enumerate(progress.bar(found.cells, desc="graphs")):
        ordinals = ordinals[np.lexsort(ordinals.T)]
        key = ordinals.tobytes()
        if key not in known:  # many trials occupy the same cells
            bits = lattice.from_ordinal(ordinals)
            known[key] = {name: _shape(build(bits, rule)) for name, rule in kinds.items()}
        for name, shape in known[key].items():
            results[name][i] = shape
    for name, values in results.items():
        for j, what in enumerate(("components", "touching", "isolated")):
            tensors[f"{name}_{what}"] = values[:, j].copy()
    return tensors


def _shape(graph) -> tuple[float, float, float]:
    pairs = graph.nodes * (graph.nodes - 1) / 2
    return graph.components, len(graph.edges) / pairs if pairs else 1.0, graph.isolated


SWEEP = artifacts.Recipe("snowball-sweep", make_sweep, MODULES, CHAPTER)
TOPOLOGY = artifacts.Recipe(
    "snowball-topology", make_topology, (*MODULES, "lib.survey.graph"), CHAPTER
)


def plan(settings: dict) -> dict[str, dict]:
    """The sweeps of the generator chapter by name: parameters of SWEEP, from its own parameters."""
    common = {"rows": settings["rows"], "trials": settings["trials"], "seed": settings["seed"]}
    count = settings["sigmas"]

    def one(centre, distribution, smallest, largest, **changes):
        own = {"smallest": smallest, "largest": largest, "count": count, **common, **changes}
        return {"centre": centre, "distribution": distribution, **own}

    sweeps = {
        "holes": one("qwen3-holes", "gaussian", 1e-9, 1e-7),
        "lattice": one("qwen3-lattice", "gaussian", 1e-9, 1e-7),
        "centred": one("qwen3-centred", "gaussian", 1e-10, 1e-8),
        "ball": one("qwen3-holes", "ball", 1e-7, 1e-6),
    }
    for distribution in Distribution:
        sweeps[f"wide {distribution}"] = one(
            "qwen3-holes",
            distribution.value,
            1e-10,
            1e-2,
            count=settings["wide_scales"],
            trials=settings["wide_trials"],
        )
    return sweeps


def topologies(settings: dict) -> dict[str, dict]:
    """The 10,000-trial runs of the generator chapter by centre: parameters of TOPOLOGY."""
    own = {"scale": settings["sigma"], "trials": settings["graph_trials"], "seed": settings["seed"]}
    return {
        "rebuilt": {"centre": "qwen3-rebuilt", "rows": settings["direct_rows"], **own},
        "holes": {"centre": "qwen3-holes", "rows": settings["rows"], **own},
    }
