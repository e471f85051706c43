"""The linear response of Adam: how a small difference between two dead rows moves, to first order.

Rows w_i = c + d_i round the centroid c see the gradient g(w) = sum_t p_t(w) h_t / n with
p_t(w) = exp(w.h_t - lse_t). To first order in d_i

    dg_i = (1/n) sum_t p_t(c) (h_t . d_i) h_t ,

and Adam's own recursions, differentiated once, carry (dm_i, dv_i, d_i) from step to step. There
is no free parameter: what it predicts from the states at one step can be compared with what the
rows do. It holds while |d_i . h_t| is small against 1, and knows nothing of rounding. Source:
derived in the chapter on the law; Adam: Kingma and Ba (2015); decay: Loshchilov and Hutter (2019).
"""

import torch

from lib.training import optim
from lib.training.config import Run


class Tangent:
    """An observer that carries the linearised dead cloud (N, D) along a run from step `start`."""

    def __init__(self, run: Run, dead: slice, start: int):
        self.run, self.dead, self.start = run, dead, start
        self.d = self.dm = self.dv = torch.empty(0)

    def __call__(self, moment) -> None:
        """Begin at step `start` with the actual differences; afterwards follow to first order."""
        if moment.step == self.start:
            self.d = _centred(moment.params["W"][self.dead])
            self.dm = _centred(moment.exp_avg["W"][self.dead])
            self.dv = _centred(moment.exp_avg_sq["W"][self.dead])
        elif moment.step > self.start:
            self._follow(moment)

    def _follow(self, moment) -> None:
        c = optim.coefficients(self.run, moment.step)
        h = moment.h.reshape(-1, self.run.dim).double()
        W = moment.before["W"]
        centre = W[self.dead].double().mean(0)
        total = torch.logsumexp(moment.h.reshape(-1, self.run.dim).float() @ W.float().T, dim=1)
        p = torch.exp(h @ centre - total.double()) / len(h)
        gradient = p @ h
        change = self.d @ ((h.T * p) @ h)  # (N, D): dg of every row, through sum_t p_t h_t h_t^T
        self.dm = c.beta1 * self.dm + (1 - c.beta1) * change
        self.dv = c.beta2 * self.dv + (1 - c.beta2) * 2 * gradient * change
        m = moment.exp_avg["W"][self.dead].double().mean(0)
        v = moment.exp_avg_sq["W"][self.dead].double().mean(0)
        root = v.sqrt()
        denominator = root / c.correction + c.eps
        update = self.dm / denominator - m * self.dv / (2 * root * c.correction * denominator**2)
        self.d = c.decay * self.d - c.step_size * update
        self.d = self.d - self.d.mean(0)

    def spread(self) -> float:
        """Rms distance of the predicted rows to their centroid; NaN before the start."""
        return float(self.d.pow(2).sum(1).mean().sqrt()) if self.d.numel() else float("nan")


def _centred(rows: torch.Tensor) -> torch.Tensor:
    rows = rows.double()
    return rows - rows.mean(0)
