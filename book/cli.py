"""The verbs that run, check and render chapters, report on a model, and pack a release."""

import argparse
import http.server
import os
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

from book import archive, config, full_runs, notebooks, render, runner, schedule
from book.check import groups
from lib import claims, paths, scale


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the book's verbs and their options."""
    parser = verbs.add_parser(
        "run",
        help="execute chapters",
        description="Execute one chapter with parameters, or, without a file, every chapter that "
        "is not up to date, side by side. Leaves executed notebooks in data/artifacts/executed.",
    )
    parser.add_argument("chapter", nargs="?", type=Path, help="discovery/01-norms, or its file")
    parser.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set a parameter of the chapter; what is out of its range is refused",
    )
    help = "say which parameters the chapter has, with their ranges, and run nothing"
    parser.add_argument("--list", action="store_true", help=help)
    parser.add_argument("--output", type=Path, help="where the executed notebook goes")
    parser.add_argument("--jobs", type=int, help="chapters at a time (default: one a core)")
    parser.add_argument("--generators", action="store_true", help="only the generator chapters")
    parser.set_defaults(run=run)

    parser = verbs.add_parser(
        "report",
        help="say which tokens of a model are dead, and why",
        description="Read a model's matrix and tokenizer, without running the model, and write a "
        "field report: report.html (one file), report.pdf, report.json, and tokens.csv with a line "
        "for each row. MODEL is an id of `python -m lib specimens`, a .safetensors[:TENSOR] or "
        ".gguf file, a model's folder, or org/name on the Hugging Face hub, of which only the one "
        "or two matrices, the tokenizer and config.json are fetched.",
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--revision", default="main", metavar="R", help="of the hub's repository")
    parser.add_argument("--tokenizer", default="", metavar="T", help="instead of the model's own")
    default = "default: field-reports/ and the model's name, here"
    parser.add_argument("--out", type=Path, metavar="DIR", help=default)
    parser.set_defaults(run=report)

    parser = verbs.add_parser(
        "export",
        help="write a chapter as a notebook",
        description="Write a chapter as a notebook that papermill and Jupyter run unchanged, from "
        "the folder of the book: papermill OUT.ipynb result.ipynb -p NAME VALUE.",
    )
    parser.add_argument("chapter", type=Path, help="discovery/01-norms, or its file")
    parser.add_argument("--output", type=Path, help="default: the chapter's name + .ipynb, here")
    parser.set_defaults(run=export)

    parser = verbs.add_parser(
        "keep",
        help="keep the results of a full-scale chapter",
        description="Write what a chapter settled at full scale, with the digests and seconds of "
        "its artefacts, into data/full_runs.yml. Run the chapter first.",
    )
    parser.add_argument("chapter", type=Path, help="goldilocks/03-look, or its file")
    parser.set_defaults(run=keep)

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
    parser.add_argument(
        "--ran",
        action="store_true",
        help="instead: sentences that do not hold in the chapters executed at the scale in force",
    )
    parser.add_argument("--root", type=Path, default=paths.ROOT, help="another book's folder")
    parser.set_defaults(run=check)

    parser = verbs.add_parser(
        "book",
        help="execute every chapter and render the book",
        description="Execute what is not up to date and render _book: with Quarto if it is on "
        "PATH (1.9 or newer), else with the press. BOOK_EDITION=press chooses the press.",
    )
    parser.add_argument("--jobs", type=int, help="chapters at a time (default: one a core)")
    parser.set_defaults(run=book)

    parser = verbs.add_parser(
        "archive",
        help="pack the book and its sources as a release",
        description="Render the book of the commit that is checked out, as `book` does, and pack "
        "it with its sources into one zip under build. Refused where CITATION.cff, pyproject.toml "
        "and the commit's tag do not say the same version and day.",
    )
    parser.add_argument("--jobs", type=int, help="chapters at a time (default: one a core)")
    parser.set_defaults(run=release)

    parser = verbs.add_parser(
        "notebooks",
        help="answer Quarto's engine with executed notebooks",
        description="For the engine in _extensions/book: reads a question a line, {file, "
        "parameters, words, folder}, and answers each with an executed notebook.",
    )
    parser.set_defaults(run=answer)

    parser = verbs.add_parser(
        "press",
        help="render the book without Quarto",
        description="Execute what is not up to date and press the pages with Pandoc and Typst.",
    )
    parser.add_argument("--jobs", type=int, help="chapters at a time (default: one a core)")
    parser.add_argument("--to", choices=("html", "pdf", "all"), default="all")
    parser.set_defaults(run=press)

    parser = verbs.add_parser(
        "preview",
        help="show the book while writing",
        description="quarto preview where Quarto is; else press the book and serve it on a local "
        "port; a chapter that changes is pressed again, to be seen when the page is loaded anew "
        "(Ctrl-C stops).",
    )
    parser.add_argument("--port", type=int, default=4848)
    parser.set_defaults(run=preview)


def run(args: argparse.Namespace) -> None:
    """Execute one chapter or all. Raises the book's own errors."""
    if args.chapter is None:
        if args.parameters or args.output or args.list:
            raise runner.ParameterError("-p, --list and --output go with one chapter: name it")
        files = [paths.ROOT / page.source for page in config.load().pages]
        schedule.run_all(files, args.jobs, "generator" if args.generators else "")
        return
    chapter = runner.open_chapter(args.chapter)
    if args.list:
        print("\n".join(runner.listed(chapter)))
        return
    parameters = runner.parse_parameters(args.parameters, chapter)
    digest = ""
    if not parameters:
        digest = schedule.keys(schedule.with_what_it_reads(chapter))[chapter.name]
    path = runner.run(args.chapter, parameters, args.output, digest)
    print(f"executed {chapter.name} -> {path}")


def report(args: argparse.Namespace) -> None:
    """Write the field report of a model."""
    plain = re.sub(r"[^\w.-]+", "-", args.model, flags=re.ASCII).strip("-.") or "model"
    out = args.out or Path("field-reports") / plain
    model = about = args.model
    if Path(model).exists():  # the document runs in the book's folder
        model = str(Path(model).resolve())
        about = Path(model).name
    elif (file := Path(model.rpartition(":")[0])).is_file():
        model = f"{file.resolve()}:{model.rpartition(':')[2]}"
        about = Path(model).name
    tokenizer = args.tokenizer
    if Path(tokenizer).is_file():
        tokenizer = str(Path(tokenizer).resolve())
    settings = {"tokenizer": tokenizer, "revision": args.revision, "about": about}
    for path in render.report(model, out.resolve(), **settings):
        print(path)


def answer(args: argparse.Namespace) -> None:
    """Answer Quarto's engine until it ends."""
    notebooks.serve(sys.stdin, sys.stdout)


def export(args: argparse.Namespace) -> None:
    """Write a chapter as a plain notebook."""
    output = args.output or Path(f"{args.chapter.stem}.ipynb")
    print(f"wrote {runner.export(args.chapter, output)}")


def keep(args: argparse.Namespace) -> None:
    """Keep the results of a full-scale chapter. Raises ClaimError."""
    if scale.current() != "full":
        raise claims.ClaimError("only results at full scale are kept: set BOOK_SCALE=full")
    chapter = runner.open_chapter(args.chapter)
    entry = full_runs.gather(chapter.name, [chapter.name, *chapter.reads])
    full_runs.keep(entry)
    print(
        f"kept {chapter.name}: {len(entry.claims)} claims, {len(entry.artefacts)} artefacts "
        f"({entry.seconds:,.0f} s) -> {paths.FULL_RUNS.name}"
    )


def check(args: argparse.Namespace) -> int:
    """Check without running; returns 1 if anything was found."""
    findings = groups.run(args.root, args.only, ran=args.ran)
    for finding in findings:
        print(finding)
    if findings:
        print(f"{len(findings)} finding{'s' if len(findings) > 1 else ''}")
        return 1
    checked = ["every sentence holds"] if args.ran else args.only or groups.GROUPS
    print(f"no findings ({', '.join(checked)})")
    return 0


def book(args: argparse.Namespace) -> None:
    """Render with what is there."""
    print(f"the book: {render.book(args.jobs)}")


def release(args: argparse.Namespace) -> None:
    """Render and pack. Raises archive.ArchiveError, before anything is rendered."""
    archive.name(paths.ROOT)
    render.book(args.jobs)
    print(f"the release: {archive.write(paths.ROOT, paths.BOOK, paths.ROOT / 'build')}")


def press(args: argparse.Namespace) -> None:
    """Render without Quarto."""
    formats = ("html", "pdf") if args.to == "all" else (args.to,)
    print(f"the book: {render.press(args.jobs, formats)}")


def preview(args: argparse.Namespace) -> int | None:
    """Serve the book until interrupted, and make again what is edited."""
    program = render.quarto()
    if program is not None:
        command = [program, "preview", "--port", str(args.port)]
        return subprocess.run(command, cwd=paths.ROOT, env=render.environment()).returncode
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(paths.BOOK))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", args.port), handler)
    except (OSError, OverflowError) as error:
        raise render.RenderError(
            f"port {args.port} cannot be had ({error}); take another with --port"
        ) from None
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"the book: http://127.0.0.1:{args.port}/  (Ctrl-C stops)"
        try:
            render.keep_pressed(lambda: print(where, flush=True))
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr, flush=True)
            os._exit(130)  # nobody waits for a chapter that is still executed; its kernel ends, too
