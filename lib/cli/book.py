"""`python -m lib book` and `press`: render the whole book."""

import argparse

from lib.book import edition


def add(verbs: argparse._SubParsersAction) -> None:
    """Add both verbs and their options."""
    book = verbs.add_parser(
        "book",
        help="execute every chapter and render the book",
        description="Execute what is not up to date and render _book: with Quarto if it is on "
        "PATH (1.9 or newer), else with the press. BOOK_EDITION=press chooses the press.",
    )
    book.add_argument("--jobs", type=int, help="chapters at a time (default: one a core)")
    book.set_defaults(run=run_book)
    press = verbs.add_parser(
        "press",
        help="render the book without Quarto",
        description="Execute what is not up to date and press the pages with Pandoc and Typst.",
    )
    press.add_argument("--jobs", type=int, help="chapters at a time (default: one a core)")
    press.add_argument("--to", choices=("html", "pdf", "all"), default="all")
    press.set_defaults(run=run_press)


def run_book(args: argparse.Namespace) -> int:
    """Render with what is there; returns 0."""
    print(f"the book: {edition.build(args.jobs)}")
    return 0


def run_press(args: argparse.Namespace) -> int:
    """Render with the press; returns 0."""
    formats = ("html", "pdf") if args.to == "all" else (args.to,)
    print(f"the book: {edition.press(args.jobs, formats)}")
    return 0
