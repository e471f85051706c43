"""`python -m lib keep`: write a full-scale chapter's results into data/full_runs.yml."""

import argparse
from pathlib import Path


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "keep",
        help="keep the results of a full-scale chapter",
        description="Write what a chapter settled at the scale in force, with the digests and "
        "seconds of its artefacts, into data/full_runs.yml. Run the chapter first.",
    )
    parser.add_argument("chapter", type=Path, help="e.g. goldilocks/03-look, or its file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Keep it; returns 0, or raises the book's own errors."""
    from lib import fullruns, scale
    from lib.book import runner

    if scale.current() != "full":
        raise fullruns.FullRunError("only results at full scale are kept: set BOOK_SCALE=full")
    chapter = runner.open_chapter(args.chapter)
    entry = fullruns.gather(chapter.name, [chapter.name, *chapter.reads])
    fullruns.keep(entry)
    print(
        f"kept {chapter.name}: {len(entry.claims)} claims, {len(entry.artefacts)} artefacts "
        f"({entry.seconds:,.0f} s) -> {fullruns.FILE.name}"
    )
    return 0
