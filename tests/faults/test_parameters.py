"""Hostile parameters: each is refused in one line before a kernel starts, or is what was meant."""
# ruff: noqa: E501 (many cases a line)

import json
import math
import os
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from book import config, notebooks, parameters, runner
from book.parameters import ITEMS, LONGEST, SEEDS, Parameter, ParameterError
from book.reader import ChapterError
from lib import paths, scale
from lib.__main__ import main

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("parameters")]

REPORT = paths.ROOT / "reports" / "field-report.qmd"
CHAPTERS = [paths.ROOT / page.source for page in config.load().pages] + [REPORT]
CELL = """\
steps = 800  # optimiser steps
share = 0.5  # share of Thai, 0 to 1
lr = 1e-3  # learning rate
seed = 42
name = "subject"  # a specimen
empty = ""  # none
quick = False  # or slow
sizes = [8, 16]  # widths
sigmas = [0.005, 0.01]  # noises
shapes = [[64, 2], [64, 4]]  # (dim, layers)
also = []  # further files
colormap = "inferno"
"""
KNOWN = parameters.of(CELL, "cell", [{"steps": 1000}])


def refused(parameter: Parameter, value, spelled: bool = True) -> None:
    """It is refused, in one line that names it and says what it may be."""
    with pytest.raises(ParameterError) as error:
        parameter.read(value) if spelled else parameter.check(value)
    said = str(error.value)
    assert "\n" not in said and len(said) < 400, said
    assert said.startswith(f"{parameter.name} must be {parameter.wanted}, not "), said


SPELLED = {
    "steps": ["0", "-1", "010", "1:30", "1e3", "7.0", "7.5", "0x10", "0o7", "0b1", "1,000", "many", "",
              " ", "true", "null", "~", ".inf", ".nan", "nan", "9" * 40, "9" * 4000, "9" * 5000, "100001",
              "٣", "1 2", "[7]", "{}", "2026-11-30", "!!python/object:os.system x", "--", "1\n2", "\x1b[31m"],
    "share": ["-0.1", "1.1", "1e9", "nan", "inf", "-inf", "1e999", "0x1p3", "1_0.5", "half", "", "50%",
              "1:30", "true", "[0.5]", "0,5", "1e", "e1", ".", "+", "9" * 5000],
    "lr": ["-1", "-1e-9", "1e7", "fast", ".nan", "1/2"],
    "seed": ["-1", str(SEEDS + 1), str(10**23), "1e3", "4.2", "none", "010"],
    "name": ["", "a\nb", "\x1b[31m", "\x00", "\u202ex", "\ud800", "x" * (LONGEST + 1)],
    "empty": ["a\tb", "\x7f", "x" * 10_000],
    "quick": ["1", "0", "yes", "no", "True", "on", "", "maybe", "[true]"],
    "sizes": ["3", "[]", "[0]", "[-1]", "[010]", "[1:30]", "[1.5]", "[a]", "[null]", "[[8]]", "[8", "]", "",
              "{8: 16}", "[true]", f"[{10**12}]", "[" * 3000, "&a [*a]", "[*b]", "- 0", "[8, , 16]", "[,]",
              str(["8"] * (ITEMS + 1)).replace("'", "").replace(" ", ""), "!!binary x"],
    "sigmas": ["[]", "[-1]", "[nan]", "[1e999]", "0.1", "[0.1, x]", "[.inf]"],
    "shapes": ["[]", "[[]]", "[[0, 1]]", "[64, 2]", "[[[64]]]", "[[64, a]]", "&a [&b [*a, *b]]"],
    "also": ["x", "{}", "[[x]]", '["a\\nb"]'],
    "colormap": ["klingon", "", "Inferno", "inferno ", "../x"],
}  # fmt: skip
BOMB = "&a [x,x,x,x,x,x,x,x,x]"
for letter, before in zip("bcdefghij", "abcdefghi", strict=True):
    BOMB = f"{BOMB}, &{letter} [{','.join([f'*{before}'] * 9)}]"
