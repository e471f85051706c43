"""`python -m lib specimens`: what there is, what is here, where the rest can be had."""

import argparse
import json
import sys

from lib import paths
from lib.specimens import SpecimenError, catalogue, roles, store, trained


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "specimens",
        help="list the specimens and what of them is here",
        description="List the catalogue: whole matrices, extracts, and what can be fetched.",
        epilog="With --json: a list of objects with id, model, rows, dim, dtype, tokenizer, "
        "licence, gated, here (whole | extract | made | trained | no), note. What this book trains "
        "has the rows and width of the scale in force.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    parser.add_argument("--verify", action="store_true", help="hash every fetched matrix again")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List, or verify; returns 1 if a fetched matrix is damaged."""
    if args.verify:
        return _verify()
    rows = [
        {
            "id": d.id,
            "model": d.model,
            "rows": d.rows,
            "dim": d.dim,
            "dtype": d.dtype,
            "tokenizer": d.tokenizer,
            "licence": d.licence,
            "gated": d.gated,
            "here": here(d),
            "note": d.note,
        }
        for d in catalogue.CATALOGUE
    ]
    if args.json:
        print(json.dumps(rows))
        return 0
    print(f"{'ID':20} {'HERE':8} {'ROWS':>8} {'DIM':>6} {'DTYPE':5}  MODEL")
    for row in rows:
        gated = " (gated)" if row["gated"] else ""
        print(
            f"{row['id']:20} {row['here']:8} {size(row['rows']):>8} {size(row['dim']):>6} "
            f"{row['dtype']:5}  "
            f"{row['model']}{gated}" + (f": {row['note']}" if row["note"] else "")
        )
    subject = roles.resolve("subject")
    print(f"\nChapters read -p specimen=ID; by default `subject`, which is {subject} here.")
    print("`python -m lib fetch ID` brings a whole matrix here; generators train the last ones.")
    return 0


def size(count: int) -> str:
    """A count for the list; a dash where it depends on the scale."""
    return f"{count:,}" if count else "–"


def here(description: catalogue.Description) -> str:
    """What of a specimen is on this machine: whole, extract, made, trained, no."""
    if store.path_of(description.id).exists():
        return "whole"
    for source in description.sources:
        if isinstance(source, catalogue.Extract):
            return "extract"
        if isinstance(source, catalogue.Planted):
            return "made"
        if isinstance(source, catalogue.Trained) and trained.find(description.id):
            return "trained"
    return "no"


def _verify() -> int:
    damaged = 0
    for path in sorted(paths.FETCHED.glob("*.safetensors")):
        try:
            print(f"ok       {path.name}  sha256 {store.verify(path)}")
        except SpecimenError as error:
            damaged += 1
            print(f"DAMAGED  {error}", file=sys.stderr)
    return 1 if damaged else 0
