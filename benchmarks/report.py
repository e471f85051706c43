"""How long does a field report take, and how much memory, for a matrix of Qwen3-4B's size?

    python -m benchmarks.report [ROUNDS]

Makes a bfloat16 matrix of 151,936 x 2,560 with planted rows: 2,212 close to one point, 2,100 of
them in groups of identical rows, on ids that no text gives. Then `python -m lib report` reads it
with Qwen's vocabulary, in a process of its own each round; printed are the seconds on the clock, of
processor, and the largest memory of the process and of its kernel together. The first round also
makes what is kept afterwards (the analysis of the vocabulary), and compiles.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from lib.extraction import reachability

ROWS, DIM = 151_936, 2_560
DEAD = 2_212
POPULATIONS = (814, 704, 306, 228, 11, 10, 6, 5, 4, 4, 3, 3, 2)  # of the groups
CHUNK = 4_096


def make(path: Path) -> None:
    """Write the matrix."""
    rng = torch.Generator().manual_seed(42)
    found = reachability.records("qwen3")
    dead = torch.tensor([record.id for record in found if record.reach.dead][:DEAD])
    groups = torch.repeat_interleave(torch.arange(len(POPULATIONS)), torch.tensor(POPULATIONS))
    alone = torch.arange(len(POPULATIONS), len(POPULATIONS) + len(dead) - len(groups))
    groups = torch.cat([groups, alone])[torch.randperm(len(dead), generator=rng)]
    W = torch.empty(ROWS, DIM, dtype=torch.bfloat16)
    for start in tqdm(range(0, ROWS, CHUNK), desc="making the matrix"):
        some = W[start : start + CHUNK]
        some[:] = 0.022 * torch.randn(some.shape, generator=rng)
    point = 0.007 * torch.randn(DIM, generator=rng)
    steps = torch.randint(-1, 2, (int(groups.max()) + 1, DIM), generator=rng)
    W[dead] = (point * (1 + steps * 2.0**-8)).to(torch.bfloat16)[groups]
    save_file({"model.embed_tokens.weight": W}, path)


def measured(command: list[str]) -> tuple[float, float, float, float]:
    """Of a command: seconds on the clock, of processor; GB at most, with the mapped file, without.

    The pages of a memory-mapped file can be dropped at any moment: they are counted apart.
    """
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process, resident, own = psutil.Popen(command, stdout=subprocess.DEVNULL), 0, 0
    while process.poll() is None:
        now = [memory(one) for one in (process, *process.children(recursive=True))]
        resident = max(resident, sum(told for told, _ in now))
        own = max(own, sum(told - shared for told, shared in now))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"ended with {process.returncode}: {' '.join(command)}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, spent, resident / 1e9, own / 1e9


def memory(process: psutil.Process) -> tuple[int, int]:
    """(bytes resident, of these shared or mapped) of one process; zeros if it has ended."""
    try:
        told = process.memory_info()
        return told.rss, getattr(told, "shared", 0)  # not told on every system
    except psutil.Error:
        return 0, 0


def main() -> None:
    """Make the file, measure, print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        path = Path(folder) / "model.safetensors"
        make(path)
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "lib", "report", str(path)]
        command += ["--tokenizer", "qwen3", "--out", str(out)]
        for round in range(1, rounds + 1):
            clock, spent, resident, own = measured(command)
            print(
                f"round {round}: {clock:.1f} s, {spent:.1f} s of processor, at most "
                f"{resident:.2f} GB resident, {own:.2f} GB without mapped files"
            )


if __name__ == "__main__":
    main()
