"""Relative links lead somewhere, and so do their anchors."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import unquote

from book.check import prose
from book.check.finding import Finding
from book.check.project import Project

LINK = re.compile(r"\]\((?P<target>[^()\s]+)(?:\s+\"[^\"]*\")?\)|\]\(<(?P<angled>[^>]+)>\)")
REFERENCE = re.compile(r"^\s{0,3}\[[^\]^@]+\]:\s+(?P<target>\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(?P<text>.+?)\s*#*\s*$", re.MULTILINE)
IDENTIFIER = re.compile(r"\{[^{}\n]*?#([\w:.-]+)[^{}\n]*\}")
ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
GENERATED = ("_book/", "data/artifacts/")  # made by the commands that the text explains


def check(project: Project) -> Iterator[Finding]:
    """Findings on relative links in pages and Markdown files."""
    known = set(project.files)
    folders = {str(parent) for file in known for parent in PurePosixPath(file).parents}
    for file in project.files:
        if not file.endswith((".md", ".qmd")):
            continue
        text = _text(project, file)
        for match in [*LINK.finditer(text), *REFERENCE.finditer(text)]:
            groups = match.groupdict()
            target = unquote(groups.get("target") or groups.get("angled") or "")
            if not target or ELSEWHERE.match(target):
                continue
            path, _, anchor = target.partition("#")
            resolved = _resolve(file, path)
            line = prose.line_at(text, match.start())
            if resolved.startswith(GENERATED):
                continue
            if resolved not in known and resolved.rstrip("/") not in folders:
                message, mend = f"{target} does not exist", "mend the link or add the file"
                yield Finding(file, line, "links/file", message, mend)
            elif anchor and anchor not in _anchors_of(project, resolved):
                message, mend = f"{resolved} has no anchor #{anchor}", "name one of its headings"
                yield Finding(file, line, "links/anchor", message, mend)


def _anchors_of(project: Project, file: str) -> set[str]:
    return anchors(_text(project, file), github=file.endswith(".md"))


def anchors(text: str, github: bool) -> set[str]:
    """The anchors of a Markdown text: explicit ones, and those made of its headings."""
    found = set(IDENTIFIER.findall(text))
    for match in HEADING.finditer(text):
        words = re.sub(r"\{[^{}]*\}\s*$", "", match.group("text")).lower()
        words = re.sub(r"[^\w\s.-]" if not github else r"[^\w\s-]", "", words)
        slug = re.sub(r"\s", "-", words.strip())
        found.add(slug if github else re.sub(r"^[^a-z]+", "", re.sub(r"-+", "-", slug)))
    return found


def _text(project: Project, file: str) -> str:
    text = prose.without_fences(project.read(file))
    for pattern in (prose.COMMENT, prose.CODE):
        text = pattern.sub(prose.blank, text)
    return text


def _resolve(file: str, path: str) -> str:
    """The linked path from the project's root; `file` itself for a bare anchor."""
    if not path:
        return file
    start = PurePosixPath("") if path.startswith("/") else PurePosixPath(file).parent
    parts: list[str] = []
    for part in (start / path.lstrip("/")).parts:
        if part == "..":
            parts = parts[:-1] if parts else ["outside"]
        elif part != ".":
            parts.append(part)
    return "/".join(parts) or "."