SPELLED["also"].append(f"[{BOMB}]")
SPELLED["sizes"].append(f"[{BOMB}]")
MEANT = {
    "steps": {"7": 7, "+7": 7, "1_000": 1000, "100000": 100_000, "1": 1},
    "share": {"0": 0.0, "1": 1.0, ".5": 0.5, "5e-1": 0.5, "0.": 0.0},
    "lr": {"3e-4": 3e-4, "3": 3.0, "0": 0.0},
    "seed": {"0": 0, str(SEEDS): SEEDS},
    "name": {"no": "no", "010": "010", "1:30": "1:30", "7": "7", '"7"': "7", "a=b": "a=b", "null": "null"},
    "empty": {"": "", "null": "null"},
    "quick": {"true": True, "false": False},
    "sizes": {"[3]": [3], "[8, 1_6]": [8, 16], "- 3": [3]},
    "sigmas": {"[1e-3, 1]": [1e-3, 1.0]},
    "shapes": {"[[8, 1]]": [[8, 1]]},
    "also": {"[]": [], "[no, 010]": ["no", "010"], "[a b]": ["a b"]},
    "colormap": {"viridis": "viridis"},
}  # fmt: skip
TYPED = {  # as Quarto's -P hands them over
    "steps": [0, -1, 7.0, 7.5, True, None, "7", [7], 10**9, 10**5000, math.nan, {}],
    "share": [-1, 2, math.nan, math.inf, True, "0.5", None, [0.5], -(10**400)],
    "seed": [-1, 10**23, 1.0, False],
    "name": [1, None, True, [], "", "a\nb"],
    "quick": [0, 1, "true", None],
    "sizes": [[], [0], 8, "8", [True], [8.0], [[8]], None, [8] * (ITEMS + 1)],
    "shapes": [[[]], [8], [[8, "x"]]],
    "also": ["x", [1], [""] * (ITEMS + 1), None],
}


def test_what_is_no_value_is_refused(record_property):
    for name, values in SPELLED.items():
        for value in values:
            refused(KNOWN[name], value)
    for name, values in TYPED.items():
        for value in values:
            refused(KNOWN[name], value, spelled=False)
    for name, values in MEANT.items():
        for text, value in values.items():
            read = KNOWN[name].read(text)
            assert (read, type(read)) == (value, type(value))
    counts = [sum(map(len, table.values())) for table in (SPELLED, TYPED, MEANT)]
    record_property(
        "cases", "parameters: {} spelled and {} typed refused, {} meant".format(*counts)
    )


def at_the_edges(parameter: Parameter):
    """(value, whether it may be) at both ends of a range, in a list where a list is wanted."""
    literal, depth = parameter.literal, 0
    while isinstance(literal, list) and literal:
        literal, depth = literal[0], depth + 1
    if isinstance(literal, bool) or not isinstance(literal, (int, float)):
        return
    kind, step = type(literal), 1 if isinstance(literal, int) else 1e-3 * (parameter.most or 1)
    for value, may in ((parameter.least, True), (parameter.most, True),
                       (parameter.least - step, False), (parameter.most + step, False)):  # fmt: skip
        value = kind(value)
        for _ in range(depth):
            value = [value]
        yield value, may


def test_every_parameter_of_the_book_has_a_range(record_property):
    """Its own value and every scale's lie inside; both ends are taken, and nothing beyond."""
    count = Counter()
    for source in CHAPTERS:
        chapter = runner.open_chapter(source)
        for name, one in chapter.parameters().items():
            given = [scale.overrides(chapter.name, size).get(name) for size in scale.SCALES]
            for value in [one.literal, *(v for v in given if v is not None)]:
                assert one.check(value) == value
            for value, may in at_the_edges(one):
                count["edges"] += 1
                if may:
                    one.check(value)
                else:
                    refused(one, value, spelled=False)
            assert one.meaning or name in ("seed", "colormap"), (chapter.name, name)
            count["parameters"] += 1
    record_property(
        "cases", f"parameters: {count['parameters']} of the book's, {count['edges']} edges"
    )


COMMANDS = [
    *(f"-p {word}" for word in ("steps=0", "lr=-1", f"seed={10**23}", f"batch={10**9}", "probe_steps=[]",
      f"steps={'9' * 5000}", "seed=-1", "steps=010", "steps=1:30", "thai_share=1.5", "stepz=1", "steps",
      "=1", "=", "heads=0", f"vocab={10**20}", "english=", f"dim={'1' * 300}", "probe_steps=3",
      "init_std=nan", "layers=2.0", "seq=true")),
    "-p steps=7 -p lr=x", "-p steps=7 -p steps=0",
]  # fmt: skip


