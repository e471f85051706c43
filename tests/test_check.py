"""Each rule of `python -m lib check` catches its planted violation, and a clean book passes."""

# ruff: noqa: E501 (one violation a line)

import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from book.check import groups, literals, project, prose
from lib import claims, paths
from lib.__main__ import main

CONFIG = """\
project: {type: book, execute-dir: project}
book:
  title: A small book
  chapters:
    - index.qmd
    - part: One
      chapters:
        - chapters/one/01-make.qmd
        - chapters/one/02-look.qmd
bibliography: references.bib
format:
  html: {html-math-method: mathml}
"""

INDEX = """\
# A small book {#sec-preface}

It is [read](chapters/one/02-look.qmd#sec-look) and has [a note](README.md#a-note).
"""

MAKE = """\
---
kind: generator
reads: []
---

# Make {#sec-make}

This chapter makes what the next one looks at, and says so in one whole sentence.

## Background

$$
y = x^2
$$ {#eq-square}

::: {.callout-note collapse="true" title="Parameters and set-up"}
```{python}
#| tags: [parameters]
steps = 50  # how many
rate = 0.5  # per step
seed = 42
```

```{python}
#| label: make-setup
from lib import scale
from lib.generators import Generator
made = Generator("one/01-make", scale.apply("one/01-make", globals()))
```
:::

## The runs

```{python}
made.keep("run", steps)
```
"""

LOOK = """\
---
kind: analyser
reads: [one/01-make]
---

# Look {#sec-look}

This chapter looks at what @sec-make made, and draws it, as @doe-2020-thing did before.

## Background {#sec-look-background}

See @eq-square, of which we take 65,536 values of Qwen2.5-Coder-0.5B in bf16, as in 1984.

::: {.callout-note collapse="true" title="Parameters and set-up"}
```{python}
#| tags: [parameters]
bins = 10  # bars
rows = 5  # of them
colormap = "inferno"
```

```{python}
#| label: setup
#| code-summary: "Imports and house style"
import matplotlib.pyplot as plt
import plotly.graph_objects as go
from lib import claims, plots, scale, show
from lib.claims import holds
scale.apply("one/02-look", globals())
plots.use_house_style(colormap)
```
:::

```{python}
value = 1.5
```

The value is `{python} value`, of $3.14159$ and `2.71828`; it is `{python} show.percent(value / rows)`
of `{python} bins`. It rises.`{python} holds(value > 1)`

```{python}
#| label: fig-look
#| fig-cap: "What was made."
#| fig-alt: "A line that rises from the lower left to the upper right of the plot."
_, ax = plt.subplots()
```

```{python}
#| label: tbl-look
#| tbl-cap: "What was made, by row."
show.table([[1]], ["a"])
```

```{python}
#| label: tbl-rises
#| tbl-cap: "What was claimed."
claims.settled({"rises": value})
```

@fig-look, @tbl-look and @tbl-rises show it.

::: {.content-visible when-format="html"}
```{python}
#| label: fig-turn
#| fig-cap: "What was made, to turn round."
#| fig-alt: "The same line in space, which can be turned round with the mouse."
go.Figure()
```

@fig-turn turns.
:::

::: {.callout-note title="A note"}
| a | b |
|---|---|
| 1 | 2 |

: Letters and digits. {#tbl-letters}
:::

## What we learnt

That it can be drawn.
"""

