"""The corpora are the editions the book names, and mixtures of them are deterministic."""

from dataclasses import replace

import pytest

from lib.extraction import corpus


def test_the_texts_are_what_they_claim():
    assert corpus.english().startswith("Fellow-Citizens of the Senate")
    assert "\x02" not in corpus.english()
    assert "Call me Ishmael." in corpus.moby_dick()
    assert corpus.moby_dick().isascii()
    assert not corpus.moby_dick(ascii_only=False).isascii()
    thai = corpus.thai(10_000)
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
        corpus.thai(9_000_000)


def test_damage_and_absence_give_one_clear_error(tmp_path, monkeypatch):
    source = corpus.SOURCES["moby_dick"]
    data = source.path().read_bytes()
    for name, content in [("cut.xz", data[:1000]), ("other.txt", b"Call me Bob.")]:
        (tmp_path / name).write_bytes(content)
        monkeypatch.setitem(corpus.SOURCES, "bad", replace(source, file=str(tmp_path / name)))
        with pytest.raises(corpus.CorpusError, match=name):
            corpus.read.__wrapped__("bad")
    monkeypatch.setitem(corpus.SOURCES, "bad", replace(source, package="no_such_package"))
    with pytest.raises(corpus.CorpusError, match="make setup"):
        corpus.read.__wrapped__("bad")


def test_ascii_spelling_leaves_no_letter_beyond_it():
    assert corpus.spelt_in_ascii("“Café”—naïve…") == '"Cafe"--naive...'
