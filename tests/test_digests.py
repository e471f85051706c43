"""Digests: of values, arrays, and of exactly the definitions that a maker or a chapter reaches."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lib import digests, paths
from lib.training import films

LAW = '''\
"""A law."""

import math

from lib import show, tools
from lib.base import Base
from lib.tools import scaled as widen

RATE = 1
assert RATE
OTHER = 2
TABLE = {}
TABLE["a"] = 3


def push(x: int, by=RATE) -> int:
    """Push it."""
    return widen(x) + math.floor(by) + show.number(x)


class Recipe(Base):
    """A recipe."""

    def make(self):
        return tools.twice(TABLE)


def unrelated(x):
    return tools.unused(x) + OTHER
'''
FILES = {
    "__init__": "",
    "law": LAW,
    "tools": "FACTOR = 3\n\n\ndef scaled(x):\n    return x * FACTOR\n\n\n"
    "def twice(x):\n    return 2 * x\n\n\ndef unused(x):\n    return x\n",
    "base": "class Base:\n    def kept(self):\n        return helper()\n\n\ndef helper():\n"
    "    return 1\n",
    "show": "def number(x):\n    return x\n",
    "plots": "def draw():\n    return 1\n",
}


@pytest.fixture
def lib(tmp_path, monkeypatch) -> Path:
    """The folder of a small library."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for name, text in FILES.items():
        (tmp_path / "lib").mkdir(exist_ok=True)
        (tmp_path / "lib" / f"{name}.py").write_text(text)
    return tmp_path / "lib"


def edit(lib: Path, module: str, old: str, new: str) -> None:
    """Replace a piece of a module."""
    file = lib / f"{module}.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    digests._read.cache_clear()  # two edits may fall into one tick of the clock


PUSH = SimpleNamespace(__module__="lib.law", __qualname__="push")
MAKE = SimpleNamespace(__module__="lib.law", __qualname__="Recipe.make")


@pytest.mark.parametrize(
    ("maker", "module", "old", "new"),
    [
        (PUSH, "law", "widen(x) +", "widen(x) -"),  # itself
        (PUSH, "law", "by=RATE", "by=4"),  # a default
        (PUSH, "law", "RATE = 1", "RATE = 7"),  # a constant that it names
        (PUSH, "tools", "x * FACTOR", "x + FACTOR"),  # a function under another name
        (PUSH, "tools", "FACTOR = 3", "FACTOR = 4"),  # what that names in its own module
        (PUSH, "law", "RATE = 1", "RATE = 1\nprint(RATE)"),  # what runs on import
        (MAKE, "law", "tools.twice", "tools.unused"),
        (MAKE, "tools", "2 * x", "3 * x"),  # an attribute of a module
        (MAKE, "law", 'TABLE["a"] = 3', 'TABLE["a"] = 4'),  # a constant that is changed later
        (MAKE, "base", "return 1", "return 2"),  # what an inherited method names
    ],
)
def test_what_a_maker_reaches_is_in_its_digest(lib, maker, module, old, new):
    before = digests.of_maker(maker)
    edit(lib, module, old, new)
    assert digests.of_maker(maker) != before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("law", "return tools.unused", "return 1 + tools.unused"),  # a neighbour in the module
        ("law", "OTHER = 2", "OTHER = 3"),
        ("law", "tools.twice", "tools.unused"),
        ("law", '"""Push it."""', '"""Push it again."""'),
        ("law", '"""A law."""', '"""Another law."""'),
        ("law", "RATE = 1", "RATE = 1  # a rate\n\n"),
        ("tools", "return 2 * x", "return 3 * x"),
        ("plots", "return 1", "return 2"),
    ],
)
def test_what_it_does_not_reach_is_not(lib, module, old, new):
    before = digests.of_maker(PUSH)
    edit(lib, module, old, new)
    assert digests.of_maker(PUSH) == before


def test_what_only_shows_results_counts_for_a_chapter_and_not_for_a_maker(lib):
    (lib / "law.py").write_text("from lib import plots\n\n\ndef push():\n    return plots.draw()\n")
    code = "from lib import law\nlaw.push()\n"
    before = digests.of_maker(PUSH), digests.of_cells(code)
    edit(lib, "plots", "return 1", "return 2")
    assert digests.of_maker(PUSH) == before[0]
    assert digests.of_cells(code) != before[1] != digests.of_cells(code + "law.push()\n")


@pytest.mark.parametrize(
    "code",
    [
        "from lib.law import push\npush(1)",
        "from lib import law\nlaw.push(1)",
        "import lib.law\nlib.law.push(1)",
        "import lib.law as rules\nrules.push(1)",
        "def later():\n    from lib.law import push as shove\n    return shove(1)",
    ],
)
def test_a_chapter_reaches_what_it_names_however_it_imports_it(lib, code):
    assert digests.of_cells(code)[1] == {
        ("lib.law", "push"),
        ("lib.law", "RATE"),
        ("lib.tools", "scaled"),
        ("lib.tools", "FACTOR"),
        ("lib.show", "number"),
        ("lib.law", ""),
    }


def test_a_module_that_is_handed_round_counts_as_a_whole(lib):
    found = {name for module, name in digests.of_cells("from lib import tools\ndo(tools)")[1]}
    assert found == {"FACTOR", "scaled", "twice", "unused"}
    assert digests.of_cells("import numpy as np\nnp.zeros(1)")[1] == set()


def nearby(x):
    """A maker of a test: its own text counts, and what of the library it names."""
    return films.encode(x)


def test_makers_beside_the_library(monkeypatch):
    class Own:
        def make(self):
            return films.decode(1)

    one, two = digests.of_maker(nearby), digests.of_maker(Own)
    assert len({one, two, digests.of_maker(nearby, Own)}) == 3
    read = digests._source

    def source(module):
        found = read(module)
        if module != films.__name__:
            return found
        return found._replace(text=lambda name: "changed" * (name == "encode") or found.text(name))

    monkeypatch.setattr(digests, "_source", source)
    assert digests.of_maker(nearby) != one and digests.of_maker(Own) == two


def test_a_film_is_made_by_all_of_the_training_and_by_no_figure():
    start = {(films.__name__, "Film")}
    modules = {module for module, _ in digests._closure(start, digests.PRESENTATION)}
    training = {f"lib.training.{name}" for name in ("films", "loop", "model", "optim", "config")}
    assert training | {"lib.lattice", "lib.kernels"} <= modules
    assert not any(module.startswith("lib.analysis") for module in modules)
    assert not modules & digests.PRESENTATION


def test_arrays_are_told_apart_by_name_type_shape_and_bytes_alone():
    a = np.arange(6, dtype=np.uint16)
    different = [{"a": a}, {"b": a}, {"a": a.view(np.int16)}, {"a": a.reshape(2, 3)}, {"a": a + 1}]
    assert len({digests.of_arrays(arrays) for arrays in different}) == len(different)
    two = {"a": a, "b": a[::2]}
    assert digests.of_arrays(two) == digests.of_arrays({"b": a[::2].copy(), "a": a})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), object(), {1, 2}])
def test_a_value_that_is_not_plain_and_finite_has_no_digest(value):
    with pytest.raises(digests.DigestError, match="parameter"):
        digests.of_value({"rows": value})
    assert digests.of_value({"a": (1, 2.5), "b": np.int64(3)}) == digests.of_value(
        {"b": 3, "a": [1, 2.5]}
    )
