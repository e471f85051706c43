"""Inline expressions show values that a cell above has made, and stand where Quarto fills them."""

import ast
import builtins
import re
from collections.abc import Iterator

from book import reader
from book.check.finding import Finding
from book.check.project import Cell, Page, Project
from book.check.prose import COMMENT, blank, line_at

ALMOST = re.compile(r"`\{python\}`|`\{python\}[^ \t`][^`]*`|`\{(?!python\})\w+\}[ \t][^`]*`")
TOUCHING = re.compile(r"`\{python\} [^`]+``\{python\}")
FORMS = (  # what is malformed, why, and the mend
    (TOUCHING, "opens a code span: two inline expressions touch", "put a blank between them"),
    (
        ALMOST,
        "is no inline expression",
        "write a backtick, {python}, one blank, a name and a backtick",
    ),
)
NOT_FILLED = (
    (re.compile(r"^#{1,6}\s.*`\{python\}.*$", re.MULTILINE), "a heading"),
    (re.compile(r"\[[^\]\n]*`\{python\}[^\]\n]*\]\("), "a link's text"),
    (re.compile(r"^:{3,}.*`\{python\}.*$", re.MULTILINE), "a div's attributes"),
)
WORDS = (  # what makes a text, or hides a computation
    *(ast.IfExp, ast.JoinedStr, ast.Lambda),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)
LONGEST = 100  # characters of an expression
BUILT_IN = set(dir(builtins))
CAPTIONS = ("fig-cap", "fig-alt", "fig-subcap", "tbl-cap", "code-summary")


def check(project: Project) -> Iterator[Finding]:
    """Findings on inline expressions."""
    for page in project.pages:
        yield from _expressions(page)
        yield from _places(page)


def _expressions(page: Page) -> Iterator[Finding]:
    text = COMMENT.sub(blank, page.prose)
    cells = sorted(page.cells, key=lambda cell: cell.line)
    for match in reader.INLINE.finditer(text):
        line, expression = line_at(text, match.start(2)), match.group(2).strip()
        try:
            tree = ast.parse(expression, mode="eval").body
        except SyntaxError:
            yield Finding(
                page.file,
                line,
                "inline/name",
                f"`{expression}` is not Python",
                "give the name of a value from a cell above",
            )
            continue
        if len(expression) > LONGEST or any(isinstance(n, WORDS) for n in ast.walk(tree)):
            message = f"`{expression[:60]}` does more than show a value"
            mend = "compute it in a cell above, and show it here"
            yield Finding(page.file, line, "inline/name", message, mend)
            continue
        above = defined([cell for cell in cells if cell.line < line]) | BUILT_IN
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for name in sorted(names - above):
            where = "only below" if name in defined(cells) else "nowhere on the page"
            yield Finding(
                page.file,
                line,
                "inline/defined",
                f"{name} is defined {where}",
                "define it in a cell above the text",
            )
    for pattern, why, mend in FORMS:
        for match in pattern.finditer(text):
            message = f"{match.group(0)} {why}"
            yield Finding(page.file, line_at(text, match.start()), "inline/form", message, mend)


def defined(cells: list[Cell]) -> set[str]:
    """Names that these cells leave in the notebook: assignments, imports, definitions, loops."""
    names: set[str] = set()
    for cell in cells:
        if cell.tree:
            names |= _bound(cell.tree.body)
    return names


def _bound(statements: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for statement in statements:
        for node in _own_scope(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names |= {(a.asname or a.name).partition(".")[0] for a in node.names}
    return names


def _own_scope(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and what is in it, without the insides of functions and comprehensions."""
    yield node
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    if isinstance(node, (*inner, *comprehensions)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _own_scope(child)


def _places(page: Page) -> Iterator[Finding]:
    for pattern, where in NOT_FILLED:
        for match in pattern.finditer(page.prose):
            yield Finding(
                page.file,
                line_at(page.prose, match.start()),
                "inline/place",
                f"an inline expression in {where} is not filled in by Quarto",
                "move it into the text",
            )
    for cell in page.cells:
        for option in CAPTIONS:
            if "{python}" in str(cell.options.get(option) or ""):
                yield Finding(
                    page.file,
                    cell.line,
                    "inline/place",
                    f"an inline expression in {option} is not filled in by Quarto",
                    "say the value in the text",
                )
