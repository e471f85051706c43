"""Every piece of YAML can be read, says each key once, and every page can be read."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from book.check.finding import Finding
from book.check.project import Project


class StrictLoader(yaml.SafeLoader):
    """safe_load that refuses a key given twice, which YAML's own loader lets pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, each key once."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


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
            yield from _load(file, project.read(file), 1)
    for page in project.pages:
        if page.source.startswith("---"):
            front = page.source.split("\n---", 1)[0].removeprefix("---")
            yield from _load(page.file, front, 1)
        lines = page.source.split("\n")
        for cell in page.cells:
            options = []
            for line in lines[cell.line - 1 :]:
                if not line.startswith("#|"):
                    break
                options.append(line[2:].removeprefix(" "))
            yield from _load(page.file, "\n".join(options), cell.line)


def _load(file: str, text: str, first_line: int) -> Iterator[Finding]:
    try:
        yaml.load(text, Loader=StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = first_line + (mark.line if mark else 0)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        yield Finding(file, line, "yaml/valid", problem, "write valid YAML, each key once")
