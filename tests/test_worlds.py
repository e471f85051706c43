"""Worlds: who is dead by construction, what a world's identity is, texts at every scale."""

import ast

import numpy as np
import pytest

from book import reader
from lib import artifacts, digests, paths, scale
from lib.extraction import bpe, corpus, vocabulary
from lib.extraction.editions import EditionError
from lib.training import worlds

SMALL = {"tokenizer_characters": 30_000, "characters": 20_000}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Artefacts and slices of the test."""
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(paths, "SLICES", tmp_path / "slices")


def test_dead_are_the_tokens_that_the_stream_never_has():
    world = worlds.Flannel(300, 0.2, **SMALL).get()
    assert world.vocab == len(world.texts) == 300
    assert np.array_equal(np.unique(world.stream), world.live)
    assert np.array_equal(np.sort([*world.live, *world.dead]), np.arange(300))
    assert world.counts.sum() == len(world.stream) and world.later is None
    assert "".join(world.texts[i] for i in world.stream) == corpus.text("english", 20_000)
    thai = [i for i, text in enumerate(world.texts) if vocabulary.script(text) == "Thai"]
    assert len(thai) > 50 and set(thai) <= set(world.dead)


def test_the_other_worlds():
    gatsby = worlds.Gatsby(5_000).get()
    assert gatsby.vocab == 128 and bytes(gatsby.stream.astype(np.uint8)).decode() == (
        corpus.text("moby_dick", 5_000)
    )
    goldilocks = worlds.Goldilocks(300, 0.1, **SMALL).get()
    assert 300 < goldilocks.vocab < 600 and len(goldilocks.dead) > 100
    assert goldilocks.live.max() < 300  # English keeps its ids, and is all that is read


def test_a_crowd_is_gatsby_with_more_dead_rows():
    plain, crowd = worlds.Gatsby(5_000).get(), worlds.Crowd(5_000, dead=300).get()
    assert len(crowd.dead) == 300 and crowd.vocab == 300 + len(plain.live)
    assert np.array_equal(crowd.stream, plain.stream) and np.array_equal(crowd.live, plain.live)


def test_a_published_vocabulary_has_all_its_rows_and_spells_the_text():
    world = worlds.Published("gpt2", 3_000).get()
    assert world.vocab == 50_257 and world.counts[50_256] == 0  # <|endoftext|>
    assert world.tokenizer.decode(world.stream) == corpus.text("english", 3_000)
    assert world.tokenizer.decode([31373, 995]) == "hello world"  # as GPT-2 has them


def test_without_right_answers_only_frequencies_are_left_or_not_even_these():
    text = worlds.Flannel(300, 0.2, **SMALL).get()
    order = worlds.Unanswerable(300, 0.2, **SMALL).get()
    alike = worlds.Unanswerable(300, 0.2, **SMALL, uniform=True).get()
    other = worlds.Unanswerable(300, 0.2, **SMALL, seed=1).get()
    assert np.array_equal(order.counts, text.counts) and order.stream.dtype == text.stream.dtype
    assert np.array_equal(alike.dead, text.dead) and len(alike.stream) == len(text.stream)
    expected = len(text.stream) / len(text.live)
    assert np.abs(alike.counts[alike.live] - expected).max() < 6 * np.sqrt(expected)
    assert not np.array_equal(order.stream, other.stream)

    def repeats(stream):  # how often a pair of neighbours has been seen before
        pairs = stream[:-1].astype(int) * 300 + stream[1:]
        return 1 - len(np.unique(pairs)) / len(pairs)

    assert repeats(text.stream) > repeats(order.stream) + 0.05 > repeats(alike.stream)


def test_phantoms_are_rows_above_the_living_and_rare_tokens_stand_where_they_are_wanted():
    plain = worlds.Phantoms(100, 6, 30_000).get()
    rare = worlds.Phantoms(100, 6, 30_000, rare=6, copies=(1, 10)).get()
    assert plain.dead.tolist() == [*range(100, 106)] and len(plain.texts) == 100
    assert rare.counts[100:].tolist() == [1, 1, 1, 10, 10, 10]
    assert np.array_equal(rare.later, plain.stream)  # what follows has none of them
    changed = rare.stream != rare.later
    assert changed.sum() == 33 and (rare.stream[changed] >= 100).all()
    other = worlds.Phantoms(100, 6, 30_000, rare=6, copies=(1, 10), seed=1).make()
    assert not np.array_equal(other["stream"], rare.stream)


def test_a_slice_stands_wherever_a_corpus_does_and_another_edition_is_another_world():
    corpus.SLICES["plain"] = corpus.Slice("plain", "English", "all.txt")
    try:
        corpus.keep_slice("plain", corpus.text("english", 60_000), "nowhere", "1")
        usual, named = (
            worlds.Flannel(300, 0.2, **SMALL),
            worlds.Flannel(300, 0.2, **SMALL, english="plain"),
        )
        first = named.get()
        assert np.array_equal(usual.get().stream, first.stream)
        assert usual.artefact().digest != named.artefact().digest
        corpus.keep_slice("plain", corpus.text("moby_dick", 60_000), "nowhere", "2")
        assert not np.array_equal(named.get().stream, first.stream)
        said = "the first 60,000 characters of nowhere"
        assert corpus.origin("plain") == said and "Union" in corpus.origin("english")
        gatsby = worlds.Gatsby(5_000, "plain").get()
        assert "".join(map(chr, gatsby.stream)) == corpus.text("moby_dick", 5_000)
    finally:
        del corpus.SLICES["plain"]
    with pytest.raises(EditionError, match="python -m lib fetch tinystories"):
        worlds.Gatsby(3_000, "tinystories").get()
    with pytest.raises(corpus.CorpusError, match="unknown corpus 'latin'"):
        worlds.Gatsby(10, "latin").make()


def test_a_world_by_name():
    assert worlds.named("gatsby", characters=10) == worlds.Gatsby(10)
    with pytest.raises(ValueError, match=r"unknown world 'x'; there are gatsby, flannel"):
        worlds.named("x")


def written(chapter: str) -> list[worlds.Recipe]:
    """The worlds that a chapter writes down, with the parameters of the scale in force."""
    notebook = reader.read(paths.CHAPTERS / f"{chapter}.qmd")
    names = scale.settings(chapter) | {"worlds": worlds}
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    kinds = {f"worlds.{kind.__name__}" for kind in worlds.KINDS.values()}
    return [eval(ast.unparse(c), names) for c in calls if ast.unparse(c.func) in kinds]


@pytest.mark.parametrize("size", scale.SCALES)
def test_the_corpora_are_long_enough_at_every_scale(size, monkeypatch):
    """The worlds of the generators, their texts cut as they will be, without the training."""
    monkeypatch.setenv("BOOK_SCALE", size)
    monkeypatch.delenv(scale.UPSTREAM, raising=False)
    monkeypatch.setattr(bpe, "train", lambda text, *_, **__: list(text) and bpe.ascii_bytes())
    monkeypatch.setattr(bpe, "merge", lambda one, _: one)
    pack = lambda _, text: {"stream": np.zeros(len(text)), "length": len(text)}  # noqa: E731
    monkeypatch.setattr(worlds, "_pack", pack)
    monkeypatch.setattr(np, "bincount", lambda *_, **__: None)
    chapters = [f for f in paths.CHAPTERS.glob("*/*.qmd") if "worlds." in f.read_text("utf-8")]
    names = [f.relative_to(paths.CHAPTERS).with_suffix("").as_posix() for f in chapters]
    found = {name: written(name) for name in names}
    assert sum(map(len, found.values())) >= 9
    for chapter, kinds in found.items():
        for kind in kinds:
            assert kind.make()["length"] > 1_000, chapter
    [design], [baseline] = found["goldilocks/01-design"], found["goldilocks/02-baseline"]
    arms = [kind for kind in found["dynamics/05-arms"] if isinstance(kind, worlds.Goldilocks)]
    assert arms == [design] == [baseline]  # one world, one artefact


def test_the_contents_are_what_a_world_s_runs_depend_on(monkeypatch):
    """A world that is made again and comes out the same asks for no new runs."""
    gatsby = worlds.Gatsby(3_000)
    before = gatsby.artefact()
    monkeypatch.setattr(digests, "of_maker", lambda *_: "the same, written otherwise")
    after = gatsby.artefact()
    assert after.digest != before.digest and len(artifacts.every()) == 2
    assert after.provenance["content"] == before.provenance["content"]
