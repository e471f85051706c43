"""Warm kernels beside cold ones, in one process: `python -m benchmarks.warm_kernels`.

One chapter at smoke scale, executed by a kernel forked from a process that has imported what
chapters import, and by one started from nothing, alternating; parameters of its own, so that
neither finds anything done. Prints seconds by the wall, the ratio, what the first fork waits for,
and checks that the outputs are the same.
"""

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import nbformat

from book import runner, warm_kernels
from lib import paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chapter", default="discovery/02-census")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.environ["BOOK_SCALE"] = "smoke"
    source = paths.CHAPTERS / f"{args.chapter}.qmd"
    best = {"warm": float("inf"), "cold": float("inf")}
    with TemporaryDirectory() as folder:

        def timed(way: str) -> tuple[float, list]:
            start = time.perf_counter()
            with patch.object(warm_kernels, "forks", warm_kernels.forks if way == "warm" else None):
                file = runner.run(source, {"seed": 43}, Path(folder) / "executed.ipynb")
            taken = time.perf_counter() - start
            cells = nbformat.read(file, as_version=4).cells
            return taken, [cell.get("outputs") for cell in cells]

        first, _ = timed("warm")
        for _ in range(args.rounds):
            found = {way: timed(way) for way in best}
            best = {way: min(best[way], found[way][0]) for way in best}
            assert found["warm"][1] == found["cold"][1], "a fork showed something else"
    print(f"{args.chapter}: cold {best['cold']:.2f} s, warm {best['warm']:.2f} s,", end=" ")
    print(f"{best['cold'] / best['warm']:.1f} x; the first, which imports, {first:.2f} s")


if __name__ == "__main__":
    main()