FILES = {
    "_quarto.yml": CONFIG,
    "index.qmd": INDEX,
    "chapters/one/01-make.qmd": MAKE,
    "chapters/one/02-look.qmd": LOOK,
    "references.bib": "@misc{doe-2020-thing,\n  author = {Doe, Jo},\n  title = {A Thing},\n"
    "  year = {2020}\n}\n",
    "data/README.md": "# Data\n\n`big.bin`: noughts, made here.\n",
    "data/scales/smoke.yml": "one/01-make:\n  steps: 5\none/02-look:\n  bins: 5\n",
    "data/scales/full.yml": "# as the cells say\n",
    "data/claims.yaml": "- {id: rises, part: one, claim: It rises, source: seed 001, printed: 1,"
    " check: equal, chapter: one/02-look}\n",
    "README.md": "# A small book\n\n## A note\n\nSee [data](data/README.md) and [there](#a-note).\n",
    "CITATION.cff": "cff-version: 1.2.0\ntitle: A small book\n",
    ".github/workflows/test.yml": "on: [push]\njobs: {}\n",
    "lib/__init__.py": "",
    "lib/paths.py": '"""Folders."""\n\nROOT = "."\n',
    "lib/artifacts.py": '"""Artefacts."""\n\nfrom lib import paths\n\n\n'
    'def cached():\n    """None."""\n    return paths.ROOT\n',
    "book/runner.py": '"""Runs."""\n\nfrom lib import artifacts, paths\n',
}

LOOK_FILE, MAKE_FILE = "chapters/one/02-look.qmd", "chapters/one/01-make.qmd"
LIB = '"""A module."""\n\n'
FLOORS = """\
[tool.importlinter]
root_packages = ["lib"]
[[tool.importlinter.contracts]]
name = "Arrows point down"
type = "layers"
layers = ["lib.artifacts", "lib.paths"]
"""


def write_book(root: Path, changes: dict[str, str | None] | None = None) -> Path:
    """The clean book with `changes` (None: the file is left out) at `root`."""
    for file, text in (FILES | (changes or {})).items():
        if text is not None:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text, encoding="utf-8")
    return root


def replaced(file: str, old: str, new: str) -> dict[str, str]:
    """One file of the clean book with `old` replaced."""
    assert old in FILES[file], f"{old!r} is not in the clean {file}"
    return {file: FILES[file].replace(old, new, 1)}


def look(old: str, new: str) -> dict[str, str]:
    """The analyser chapter with `old` replaced."""
    return replaced(LOOK_FILE, old, new)


def make(old: str, new: str) -> dict[str, str]:
    """The generator chapter with `old` replaced."""
    return replaced(MAKE_FILE, old, new)


def text(words: str) -> dict[str, str]:
    """The analyser chapter with `words` in its last section."""
    return look("That it can be drawn.", words)


def test_a_clean_book_passes(tmp_path):
    assert groups.run(write_book(tmp_path)) == []


