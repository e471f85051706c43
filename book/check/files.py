"""No machine's path, no registry's address, no large file without a word on where it comes from."""

import re
from collections.abc import Iterator

from book.check.finding import Finding
from book.check.project import Project
from book.check.prose import line_at
from lib import digests

LIMIT = 4_000_000  # bytes
TOP_FOLDERS = ("home", "root", "tmp", "work", "Users", "mnt", "workspace", "private/var")
MACHINE_PATH = re.compile(
    rf"(?<![\w.:/~\])}}*-])/(?:{'|'.join(TOP_FOLDERS)})(?=[/\"'`\s),:;]|$)"
    r"|\b[A-Z]:\\{1,2}(?:Users|Windows|Program Files|Temp)\b",
    re.MULTILINE,
)
HOSTS = (  # in pieces: this file must not name them either
    ("pypi", "org"),
    ("files", "pythonhosted", "org"),
    ("pypi", "python", "org"),
    ("registry", "npmjs", "org"),
    ("registry", "yarnpkg", "com"),
    ("conda", "anaconda", "org"),
    ("static", "crates", "io"),
    ("proxy", "golang", "org"),
)
REGISTRY = re.compile(
    "|".join(re.escape(".".join(host)) for host in HOSTS)
    + "|(?:extra-)?index"
    + r"-url\b|trusted"
    + r"-host\b"
)
BINARY = (".safetensors", ".xz", ".h5", ".png", ".ttf", ".otf", ".ico", ".gz", ".pdf", ".woff2")


def check(project: Project) -> Iterator[Finding]:
    """Findings on paths, addresses and sizes in everything that belongs to the project."""
    readme = project.read("data/README.md")
    yield from _altered(project)
    for file in project.files:
        size = (project.root / file).stat().st_size
        name = file.rsplit("/", 1)[-1]
        if size > LIMIT and name not in readme:
            yield Finding(
                file,
                1,
                "files/size",
                f"{size / 1e6:.1f} MB and no word on it in data/README.md",
                "say there what it is, where it comes from and its licence",
            )
        if size <= LIMIT and not file.endswith(BINARY):
            yield from _text(file, project.read(file))


def _altered(project: Project) -> Iterator[Finding]:
    """Committed data whose bytes are not those of data/SHA256SUMS."""
    lines = project.read("data/SHA256SUMS").splitlines()
    meant = {f"data/{name}": digest for digest, name in (line.split("  ", 1) for line in lines)}
    there = {file for file in project.files if file.startswith("data/")} - {"data/SHA256SUMS"}
    for file in sorted(there | set(meant)) if meant else ():
        path = project.root / file
        if not path.is_file() or digests.of_file(path) != meant.get(file):
            yield Finding(
                file,
                1,
                "files/digest",
                "is not what data/SHA256SUMS says",
                f"restore it with `git checkout {file}`, or record the change with `make sums`",
            )


def _text(file: str, text: str) -> Iterator[Finding]:
    for pattern, rule, message, mend in (
        (MACHINE_PATH, "files/machine-path", "a path of one machine", "use lib.paths, or tempfile"),
        (REGISTRY, "files/registry", "a package registry's address", "leave it to pip's settings"),
    ):
        for match in pattern.finditer(text):
            found = match.group(0).strip()
            yield Finding(file, line_at(text, match.start()), rule, f"{message}: {found}", mend)
