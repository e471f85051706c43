"""Warm kernels: forks that are what a kernel started from nothing would be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book import runner, warm_kernels
from tests import small_project
from tests.small_project import cell, write_chapter

pytestmark = pytest.mark.skipif(not warm_kernels.forks, reason="kernels start cold here")

SEEN = """\
import json, multiprocessing, os, sys
parent = multiprocessing.parent_process()
print(json.dumps({
    "imported": [name for name in ("torch", "lib", "press") if name in sys.modules],
    "folder": os.getcwd(),
    "given": os.environ.get("GIVEN_TO_KERNELS"),
    "path": sys.path[0],
    "parent": parent and parent.pid,
    "session": os.getsid(0) == os.getpid(),
}))"""
FIGURE = """\
import matplotlib.pyplot as plt
import warnings
warnings.warn("nobody sees this", UserWarning)
print(plt.get_backend())
fig, ax = plt.subplots(figsize=(2, 2))
ax.plot([0, 1])
plt.show()
fig, ax = plt.subplots(figsize=(2, 1))  # shown at the end of the cell, as notebooks do"""


def outputs(file) -> list:
    """The outputs of the first cell of a chapter that is executed now."""
    executed = nbformat.read(runner.run(file), as_version=4)
    return next(c.outputs for c in executed.cells if c.cell_type == "code" and c.outputs)


def test_a_chapter_finds_the_libraries_imported_and_nothing_of_the_book(here, monkeypatch):
    file = write_chapter(here, "one/01-seen", cell(SEEN))
    for value in ("a", "b"):
        monkeypatch.setenv("GIVEN_TO_KERNELS", value)
        seen = json.loads(outputs(file)[0].text)
        assert seen == {
            "imported": ["torch"],
            "folder": str(Path.cwd()),
            "given": value,
            "path": "",
            "parent": os.getpid(),
            "session": True,
        }


def test_a_fork_shows_what_a_kernel_from_nothing_shows(here, monkeypatch):
    file = write_chapter(here, "one/01-figure", cell(FIGURE))
    warm = outputs(file)
    monkeypatch.setattr(warm_kernels, "forks", None)
    assert outputs(file) == warm
    assert sum("image/png" in output.get("data", {}) for output in warm) == 2
    assert "nobody sees this" not in str(warm)


def test_a_chapter_leaves_nothing_to_the_next(here):
    first = write_chapter(here, "one/01-first", cell("import torch\ntorch.left = 1\nprint(1)"))
    second = write_chapter(here, "one/02-next", cell("import torch\nprint(hasattr(torch, 'left'))"))
    assert outputs(first)[0].text == "1\n"
    assert outputs(second)[0].text == "False\n"


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no scheduling groups here")
def test_a_kernel_is_as_nice_as_whoever_asked_for_it(tmp_path):
    project = small_project.write(tmp_path)
    code = cell("import os\nprint(os.nice(0), open('/proc/self/autogroup').read().split()[-1])")
    write_chapter(project, "one/04-nice", code)
    command = ["nice", "-n", "7", sys.executable, "-m", "lib", "run", "one/04-nice"]
    subprocess.run(command, cwd=project, env=os.environ | {"BOOK_SCALE": "book"}, check=True)
    executed = nbformat.read(small_project.executed(project, "one/04-nice"), as_version=4)
    assert "7 7\n" in [out.text for c in executed.cells for out in c.get("outputs", [])]
