"""`python -m lib verify`: are the artefacts on disk what was written?"""

import argparse

from lib import artifacts, paths


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "verify",
        help="check every artefact against its digest",
        description="Read every artefact under data/artifacts and check its digest. "
        "Exit status 1 if any is damaged.",
    )
    parser.add_argument("--remove", action="store_true", help="delete the damaged ones")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify; returns 1 if anything is damaged."""
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
