"""Gauges: the gradients of the living and the dead, measured at every step of the first moments."""

from collections.abc import Mapping

import numpy as np
import torch

from lib import artifacts
from lib.dynamics import motion
from lib.training import films, loop, worlds
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
        dead_centre, live_centre = W[self.dead].mean(0), W[self.live].mean(0)
        mean_h = h.mean(0).numpy()
        p = torch.softmax(h @ W.T, 1)[:, self.dead].mean()
        readings = {
            "dead": np.linalg.norm(dead, axis=1).mean(),
            "live": grads[self.live].double().norm(dim=1).mean().item(),
            "coherence": motion.coherence(dead),
            "with_h": motion.cosine(dead, mean_h).mean(),
            "floored_coherence": motion.coherence(dead, FLOOR),
            "floored_with_h": motion.cosine(dead, mean_h, FLOOR).mean(),
            "probability": p.item(),
            "angle": motion.angle(dead_centre.numpy(), live_centre.numpy()),
            "dead_norm": dead_centre.norm().item(),
            "radius": (W[self.dead] - dead_centre).norm(dim=1).mean().item(),
        }
        for name, value in readings.items():
            self.found[name].append(float(value))


def make(*, world: dict, contents: str, runs: list) -> dict[str, np.ndarray]:
    """Readings of several runs: one array (runs, steps) float64 for each of READINGS, and losses.

    All runs must have the same number of steps.
    """
    where, found, losses = worlds.cached(**world, contents=contents), [], []
    for i, values in enumerate(runs):
        gauge = Gauge(where.dead, where.live)
        outcome = loop.train(
            from_dict(values),
            where.stream,
            observers=[gauge],
            label=f"gauge {i + 1} of {len(runs)}",
        )
        found.append(gauge.found)
        losses.append(outcome.losses)
    readings: Mapping[str, np.ndarray] = {n: np.array([f[n] for f in found]) for n in READINGS}
    return {**readings, "losses": np.stack(losses)}


RECIPE = artifacts.Recipe("gauge", make, SOURCES, "dynamics/05-arms")
