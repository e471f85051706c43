"""What contracts a row that feels p_i h: decay, and the curvature of the softmax through Adam.

To first order the difference d of a dead row to the centroid of the dead obeys

    dd/ds = -lr (wd + K) d,    K = diag(1/den) E[A] - diag(m / (root den^2)) E[g A],

with A = sum_t p_t h_t h_t^T the curvature, g = sum_t p_t h_t the gradient, m and root^2 = v Adam's
moments of g, den = root + eps, and the averages those of the moments' own memories, as long as d
changes little within them. `foreseen` below is the same without that condition: the moments'
derivatives are carried along, as in observers.Tangent. Source: derived in the chapter on tied rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lib.analysis import coalescence
from lib.training import ensemble, optim
from lib.training.config import Run
from lib.training.worlds import World


@dataclass(frozen=True)
class Contractions(ensemble.Observation):
    """Two contractions of the N dead rows of M members, measured and predicted.

    Of S snapshots: steps (S,) int64; float64 (M, S): exposure and reach, the sums of -ln(1 - lr wd)
    and of lr; losses, nats, mean since the snapshot before; probability, mean of a dead token's;
    logit of the dead centroid, weighted by its probability; hidden, rms component of h. Float64
    (M, S, D): width, standard deviation of the dead rows of W per dimension, inputs that of E's
    (the same when tied), predicted that of the linear response, which begins at step `tangent_from`
    (NaN before); spectrum, widths along the principal axes, ascending; centre; mean and variance of
    h, weighted by the centroid's probability over the memory of beta2.

    Of the whole run: first, last (M, N, D) float32 dead rows; foreseen (M, N, D) float32, the last
    differences by the linear response; curvature (M, D, D) float32, the sum of step size times K
    since `tangent_from`.
    """

    snapshots: int
    tangent_from: int

    name = "contractions"

    def watch(self, runs: Sequence[Run], world: World) -> dict[str, np.ndarray]:
        """Train."""
        scribe = Scribe(runs, len(world.texts), self.snapshots, self.tangent_from)
        outcomes = ensemble.train(runs, world.stream, observers=[scribe], label="contractions")
        return scribe.result(np.stack([outcome.losses for outcome in outcomes]))


class Scribe:
    """Observer that keeps the record of Contractions for the rows from `live` on."""

    def __init__(self, runs: Sequence[Run], live: int, snapshots: int, tangent_from: int):
        run, members, dim = runs[0], len(runs), runs[0].dim
        self.runs, self.rows, self.start = runs, slice(live, run.vocab), tangent_from
        self.keep = np.unique(np.linspace(0, run.steps, snapshots + 1).round().astype(int))
        shapes = {"A": (dim, dim), "gA": (dim, dim), "K": (dim, dim), "g": (dim,), "hh": (dim,)}
        shapes |= {"p": (1,), "logit": (1,)}
        zeros = {name: torch.zeros(members, *s, dtype=torch.float64) for name, s in shapes.items()}
        self.mean = zeros  # all but K: running means weighted by p, over the moments' memories
        self.moving = None  # the differences d, and the derivatives of both moments by them
        self.shots: list[dict[str, np.ndarray]] = []

    def __call__(self, moment: ensemble.Moment) -> None:
        if moment.step:
            self._follow(moment)
        if moment.step in self.keep:
            self.shots.append(self._snapshot(moment))

    def _follow(self, moment: ensemble.Moment) -> None:
        scalars = [optim.coefficients(run, moment.step) for run in self.runs]
        beta1, beta2, eps, decay, size, correction = (
            torch.tensor([getattr(one, name) for one in scalars], dtype=torch.float64)[:, None]
            for name in ("beta1", "beta2", "eps", "decay", "step_size", "correction")
        )
        h, logit, p = self._probabilities(moment)
        g, A = torch.bmm(p[:, None], h)[:, 0], torch.bmm(h.mT * p[:, None], h)
        now = {"A": A, "gA": g[:, :, None] * A, "g": g, "hh": A.diagonal(dim1=1, dim2=2)}
        now |= {"p": p.sum(1, keepdim=True), "logit": (p * logit).sum(1, keepdim=True)}
        for name, value in now.items():
            beta = (beta1 if name == "A" else beta2).view(-1, *[1] * (value.dim() - 1))
            self.mean[name].mul_(beta).add_((1 - beta) * value)

        m, v = (x["W"][:, self.rows].double().mean(1) for x in (moment.exp_avg, moment.exp_avg_sq))
        root = v.sqrt()
        den = (root / correction + eps)[:, None]
        slope = (m / (root * correction).clamp_min(1e-300))[:, None] / den**2
        if moment.step == self.start:
            tensors = (moment.params, moment.exp_avg, moment.exp_avg_sq)
            self.moving = [_centred(named["W"][:, self.rows]) for named in tensors]
        elif self.moving:
            K = self.mean["A"] / den.mT - slope.mT * self.mean["gA"]
            self.mean["K"].add_(size[:, None] * K)
            d, dm, dv = self.moving
            change = torch.bmm(torch.bmm(d, h.mT) * p[:, None], h)
            dm = torch.lerp(change, dm, beta1[:, None])
            dv = torch.lerp(2 * g[:, None] * change, dv, beta2[:, None])
            d = decay[:, None] * d - size[:, None] * (dm / den - slope * dv / 2)
            self.moving = [_centred(d), dm, dv]

    def _probabilities(self, moment: ensemble.Moment) -> tuple[torch.Tensor, ...]:
        """h (M, n, D), the centroid's logits and its probabilities over n, (M, n) float64."""
        W = moment.before["W"]
        wanted = torch.stack([w[ids] for w, ids in zip(W, moment.targets, strict=True)])
        total = (moment.h * wanted).sum(2) + moment.surprise  # ln of the sum of exponentials
        h, centre = moment.h.double(), W[:, self.rows].double().mean(1)
        logit = torch.bmm(h, centre[:, :, None])[:, :, 0]
        return h, logit, torch.exp(logit - total.double()) / h.shape[1]

    def _snapshot(self, moment: ensemble.Moment) -> dict[str, np.ndarray]:
        W = moment.params["W"][:, self.rows]
        d = _centred(W)
        weight = self.mean["p"].clamp_min(1e-300)
        bias = torch.tensor([1 - run.beta2 ** max(moment.step, 1) for run in self.runs])
        h = self.mean["g"] / weight
        found = {
            "width": _width(d),
            "inputs": _width(_centred(moment.params.get("E", moment.params["W"])[:, self.rows])),
            "predicted": _width(self.moving[0]) if self.moving else torch.full_like(h, torch.nan),
            "spectrum": torch.linalg.eigvalsh(d.mT @ d / d.shape[1]).clamp_min(0).sqrt(),
            "probability": self.mean["p"][:, 0] / bias,
            "logit": (self.mean["logit"] / weight)[:, 0],
            "mean": h,
            "variance": self.mean["hh"] / weight - h**2,
            "hidden": moment.h.double().square().mean((1, 2)).sqrt(),
            "centre": W.double().mean(1),
            "rows": W.clone(),
        }
        return {name: tensor.numpy() for name, tensor in found.items()}

    def result(self, losses: np.ndarray) -> dict[str, Any]:
        """The arrays of Contractions; losses (M, steps)."""
        kept = {name: np.stack([shot[name] for shot in self.shots], 1) for name in self.shots[0]}
        rows, at = kept.pop("rows"), self.keep
        means = [losses[:, a:b].mean(1) for a, b in zip(at[:-1], at[1:], strict=True)]  # noqa: RUF007
        rate = [[optim.learning_rate(run, t + 1) for t in range(at[-1])] for run in self.runs]
        return kept | {
            "steps": at,
            "exposure": np.stack([coalescence.exposure(run)[at] for run in self.runs]),
            "reach": np.pad(np.cumsum(rate, 1), ((0, 0), (1, 0)))[:, at],
            "losses": np.stack([losses[:, 0], *means], 1).astype(np.float64),
            "first": rows[:, 0],
            "last": rows[:, -1],
            "foreseen": self.moving[0].float().numpy() if self.moving else np.empty(0),
            "curvature": self.mean["K"].float().numpy(),
        }


def _centred(rows: torch.Tensor) -> torch.Tensor:
    rows = rows.double()
    return rows - rows.mean(1, keepdim=True)


def _width(offsets: torch.Tensor) -> torch.Tensor:
    return offsets.square().mean(1).sqrt()
