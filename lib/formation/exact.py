"""The snowball, exactly and fast: the same distribution as `snowball`, without drawing the rows.

Two ideas. First, deleting i.i.d. rows uniformly leaves i.i.d. rows, so Monument Valley with n
survivors is direct sampling of n rows: 151,936 rows need never exist. Second, where dimensions are
independent, a group of n identical rows splits in the next dimension into a multinomial, so counts
are drawn instead of rows, and a row that is already alone needs no further draw at all. Ball and
shell, whose dimensions are not independent, are drawn row by row (`lib.formation.spherical`).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from lib.formation import cells as cells_module
from lib.formation import spherical, splitting
from lib.formation.cells import Cells
from lib.formation.snowball import Distribution, check

BLOCK_ROWS = 1 << 21  # rows of one block of trials: a seed and a piece of work of its own
BLOCK_NUMBERS = 1 << 20  # numbers of one block where every row is drawn: fits the caches


@dataclass(frozen=True)
class Trials:
    """Demographics of many trials; arrays (trials,) int64 unless said otherwise."""

    unique: np.ndarray  # distinct rows
    holes: np.ndarray  # distinct rows with a population of at least 2
    tokens: np.ndarray  # rows in holes
    largest: np.ndarray  # population of the largest group
    varying: np.ndarray  # dimensions in which not all rows agree; -1 if not asked for
    populations: tuple[np.ndarray, ...] = field(repr=False)  # per trial, descending; () if not kept
    cells: tuple[np.ndarray, ...] = field(repr=False)  # per trial (unique, K) int32 ordinals, or ()
    dims: np.ndarray = field(repr=False)  # (K,) int64: the dimensions that `cells` speaks of

    @property
    def singletons(self) -> np.ndarray:
        """Rows alone in their cell."""
        return self.unique - self.holes

    def __len__(self) -> int:
        return len(self.unique)


def simulate(
    centre: np.ndarray,
    *,
    scale: float,
    rows: int,
    trials: int,
    distribution: Distribution | str = Distribution.GAUSSIAN,
    seed: int = 42,
    varying: bool = True,
    populations: bool = False,
    cells: bool = False,
    workers: int = 2,
    table: Cells | None = None,
) -> Trials:
    """Demographics of `trials` snowballs of `rows` rows round (D,) float32 `centre`.

    `scale` is sigma (Gaussian), the radius (ball, shell) or b (Laplace). The result depends on the
    seed, not on `workers`. `table` replaces the cell probabilities (the tests plant an error).
    With cells=True every group's coordinates are kept. Raises ValueError on a bad setting.
    """
    distribution = Distribution(distribution)
    centre = check(centre, scale, rows)
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    table = table or cells_module.table(centre, scale=scale, distribution=distribution)
    block = max(1, min(trials, BLOCK_ROWS // rows, 1000))
    if cells or not distribution.independent:
        block = max(1, min(block, BLOCK_NUMBERS // (rows * max(1, len(table)))))
    sizes = [block] * (trials // block) + [trials % block] * (trials % block > 0)
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    engine = splitting.block if distribution.independent else spherical.block

    def work(size: int, child: np.random.SeedSequence) -> Trials:
        groups = engine(
            centre,
            table,
            scale=scale,
            rows=rows,
            trials=size,
            distribution=distribution,
            varying=varying,
            keep=cells,
            rng=np.random.Generator(np.random.SFC64(child)),
        )
        return _demographics(groups, size, table, populations, cells)

    if workers > 1 and len(sizes) > 1:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(work, sizes, seeds))
    else:
        parts = [work(size, child) for size, child in zip(sizes, seeds, strict=True)]
    return join(parts)


def join(parts: list[Trials]) -> Trials:
    """All trials of `parts`, in order."""
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("unique", "holes", "tokens", "largest", "varying")
    }
    lists = {
        name: tuple(item for part in parts for item in getattr(part, name))
        for name in ("populations", "cells")
    }
    return replace(parts[0], **arrays, **lists)


def _demographics(groups, trials: int, table: Cells, populations: bool, cells: bool) -> Trials:
    """Trials of splitting.Groups."""
    trial, count = groups.trial, groups.count
    shared = count > 1
    largest = np.minimum(groups.alone, 1)
    np.maximum.at(largest, trial, count)
    holes = np.bincount(trial[shared], minlength=trials)
    alone = groups.alone + np.bincount(trial[~shared], minlength=trials)
    tokens = np.bincount(trial[shared], weights=count[shared], minlength=trials).astype(np.int64)
    by_trial, ordinals = (), ()
    if populations or cells:
        order = np.lexsort((-count, trial))
        ends = np.cumsum(np.bincount(trial, minlength=trials))[:-1]
        if populations:
            by_trial = tuple(
                np.concatenate([part, np.ones(lone, np.int64)])
                for part, lone in zip(np.split(count[order], ends), groups.alone, strict=True)
            )
        if cells:
            ordinals = tuple(np.split(groups.cells[order], ends))
    return Trials(
        holes + alone, holes, tokens, largest, groups.varying, by_trial, ordinals, table.dim
    )
