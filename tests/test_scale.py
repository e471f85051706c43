"""One switch of scale; an explicit parameter wins over it."""

import pytest

from lib import paths, scale
from lib.scale import ScaleError

CHAPTER = """\
# A {#sec-a}

```{python}
first = 1
```

```{python}
#| tags: [parameters]
steps = 50  # how many
lr = 3e-4
names = ["a", "b"]
```
"""


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    """One chapter and its values at smoke scale."""
    (tmp_path / "chapters" / "one").mkdir(parents=True)
    (tmp_path / "chapters" / "one" / "01-a.qmd").write_text(CHAPTER)
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales" / "smoke.yml").write_text("one/01-a:\n  steps: 5\n  lr: 0.1\n")
    (tmp_path / "scales" / "full.yml").write_text("# nothing\n")
    monkeypatch.setattr(paths, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setattr(paths, "SCALES", tmp_path / "scales")
    monkeypatch.delenv("BOOK_SCALE", raising=False)
    monkeypatch.delenv(scale.GIVEN, raising=False)
    monkeypatch.delenv(scale.UPSTREAM, raising=False)
    scale.literals.cache_clear()
    yield tmp_path
    scale.literals.cache_clear()


def applied(**changes) -> dict:
    """The parameters of the chapter after the scale was applied."""
    namespace = {"steps": 50, "lr": 3e-4, "names": ["a", "b"], "other": 1} | changes
    scale.apply("one/01-a", namespace)
    return namespace


def test_a_reader_gets_its_generators_settings(monkeypatch):
    assert scale.settings("one/01-a") == {"steps": 50, "lr": 3e-4, "names": ["a", "b"]}
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    monkeypatch.setenv(scale.UPSTREAM, '{"one/01-a": {"steps": 7}, "one/02-b": {"lr": 3.0}}')
    assert scale.settings("one/01-a") == {"steps": 7, "lr": 0.1, "names": ["a", "b"]}


def test_applying_gives_the_parameters_alone(monkeypatch):
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    namespace = {"steps": 50, "lr": 3e-4, "names": ["a", "b"], "other": 1}
    assert scale.apply("one/01-a", namespace) == {"steps": 5, "lr": 0.1, "names": ["a", "b"]}


def test_the_default_is_the_book_scale_which_changes_nothing(monkeypatch):
    assert scale.current() == "book"
    assert applied() == {"steps": 50, "lr": 3e-4, "names": ["a", "b"], "other": 1}
    monkeypatch.setenv("BOOK_SCALE", "")
    assert scale.current() == "book"


def test_a_scale_overrides_its_own_parameters_only(monkeypatch):
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    assert applied() == {"steps": 5, "lr": 0.1, "names": ["a", "b"], "other": 1}
    monkeypatch.setenv("BOOK_SCALE", "full")
    assert applied()["steps"] == 50


def test_an_explicit_value_wins(monkeypatch):
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    assert applied(steps=7) == {"steps": 7, "lr": 0.1, "names": ["a", "b"], "other": 1}


def test_an_explicit_value_wins_even_if_it_is_the_literal(monkeypatch):
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    monkeypatch.setenv(scale.GIVEN, "steps")
    assert applied()["steps"] == 50
    assert applied()["lr"] == 0.1


@pytest.mark.parametrize("name", ["small", "Smoke", "smoke "])
def test_a_mistyped_scale_is_refused_with_the_valid_ones(name, monkeypatch):
    monkeypatch.setenv("BOOK_SCALE", name)
    with pytest.raises(ScaleError, match="smoke, book, full"):
        scale.current()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("one/01-a:\n  stepz: 5\n", "no parameter 'stepz'"),
        ("one/01-a: 5\n", "must map"),
        ("- one/01-a\n", "must map"),
        ("one/01-a: {\n", "smoke.yml"),
        ("one/01-a:\n  lr: 1e-4\n", r"write 3\.0e-4"),
    ],
)
def test_a_malformed_scale_file_is_one_clear_error(text, says, book, monkeypatch):
    (book / "scales" / "smoke.yml").write_text(text)
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    with pytest.raises(ScaleError, match=says) as error:
        applied()
    assert "smoke.yml" in str(error.value)


def test_a_missing_scale_file_is_named(book, monkeypatch):
    (book / "scales" / "smoke.yml").unlink()
    monkeypatch.setenv("BOOK_SCALE", "smoke")
    with pytest.raises(ScaleError, match=r"smoke\.yml"):
        applied()


def test_the_tagged_cell_is_found_and_its_literals_read():
    assert scale.literals("one/01-a") == {"steps": 50, "lr": 3e-4, "names": ["a", "b"]}
    with pytest.raises(ScaleError, match="no code cell"):
        scale.parameters_cell("```{python}\nsteps = 1\n```\n", "x")


@pytest.mark.parametrize(
    "code", ["a = 1 + b", "a = f()", "a: int = 1", "a, b = 1, 2", "a = b = 1", "print(1)", "a = ("]
)
def test_what_is_no_literal_is_refused(code):
    with pytest.raises(ScaleError, match="x"):
        scale.parameter_literals(code, "x")


@pytest.mark.parametrize("code", ["a = -1", "a = 2 + 3j", "a = None", "a = {'b': (1, 2)}"])
def test_literals_are_read(code):
    assert "a" in scale.parameter_literals(code, "x")
