"""`python -m lib export`: a chapter as a plain notebook for papermill or Jupyter."""

import argparse
from pathlib import Path

from lib.book import runner


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "export",
        help="write a chapter as a notebook",
        description="Write a chapter as a notebook that papermill and Jupyter run unchanged, from "
        "the folder of the book: papermill OUT.ipynb result.ipynb -p NAME VALUE.",
    )
    parser.add_argument("chapter", type=Path, help="e.g. discovery/01-norms, or its file")
    parser.add_argument("--output", type=Path, help="default: the chapter's name + .ipynb, here")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export; returns 0."""
    output = args.output or Path(args.chapter.with_suffix(".ipynb").name)
    print(f"wrote {runner.export(args.chapter, output)}")
    return 0
