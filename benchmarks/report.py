"""How long does a field report take, and how much memory, for a matrix of Qwen3-4B's size?

    python -m benchmarks.report [ROUNDS]

Makes a bfloat16 matrix of 151,936 x 2,560 with planted rows: 2,212 close to one point, 2,100 of
them in groups of identical rows, on ids that no text gives. Then `python -m lib report` reads it
with Qwen's vocabulary, in a process of its own each round; printed are the seconds on the clock, of
processor, and the largest memory of the process and of its kernel together, the mapped file
included. The first round also makes what is kept afterwards (the analysis of the vocabulary), and
compiles.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
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


def measured(command: list[str]) -> tuple[float, float, float]:
    """Of a command and its children: seconds on the clock, of processor; GB of memory at most."""
    began, spent, most = time.perf_counter(), {}, 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        held = 0
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):  # it has just ended
                held += memory(one)
                spent[one.pid] = sum(one.cpu_times()[:2])
        most = max(most, held)
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"ended with {process.returncode}: {' '.join(command)}")
    return time.perf_counter() - began, sum(spent.values()), most / 1e9


def memory(process: psutil.Process) -> int:
    """Bytes of a process; a page that several hold, as a forked kernel does, is shared out."""
    told = process.memory_full_info()
    return getattr(told, "pss", told.rss)  # Linux alone tells what is shared


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
            clock, spent, most = measured(command)
            print(
                f"round {round}: {clock:.1f} s, {spent:.1f} s of processor, {most:.2f} GB at most"
            )


if __name__ == "__main__":
    main()
