"""AdamW on the bf16 lattice: torch's way a tensor at a time, and ours on one flat buffer.

`python -m benchmarks.adamw`: the parameters of Goldilocks, one thread, alternating; checks that
both end with the same bits.
"""

import time

import torch

from lib.training import model, optim
from lib.training.config import GOLDILOCKS


def main() -> None:
    torch.set_num_threads(1)
    run = GOLDILOCKS
    flat = model.initialise(run)
    theirs = [torch.nn.Parameter(p.bfloat16().clone()) for p in model.views(flat, run).values()]
    adamw = torch.optim.AdamW(theirs, lr=run.lr, weight_decay=0.0, foreach=False)
    state = optim.start(run, flat)
    best = {"torch.optim.AdamW, for-loop": float("inf"), "ours, one flat buffer": float("inf")}
    for seed in range(20):
        grad = torch.randn(len(flat), generator=torch.Generator().manual_seed(seed)).mul_(1e-3)
        grad = grad.bfloat16()
        for parameter, g in zip(theirs, model.views(grad, run).values(), strict=True):
            parameter.grad = g
        ways = (adamw.step, lambda g=grad: optim.step_(state, g, run))
        for name, step in zip(best, ways, strict=True):
            start = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - start)
    for mine, peer in zip(model.views(state.param, run).values(), theirs, strict=True):
        assert torch.equal(mine, peer), "the two disagree"
    ours = best["ours, one flat buffer"]
    for name, seconds in best.items():
        print(f"  {name:28s} {seconds * 1e3:6.2f} ms a step   {seconds / ours:4.2f} x ours")


if __name__ == "__main__":
    main()
