"""Arms of an experiment: many runs, each watched at every step and reduced to a few curves.

Films of whole matrices are for the runs one wants to look into; an arm keeps only what its dead
rows did: the cloud they form, when each of them stopped, and where they ended.
"""

from collections.abc import Callable

import numpy as np
import torch

from lib import artifacts
from lib.dynamics import displacement, motion
from lib.training import films, loop, model, worlds
from lib.training.config import from_dict

SOURCES = (
    *films.SOURCES,
    "lib.dynamics.arms",
    "lib.dynamics.displacement",
    "lib.dynamics.motion",
    "lib.lattice",
)
PIECE = 64  # frames reduced at a time

CURVES = ("radius", "rms", "norm", "bulk", "thermal", "outward", "null")


# ----------------------------------------------------------------------------- taking causes away
def common(dead: torch.Tensor) -> Callable[[model.Parameters], None]:
    """Every dead row gets the mean of the dead gradients: nothing tells them apart."""

    def intervene(grads: model.Parameters) -> None:
        grads["W"][dead] = grads["W"][dead].mean(0)

    return intervene


def equal_length(dead: torch.Tensor) -> Callable[[model.Parameters], None]:
    """Every dead gradient keeps its direction and gets the mean length: no one is pushed harder."""

    def intervene(grads: model.Parameters) -> None:
        rows = grads["W"][dead]
        length = rows.norm(dim=1, keepdim=True)
        grads["W"][dead] = rows / length.clamp_min(1e-30) * length.mean()

    return intervene


def one_direction(dead: torch.Tensor) -> Callable[[model.Parameters], None]:
    """Every dead gradient keeps its length and gets the mean direction: one wind for all."""

    def intervene(grads: model.Parameters) -> None:
        rows = grads["W"][dead]
        mean = rows.mean(0)
        grads["W"][dead] = mean / mean.norm().clamp_min(1e-30) * rows.norm(dim=1, keepdim=True)

    return intervene


INTERVENTIONS = {"common": common, "equal length": equal_length, "one direction": one_direction}


# ----------------------------------------------------------------------------- watching
class Watcher:
    """Observer that reduces the frames of some rows to curves and last exits."""

    def __init__(self, rows: np.ndarray, matrix: str = "W"):
        self.rows, self.matrix = torch.from_numpy(rows), matrix
        self.frames: list[torch.Tensor] = []
        self.curves: dict[str, list[np.ndarray]] = {name: [] for name in (*CURVES, "still")}
        self.centroid: list[np.ndarray] = []
        self.last = {name: np.zeros(len(rows), np.int64) for name in ("early", "midlife", "motion")}
        self.component: np.ndarray | None = None  # (rows, dim) last step in which each moved
        self.push = torch.zeros(len(rows), dtype=torch.float64)  # summed lengths of late gradients
        self.pushes = 0  # steps summed
        self.steps = 0  # reduced so far

    def __call__(self, moment: loop.Moment) -> None:
        self.frames.append(moment.params[self.matrix].detach()[self.rows].clone())
        if moment.step > moment.run.steps // 2:
            self.push += moment.grads[self.matrix][self.rows].float().norm(dim=1)
            self.pushes += 1
        if len(self.frames) > PIECE:
            self.reduce()

    def reduce(self) -> None:
        """Turn the frames gathered into numbers; the last frame stays, as the next one's past."""
        if len(self.frames) < 2:
            return
        frames = torch.stack(self.frames)
        cloud = motion.cloud(frames.float().numpy())
        patterns = frames.bfloat16().view(torch.int16).numpy().view(np.uint16)
        moves = displacement.of(patterns)
        skip = 0 if self.steps == 0 else 1  # the first frame of a later piece was counted
        for name in CURVES:
            values = getattr(cloud, name)
            self.curves[name].append(values[skip:] if name in motion.OF_FRAMES else values)
        self.centroid.append(cloud.centroid[skip:])
        self.curves["still"].append((moves.l1 == 0).mean(1))
        conditions = {
            "early": moves.l2 > np.sqrt(moves.dim),
            "midlife": moves.linf > 1,
            "motion": moves.l1 > 0,
        }
        at = self.steps + 1 + np.arange(len(moves.l1))[:, None]
        for name, condition in conditions.items():
            self.last[name] = np.maximum(self.last[name], (condition * at).max(0))
        now = (displacement.moved(patterns) * at[..., None].astype(np.int32)).max(0)
        self.component = now if self.component is None else np.maximum(self.component, now)
        self.steps += len(moves.l1)
        self.frames = self.frames[-1:]

    def result(self) -> dict[str, np.ndarray]:
        """Curves (steps,) or (steps + 1,), centroid (steps + 1, dim), last exits (rows,).

        And `component` (rows, dim) int32: last step in which each component moved, 0 for never;
        `push` (rows,) float32: mean length of a row's gradient in the second half of the run.
        """
        self.reduce()
        found = {n: np.concatenate(c).astype(np.float32) for n, c in self.curves.items()}
        found["centroid"] = np.concatenate(self.centroid).astype(np.float32)
        found["component"] = self.component
        found["push"] = (self.push / max(self.pushes, 1)).numpy().astype(np.float32)
        return found | self.last


def make(
    *, world: dict, contents: str, run: dict, intervene: str = "", matrix: str = "W"
) -> dict[str, np.ndarray]:
    """What the dead rows of `matrix` ("W" or "E") did in a run: see Watcher.result.

    And losses (steps,) float32 and `last` (dead, dim) uint16 patterns. `intervene`: "" or the name
    of one of INTERVENTIONS.
    """
    where, values = worlds.cached(**world, contents=contents), from_dict(run)
    dead = torch.from_numpy(where.dead)
    watcher = Watcher(where.dead, matrix)
    outcome = loop.train(
        values,
        where.stream,
        observers=[watcher],
        intervene=INTERVENTIONS[intervene](dead) if intervene else None,
        label="arm",
    )
    last = model.views(outcome.state.param, values)[matrix][dead].bfloat16()
    return watcher.result() | {"losses": outcome.losses, "last": films.patterns(last)}


RECIPE = artifacts.Recipe("arm", make, SOURCES, "dynamics/05-arms")


def unique(patterns: np.ndarray) -> tuple[int, int]:
    """Number of different rows of (rows, dim) patterns, and population of the commonest."""
    _, counts = np.unique(np.ascontiguousarray(patterns), axis=0, return_counts=True)
    return len(counts), int(counts.max())