def test_the_command_says_it_in_one_line_and_starts_no_kernel(capsys, monkeypatch, record_property):
    monkeypatch.setattr(runner, "_execute", None)
    monkeypatch.setenv("BOOK_SCALE", "book")
    for words in COMMANDS:
        assert main(["run", "dynamics/01-train", *words.split(" ")]) == 2, words
        out, error = capsys.readouterr()
        assert out == "" and error.startswith("error: ") and error.count("\n") == 1, error
        assert "Traceback" not in error and len(error) < 2_000
    assert main(["run", "dynamics/01-train", "--list"]) == 0
    listed = capsys.readouterr().out
    assert "steps = 800: an integer from 1 to 100,000; optimiser steps\n" in listed
    assert main(["run", "dynamics/02-push", "--list"]) == 0
    assert "of dynamics/01-train, which it reads:" in capsys.readouterr().out
    for file in (runner.open_chapter(source).source for source in CHAPTERS):
        assert main(["run", str(file), "--list"]) == 0
    record_property("cases", f"parameters: {len(COMMANDS)} commands refused in one line, "
                             f"{len(CHAPTERS)} chapters listed")  # fmt: skip


def test_quartos_way_goes_through_the_same_check(monkeypatch, record_property):
    monkeypatch.setattr(runner, "_execute", None)
    file, count = str(paths.CHAPTERS / "dynamics" / "01-train.qmd"), 0
    for name, values in TYPED.items():
        name = {"share": "thai_share", "name": "english", "sizes": "probe_steps"}.get(name, name)
        if name in runner.open_chapter(file).parameters():
            for value in values:
                words, folder = ["render", file], str(paths.ROOT)
                asked = {"file": file, "words": words, "folder": folder}
                answer = notebooks._answer(asked | {"parameters": {name: value}}, {})
                assert (
                    answer["error"].startswith(f"ERROR: {name} must be ")
                    and "\n" not in answer["error"]
                )
                count += 1
    record_property("cases", f"parameters: {count} refused by Quarto's way")


def test_what_is_no_chapter_is_refused(tmp_path, capsys, record_property):
    (tmp_path / "folder.qmd").mkdir()
    (tmp_path / "bytes.qmd").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "open.qmd").write_text("```{python}\n1\n")
    (tmp_path / "yaml.qmd").write_text("---\n: [\n---\n# A\n")
    (tmp_path / "python.qmd").write_text("# A\n\n```{python}\n1 +\n```\n")
    os.mkfifo(tmp_path / "pipe.qmd")
    files = ["/etc/passwd", "/dev/null", "/dev/zero", "/", ".", "..", "x.py", "README.md", "chapters",
             "dynamics", "dynamics/99-none", "x" * 300, "\u202e", "*", "~", "a/../../etc/passwd",
             *(str(tmp_path / name) for name in ("folder.qmd", "bytes.qmd", "open.qmd", "yaml.qmd",
               "python.qmd", "pipe.qmd", "none.qmd"))]  # fmt: skip
    for file in files:
        for verb in ("run", "export"):
            assert main([verb, file]) == 2, file
            error = capsys.readouterr().err
            assert error.startswith("error: ") and error.count("\n") == 1, error
    with pytest.raises(ChapterError):
        runner.open_chapter("/etc/passwd")
    record_property("cases", f"parameters: {2 * len(files)} files that are no chapters refused")


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.sampled_from(sorted(KNOWN)), st.text(max_size=40))
def test_any_text_is_refused_or_read_as_what_it_says(name, text):
    one = KNOWN[name]
    try:
        value = one.read(text)
    except ParameterError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return
    assert type(value) is type(one.literal) and one.check(value) == value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        assert one.least <= value <= one.most
        assert (
            text.replace("_", "").lstrip("+") == str(value) or float(text.replace("_", "")) == value
        )
    json.dumps(value)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(-(10**30), 10**30), st.floats(allow_nan=True))
def test_numbers_lie_in_their_range(whole, real):
    for name in ("steps", "seed", "share", "lr"):
        for value in (whole, real):
            one = KNOWN[name]
            inside = one.least <= value <= one.most
            fits = inside and (isinstance(one.literal, float) or isinstance(value, int))
            try:
                assert one.check(value) == value and fits
            except ParameterError:
                assert not fits
