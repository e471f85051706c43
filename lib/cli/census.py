"""`python -m lib census`: identical rows of a matrix, exactly."""

import argparse
import json
import time

from lib import specimens
from lib.survey import census

FIRST_IDS = 10  # of each hole, in the answer


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "census",
        help="count the identical rows of a matrix",
        description="Exact census of identical rows (by bits) of a matrix in a .safetensors file, "
        "of the unembedding if no tensor is named. Also reads a model's folder, a .gguf file, or "
        "an id of the catalogue.",
        epilog="With --json: source, tensor, dtype, rows, dim, unique, surplus, zero_pairs, "
        "singletons, hole_rows, holes (population and first_ids of each), seconds.",
    )
    parser.add_argument("file", metavar="FILE[:TENSOR]")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Count and print; returns 0, or raises SpecimenError."""
    specimen = specimens.open(args.file)
    began = time.perf_counter()
    found = census.of(specimen)
    seconds = time.perf_counter() - began
    answer = {
        "source": specimen.source,
        "tensor": specimen.description.tensor,
        "dtype": specimen.precision,
        "rows": found.rows,
        "dim": specimen.dim,
        "unique": found.unique,
        "surplus": found.surplus,
        "zero_pairs": found.zero_pairs,
        "singletons": found.singletons,
        "hole_rows": found.hole_rows,
        "holes": [
            {"population": int(population), "first_ids": ids[:FIRST_IDS].tolist()}
            for population, ids in found.every_hole()
        ],
        "seconds": round(seconds, 4),
    }
    print(json.dumps(answer) if args.json else _text(answer))
    return 0


def _text(answer: dict) -> str:
    lines = [
        answer["source"],
        f"{answer['rows']:,} rows, {answer['unique']:,} distinct, {answer['surplus']:,} surplus, "
        f"{answer['singletons']:,} identical to no other",
        f"{len(answer['holes']):,} black holes of {answer['hole_rows']:,} rows, "
        f"{answer['zero_pairs']:,} pairs at distance zero",
    ]
    for hole in answer["holes"][:20]:
        ids = ", ".join(map(str, hole["first_ids"]))
        rest = ", …" if hole["population"] > len(hole["first_ids"]) else ""
        lines.append(f"{hole['population']:>8,}  {ids}{rest}")
    if len(answer["holes"]) > 20:
        lines.append(f"          … and {len(answer['holes']) - 20:,} smaller ones (--json has all)")
    return "\n".join([*lines, f"{answer['seconds']:.2f} s"])
