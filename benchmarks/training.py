"""One Goldilocks step, four ways, in one process, alternating: `python -m benchmarks.training`.

- the sources' recipe: a module, `model.to(bfloat16)`, eager, torch.optim.AdamW;
- plain float32: the same module and optimiser in float32;
- ours: storage on the bf16 lattice, forward and backward in float32, logits in chunks;
- ours with compute_dtype="bfloat16": the recipe's own bits, checked, with our optimiser.

All on one thread, with the same initial weights and batches. Prints steps per second of processor
time (other work on the machine hardly enters), the ratios, whether the losses agree, what a step
would take if it were its matrix products and attention alone, which is the least that an engine
with these products and this attention can take, and (with --profile) where our time goes. How slow
eager bf16 is depends on the processor: with bf16 instructions it stands near float32, on either
side of it. What a processor without them does can be had by

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \\
        python -m benchmarks.training --no-onednn

where --no-onednn sends bf16 products to torch's own kernel, as torch does on such processors.
"""

import argparse
import time

import numpy as np
import torch

from lib.training import loop, model
from lib.training.config import EAGER_BF16, FLOAT32, GOLDILOCKS, Run
from tests.oracles import Peer

PROFILED = 8  # steps
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_")
ATTENTION = "flash_attention_for_cpu"  # in the names of its forward and of its backward


def shares(averages: list) -> tuple[float, float]:
    """Shares of (products, attention) in the time that a profile saw."""
    times = {average.key: average.self_cpu_time_total for average in averages}
    total = sum(times.values())
    attention = sum(time for name, time in times.items() if ATTENTION in name)
    return sum(times[name] for name in PRODUCTS) / total, attention / total


class Way:
    """One way of training, advanced a few steps at a time."""

    def __init__(self, run: Run, stream: np.ndarray, dtype: torch.dtype | None):
        self.run, self.stream, self.step, self.losses = run, stream, 0, []
        self.best = float("inf")
        if dtype is not None:
            peer = Peer(run).load(model.views(model.initialise(run), run)).to(dtype)
            self.peer, self.adamw = (
                peer,
                torch.optim.AdamW(peer.parameters(), lr=run.lr, weight_decay=0),
            )
        else:
            self.resume = None

    def advance(self, steps: int) -> None:
        start = time.process_time()
        if hasattr(self, "peer"):
            for step in range(self.step + 1, self.step + steps + 1):
                self.adamw.zero_grad()
                loss = self.peer(*loop.batch(self.stream, self.run, step))
                loss.backward()
                self.adamw.step()
                self.losses.append(loss.item())
        else:
            run = self.run.replace(steps=self.step + steps)
            outcome = loop.train(run, self.stream, resume=self.resume)
            self.resume = outcome
            self.losses = outcome.losses.tolist()
        self.step += steps
        self.best = min(self.best, (time.process_time() - start) / steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--profile", action="store_true", help="show where our step spends its time"
    )
    parser.add_argument("--no-onednn", action="store_true", help="torch's own bf16 products")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = not args.no_onednn
    bf16 = torch.cpu.get_capabilities()["avx512_bf16"] and not args.no_onednn
    print(
        f"{torch.backends.cpu.get_cpu_capability()}, bf16 instructions: {'yes' if bf16 else 'no'}"
    )
    rng = np.random.default_rng(42)
    stream = (rng.zipf(1.2, 200_000) % 2074).astype(np.uint16)
    run = GOLDILOCKS
    ways = {
        "sources' recipe (eager bf16)": (Way(run, stream, torch.bfloat16), 2),
        "plain float32 eager": (Way(run.replace(**FLOAT32), stream, torch.float32), 8),
        "ours (bf16 lattice, float32 compute)": (Way(run, stream, None), 8),
        "ours, computing in bf16 too": (Way(run.replace(**EAGER_BF16), stream, None), 2),
    }
    for _ in range(args.rounds):
        for way, steps in ways.values():
            way.advance(steps)
    ours = ways["ours (bf16 lattice, float32 compute)"][0]
    print(f"Goldilocks, {model.count(run):,} parameters, batch {run.batch} x {run.seq}, 1 thread")
    for name, (way, _) in ways.items():
        print(
            f"  {name:38s} {1 / way.best:6.2f} steps/s, "
            f"ours is {way.best / ours.best:5.2f} x as fast"
        )
    first = [way.losses[:4] for way, _ in ways.values()]
    print(
        "  losses of the first steps:", *(" ".join(f"{x:.3f}" for x in row) + ";" for row in first)
    )
    assert ways["sources' recipe (eager bf16)"][0].losses == way.losses, "not the recipe's bits"
    assert np.allclose(first[0], first[2], atol=0.08), "ours and eager bf16 disagree"
    assert np.allclose(first[1], first[2], atol=0.03), "ours and float32 disagree"
    step = ours.best
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        ours.advance(PROFILED)
    averages = profile.key_averages()
    products, attention = (share * step for share in shares(averages))
    least = products + attention
    print(
        f"  of our {step * 1e3:.0f} ms, products {products * 1e3:.0f} and attention "
        f"{attention * 1e3:.0f}; with nothing else {1 / least:.1f} steps/s:"
    )
    for name, (way, _) in list(ways.items())[:2]:
        print(f"    {way.best / least:5.2f} x {name}")
    if args.profile:
        print(averages.table(sort_by="self_cpu_time_total", row_limit=14,
                             max_name_column_width=44))  # fmt: skip


if __name__ == "__main__":
    main()
