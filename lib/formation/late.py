"""Nearly dead tokens: how far from the dead centroid a row stands that was seen now and then.

A meeting fills a row's second moment with a gradient far larger than a dead row's. Until it is
forgotten, the row takes a smaller share r of the common step,

    r_t = sqrt(v_t / (v_t + extra_t)) ,

v being that of a row never met and extra the meetings' part; while the cloud is pushed out against
decay, the row only decays and falls behind by delta, along the cloud's own direction:

    delta_(t+1) = (1 - lr wd) delta_t + lr |u_t| (1 - r_t) .

Dimension by dimension, that is: in one where the hidden state that was met happened to be small,
little was written into v. Hidden states leave a layer norm, so their components are drawn as
Gaussian. Everything else is recorded or known; nothing is fitted. What is left out: the kick in the
direction of what was met, and what the row gets as an input. Source: derived in the chapter on
second lives.
"""

import numpy as np

from lib.formation import runs
from lib.training.config import Run


def distance(
    run: Run,
    record: dict[str, np.ndarray],
    met: np.ndarray,
    *,
    draws: int = 24,
    seed: int = 42,
) -> np.ndarray:
    """Predicted distance to the dead centroid at the end: (n,) float64, in the units of W.

    `record` is that of lib.formation.runs (push, gradient, hidden, steps); `met` (steps + 1, n, 2)
    counts meetings (lib.formation.runs.meetings); `draws` dimensions stand for all.
    """
    rng = np.random.default_rng(seed)
    decay = np.exp(-np.diff(runs.exposure(run)))
    rate = -np.log(decay) / run.weight_decay
    push = np.interp(
        np.arange(1, run.steps + 1), record["steps"], np.linalg.norm(record["push"], axis=1)
    )
    common, extra = 0.0, np.zeros((met.shape[1], draws))
    behind = np.zeros_like(extra)
    for t in range(run.steps):
        common = run.beta2 * common + (1 - run.beta2) * record["gradient"][t] ** 2
        extra *= run.beta2
        for row in np.flatnonzero(met[t + 1, :, 0]):
            seen = rng.standard_normal((met[t + 1, row, 0], draws)).sum(axis=0)
            extra[row] += (1 - run.beta2) * (seen * record["hidden"][t] / run.tokens_per_step) ** 2
        share = np.sqrt(common / (common + extra))
        behind = decay[t] * behind + rate[t] * push[t] * (1 - share)
    return np.sqrt((behind**2).mean(axis=1))
