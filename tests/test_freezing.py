"""Freezing: phases of life, what stops a component, and Adam replayed from a film."""

import numpy as np

from lib.analysis import freezing, motion
from lib.training import films
from lib.training.config import FLOAT32
from lib.training.films import Film
from tests.small import DEAD, FILMED, MOMENTS, filmed_world


def test_a_life_by_last_exits():
    l1 = np.array([[9, 0, 3, 1, 0, 1, 0], [0] * 7]).T
    linf = np.array([[9, 0, 2, 1, 0, 1, 0], [0] * 7]).T
    moves = motion.Moves(l1, l1.astype(float), linf, l1, l1 > 4**0.5)
    found = {name: last.tolist() for name, last in freezing.last_exits(moves).items()}
    assert found == {"early": [3, 0], "midlife": [3, 0], "motion": [6, 0]}
    assert moves.still.tolist() == [0.5, 1, 0.5, 0.5, 1, 0.5, 1]


def test_replay_is_exact(film):
    replay = freezing.replay(film, DEAD, FILMED, [1, 2, 50, 160])
    assert replay.exact == 1
    assert replay.moments == 1


def test_replay_in_float32_is_within_rounding(tmp_path):
    """The sources' bound for float32: an error of at most 3e-8."""
    run = FILMED.replace(steps=40, **FLOAT32)
    path = tmp_path / "film.h5"
    Film((), dead=("W", *MOMENTS)).watch(run, filmed_world(), path)
    replay = freezing.replay(path, DEAD, run, [1, 20, 40])
    assert replay.exact == replay.moments == 1
    assert 0 < replay.error <= 3e-8


def test_the_ledger_sums_and_agrees_with_the_film(film):
    steps = [1, 10, 60, 160]
    ledger = freezing.ledger(film, DEAD, FILMED, steps)
    total = ledger.room + ledger.gradient + ledger.ratchet + ledger.momentum
    np.testing.assert_allclose(total, ledger.total, atol=1e-3)
    np.testing.assert_allclose(ledger.shares().sum(1), 1)
    clear = np.abs(ledger.total) > 0.1  # away from the edge, where ties are decided
    moves = ledger.causes() == freezing.Cause.MOVES
    assert (moves == ledger.moved)[clear].mean() > 0.99
    assert moves[0].mean() > 0.9 and not moves.all()
    before, after = (films.read(film, "W", [t - d for t in steps], DEAD) for d in (1, 0))
    np.testing.assert_array_equal(ledger.moved, before != after)


def test_the_last_step_is_the_last_at_which_it_held():
    held = np.random.default_rng(0).random((100, 30, 2)) < 0.02
    steps = np.arange(1, 101)[:, None, None] * held
    np.testing.assert_array_equal(freezing.last(held), steps.max(axis=0))
    assert (freezing.last(held) == 0).any()
