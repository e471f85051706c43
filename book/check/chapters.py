"""The table of contents is complete and every chapter has the common shape."""

import re
from collections.abc import Iterator

from book.check.finding import Finding
from book.check.project import Page, Project
from book.check.prose import line_at

KINDS = ("generator", "analyser", "page")
HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*$", re.MULTILINE)
ANY_TITLE = re.compile(r"\A\s*# \S", re.MULTILINE)  # pages at the root may go without a label
TITLE = re.compile(r"\A\s*# \S.*\{(?:[^}]*\s)?#sec-[a-z0-9-]+(?:\s[^}]*)?\}\s*$", re.MULTILINE)
EVERYTHING = "all"  # `reads: [all]`: an appendix over what every chapter left
MAKING = {"artifacts.cached", "Generator", "generators.Generator"}  # what only generators call
FIRST_DRAWING = re.compile(r"(^|\.)(subplots|figure|Figure|sky_axes)$")


def check(project: Project) -> Iterator[Finding]:
    """Findings on the table of contents and on the chapters' shape."""
    yield from _contents(project)
    for page in project.pages:
        yield from _title(page)
        if page.is_chapter:
            yield from _front(page, project)
            yield from _sections(page)
            yield from _setup(page)
            yield from _artefacts(page)


def _contents(project: Project) -> Iterator[Finding]:
    config = project.read("_quarto.yml")
    for entry in project.book.pages if project.book else ():
        if not (project.root / entry.source).is_file():
            line = line_at(config, max(config.find(entry.source), 0))
            yield Finding(
                "_quarto.yml",
                line,
                "chapters/exists",
                f"{entry.source} is listed but does not exist",
                "write it or take the line out",
            )
    for page in project.pages:
        if not page.listed and project.book:
            yield Finding(
                page.file,
                1,
                "chapters/orphan",
                "no part of _quarto.yml lists this page",
                "list it under its part or delete it",
            )


def _title(page: Page) -> Iterator[Finding]:
    if "title" in page.front:
        yield Finding(
            page.file,
            page.line_of("\ntitle:") + 1,
            "chapters/title",
            "`title:` in the front matter makes a second heading and puts all numbers off by one",
            "leave it out: the first `# ` heading is the title",
        )
    tops = [match for match in HEADING.finditer(page.prose) if len(match.group(1)) == 1]
    wanted = TITLE if page.file.startswith("chapters/") else ANY_TITLE
    if not wanted.match(page.prose):
        yield Finding(
            page.file,
            line_at(page.prose, tops[0].start()) if tops else 1,
            "chapters/title",
            "the page does not begin with `# Title {#sec-...}`",
            "begin with the title and its label",
        )
    for match in tops[1:]:
        yield Finding(
            page.file,
            line_at(page.prose, match.start()),
            "chapters/title",
            f"a second top heading, {match.group(2)!r}",
            "use `## ` below the title",
        )


def _front(page: Page, project: Project) -> Iterator[Finding]:
    if page.front.get("kind") not in KINDS:
        yield Finding(
            page.file,
            1,
            "chapters/kind",
            f"front matter `kind:` is {page.front.get('kind')!r}",
            f"say one of {', '.join(KINDS)}",
        )
    reads = page.front.get("reads")
    line = page.line_of("\nreads:") + 1 if reads is not None else 1
    if not isinstance(reads, list) and (reads is not None or page.kind == "analyser"):
        yield Finding(
            page.file,
            line,
            "chapters/reads",
            f"front matter `reads:` is {reads!r}",
            "give a list of the generators it reads; [] if none",
        )
    for name in page.reads:
        generator = project.page(name)
        if name == EVERYTHING:
            continue
        if generator is None:
            message, mend = f"reads {name}, which is no chapter", "name a chapter under chapters/"
        elif generator.kind != "generator":
            message = f"reads {name}, whose kind is {generator.kind}"
            mend = "read generators only, or make it one"
        elif name == page.name:
            message, mend = "reads itself", "leave its own name out"
        else:
            continue
        yield Finding(page.file, line, "chapters/reads", message, mend)


def _sections(page: Page) -> Iterator[Finding]:
    headings = list(HEADING.finditer(page.prose))
    names = {re.sub(r"\s*\{.*", "", m.group(2)).strip().lower(): m for m in headings}
    wanted = {"what we learnt": "close with `## What we learnt`"}
    if page.kind == "generator":  # it makes what others look at
        wanted = {}
    for name in ("parameters", "load"):
        if name in names:
            message, mend = f"a numbered section {name.capitalize()!r}", "fold it away, unnumbered"
            line = line_at(page.prose, names[name].start())
            yield Finding(page.file, line, "chapters/sections", message, mend)
    for name, mend in wanted.items():
        if name not in names:
            yield Finding(
                page.file,
                1,
                "chapters/sections",
                f"there is no section {name.capitalize()!r}",
                mend,
            )
    if headings and len(headings) > 1:
        goal = page.prose[headings[0].end() : headings[1].start()]
        if len(goal.split()) < 10:
            yield Finding(
                page.file,
                line_at(page.prose, headings[0].start()),
                "chapters/goal",
                "no goal stands between the title and the first section",
                "say in two or three sentences what the chapter is for",
            )


def _setup(page: Page) -> Iterator[Finding]:
    tagged = [cell for cell in page.cells if "parameters" in cell.tags]
    for cell in tagged[1:]:
        yield Finding(
            page.file,
            cell.line,
            "chapters/parameters",
            "a second cell is tagged `parameters`",
            "keep one: only the first is replaced",
        )
    if page.kind != "page" and not tagged:
        yield Finding(
            page.file,
            1,
            "chapters/parameters",
            "no cell is tagged `parameters`, so -p and -P set nothing",
            "tag the parameters cell: `#| tags: [parameters]`",
        )
    if tagged and page.cells[0] is not tagged[0]:
        yield Finding(
            page.file,
            tagged[0].line,
            "chapters/parameters",
            "the parameters cell is not the first cell",
            "move it above all other code",
        )
    if tagged:
        yield from _scale_call(page)
    drawing = [c for c in page.cells if any(FIRST_DRAWING.search(name) for name in c.called)]
    styled = [c.line for c in page.cells if "plots.use_house_style" in c.called]
    if drawing and not (styled and styled[0] < drawing[0].line):
        yield Finding(
            page.file,
            drawing[0].line,
            "chapters/style",
            "a figure is drawn before plots.use_house_style is called",
            "call it in the set-up cell",
        )


def _scale_call(page: Page) -> Iterator[Finding]:
    wanted = f'scale.apply("{page.name}", globals())'
    calls = [c for c in page.cells if any(n.endswith("scale.apply") for n in c.called)]
    if not calls:
        yield Finding(
            page.file,
            page.cells[0].line,
            "chapters/scale",
            "nothing applies BOOK_SCALE to the parameters",
            f"call `{wanted}` in the set-up cell",
        )
    elif wanted not in calls[0].code.replace("'", '"'):
        yield Finding(
            page.file,
            calls[0].line,
            "chapters/scale",
            "scale.apply is not called with the chapter's own name and globals()",
            f"write `{wanted}`",
        )


def _artefacts(page: Page) -> Iterator[Finding]:
    for cell in page.cells if page.kind != "generator" else ():
        for name in sorted(MAKING & cell.called):
            yield Finding(
                page.file,
                cell.line,
                "chapters/artefacts",
                f"a chapter of kind {page.kind} calls {name}",
                "compute in a generator and read it with generators.load",
            )
