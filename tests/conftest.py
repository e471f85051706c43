"""One thread for torch in every test: sums, and so bits, depend on how many there are."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from lib import lattice, paths, scale
from lib.extraction import merging, vocabulary
from lib.training.films import Film
from tests import small, small_project

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """A small book that may be run, see small_project."""
    return small_project.write(tmp_path_factory.mktemp("project"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder whose chapters this process may run."""
    monkeypatch.setattr(paths, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setattr(paths, "EXECUTED", tmp_path / "executed")
    monkeypatch.setenv("BOOK_SCALE", "book")
    monkeypatch.setenv(scale.GIVEN, "")
    monkeypatch.setenv("PYTHONWARNINGS", "")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", "")
    monkeypatch.setenv("IPYTHONDIR", "")
    return tmp_path


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """The film of small.FILMED, with what the analyses of dead rows read."""
    path = tmp_path_factory.mktemp("film") / "film.h5"
    Film(("W", "mean_h"), dead=small.MOMENTS).watch(small.FILMED, small.filmed_world(), path)
    return path


@pytest.fixture(scope="session")
def qwen() -> vocabulary.Vocabulary:
    """Qwen3's vocabulary."""
    return vocabulary.open("qwen3")


@pytest.fixture(scope="session")
def library(qwen) -> Tokenizer:
    """The same in the tokenizers library."""
    return merging.as_tokenizer(qwen)


@pytest.fixture(scope="session")
def small_centre() -> np.ndarray:
    """48 dimensions with a few borders near, on and off the lattice, one close to zero."""
    rng = np.random.default_rng(7)
    centre = (rng.standard_normal(48) * 0.007).astype(np.float32)
    centre[:24] = lattice.value(lattice.round_nearest(centre[:24]))
    centre[3] = 0.0
    centre[4] = 2.0**-20  # a binade's edge: the cell is narrower below
    centre[5] = np.float32(-1.3e-6)
    return centre


@pytest.fixture
def counted(record_property):
    """`counted(what, how often)`: faults that were tried, for the summary."""
    return lambda what, count: record_property("faults", (what, count))


def pytest_terminal_summary(terminalreporter):
    """The counts that tests of faults have recorded, a line each: as `cases`, or by `counted`."""
    faults: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in getattr(report, "user_properties", ()):
            if name == "cases" and report.when == "call":
                terminalreporter.write_line(value)
            if name == "faults" and report.when == "call":
                faults[value[0]] += value[1]
    for what, count in sorted(faults.items()):
        terminalreporter.write_line(f"{count:,} {what}, all as they should end")
