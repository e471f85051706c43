"""A token's life in four phases, by the last exit from each: there is no way back.

Early: L2 > sqrt(D). Midlife: Linf > 1 step. Late: Linf <= 1. Fimbulwinter: L1 = 0 for the rest of
the run. A token leaves a phase at the *last* step at which its condition holds.
"""

import enum
from dataclasses import dataclass

import numpy as np

from lib.dynamics.displacement import Moves


class Phase(enum.IntEnum):
    """The phases in order of life."""

    EARLY = 0
    MIDLIFE = 1
    LATE = 2
    FIMBULWINTER = 3

    @property
    def word(self) -> str:
        """For texts and legends."""
        return self.name.capitalize()


@dataclass(frozen=True)
class Lives:
    """Last step (counted from 1; 0: never) at which each condition held; all (rows,) int64."""

    early: np.ndarray  # L2 > sqrt(D)
    midlife: np.ndarray  # Linf > 1
    motion: np.ndarray  # L1 > 0
    steps: int  # length of the run

    def phase(self, step: int) -> np.ndarray:
        """Phase of every row during `step` (1..steps): (rows,) int of Phase."""
        return (step > self.early).astype(int) + (step > self.midlife) + (step > self.motion)

    def strata(self) -> np.ndarray:
        """Share of rows in each phase at each step: (steps, 4) float64, rows sum to 1."""
        at = np.arange(1, self.steps + 1)[:, None]
        left = [np.sort(exits) for exits in (self.early, self.midlife, self.motion)]
        passed = [np.searchsorted(exits, at[:, 0], side="left") for exits in left]
        rows = len(self.motion)
        bounds = np.stack([np.full(self.steps, rows), *passed, np.zeros(self.steps)], 1) / rows
        return bounds[:, :-1] - bounds[:, 1:]

    def stragglers(self, window: int) -> np.ndarray:
        """Indices of rows that moved within the last `window` steps of the run."""
        return np.flatnonzero(self.motion > self.steps - window)


def lives(moves: Moves) -> Lives:
    """Last exits of every row. Needs every step: sampled frames would miss the late moves."""
    return Lives(
        early=_last(moves.l2 > np.sqrt(moves.dim)),
        midlife=_last(moves.linf > 1),
        motion=_last(moves.l1 > 0),
        steps=len(moves.l1),
    )


def _last(condition: np.ndarray) -> np.ndarray:
    """Number of the last true row, counted from 1; 0 where there is none."""
    backwards = condition[::-1]
    return np.where(condition.any(0), len(condition) - backwards.argmax(0), 0)


def sampled(moved: np.ndarray, every: int) -> np.ndarray:
    """Last step (rows,) in which a row is *seen* to move if only every `every`-th step is read.

    moved (steps, rows) bool. It is the last step itself only for `every` = 1.
    """
    return _last(moved[every - 1 :: every]) * every


def still(moves: Moves) -> np.ndarray:
    """Share of rows that do not move at each step: instantaneous freezing, (steps,)."""
    return (moves.l1 == 0).mean(1)


def frozen(lives: Lives) -> np.ndarray:
    """Share of rows that will not move again from each step on: permanent freezing, (steps,).

    The end of the run is not the end of time: what is about to move again counts as frozen.
    """
    return lives.strata()[:, Phase.FIMBULWINTER]


def quantile_step(curve: np.ndarray, share: float) -> int | None:
    """First step (from 1) at which a rising curve reaches `share`; None if never."""
    reached = curve >= share
    return int(reached.argmax()) + 1 if reached.any() else None