# rule, file it is found in, a piece of its line in that file (None: the first line), the violation
VIOLATIONS = [
    ("yaml/page", LOOK_FILE, "reads:", look("kind: analyser", "kind: [analyser")),
    ("yaml/page", LOOK_FILE, "unclosed =", text("```{python}\nunclosed = 1")),
    ("yaml/page", "_quarto.yml", None, {"_quarto.yml": "book: {title: x, chapters: [a.md]}\n"}),
    ("yaml/valid", "data/scales/smoke.yml", "one/02", {"data/scales/smoke.yml": "a: 1\none/02: ]"}),
    ("yaml/valid", "data/facts.yaml", "a: 2", {"data/facts.yaml": "a: 1\na: 2\n"}),
    ("yaml/valid", "CITATION.cff", None, {"CITATION.cff": "title: ]\n"}),
    ("yaml/valid", ".github/workflows/test.yml", None, {".github/workflows/test.yml": "on: {"}),
    ("yaml/valid", LOOK_FILE, "kind: x", look("reads: [one/01-make]", "kind: x\nreads: []")),
    ("yaml/valid", LOOK_FILE, "label: twice", look("#| label: setup", "#| label: setup\n#| label: twice")),
    ("chapters/exists", "_quarto.yml", "02-look", {LOOK_FILE: None, "index.qmd": "# A {#sec-a}\n"}),
    ("chapters/orphan", "chapters/one/03-lost.qmd", None, {"chapters/one/03-lost.qmd": "# L {#sec-l}\n"}),
    ("chapters/title", LOOK_FILE, "title:", look("kind: analyser", "kind: analyser\ntitle: Look")),
    ("chapters/title", LOOK_FILE, "# Look", look("# Look {#sec-look}", "# Look")),
    ("chapters/title", LOOK_FILE, "# Look", look("# Look {", "Words first.\n\n# Look {")),
    ("chapters/title", LOOK_FILE, "# Again", text("It can.\n\n# Again {#sec-again}")),
    ("chapters/kind", LOOK_FILE, None, look("kind: analyser", "kind: analyzer")),
    ("chapters/reads", LOOK_FILE, None, look("reads: [one/01-make]\n", "")),
    ("chapters/reads", LOOK_FILE, "reads:", look("[one/01-make]", "one/01-make")),
    ("chapters/reads", LOOK_FILE, "reads:", look("[one/01-make]", "[one/07-gone]")),
    ("chapters/reads", MAKE_FILE, "reads:", make("reads: []", "reads: [one/02-look]")),
    ("chapters/reads", MAKE_FILE, "reads:", make("reads: []", "reads: [one/01-make]")),
    ("chapters/sections", LOOK_FILE, None, look("## What we learnt", "## The end")),
    ("chapters/sections", LOOK_FILE, "## Parameters", look("::: {.callout-note coll", "## Parameters\n\n::: {.callout-note coll")),
    ("chapters/sections", LOOK_FILE, "## Load", look("The value is", "## Load\n\nThe value is")),
    ("chapters/goal", MAKE_FILE, "# Make", make("This chapter makes what the next one looks at, and says so in one whole sentence.", "")),
    ("chapters/parameters", LOOK_FILE, None, look("#| tags: [parameters]\n", "")),
    ("chapters/parameters", LOOK_FILE, '#| tags: [parameters]\nvalue', look("value =", "#| tags: [parameters]\nvalue =")),
    ("chapters/parameters", LOOK_FILE, "tags:", look("## Background", "```{python}\na = 1\n```\n\n## Background")),
    ("chapters/scale", LOOK_FILE, "label: setup", look('"one/02-look"', '"one/01-make"')),
    ("chapters/scale", LOOK_FILE, "tags:", look('scale.apply("one/02-look", globals())\n', "")),
    ("chapters/style", LOOK_FILE, "fig-look", look("plots.use_house_style(colormap)\n", "")),
    ("chapters/artefacts", LOOK_FILE, "a = art", look("value =", "a = artifacts.cached(R, {})\nvalue =")),
    ("chapters/artefacts", LOOK_FILE, "made = Gen", look("value =", "made = Generator('one/02-look', {})\nvalue =")),
    ("parameters/literal", LOOK_FILE, "rows", look("rows = 5", "rows = 5 * ten")),
    ("parameters/literal", LOOK_FILE, "import os", look("rows = 5", "import os\nrows = 5")),
    ("parameters/comment", LOOK_FILE, "bins", look("bins = 10  # bars", "bins = 10")),
    ("parameters/shadow", LOOK_FILE, "steps =", look("rows = 5", "steps = 50")),
    ("parameters/scales", "data/scales/full.yml", None, {"data/scales/full.yml": "one/09-gone:\n  steps: 5\n"}),
    ("parameters/scales", "data/scales/full.yml", "stepz", {"data/scales/full.yml": "one/01-make:\n  stepz: 5\n"}),
    ("parameters/scales", "data/scales/full.yml", "rate", {"data/scales/full.yml": "one/01-make:\n  rate: 3e-4\n"}),
    ("parameters/scales", "data/scales/full.yml", "rate", {"data/scales/full.yml": "one/01-make:\n  rate: -1.0\n"}),
    ("parameters/scales", "data/scales/full.yml", None, {"data/scales/full.yml": "one/01-make: 5\n"}),
    ("labels/unique", LOOK_FILE, "#sec-make", text("So.\n\n## Again {#sec-make}")),
    ("labels/unique", LOOK_FILE, "label: setup\n#| echo", text("```{python}\n#| label: setup\n#| echo: true\n1\n```")),
    ("labels/form", LOOK_FILE, "#look-back", look("#sec-look-background", "#look-back")),
    ("labels/form", MAKE_FILE, "#fig-square", {**make("#eq-square", "#fig-square"), **look("See @eq-square, of", "Of")}),
    ("labels/form", LOOK_FILE, "label: sec-setup", look("label: setup", "label: sec-setup")),
    ("labels/form", LOOK_FILE, "Sec_Big", text("So.\n\n## Big {#sec-Sec_Big}")),
    ("labels/resolves", LOOK_FILE, "@fig-gone", text("See @fig-gone.")),
    ("labels/resolves", LOOK_FILE, "fig-look", look('"What was made."', '"What was made, as in @eq-gone."')),
    ("labels/html-only", LOOK_FILE, "Also @fig-turn", text("Also @fig-turn shows it.")),
    ("citations/resolves", LOOK_FILE, "@roe-2021", text("As others do [see @roe-2021, p. 3].")),
    ("citations/resolves", LOOK_FILE, "fig-look", look('"What was made."', '"What was made [@roe-2021]."')),
    ("citations/unique", "references.bib", "@misc{doe-2020-thing,\n  a", replaced("references.bib", "@misc", "@misc{doe-2020-thing,\n  title = {B}\n}\n@misc")),
    ("citations/cited", "references.bib", "@misc{roe-2021", replaced("references.bib", "@misc", "@misc{roe-2021,\n  title = {B}\n}\n@misc")),
    ("citations/bibliography", "references.bib", "]", {"references.bib": "@misc{roe,\n  title = {A}\n]\n"}),
    ("citations/bibliography", "references.bib", None, {"references.bib": None}),
    ("citations/release", "CITATION.cff", None, {"pyproject.toml": '[project]\nname = "b"\nversion = "2.0"\n'}),
    ("figures/label", LOOK_FILE, "#| fig-cap: \"What was made.\"", look("#| label: fig-look\n", "")),
    ("figures/fig-cap", LOOK_FILE, "fig-look", look('#| fig-cap: "What was made."\n', "")),
    ("figures/fig-alt", LOOK_FILE, "fig-look", look("#| fig-alt: \"A line that rises from the lower left to the upper right of the plot.\"\n", "")),
    ("figures/fig-alt", LOOK_FILE, "fig-look", look("A line that rises from the lower left to the upper right of the plot.", "A line.")),
    ("figures/fig-alt", LOOK_FILE, "fig-look", look("What was made.", "A line that rises from the lower left to the upper right of the plot.")),
    ("figures/fig-alt", LOOK_FILE, "![A]", text("![A](../../README.md)")),
    ("figures/tbl-cap", LOOK_FILE, "tbl-look", look('#| tbl-cap: "What was made, by row."\n', "")),
    ("figures/table", LOOK_FILE, "#| tbl-cap", look("#| label: tbl-look\n", "")),
    ("figures/table", LOOK_FILE, "| a | b |", look(": Letters and digits. {#tbl-letters}\n", "")),
    ("inline/name", LOOK_FILE, "value if", text("It is `{python} value if rows else 0`.")),
    ("inline/name", LOOK_FILE, "f'{", text("It is `{python} f'{value}'`.")),
    ("inline/name", LOOK_FILE, "for i in", text("It is `{python} sum(i for i in range(rows))`.")),
    ("inline/name", LOOK_FILE, "max(", text("It is `{python} max(" + "value, " * 14 + "rows)`.")),
    ("inline/name", LOOK_FILE, "a b", text("It is `{python} a b`.")),
    ("inline/defined", LOOK_FILE, "gone`", text("It is `{python} gone`.")),
    ("inline/defined", LOOK_FILE, "See `", look("See @eq", "See `{python} value` @eq")),
    ("inline/form", LOOK_FILE, "{python}value", text("It is `{python}value`.")),
    ("inline/form", LOOK_FILE, "value``{python}", text("It is `{python} value``{python} value`.")),
    ("inline/place", LOOK_FILE, "## So", look("## What we learnt", "## What we learnt\n\n## So `{python} value`")),
    ("inline/place", LOOK_FILE, "fig-look", look("What was made.", "What `{python} value` made.")),
    ("inline/place", LOOK_FILE, "[`{python}", text("See [`{python} value`](../../README.md).")),
    ("cells/width", LOOK_FILE, "long =", text(f"```{{python}}\nvalue\nlong = '{'x' * 92}'\n```")),
    ("cells/chosen", LOOK_FILE, "words =", text("```{python}\nwords = 'It rises, and how it does.' if value else 'no'\n```")),
    ("cells/chosen", LOOK_FILE, "'no' if", text("```{python}\nrow = 1\nwords = (\n    'no' if row\n    else f'It is {value} and it rises.'\n)\n```")),
    ("cells/text", LOOK_FILE, "value_str =", text("```{python}\n#| echo: false\nvalue_str = f'{value:.2f}'\n```")),
    ("cells/text", LOOK_FILE, "a_str, b", text("```{python}\na_str, b = str(value), 1\n```")),
    ("cells/F401", LOOK_FILE, "import os", text("```{python}\n#| label: more\nimport os\n```")),
    ("cells/F821", LOOK_FILE, "unheard_of", text("```{python}\nvalue\nunheard_of + 1\n```")),
    ("cells/ruff", "pyproject.toml", None, {"pyproject.toml": "[tool.ruff]\nline-length = 'x'\n"}),
    ("literals/typed", LOOK_FILE, "2,087", text("There are 2,087 of them.")),
    ("literals/typed", LOOK_FILE, "0.371", text("The length is 0.371 on average.")),
    ("literals/typed", LOOK_FILE, "12 %", text("That is 12 % of all.")),
    ("literals/typed", LOOK_FILE, "3357", text("It fails 3357 times.")),
    ("literals/typed", LOOK_FILE, "fig-look", look("What was made.", "What was made, 651 times.")),
    ("literals/unused", literals.ALLOWED, None, {literals.ALLOWED: '- {chapter: all, text: "0.37", reason: "an example"}\n'}),
    ("literals/allowance", literals.ALLOWED, None, {literals.ALLOWED: '- {chapter: all, text: "0.37"}\n'}),
    ("quarto/styles", "book/quarto/book.css", "gone", {"book/quarto/book.css": "@font-face {\n  src: url(\"../../gone.woff2\");\n}\n"}),
    ("quarto/settings", "_quarto.yml", None, replaced("_quarto.yml", "mathml", "mathjax")),
    ("quarto/settings", "_quarto.yml", None, replaced("_quarto.yml", "format:", "execute: {freeze: auto}\nformat:")),
    ("quarto/settings", "_quarto.yml", None, replaced("_quarto.yml", "format:", "format:\n  pdf: {}\n  typst: {}")),
    ("quarto/fence", LOOK_FILE, "```{r}", text("```{r}\n1\n```")),
    ("quarto/fence", LOOK_FILE, "```{python echo", text("```{python echo=false}\n1\n```")),
    ("quarto/div", LOOK_FILE, "::: {.callout-nota}", text("::: {.callout-nota}\nSo.\n:::")),
    ("quarto/div", LOOK_FILE, "::: {.callout-tip}", text("::: {.callout-tip}\nSo.")),
    ("quarto/div", LOOK_FILE, ":::\nSo it was", text("It is.\n\n:::\nSo it was.")),
    ("quarto/div", LOOK_FILE, "when-format=\"htlm\"", look('when-format="html"', 'when-format="htlm"')),
    ("quarto/math", LOOK_FILE, "bigl", text("So\n\n$$\n\\bigl\\langle x \\bigr( .\n$$")),
    ("quarto/raw", LOOK_FILE, "<b>", text("It is <b>so</b>.")),
    ("quarto/raw", LOOK_FILE, "```{=html}", text("```{=html}\n<p>\n```")),
    ("quarto/raw", LOOK_FILE, "display(HTML", text('```{python}\ndisplay(HTML("<b>"))\n```')),
    ("quarto/option", LOOK_FILE, "label: fig-look", look("#| fig-cap", "#| fig-caption")),
    ("quarto/option", LOOK_FILE, "value =", look("value = 1.5", "value = 1.5\n#| echo: false")),
    ("quarto/option", LOOK_FILE, "fig-look", look("#| label: fig-look", "#| label: fig-look\n#| renderings: [light, dark]")),
    ("quarto/python", LOOK_FILE, "%time", text("```{python}\n%time 1\n```")),
    ("quarto/plotly", LOOK_FILE, "label: fig-turn", look('::: {.content-visible when-format="html"}', "::: {.callout-tip}")),
    ("claims/fields", "data/claims.yaml", None, {"data/claims.yaml": "- {id: rises, chapter: one/02-look}\n"}),
    ("claims/fields", "data/claims.yaml", None, {"data/claims.yaml": "rises: 1\n"}),
    ("claims/unique", "data/claims.yaml", None, {"data/claims.yaml": FILES["data/claims.yaml"] * 2}),
    ("claims/chapter", "data/claims.yaml", None, replaced("data/claims.yaml", "one/02-look", "one/03-gone")),
    ("claims/chapter", "data/claims.yaml", None, look('claims.settled({"rises": value})\n', "")),
    ("claims/known", LOOK_FILE, "label: tbl-rises", look('"rises"', '"falls"')),
    ("claims/known", LOOK_FILE, "label: tbl-rises", look('claims.settled({"rises": value})', 'claims.table(["rises", "falls"])')),
    ("links/file", "README.md", "data/gone.md", replaced("README.md", "data/README.md", "data/gone.md")),
    ("links/file", "index.qmd", "02-gone", replaced("index.qmd", "02-look", "02-gone")),
    ("links/anchor", "README.md", "#no-note", replaced("README.md", "(#a-note)", "(#no-note)")),
    ("links/anchor", "index.qmd", "#sec-lost", replaced("index.qmd", "#sec-look", "#sec-lost")),
    ("files/machine-path", "README.md", "somebody", replaced("README.md", "See", "See /" + "home/somebody and")),
    ("files/machine-path", "lib/paths.py", "ROOT", {"lib/paths.py": f'"""F."""\n\nROOT = "/{"tmp"}"\n'}),
    ("files/machine-path", "README.md", "Users", replaced("README.md", "See", "See C:" + "\\Users and")),
    ("files/registry", "README.md", "https", replaced("README.md", "See", "See https://py" + "pi.org and")),
    ("files/digest", "data/words.txt", None, {"data/words.txt": "x", "data/SHA256SUMS": "0" * 64 + "  words.txt\n"}),
    ("files/size", "data/large.bin", None, {"data/large.bin": "0" * 4_000_001}),
    ("layers/length", "lib/paths.py", None, {"lib/paths.py": '"""F."""\n' + "\n" * 520}),
    ("layers/down", "lib/paths.py", "from lib", {"pyproject.toml": FLOORS, "lib/paths.py": LIB + "from lib import artifacts\n", "lib/artifacts.py": LIB}),
    ("layers/contracts", "pyproject.toml", None, {"pyproject.toml": FLOORS.replace('"layers"', '"stairs"')}),
    ("layers/bars", "lib/paths.py", "from tqdm", {"lib/paths.py": LIB + "from tqdm.auto import tqdm\n"}),
    ("layers/start", "lib/cli.py", "from lib", {"lib/cli.py": LIB + "from lib import paths\n", "lib/paths.py": LIB + "import scipy.stats\n"}),
    ("layers/start", "book/cli.py", "from book", {"book/cli.py": LIB + "from book import runner\n", "lib/paths.py": LIB + "import torch\n"}),
    ("layers/docstring", "lib/paths.py", "def open", {"lib/paths.py": LIB + "def open_it():\n    return 1\n"}),
    ("layers/docstring", "lib/paths.py", "def read", {"lib/paths.py": LIB + 'class A:\n    """A."""\n\n    def read(self):\n        return 1\n'}),
    ("layers/docstring", "lib/paths.py", None, {"lib/paths.py": "A = 1\n"}),
    ("layers/python", "lib/paths.py", "def", {"lib/paths.py": LIB + "def (:\n"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "file", "piece", "changes"),
    VIOLATIONS,
    ids=[f"{rule}-{number}" for number, (rule, *_) in enumerate(VIOLATIONS)],
)
def test_each_rule_catches_its_violation(rule, file, piece, changes, tmp_path):
    write_book(tmp_path, changes)
    found = groups.run(tmp_path, [rule.split("/")[0]])
    hits = [finding for finding in found if finding.rule == rule and finding.file == file]
    assert hits, f"{rule} not found in {[str(f) for f in found]}"
    source = (tmp_path / file).read_text() if (tmp_path / file).exists() else ""
    wanted = 1 if piece is None else source[: source.index(piece)].count("\n") + 1
    assert wanted in {finding.line for finding in hits}, [str(f) for f in hits]
    assert all(finding.message and finding.mend for finding in hits)


def test_every_rule_has_a_planted_violation():
    written = set()
    for file in (paths.ROOT / "book" / "check").glob("*.py"):
        for group in groups.GROUPS:
            written |= set(re.findall(rf'"({group}/[a-z-]+)"', file.read_text()))
    assert len(written) > 35
    assert written - {rule for rule, *_ in VIOLATIONS} == set()


# what may stand in prose: definitions, names, years, and what is not prose at all
@pytest.mark.parametrize(
    "words",
    [
        "Of 65,536 patterns 128 are so, and 32,767 more; 1000 steps in 1790 or 1790-2021.",
        "Qwen2.5-Coder-0.5B, Qwen3-4B-Instruct-2507, Llama-3.2-3B, bf16, UTF-8 and float32.",
        "In $x = 0.371$ and `0.371` and [there](../../README.md#a-note) <!-- 0.371 -->.",
        "As printed [@doe-2020-thing, p. 123]; id 151,643, section 3.2, Python 3.11.",
        "Thirteen holes in 20 dimensions, 99 of them small.",
        "```\n0.371 of 2,087\n```",
    ],
)
def test_definitions_and_names_pass(words, tmp_path):
    assert groups.run(write_book(tmp_path, text(words))) == []


def test_an_allowed_literal_passes_in_its_chapter_only(tmp_path):
    entry = '- {chapter: one/02-look, text: "0.37", reason: "the sources\' own example"}\n'
    write_book(tmp_path, {**text("At 0.37 it is."), literals.ALLOWED: entry})
    assert groups.run(tmp_path) == []
    entry = entry.replace("one/02-look", "one/01-make")
    write_book(tmp_path, {**text("At 0.37 it is."), literals.ALLOWED: entry})
    assert {f.rule for f in groups.run(tmp_path)} == {"literals/typed", "literals/unused"}


def test_a_large_file_that_the_readme_names_passes(tmp_path):
    write_book(tmp_path, {"data/big.bin": "0" * 4_000_001})
    assert groups.run(tmp_path) == []


def test_names_bound_in_any_way_count_as_defined(tmp_path):
    code = (
        "```{python}\nfor a, (b, *c) in []:\n    pass\nwith open('x') as d:\n    e: int = 1\n"
        "if (f := 1):\n    import os.path as g\ndef h(hidden):\n    inside = 1\n```\n\n"
    )
    for name in "abcdefgh":
        write_book(tmp_path, text(code + f"It is `{{python}} {name}`."))
        assert groups.run(tmp_path, ["inline"]) == []
    for name in ("hidden", "inside"):
        write_book(tmp_path, text(code + f"It is `{{python}} {name}`."))
        assert [f.rule for f in groups.run(tmp_path, ["inline"])] == ["inline/defined"]


def test_files_that_git_ignores_are_not_checked(tmp_path):
    write_book(tmp_path, {"notes/n.md": "[x](gone.md)\n", ".gitignore": "/notes/\n"})
    assert [f.file for f in groups.run(tmp_path)] == ["notes/n.md"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert groups.run(tmp_path) == []


def test_masking_keeps_every_line_and_column():
    source = "a `b\nc` $d\ne$ $$\nf\n$$ <!-- g\nh --> [i](j) k"
    masked = prose.mask(source)
    assert len(masked) == len(source) and masked.count("\n") == source.count("\n")
    assert masked.split() == ["a", "[i]", "k"]
    assert [masked.index(word) for word in "aik"] == [source.index(word) for word in "aik"]


def test_lines_of_cells_and_prose_are_those_of_the_file(tmp_path):
    write_book(tmp_path)
    page = project.read_page(tmp_path, LOOK_FILE)
    lines = page.source.split("\n")
    assert page.prose.count("\n") == page.source.count("\n")
    for cell in page.cells:
        first = next(iter([f"#| {key}" for key in cell.options] or cell.code.split("\n")))
        assert lines[cell.line - 1].startswith(first)
    for number, line in enumerate(page.prose.split("\n")):
        assert line in ("", lines[number])


def test_short_texts_and_guards_are_no_chosen_sentences(tmp_path):
    code = "```{python}\nlabel = 'dead' if value else 'live'\nsize = len(label) if rows else 0\nsize\n```"
    write_book(tmp_path, text(code + "\n\nIt rises.`{python} holds(size > 3)`"))
    assert groups.run(tmp_path) == []


def test_a_contract_that_holds_is_no_finding(tmp_path):
    write_book(tmp_path, {"pyproject.toml": FLOORS})
    assert groups.run(tmp_path, ["layers"]) == []


def ran(root: Path, monkeypatch, *cells: tuple[int, str]) -> list:
    """What is found of an executed page whose cells begin at these lines."""
    monkeypatch.setattr(paths, "EXECUTED", root / "executed")
    monkeypatch.setenv("BOOK_SCALE", "book")
    notebook = new_notebook(
        cells=[new_markdown_cell(source, metadata={"line": line}) for line, source in cells]
    )
    file = root / "executed" / "book" / "one" / "02-look.ipynb"
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, file)
    return [(f.line, f.message) for f in groups.run(root, ran=True)]


def test_a_chapter_that_needs_more_memory_than_the_limit_is_found(tmp_path, monkeypatch):
    write_book(tmp_path)
    assert ran(tmp_path, monkeypatch, (1, "x")) == []
    file = tmp_path / "executed" / "book" / "one" / "02-look.ipynb"
    for memory, said in ((1.9e9, []), (2.5e9, [(1, "needs 2.5 GB of memory; 2 are the limit")])):
        notebook = nbformat.read(file, as_version=4)
        notebook.metadata.book = {"memory": memory}
        nbformat.write(notebook, file)
        assert [(f.line, f.message) for f in groups.run(tmp_path, ran=True)] == said
    monkeypatch.setenv("BOOK_SCALE", "full")  # has no limit, and was not run here
    assert groups.run(tmp_path, ran=True) == []


def test_sentences_that_do_not_hold_are_found_where_they_stand(tmp_path, monkeypatch):
    write_book(tmp_path)
    assert groups.run(tmp_path, ran=True) == []  # nothing was run
    holds, fails = (claims.holds(x).data for x in (True, False))
    two = f"One 1.5 % holds.{holds} Two\nfalls.{fails} Three rises."
    three = f"## Four\n\n- item one{fails}\n- item two. And (it).{fails}"
    assert ran(tmp_path, monkeypatch, (3, two), (20, three), (30, "None.")) == [
        (4, "does not hold: Two falls."),
        (22, "does not hold: item one"),
        (23, "does not hold: And (it)."),
    ]
    assert ran(tmp_path, monkeypatch, (3, f"All of it holds.{holds}")) == []
    assert main(["check", "--root", str(tmp_path), "--ran"]) == 0


def test_the_command_prints_findings_and_exits_with_one(tmp_path, capsys):
    write_book(tmp_path, text("See @fig-gone."))
    assert main(["check", "--root", str(tmp_path)]) == 1
    line, summary = capsys.readouterr().out.strip().split("\n")
    at = (tmp_path / LOOK_FILE).read_text().split("\n").index("See @fig-gone.") + 1
    assert line.startswith(f"{LOOK_FILE}:{at}: labels/resolves: @fig-gone is nowhere; ")
    assert summary == "1 finding"
    assert main(["check", "--root", str(tmp_path), "--only", "figures"]) == 0
    assert "no findings (figures)" in capsys.readouterr().out


def test_the_book_itself_has_no_findings():
    assert [str(finding) for finding in groups.run(paths.ROOT)] == []
