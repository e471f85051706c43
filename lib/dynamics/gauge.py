"""Gauges: the gradients of the living and the dead, measured at every step of the first moments."""

import numpy as np
import torch

from lib import artifacts
from lib.dynamics import motion
from lib.training import films, loop, model, worlds
from lib.training.config import from_dict

SOURCES = (*films.SOURCES, "lib.dynamics.gauge", "lib.dynamics.motion")

READINGS = (
    "dead",  # mean length of a dead row's gradient
    "live",  # mean length of a live row's gradient
    "coherence",  # mean cosine between two dead gradients
    "with_h",  # mean cosine of dead gradients with the mean hidden state
    "floored_coherence",  # both once more, as they come out when lengths below FLOOR count as it
    "floored_with_h",
    "probability",  # mean probability of a dead token
    "angle",  # degrees between the centroids of dead and live rows
    "dead_norm",  # length of the dead centroid
    "radius",  # mean distance of dead rows to it
)
FLOOR = 1e-12  # below which torch.nn.functional.normalize does not divide by the length


class Gauge:
    """Observer that takes the readings of every step."""

    def __init__(self, dead: np.ndarray, live: np.ndarray):
        self.dead, self.live = torch.from_numpy(dead), torch.from_numpy(live)
        self.found: dict[str, list[float]] = {name: [] for name in READINGS}

    def __call__(self, moment: loop.Moment) -> None:
        if moment.step == 0:
            return
        grads, W = moment.grads["W"].float(), moment.before["W"].float()
        h = moment.h.flatten(0, 1).float()
        dead = grads[self.dead].double().numpy()  # squares of the shortest would underflow
        length = np.linalg.norm(dead, axis=1)
        unit = np.divide(dead, length[:, None], out=dead, where=length[:, None] > 0)
        floored = np.minimum(length / FLOOR, 1)  # lengths left of the units
        along_h = unit @ motion.unit(h.mean(0).numpy())
        dead_centre, live_centre = W[self.dead].mean(0), W[self.live].mean(0)
        readings = {
            "dead": length.mean(),
            "live": grads[self.live].norm(dim=1).mean(),
            "coherence": _coherence(unit.sum(0), (length > 0).astype(np.float64)),
            "with_h": along_h.mean(),
            "floored_coherence": _coherence(floored @ unit, floored),
            "floored_with_h": (floored * along_h).mean(),
            "probability": model.probabilities(h, W)[self.dead].mean(),
            "angle": motion.angle(dead_centre.numpy(), live_centre.numpy()),
            "dead_norm": dead_centre.norm(),
            "radius": (W[self.dead] - dead_centre).norm(dim=1).mean(),
        }
        for name, value in readings.items():
            self.found[name].append(float(value))


def _coherence(total: np.ndarray, lengths: np.ndarray) -> float:
    """Mean cosine of all pairs of vectors with this sum and these lengths, none where it is zero.

    The same number as motion.coherence, whose vectors are at hand only once here.
    """
    n = np.count_nonzero(lengths)
    if n < 2:
        return float("nan")
    return float((total @ total - lengths @ lengths) / (n * (n - 1)))


def make(*, world: dict, contents: str, run: dict) -> dict[str, np.ndarray]:
    """Readings of a run: an array (steps,) float64 for each of READINGS, and losses (float32)."""
    where, values = worlds.cached(**world, contents=contents), from_dict(run)
    gauge = Gauge(where.dead, where.live)
    outcome = loop.train(values, where.stream, observers=[gauge], label="gauge")
    readings = {name: np.array(found) for name, found in gauge.found.items()}
    return {**readings, "losses": outcome.losses}


RECIPE = artifacts.Recipe("gauge", make, SOURCES, "dynamics/05-arms")
