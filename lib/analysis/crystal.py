"""What the lattice does to a cloud of rows: which dimensions can vary, what values occur.

Are the holes made by independent flips? Tests on a table of vectors, dimensions and populations.

Each dimension in which the vectors differ has a few states. If every token chose its states
independently, dimension by dimension, the number of distinct vectors, their populations and every
two-way table would follow from the states' frequencies alone. The tests say how far they do.

The shape of a dead cluster: how wide in each dimension, how dense at each radius.

Extents and diversity are counted on the lattice, in steps; radii are lengths.
"""

import enum
from dataclasses import dataclass
from itertools import combinations

import networkx as nx
import numpy as np
from scipy import stats
from scipy.special import xlogy

from lib import lattice
from lib.analysis import graph


def half_precision(bits: np.ndarray) -> np.ndarray:
    """float16 patterns (uint16, any shape) -> the nearest bf16 patterns, uint16."""
    return lattice.round_nearest(bits.view(np.float16).astype(np.float32))


@dataclass(frozen=True)
class SpreadFit:
    """One width R of a cloud, common to all dimensions, fitted to which dimensions vary."""

    width: float  # length R
    low: float  # 95 % likelihood interval of R
    high: float
    probability: np.ndarray  # (dims,) chance that each dimension varies
    classes: np.ndarray  # (k, 4): step length, dimensions, observed varying, expected varying
    deviance: float  # of the classes' counts
    p_value: float  # share of simulated counts that deviate at least as much


def fit_spread(
    step: np.ndarray, varies: np.ndarray, *, rng: np.random.Generator, trials: int = 2_000
) -> SpreadFit:
    """Fit P(dimension varies) = min(1, R / step) to `step` (dims,) lengths, `varies` (dims,) bool.

    R is the maximum-likelihood width; the interval is where the log likelihood is within 1.92 of
    its maximum; the p-value comes from `trials` simulated sets of counts, with R fitted to each.
    Raises ValueError if no dimension varies, or all do: then R is not bounded.
    """
    if not varies.any() or varies.all():
        raise ValueError("the width can be fitted only if some dimensions vary and some do not")
    lengths, at = np.unique(step, return_inverse=True)
    total = np.bincount(at).astype(float)
    observed = np.bincount(at, weights=varies)
    log_grid = np.linspace(np.log(lengths[0]) - 12, np.log(lengths[-1]) + 1, 4_000)
    chance = np.clip(np.exp(log_grid)[:, None] / lengths, 1e-300, 1 - 1e-3)  # (grid, k)
    likelihood = observed @ np.log(chance).T + (total - observed) @ np.log1p(-chance).T
    best = likelihood.argmax()
    inside = np.flatnonzero(likelihood > likelihood[best] - 1.92)
    draws = rng.binomial(total.astype(int), chance[best], (trials, len(total)))
    fits = draws @ np.log(chance).T + (total - draws) @ np.log1p(-chance).T
    null = [_deviance(d, total, chance[f.argmax()]) for d, f in zip(draws, fits, strict=True)]
    deviance = _deviance(observed, total, chance[best])
    return SpreadFit(
        float(np.exp(log_grid[best])),
        *(float(np.exp(log_grid[i])) for i in (inside[0], inside[-1])),
        chance[best][at],
        np.column_stack([lengths, total, observed, total * chance[best]]),
        float(deviance),
        float((np.sum(np.array(null) >= deviance) + 1) / (trials + 1)),
    )


def _deviance(observed: np.ndarray, total: np.ndarray, chance: np.ndarray) -> float:
    """Twice the log likelihood ratio of binomial counts against `chance`."""
    missed, expected = total - observed, total * chance
    return 2 * float(xlogy(observed, observed / expected).sum()
                     + xlogy(missed, missed / (total - expected)).sum())  # fmt: skip


