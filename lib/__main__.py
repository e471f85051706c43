"""`python -m lib VERB`: the one command line, put together here and nowhere else.

The verbs that ask a matrix, a tokenizer or an artefact are the library's (`lib.cli`); those that
run, check and render chapters are the book's (`book.cli`).
"""

import argparse
import sys

if sys.version_info < (3, 11):  # noqa: UP036 (said before an older one fails at what follows)
    print("error: Python 3.11 or newer is needed: make setup PYTHON=python3.11", file=sys.stderr)
    sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """The whole command line. Raises files.FileError where committed data are damaged."""
    import book.cli
    import lib.cli

    top = argparse.ArgumentParser(
        prog="python -m lib",
        description="The book on dead tokens: run its chapters, render its pages, ask its tools.",
        epilog="BOOK_SCALE=smoke|book|full sets how large the experiments are (default: book).",
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    lib.cli.add(verbs)
    book.cli.add(verbs)
    return top


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for an error that the caller can mend)."""
    from lib import foreign

    try:
        args = parser().parse_args(words)
        return args.run(args) or 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except ImportError as error:
        if (error.name or "lib").partition(".")[0] in ("lib", "book", "press"):
            raise
        why = foreign.visible(" ".join(str(error).split()))
        print(f"error: {why}: run `make setup`, then .venv/bin/python", file=sys.stderr)
        return 2
    except (ValueError, RuntimeError, OSError) as error:
        # the book's own errors say what is wrong and how to mend it; the rest are defects
        if not type(error).__module__.startswith(("lib.", "book.", "press.")):
            if isinstance(error, OSError) and error.errno:  # the system's, not ours
                where = f"{foreign.visible(str(error.filename))}: " if error.filename else ""
                print(f"error: {where}{error.strerror}", file=sys.stderr)
                return 2
            raise
        of_lib = type(error).__module__.startswith("lib.")  # one line; a chapter's failure has more
        lines = [str(error)] if of_lib else str(error).splitlines()
        print("error: " + "\n".join(map(foreign.visible, lines)), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
