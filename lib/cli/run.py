"""`python -m lib run`: execute one chapter, or all of them."""

import argparse
from pathlib import Path

from lib import paths
from lib.book import config, runner, schedule


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "run",
        help="execute chapters",
        description="Execute one chapter with parameters, or, without a file, every chapter that "
        "is not up to date, side by side. Leaves executed notebooks in data/artifacts/executed.",
    )
    parser.add_argument(
        "chapter", nargs="?", type=Path, help="e.g. discovery/01-norms, or its file"
    )
    parser.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set a parameter of the chapter; unknown names and other types are refused",
    )
    parser.add_argument("--output", type=Path, help="where the executed notebook goes")
    parser.add_argument("--jobs", type=int, help="chapters at a time (default: one a core)")
    parser.add_argument("--generators", action="store_true", help="only the generator chapters")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Execute; returns 0, or raises the book's own errors."""
    if args.chapter is None:
        if args.parameters or args.output:
            raise runner.ParameterError("-p and --output go with one chapter: name its .qmd file")
        files = [paths.ROOT / page.source for page in config.load().pages]
        schedule.run_all(files, args.jobs, "generator" if args.generators else None)
        return 0
    chapter = runner.open_chapter(args.chapter)
    parameters = runner.parse_parameters(args.parameters, chapter)
    path = runner.run(args.chapter, parameters, args.output)
    print(f"executed {chapter.name} -> {path}")
    return 0
