"""What Quarto lets pass silently, or does not do at all."""

import ast
import re
from collections.abc import Iterator

import yaml

from book import reader
from book.check.finding import Finding
from book.check.project import Cell, Page, Project, dotted
from book.check.prose import divs, html_only, line_at

OPTIONS = {
    *("label", "tags", "echo", "output", "include", "warning"),  # eval, error: the runner runs all
    *("code-fold", "code-summary", "code-overflow", "code-line-numbers"),
    *(
        "fig-cap",
        "fig-alt",
        "fig-subcap",
        "fig-width",
        "fig-height",
        "fig-align",
        "fig-cap-location",
    ),
    *("fig-pos", "fig-link", "tbl-cap", "tbl-subcap", "tbl-colwidths", "tbl-cap-location"),
    *("layout", "layout-ncol", "layout-nrow", "layout-align", "column", "classes"),
}
CALLOUTS = {f"callout-{kind}" for kind in ("note", "tip", "warning", "caution", "important")}
CONDITION = re.compile(r"(?:un)?(?:less|when)-(?:format|profile|meta)=[\"']?([\w.-]+)")
FORMATS = {"html", "typst", "pdf", "latex"}
RAW_FENCE = re.compile(r"^(`{3,}|~{3,})\s*\{=(\w+)\}", re.MULTILINE)
LINK = re.compile(r"url\(\"([^\")]+)\"\)")
RAW_INLINE = re.compile(r"`\{=(\w+)\}")
TAG = re.compile(
    r"</?[a-zA-Z][a-zA-Z0-9-]*(?:\s+[a-zA-Z-]+(?:=(?:\"[^\"]*\"|'[^']*'|[^\s>]+))?)*\s*/?>"
)
SIZED = re.compile(r"\\[bB]igg?[lrm]?\s*\\\w+")  # the PDF shows Typst's name of it, "angle.l"
SETTINGS = {  # what _quarto.yml must say, and why
    ("project", "type"): ("book", "the chapters are a book"),
    ("project", "execute-dir"): ("project", "chapters import lib and read data/ from the root"),
    ("format", "html", "html-math-method"): ("mathml", "MathJax comes from the network"),
}


def check(project: Project) -> Iterator[Finding]:
    """Findings on _quarto.yml, its style sheets, fences, divs, raw HTML, formulas and plotly."""
    yield from _settings(project)
    yield from _styles(project)
    for page in project.pages:
        yield from _fences(page)
        yield from _divs(page)
        yield from _raw(page)
        for cell in page.cells:
            yield from _cell(page, cell)


def _settings(project: Project) -> Iterator[Finding]:
    try:
        settings = yaml.safe_load(project.read("_quarto.yml")) or {}
    except yaml.YAMLError:  # said by the group `yaml`
        return
    for path, (wanted, why) in SETTINGS.items():
        value = settings
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value != wanted:
            yield Finding(
                "_quarto.yml",
                1,
                "quarto/settings",
                f"{'.'.join(path)} is {value!r}: {why}",
                f"set it to {wanted}",
            )
    if {"typst", "pdf"} <= set(settings.get("format") or {}):
        yield Finding(
            "_quarto.yml",
            1,
            "quarto/settings",
            "typst and pdf in one book write to the same file",
            "keep typst",
        )
    if "freeze" in (settings.get("execute") or {}):
        yield Finding(
            "_quarto.yml",
            1,
            "quarto/settings",
            "freeze sees the chapter's text only: not lib, data or parameters",
            "leave it out: the artefacts are the cache",
        )


def _styles(project: Project) -> Iterator[Finding]:
    """A style sheet lies in the book where it lies here: what it names must be there, too."""
    for sheet in sorted((project.root / "book" / "quarto").glob("*.css")):
        file = sheet.relative_to(project.root).as_posix()
        for number, line in enumerate(sheet.read_text(encoding="utf-8").split("\n"), start=1):
            for target in LINK.findall(line):
                if not (sheet.parent / target).is_file():
                    message, mend = f"url({target}) is no file", "mend the path"
                    yield Finding(file, number, "quarto/styles", message, mend)


