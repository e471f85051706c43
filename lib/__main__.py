"""`python -m lib`: run, export, press and check the book; look into specimens and artefacts."""

import argparse
import importlib
import pkgutil
import sys

from lib import cli


def parser() -> argparse.ArgumentParser:
    """The whole command line; every module of `lib.cli` adds its verb."""
    top = argparse.ArgumentParser(
        prog="python -m lib",
        description="The book on dead tokens: run its chapters, press its pages, ask its tools.",
        epilog="BOOK_SCALE=smoke|book|full sets how large the experiments are (default: book).",
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in sorted(pkgutil.iter_modules(cli.__path__), key=lambda m: m.name):
        importlib.import_module(f"lib.cli.{module.name}").add(verbs)
    return top


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for an error that the caller can mend)."""
    args = parser().parse_args(words)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except (ValueError, RuntimeError, OSError) as error:
        # the book's own errors say what is wrong and how to mend it; the rest are defects
        if not type(error).__module__.startswith("lib."):
            if isinstance(error, OSError) and error.filename:
                print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
                return 2
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
