"""Every piece of YAML is valid and says each key once, by yamllint; every page can be read."""

import re
from collections.abc import Iterator

from yamllint import linter
from yamllint.config import YamlLintConfig

from book.check.finding import Finding
from book.check.project import Project

RULES = YamlLintConfig(
    "{rules: {key-duplicates: {forbid-duplicated-merge-keys: false}, anchors: {}}}"
)


def check(project: Project) -> Iterator[Finding]:
    """Findings on YAML files, front matter and cell options."""
    for file, why in project.unreadable.items():
        line = re.search(rf"{re.escape(file)}:(\d+)", why)
        message = re.sub(rf"^{re.escape(file)}(:\d+)?:\s*", "", why)
        yield Finding(
            file, int(line.group(1)) if line else 1, "yaml/page", message, "mend its source"
        )
    for file in project.files:
        if file.endswith((".yml", ".yaml", ".cff")):
            yield from _lint(file, project.read(file), 1)
    for page in project.pages:
        if page.source.startswith("---"):
            front = page.source.split("\n---", 1)[0].removeprefix("---")
            yield from _lint(page.file, front, 1)
        lines = page.source.split("\n")
        for cell in page.cells:
            options = []
            for line in lines[cell.line - 1 :]:
                if not line.startswith("#|"):
                    break
                options.append(line[2:].removeprefix(" "))
            yield from _lint(page.file, "\n".join(options), cell.line)


def _lint(file: str, text: str, first_line: int) -> Iterator[Finding]:
    for problem in linter.run(text, RULES):
        line = first_line + problem.line - 1
        yield Finding(file, line, "yaml/valid", problem.desc, "write valid YAML, each key once")
