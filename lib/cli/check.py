"""`python -m lib check`: what can be known of the book without running it."""

import argparse
from pathlib import Path

from lib import paths
from lib.book.check import groups


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "check",
        help="check chapters, figures, references and the house without running anything",
        description="Check every page, label, reference, citation, figure, parameter, link and "
        "module of the book without running it. One line a finding, exit status 1 if there is any.",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=list(groups.GROUPS),
        metavar="GROUP",
        help=f"only this group, may be repeated: {', '.join(groups.GROUPS)}",
    )
    parser.add_argument("--root", type=Path, default=paths.ROOT, help="another book's folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check; returns 1 if anything was found."""
    findings = groups.run(args.root, args.only)
    for finding in findings:
        print(finding)
    checked = ", ".join(args.only or groups.GROUPS)
    if findings:
        print(f"{len(findings)} finding{'s' if len(findings) > 1 else ''}")
        return 1
    print(f"no findings ({checked})")
    return 0