def survivors(values: np.ndarray) -> dict[str, float]:
    """Share of float32 `values` (any shape) that a round trip through each format leaves as is."""
    flat = np.asarray(values, dtype=np.float32).ravel()
    with np.errstate(over="ignore", under="ignore"):
        half = flat.astype(np.float16).astype(np.float32)
    brain = lattice.value(lattice.round_nearest(flat))
    return {"bfloat16": float((brain == flat).mean()), "float16": float((half == flat).mean())}


def gaps(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((k,) lengths, (k,) counts) of gaps between neighbouring values, commonest first."""
    length, count = np.unique(np.diff(np.unique(values.astype(np.float64))), return_counts=True)
    order = np.argsort(-count, kind="stable")
    return length[order], count[order]


def states(ordinals: np.ndarray) -> np.ndarray:
    """(vectors, dims) lattice coordinates -> (vectors, dims) int: 0, 1, 2, ... in each column."""
    return np.column_stack([np.unique(column, return_inverse=True)[1] for column in ordinals.T])


@dataclass(frozen=True)
class Product:
    """What independent dimensions with the same frequencies would give, trial by trial."""

    distinct: np.ndarray  # (trials,) distinct vectors
    largest: np.ndarray  # (trials, 4) the largest populations, descending


def product(
    table: np.ndarray, populations: np.ndarray, *, rng: np.random.Generator, trials: int
) -> Product:
    """Shuffle every dimension of the expanded table (tokens, dims) on its own, `trials` times.

    `table` (vectors, dims) int states, `populations` (vectors,). Shuffling keeps each dimension's
    frequencies exactly and breaks every relation between dimensions.
    """
    tokens = np.repeat(table, populations, axis=0)
    base = tokens.max(axis=0) + 1
    weight = np.cumprod(np.append(1, base[:-1])).astype(np.int64)
    distinct, largest = np.empty(trials, dtype=np.int64), np.zeros((trials, 4), dtype=np.int64)
    for trial in range(trials):
        shuffled = rng.permuted(tokens, axis=0)
        counts = np.sort(np.unique(shuffled @ weight, return_counts=True)[1])[::-1]
        distinct[trial] = len(counts)
        largest[trial, : len(counts[:4])] = counts[:4]
    return Product(distinct, largest)


@dataclass(frozen=True)
class Pair:
    """The two-way table of two dimensions, weighted by population."""

    left: int
    right: int
    chi2: float
    p: float  # of independence, tokens taken as independent
    cramer: float  # Cramér's V: 0 independent, 1 one determines the other
    combinations: int  # occupied cells of the table
    cells: int  # all cells


def pairs(table: np.ndarray, populations: np.ndarray) -> list[Pair]:
    """Chi-square test (no continuity correction) of every two dimensions of `table`."""
    found = []
    for left, right in combinations(range(table.shape[1]), 2):
        counts = np.zeros((table[:, left].max() + 1, table[:, right].max() + 1))
        np.add.at(counts, (table[:, left], table[:, right]), populations)
        test = stats.chi2_contingency(counts, correction=False)
        cramer = np.sqrt(test.statistic / populations.sum() / (min(counts.shape) - 1))
        found.append(
            Pair(left, right, float(test.statistic), float(test.pvalue), float(cramer),
                 int((counts > 0).sum()), counts.size)
        )  # fmt: skip
    return found


def shattered(table: np.ndarray) -> int:
    """Most two-state dimensions that occur in all combinations of states (1, 2, 3, ...).

    Vectors cut from a cloud of k dimensions by one wall a dimension can show all 2^m combinations
    of m walls only if k >= m: so the cloud has at least this many dimensions.
    """
    binary = [d for d in range(table.shape[1]) if table[:, d].max() == 1]
    most = min(1, len(binary))
    for size in range(2, len(binary) + 1):
        if not any(
            len(np.unique(table[:, list(chosen)], axis=0)) == 2**size
            for chosen in combinations(binary, size)
        ):
            break
        most = size
    return most


def tree(table: np.ndarray) -> nx.Graph:
    """Minimum spanning tree of the vectors; an edge's `weight` counts dimensions that change."""
    apart = (table[:, None] != table[None]).sum(axis=-1)
    graph = nx.Graph()
    graph.add_weighted_edges_from(
        (i, j, int(apart[i, j])) for i, j in combinations(range(len(table)), 2)
    )
    return nx.minimum_spanning_tree(graph)


def consistency(table: np.ndarray) -> float:
    """Fewest changes that the states need, over changes in the spanning tree: 1 for a perfect tree.

    A dimension with s states must change at least s - 1 times on any tree. Values below 1 mean
    that dimensions flip repeatedly, as in a cloud and unlike a line of descent.
    """
    needed = int(table.max(axis=0).sum())
    return needed / sum(weight for *_, weight in tree(table).edges(data="weight"))


def consistency_null(table: np.ndarray, *, rng: np.random.Generator, trials: int) -> np.ndarray:
    """(trials,) consistency after each dimension's states are shuffled among the vectors.

    Shuffles in which two vectors coincide count like any other.
    """
    return np.array([consistency(rng.permuted(table, axis=0)) for _ in range(trials)])


def low_rank(
    table: np.ndarray, populations: np.ndarray, rank: int, *, rng: np.random.Generator, trials: int
) -> np.ndarray:
    """(trials,) distinct vectors of a continuous cloud of `rank` dimensions with the same walls.

    Tokens are Gaussian in `rank` dimensions; every dimension of `table` is a random direction in
    that space, cut by walls that give each state the frequency it has in the table.
    """
    tokens = np.repeat(table, populations, axis=0)
    shares = [np.cumsum(np.bincount(column) / len(tokens))[:-1] for column in tokens.T]
    distinct = np.empty(trials, dtype=np.int64)
    for trial in range(trials):
        directions = rng.normal(size=(rank, table.shape[1]))
        places = rng.normal(size=(len(tokens), rank)) @ directions
        cells = [
            np.searchsorted(np.quantile(place, share), place)
            for place, share in zip(places.T, shares, strict=True)
        ]
        distinct[trial] = len(np.unique(np.column_stack(cells), axis=0))
    return distinct


@dataclass(frozen=True)
class Box:
    """The bounding box of a set of rows, in lattice steps."""

    extent: np.ndarray  # (dim,) int64: largest minus smallest ordinal
    diversity: np.ndarray  # (dim,) int64: distinct values
    mantissa_only: np.ndarray  # (dim,) bool: sign and exponent are common to all rows

    @property
    def constant(self) -> int:
        """Dimensions in which all rows agree."""
        return int((self.extent == 0).sum())

    @property
    def varying(self) -> int:
        """Dimensions in which not all rows agree."""
        return int((self.extent > 0).sum())

    @property
    def log10_cells(self) -> float:
        """log10 of the number of lattice points in the box."""
        return float(np.log10(self.extent + 1.0).sum())


def box(bits: np.ndarray, *, mantissa_bits: int = lattice.MANTISSA_BITS) -> Box:
    """The bounding box of `bits` (n, dim) uint16; `mantissa_bits` is 7 for bf16, 10 for float16."""
    ordinals = lattice.ordinal(bits)
    ordered = np.sort(ordinals, axis=0)
    head = np.asarray(bits) >> mantissa_bits
    return Box(
        (ordered[-1] - ordered[0]).astype(np.int64),
        (np.diff(ordered, axis=0) != 0).sum(axis=0) + 1,
        (head == head[0]).all(axis=0),
    )


class Zone(enum.Enum):
    """Where a row stands relative to a dead cluster's void."""

    CORE = "core"  # the dense middle, inside the first decade of radii that empties
    HALO = "halo"  # inside the void, outside the core
    OORT = "Oort cloud"  # the first rows beyond the void
    FIELD = "field"  # everybody else

    def __str__(self) -> str:
        return self.value


def zones(
    distances: np.ndarray, *, core: float, inner: float, outer: float, oort: float
) -> np.ndarray:
    """(rows,) distances -> (rows,) Zone: up to `core`, up to `inner` (the void's inner edge), up to
    `oort` beyond the void's `outer` edge, and the rest. Radii must ascend (ValueError)."""
    if not 0 < core <= inner < outer <= oort:
        raise ValueError(f"radii must ascend, got {core}, {inner}, {outer}, {oort}")
    named = np.full(distances.shape, Zone.FIELD, dtype=object)
    named[distances <= oort] = Zone.OORT
    named[distances <= inner] = Zone.HALO
    named[distances <= core] = Zone.CORE
    return named


def profile(distances: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((k,) rows in each shell, (k,) rows per unit of ln r): density against radius.

    A volume density would fall by hundreds of decades a factor of two in high dimensions; rows per
    e-fold of radius show the same gaps on a scale one can draw.
    """
    rows, _ = np.histogram(distances, edges)
    return rows, rows / np.diff(np.log(edges))


@dataclass(frozen=True)
class Portrait:
    """A set of rows as every instrument of this part sees it."""

    rows: int
    populations: np.ndarray  # (distinct,) rows on each distinct row, descending
    box: Box
    graphs: dict[graph.Adjacency, graph.Graph]  # on the distinct rows; empty if there are too many
    independent: np.ndarray  # (trials,) distinct rows after shuffling every dimension on its own
    dependent_pairs: float  # share of pairs of varying dimensions with p < 0.05; NaN without pairs

    @property
    def distinct(self) -> int:
        """Distinct rows."""
        return len(self.populations)

    @property
    def holes(self) -> int:
        """Black holes: distinct rows with at least two copies."""
        return int((self.populations > 1).sum())

    @property
    def varying(self) -> int:
        """Dimensions in which not all rows agree."""
        return self.box.varying

    @property
    def surprise(self) -> float:
        """Distinct rows less those of independent dimensions, in standard deviations of the latter;
        NaN where shuffling changes nothing."""
        spread = self.independent.std()
        return float((self.distinct - self.independent.mean()) / spread) if spread else np.nan


def portrait(
    bits: np.ndarray, *, rng: np.random.Generator, trials: int, largest: int = 1_000
) -> Portrait:
    """The portrait of bf16 rows `bits` (n, dim) uint16, copies included.

    Graphs are built, and dimensions shuffled `trials` times, only for at most `largest` distinct
    rows: a cloud that the lattice resolves entirely has nothing to say to either.
    """
    distinct, count = np.unique(bits, axis=0, return_counts=True)
    order = np.argsort(-count, kind="stable")
    distinct, count = distinct[order], count[order]
    found = box(distinct)
    graphs, independent, dependent = {}, np.empty(0), np.nan
    if len(distinct) <= largest:
        graphs = graph.every(distinct, populations=count)
        varying = np.flatnonzero(found.extent)
        if len(varying):
            table = states(lattice.ordinal(distinct[:, varying]))
            independent = product(table, count, rng=rng, trials=trials).distinct
        if len(varying) > 1:
            dependent = np.mean([p.p < 0.05 for p in pairs(table, count)])
    return Portrait(len(bits), count, found, graphs, independent, float(dependent))


def expected_varying(rows: np.ndarray) -> tuple[float, float]:
    """How many dimensions of float32 `rows` (n, dim) should vary on the bf16 lattice: mean and
    standard deviation, if where a lattice wall stands is chance in every dimension.

    A dimension varies with probability min(1, range / step), the step being that of its median.
    """
    step = lattice.ulp(lattice.round_nearest(np.median(rows, axis=0).astype(np.float32)))
    chance = np.minimum(1, np.ptp(rows.astype(np.float64), axis=0) / step)
    return float(chance.sum()), float(np.sqrt((chance * (1 - chance)).sum()))


def constant_dimensions(bits: np.ndarray, mean: np.ndarray | None = None) -> int:
    """Dimensions in which all rows of `bits` (n, dim) uint16 agree; less the float32 `mean` (dim,),
    in float32, if one is given (the subtraction can merge values, and never parts them)."""
    if mean is None:
        return int((np.ptp(lattice.ordinal(bits), axis=0) == 0).sum())
    return int((np.ptp(lattice.value(bits) - mean.astype(np.float32), axis=0) == 0).sum())
