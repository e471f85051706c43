"""A small project with this book's own machinery: three chapters and a page without code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from lib import paths

MAKE = """\
---
kind: generator
reads: []
---

# Make {#sec-make}

```{python}
#| tags: [parameters]
steps = 50  # how many
lr = 0.5
rate = 0.5
name = "a"
quick = False
sizes = [1, 2]
```

```{python}
import numpy as np
from lib import scale, show
from lib.claims import holds
scale.apply("one/01-make", globals())
show.in_text()
rows, share = np.int64(151936), np.float64(0.1234)
steps_str = f"{steps:,} steps"
from pathlib import Path
Path("made.txt").write_text(steps_str)
```

It took `{python} steps_str`, `{python} steps`. Of `{python} rows` rows `{python} share` are dead,
`{python} show.percent(share)`; steps are many.`{python} holds(steps > 1)` The rate is
one half.`{python} holds(rate == 0.5)`

```{python}
print(steps, lr, rate, name)
```
"""

# each of the two waits for the other: they only end if they run side by side
LOOK = """\
---
kind: analyser
reads: [one/01-make]
---

# Look {{#sec-look-{me}}}

```{{python}}
import time
from pathlib import Path
{extra}
made = Path("made.txt").read_text()
Path("{me}.started").touch()
end = time.monotonic() + 60
while not Path("{other}.started").exists():
    assert time.monotonic() < end, "the other never started"
    time.sleep(0.02)
print(made)
```
"""

CONFIG = """\
project: {type: book}
book:
  title: Small
  chapters: [index.qmd, {part: One, chapters: [chapters/one/03-b.qmd, chapters/one/02-a.qmd,
    chapters/one/01-make.qmd]}]
bibliography: references.bib
"""


def write_chapter(root: Path, name: str, text: str) -> Path:
    """The chapter `name` of the project at `root`."""
    file = root / "chapters" / f"{name}.qmd"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def cell(code: str) -> str:
    """A chapter with one cell."""
    return f"---\nkind: generator\nreads: []\n---\n\n# A {{#sec-a}}\n\n```{{python}}\n{code}\n```\n"


def write(root: Path) -> Path:
    """The project, at `root`."""
    for part in ("lib", "book"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(paths.ROOT / part, root / part, ignore=skip)
    (root / "_quarto.yml").write_text(CONFIG)
    (root / "index.qmd").write_text("# Small\n\nNo code.\n")
    (root / "lib" / "law.py").write_text('"""A law."""\n\nRATE = 1\n\n\nOTHER = 1\n')
    write_chapter(root, "one/01-make", MAKE)
    law = "from lib import files, law, paths; law.RATE; files.checked(paths.DATA / 'words.txt')"
    write_chapter(root, "one/02-a", LOOK.format(me="a", other="b", extra=law))
    write_chapter(root, "one/03-b", LOOK.format(me="b", other="a", extra=""))
    (root / "data" / "scales").mkdir(parents=True)
    smoke = "one/01-make: {steps: 5, lr: 0.1, rate: 0.25}\n"
    (root / "data" / "scales" / "smoke.yml").write_text(smoke)
    (root / "data" / "scales" / "full.yml").write_text("")
    (root / "data" / "claims.yaml").write_text("[]\n")
    (root / "data" / "words.txt").write_text("of one chapter\n")
    for part in ("specimens", "corpora"):  # the catalogues that `lib` reads
        (root / "data" / part).mkdir()
        shutil.copy(paths.DATA / part / "catalogue.yaml", root / "data" / part)
    record(root)
    return root


def record(project: Path) -> None:
    """`make sums` in the project."""
    code = "from lib import files; files.record()"
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)


def lib(project: Path, *words: str, scale: str = "book") -> subprocess.CompletedProcess:
    """`python -m lib ...` in the project."""
    environment = os.environ | {"BOOK_SCALE": scale}
    command = [sys.executable, "-m", "lib", *words]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def printed(file: Path) -> str:
    """All that an executed notebook printed."""
    cells = nbformat.read(file, as_version=4).cells
    outputs = [out for c in cells if c.cell_type == "code" for out in c.outputs]
    return "".join(out.text for out in outputs if out.output_type == "stream")


def executed(project: Path, name: str, scale: str = "book") -> Path:
    """Where the executed chapter lies."""
    return project / "data" / "artifacts" / "executed" / scale / f"{name}.ipynb"