def _fences(page: Page) -> Iterator[Finding]:
    for number, line in enumerate(page.prose.split("\n"), start=1):
        match = reader.FENCE.match(line.lstrip())
        braces = re.match(r"\{\s*([^.=#}\s][^}]*)\}", match.group(2).strip()) if match else None
        if braces:
            language = re.split(r"[\s,]", braces.group(1))[0]
            message = f"a fence opens with {{{braces.group(1)}}}"
            if language == "python":
                mend = "write `{python}` alone, not indented, options as `#| key: value`"
            else:
                mend = "only {python} cells are executed; show other code as {.language}"
            yield Finding(page.file, number, "quarto/fence", message, mend)


def _divs(page: Page) -> Iterator[Finding]:
    last = page.text.count("\n") + 1
    for start, end, words in divs(page.text):
        if words == "unopened":
            message, mend = "::: closes a div that is not open", "open it, or delete the line"
        elif end > last:
            message, mend = f"the div `{words}` is never closed", "close it with :::"
        elif (unknown := set(re.findall(r"callout-\w+", words)) - CALLOUTS) and unknown:
            message, mend = f"{unknown.pop()} is no callout", f"use {', '.join(sorted(CALLOUTS))}"
        elif "content-" in words and not set(CONDITION.findall(words)) & FORMATS:
            message, mend = f"`{words}` names no format", 'say when-format="html" or "typst"'
        else:
            continue
        yield Finding(page.file, start, "quarto/div", message, mend)


def _raw(page: Page) -> Iterator[Finding]:
    mend = "write Markdown: raw code shows in one edition only"
    for pattern in (RAW_FENCE, RAW_INLINE, TAG):
        text = page.text if pattern is TAG else page.prose
        for match in pattern.finditer(text):
            line = line_at(text, match.start())
            shown = " ".join(match.group(0).split())
            yield Finding(page.file, line, "quarto/raw", f"raw code: {shown}", mend)
    for match in SIZED.finditer(page.prose):
        line, message = line_at(page.prose, match.start()), f"{match.group(0)} in a formula"
        yield Finding(page.file, line, "quarto/math", message, "write \\left and \\right")


def _cell(page: Page, cell: Cell) -> Iterator[Finding]:
    for option in cell.options:
        if option not in OPTIONS:
            message = f"Quarto knows no option {option!r} of a Python cell, and says nothing"
            yield Finding(page.file, cell.line, "quarto/option", message, "mend its name")
    if re.search(r"^#\|", cell.code, re.MULTILINE):
        message = "an option stands below code, where it is a comment"
        yield Finding(page.file, cell.line, "quarto/option", message, "move it to the top")
    if cell.tree is None:
        message, mend = "the cell is not plain Python", "leave out magics and shell lines"
        yield Finding(page.file, cell.line, "quarto/python", message, mend)
        return
    if any(name.split(".")[-1] in ("HTML", "display_html") for name in cell.called):
        message = "the cell shows raw HTML"
        yield Finding(page.file, cell.line, "quarto/raw", message, "show Markdown or a figure")
    if "renderings" in cell.options and cell.label.startswith("fig-"):
        message = "renderings and a fig- label exclude each other"
        yield Finding(page.file, cell.line, "quarto/option", message, "wrap it in ::: {#fig-...}")
    if _uses_plotly(cell) and not any(cell.line in lines for lines in html_only(page.text)):
        yield Finding(
            page.file,
            cell.line,
            "quarto/plotly",
            "plotly prints `Unable to display` in the PDF",
            'put it in a `::: {.content-visible when-format="html"}` beside a matplotlib sibling',
        )


def _uses_plotly(cell: Cell) -> bool:
    """Whether the cell does more with plotly than import it."""
    names = {dotted(n) for n in ast.walk(cell.tree) if isinstance(n, ast.Attribute)}
    return any(name.split(".")[0] in ("go", "plotly", "px", "pio") for name in names)
