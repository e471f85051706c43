"""`python -m lib sweep`: a grid of runs, each point one cached artefact."""

import argparse
from pathlib import Path

EXAMPLE = """\
example file:
  world: {name: flannel, vocab: 500, thai_share: 0.2,
          tokenizer_characters: 100000, characters: 80000}
  base: {dim: 64, layers: 2, heads: 2, ff: 256, seq: 32, batch: 4, steps: 200}
  grid: {lr: [0.001, 0.003], seed: [42, 43, 44]}
  record: [W]
"""


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "sweep",
        help="run a grid of training runs",
        description="Train and film every combination of the values in the file's grid. What is "
        "already on disk is not made again, so a sweep that was stopped goes on where it was.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE.yml")
    parser.add_argument("--jobs", type=int, help="processes at a time (default: one a core)")
    parser.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="use a Dask scheduler's machines instead"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sweep and print a line a point; 0 if all points are there, 1 if one failed."""
    from lib.training import sweep  # here: torch takes seconds to load

    wanted = sweep.read(args.file)
    total, failed = len(wanted.points()), 0
    for number, result in enumerate(
        sweep.run(wanted, jobs=args.jobs, scheduler=args.scheduler), start=1
    ):
        values = "  ".join(f"{name}={value}" for name, value in result.point.items())
        where = result.path.name if result.path else ""
        print(f"{number:4d}/{total}  {values}  {result.state}  {where}", flush=True)
        failed += result.path is None
    print(
        f"{total - failed} of {total} points are on disk" + (f", {failed} failed" if failed else "")
    )
    return 1 if failed else 0
