"""The corpora are the editions the book names, and mixtures of them are deterministic."""

import pytest

from lib import paths
from lib.extraction import corpus
from lib.extraction.editions import EditionError


def test_the_texts_are_what_they_claim():
    assert corpus.text("english").startswith("Fellow-Citizens of the Senate")
    assert "\x02" not in corpus.text("english")
    assert "Call me Ishmael." in corpus.text("moby_dick")
    assert corpus.text("moby_dick").isascii()
    thai = corpus.text("thai", 10_000)
    letters = [c for c in thai if c != "\n"]
    assert sum("฀" <= c <= "๿" for c in letters) > 0.99 * len(letters)
    assert not thai.startswith("#")


def test_mixture_has_the_shares_and_is_deterministic():
    text = corpus.mixed({"english": 0.8, "thai": 0.2}, characters=50_000)
    assert len(text) == 50_000
    assert sum("฀" <= c <= "๿" for c in text) == pytest.approx(10_000, rel=0.1)
    assert text == corpus.mixed({"english": 0.8, "thai": 0.2}, characters=50_000)
    other = corpus.mixed({"english": 0.8, "thai": 0.2}, characters=50_000, seed=43)
    assert other != text
    assert sorted(other) == sorted(text)


def test_cut_loses_nothing_and_respects_words():
    text = "one two three\nfour " * 50 + "x" * 100
    parts = corpus.cut(text, 30)
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 30
    assert parts[0].endswith((" ", "\n"))


@pytest.mark.parametrize(
    "shares", [{"english": 0.5}, {"english": 1.5, "thai": -0.5}, {"klingon": 1.0}]
)
def test_bad_shares_are_refused(shares):
    with pytest.raises(corpus.CorpusError):
        corpus.mixed(shares, characters=1000)


def test_too_short_a_corpus_is_named():
    with pytest.raises(corpus.CorpusError, match=r"thai.*4,348,913.*9,000,000"):
        corpus.text("thai", 9_000_000)


def test_damage_and_absence_give_one_clear_error(tmp_path, monkeypatch):
    entry = corpus.EDITIONS["moby_dick"]
    data = (paths.CORPORA / entry["file"]).read_bytes()
    for name, content in [("cut.xz", data[:1000]), ("other.txt", b"Call me Bob.")]:
        (tmp_path / name).write_bytes(content)
        monkeypatch.setitem(corpus.EDITIONS, "bad", entry | {"file": str(tmp_path / name)})
        with pytest.raises(EditionError, match=rf"{name}.*git checkout"):
            corpus.text("bad")
    monkeypatch.setitem(corpus.EDITIONS, "bad", entry | {"package": "no_such_package"})
    with pytest.raises(EditionError, match="make setup"):
        corpus.text("bad")


def test_ascii_spelling_leaves_no_letter_beyond_it():
    assert corpus.in_ascii("“Café”—naïve…") == '"Cafe"--naive...'
