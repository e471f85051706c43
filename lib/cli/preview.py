"""`python -m lib preview`: the book on a local port while one writes."""

import argparse
import http.server
import subprocess
from functools import partial

from lib import paths
from lib.book import edition


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "preview",
        help="show the book while writing",
        description="quarto preview where Quarto is; else press the book and serve it on a local "
        "port (press Ctrl-C to stop; run `make book` again to see changes).",
    )
    parser.add_argument("--port", type=int, default=4848)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; returns 0."""
    program = edition.quarto()
    if program is not None:
        command = [program, "preview", "--port", str(args.port)]
        return subprocess.run(command, cwd=paths.ROOT, env=edition.environment()).returncode
    edition.press(formats=("html",))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(paths.BOOK))
    with http.server.ThreadingHTTPServer(("127.0.0.1", args.port), handler) as server:
        print(f"the book: http://127.0.0.1:{args.port}/  (Ctrl-C stops)", flush=True)
        server.serve_forever()
    return 0
