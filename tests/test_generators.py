"""From a generator to its readers: what was kept is found as it was made, or a command is named."""

import json

import numpy as np
import pytest

from lib import artifacts, generators, paths, scale
from lib.analysis.sweeps import CastRows
from lib.artifacts import ArtifactError, ArtifactMissing
from lib.extraction import specimens
from lib.generators import Generator

CHAPTER = "one/01-make"
TEXT = "# A\n\n```{python}\n#| tags: [parameters]\nrows = 4  # how many\nseeds = 2\n```\n"
SETTINGS = {"rows": 4, "seeds": 2}


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    """One generator chapter, and nothing made."""
    (tmp_path / "chapters" / "one").mkdir(parents=True)
    (tmp_path / "chapters" / f"{CHAPTER}.qmd").write_text(TEXT)
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales" / "smoke.yml").write_text(f"{CHAPTER}: {{rows: 2}}\n")
    for name, folder in (("CHAPTERS", "chapters"), ("SCALES", "scales"), ("ARTIFACTS", "made")):
        monkeypatch.setattr(paths, name, tmp_path / folder)
    monkeypatch.setattr(paths, "MADE", tmp_path / "made" / "made")
    for variable in ("BOOK_SCALE", scale.GIVEN, scale.UPSTREAM):
        monkeypatch.delenv(variable, raising=False)
    scale.literals.cache_clear()
    yield tmp_path
    scale.literals.cache_clear()


def rows(count: int, dim: int = 6) -> CastRows:
    """A quick recipe of the library."""
    return CastRows(2, 1e-6, 1e-5, count, dim, 2)


def made(parameters=SETTINGS) -> Generator:
    """What the chapter keeps with these parameters."""
    generator = Generator(CHAPTER, parameters)
    generator.keep("one", rows(parameters["rows"]))
    generator.keep("many", {f"dim {dim}": rows(parameters["rows"], dim) for dim in (3, 4)})
    return generator


def test_what_was_kept_is_found_as_it_was_made():
    written = made()
    found = generators.load(CHAPTER)
    assert found.parameters.rows == 4 and vars(found.parameters) == SETTINGS
    assert np.array_equal(found["one"]["float32_4"], written.entries["one"]["float32_4"])
    assert found["one"].recipe == rows(4) and found["one"] is found["one"]
    assert list(found["many"]) == ["dim 3", "dim 4"]
    assert {label: one.recipe.dim for label, one in found["many"].items()} == {
        "dim 3": 3,
        "dim 4": 4,
    }
    stacked = generators.stack(found["many"], "bf16_4")
    assert stacked.shape == (2, *found["many"]["dim 3"]["bf16_4"].shape)
    assert np.array_equal(stacked[1], found["many"]["dim 4"]["bf16_4"])
    assert found.summary.startswith(f"read 3 artefacts of {CHAPTER} (")


def test_what_is_missing_says_what_there_is_and_the_command():
    made()
    command = rf"python -m lib run chapters/{CHAPTER}\.qmd$"
    with pytest.raises(ArtifactMissing, match=rf"kept no 'two'; it kept one, many.*\n.*{command}"):
        generators.load(CHAPTER)["two"]
    generators.load(CHAPTER)["one"].path.unlink()
    with pytest.raises(ArtifactMissing, match=rf"cast-rows-.* is missing.*\n.*{command}"):
        generators.load(CHAPTER)["one"]
    for file in paths.MADE.rglob("*.json"):
        file.unlink()
    with pytest.raises(ArtifactMissing, match=rf"has not run at book scale.*\n.*{command}"):
        generators.load(CHAPTER)


def test_each_set_of_parameters_and_each_scale_has_its_own(monkeypatch):
    made()
    given = json.dumps({CHAPTER: {"rows": 7}})
    monkeypatch.setenv(scale.UPSTREAM, given)
    with pytest.raises(ArtifactMissing, match=r"-p rows=7$"):
        generators.load(CHAPTER)
    made({"rows": 7, "seeds": 2})
    assert generators.load(CHAPTER).parameters.rows == 7
    assert generators.load(CHAPTER)["one"].recipe == rows(7)
    monkeypatch.delenv(scale.UPSTREAM)
    assert generators.load(CHAPTER)["one"].recipe == rows(4)
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    with pytest.raises(ArtifactMissing, match=r"at smoke scale with these parameters.*\n.*qmd$"):
        generators.load(CHAPTER)
    made({"rows": 2, "seeds": 2})
    assert generators.load(CHAPTER)["one"].recipe == rows(2)
    assert len(list(paths.MADE.rglob("*.json"))) == 3


def test_what_today_s_code_would_make_otherwise_is_stale(monkeypatch):
    made()
    found = generators.load(CHAPTER)
    monkeypatch.setattr(CastRows, "schema", 2)  # stands for any change of what makes it
    for name in ("one", "many"):
        with pytest.raises(ArtifactMissing, match=r"stale .*; make it again with\n"):
            found[name]
    made()
    assert generators.load(CHAPTER)["one"].provenance["schema"] == 2


def test_what_is_damaged_is_refused(book):
    made()
    found = generators.load(CHAPTER)
    one, other = found["one"].path, found["many"]["dim 3"].path
    one.write_bytes(other.read_bytes())
    with pytest.raises(ArtifactError, match="something else than its name says"):
        generators.load(CHAPTER)["one"]
    one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="damaged"):
        generators.load(CHAPTER)["one"]
    (record,) = paths.MADE.rglob("*.json")
    for text in ("", "[]", '{"chapter": 1}'):
        record.write_text(text)
        with pytest.raises(ArtifactMissing, match=r"is damaged .*; run the chapter again"):
            generators.load(CHAPTER)


def test_of_many_runs_a_kill_costs_only_the_one_on_its_way(monkeypatch):
    asked, killed, make = [], {4}, CastRows.make

    def interrupted(self):
        asked.append(self.dim)
        if self.dim in killed:
            raise KeyboardInterrupt
        return make(self)

    monkeypatch.setattr(CastRows, "make", interrupted)
    many = {str(dim): rows(3, dim) for dim in (3, 4, 5)}
    with pytest.raises(KeyboardInterrupt):
        Generator(CHAPTER, SETTINGS).keep("many", many)
    with pytest.raises(ArtifactMissing):
        generators.load(CHAPTER)
    killed.clear()
    Generator(CHAPTER, SETTINGS).keep("many", many)
    assert asked == [3, 4, 4, 5]
    assert len(generators.load(CHAPTER)["many"]) == 3
    assert len(artifacts.every()) == 3


def test_a_specimen_that_a_chapter_trained_is_the_one_it_kept(monkeypatch):
    """specimens.open finds what the generator of today's parameters kept, and no other."""
    source = specimens.Trained(CHAPTER)
    assert specimens.trained(source) is None
    made()
    assert specimens.trained(source) is None  # it kept none
    Generator(CHAPTER, SETTINGS).keep(specimens.TRAINED, rows(3))
    assert specimens.trained(source).recipe == rows(3)
