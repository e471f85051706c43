"""`python -m lib neighbours`: rows of a matrix that are neighbours on its lattice, exactly."""

import argparse
import json
import time

from lib import specimens

SHOWN = 20  # components in the text answer
FIRST_IDS = 10  # of each of them


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "neighbours",
        help="find the rows that are neighbours on the lattice",
        description="All pairs of distinct rows that differ by at most STEPS lattice steps in "
        "every dimension, exactly, of a bfloat16 (or float16) matrix in a .safetensors file; the "
        "unembedding if no tensor is named. Identical rows count as one.",
        epilog="With --json: source, tensor, dtype, rows, dim, distinct, steps, edges, pairs (of "
        "row ids), components (row ids of each, largest first), non_isolated, non_isolated_rows, "
        "share_without, seconds.",
    )
    parser.add_argument("file", metavar="FILE.safetensors[:TENSOR]")
    parser.add_argument("--steps", type=int, default=1, help="lattice steps (default: 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search and print; returns 0, or raises SpecimenError."""
    from lib.survey import neighbours  # imports torch: only this verb should wait for it

    if args.steps < 0:
        raise specimens.SpecimenError(f"--steps {args.steps}: a distance cannot be negative")
    specimen = specimens.open(args.file)
    if specimen.precision not in ("BF16", "F16"):
        raise specimens.SpecimenError(
            f"{args.file}: its rows are {specimen.precision}; lattice steps are counted on BF16 "
            "or F16 rows, so name such a tensor or save the matrix as bfloat16"
        )
    began = time.perf_counter()
    found = neighbours.search(specimen.bits, args.steps)
    seconds = time.perf_counter() - began
    answer = {
        "source": specimen.source,
        "tensor": specimen.description.tensor,
        "dtype": specimen.precision,
        "rows": found.census.rows,
        "dim": specimen.dim,
        "distinct": found.census.unique,
        "steps": args.steps,
        "edges": len(found.edges),
        "pairs": found.edges.tolist(),
        "components": [ids.tolist() for ids in found.members],
        "non_isolated": len(found.touched),
        "non_isolated_rows": len(found.rows_with_neighbour),
        "share_without": found.share_without,
        "seconds": round(seconds, 4),
    }
    print(json.dumps(answer) if args.json else _text(answer))
    return 0


def _text(answer: dict) -> str:
    lines = [
        answer["source"],
        f"{answer['rows']:,} rows, {answer['distinct']:,} distinct",
        f"{answer['edges']:,} pairs within {answer['steps']} "
        f"step{'s' * (answer['steps'] != 1)} in every one of {answer['dim']:,} dimensions",
        f"{answer['non_isolated']:,} distinct rows have a neighbour "
        f"({answer['non_isolated_rows']:,} with their copies), in {len(answer['components']):,} "
        f"components; {100 * answer['share_without']:.2f} % of all rows have none",
    ]
    for ids in answer["components"][:SHOWN]:
        rest = ", …" if len(ids) > FIRST_IDS else ""
        lines.append(f"{len(ids):>8,}  {', '.join(map(str, ids[:FIRST_IDS]))}{rest}")
    if len(answer["components"]) > SHOWN:
        more = len(answer["components"]) - SHOWN
        lines.append(f"          … and {more:,} smaller ones (--json has all)")
    return "\n".join([*lines, f"{answer['seconds']:.2f} s"])
