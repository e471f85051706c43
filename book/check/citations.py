"""Every citation has its entry, every entry its citation, the bibliography can be read, and the
book itself is cited by the version that it has."""

import re
from collections.abc import Iterator

import pypandoc

from book import archive
from book.check.finding import Finding
from book.check.labels import REFERENCE
from book.check.project import Project
from book.check.prose import line_at

KEY = re.compile(r"(?<![\w.\\/])-?@\{?([A-Za-z0-9_](?:[\w:.#$%&+?<>~/-]*\w)?)")
ENTRY = re.compile(r"^\s*@(\w+)\s*\{\s*([^,\s]+)\s*,", re.MULTILINE)
NO_ENTRIES = {"comment", "string", "preamble"}


def check(project: Project) -> Iterator[Finding]:
    """Findings on citations and references.bib."""
    file = project.book.bibliography if project.book else "references.bib"
    bibliography = project.read(file)
    first: dict[str, int] = {}
    for match in ENTRY.finditer(bibliography):
        kind, key = match.groups()
        if kind.lower() in NO_ENTRIES:
            continue
        line = line_at(bibliography, match.start(2))
        if key in first:
            message = f"the key {key} stands already in line {first[key]}"
            yield Finding(file, line, "citations/unique", message, "keep one of the entries")
        first.setdefault(key, line)
    if not bibliography:
        yield Finding(file, 1, "citations/bibliography", "no such file", "add the bibliography")
    else:
        yield from _readable(file, bibliography, set(first))
    cited: set[str] = set()
    for page in project.pages:
        texts = [(page.text, 0)]
        for cell in page.cells:
            for option in ("fig-cap", "tbl-cap"):
                texts.append((str(cell.options.get(option) or ""), cell.line))
        for text, line in texts:
            for match in KEY.finditer(text):
                key = match.group(1)
                cited.add(key)
                if key not in first and not REFERENCE.match(match.group(0)):
                    yield Finding(
                        page.file,
                        line or line_at(text, match.start()),
                        "citations/resolves",
                        f"@{key} is not in {file}",
                        "mend the key or add the entry",
                    )
    for key in sorted(first.keys() - cited):
        message, mend = f"no page cites {key}", "cite it where it bears, or take it out"
        yield Finding(file, first[key], "citations/cited", message, mend)
    if "[project]" in project.read("pyproject.toml"):
        try:
            archive.cited(project.root)
        except archive.ArchiveError as error:
            message, mend = str(error), "say the same version in both, and the day of its release"
            yield Finding(archive.CITATION, 1, "citations/release", message, mend)


def _readable(file: str, bibliography: str, keys: set[str]) -> Iterator[Finding]:
    """Pandoc, which sets the bibliography, must read as many entries as there are."""
    try:
        read = pypandoc.convert_text(bibliography, "csljson", format="biblatex")
    except RuntimeError as error:
        found = re.search(r"line (\d+)", str(error))
        problem = " ".join(str(error).split())[-160:]
        yield Finding(
            file,
            int(found.group(1)) if found else 1,
            "citations/bibliography",
            f"Pandoc cannot read it: {problem}",
            "mend the entry's braces and commas",
        )
        return
    for key in sorted(keys):
        if f'"id": "{key}"' not in read and f'"id":"{key}"' not in read:
            yield Finding(
                file,
                line_at(bibliography, bibliography.find(key)),
                "citations/bibliography",
                f"Pandoc does not find the entry {key}",
                "mend the entry before it",
            )
