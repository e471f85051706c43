"""Freezing: phases of life, what stops a component, and Adam replayed from a film."""

import numpy as np
import pytest

from lib import lattice
from lib.analysis import freezing, motion
from lib.training import films
from lib.training.config import FLOAT32
from lib.training.films import Film
from tests.small import DEAD, FILMED, MOMENTS, filmed_world


def moves(l1, l2=None, linf=None, dim=4) -> motion.Moves:
    l1 = np.array(l1)[:, None]
    l2 = l1.astype(float) if l2 is None else np.array(l2)[:, None]
    linf = np.minimum(l1, 1) if linf is None else np.array(linf)[:, None]
    return motion.Moves(l1, l2, linf, l2, dim)


def test_a_life_by_last_exits():
    life = freezing.lives(
        moves([9, 0, 3, 1, 0, 1, 0], [9, 0, 3, 1, 0, 1, 0], [9, 0, 2, 1, 0, 1, 0])
    )
    assert (life.early[0], life.midlife[0], life.motion[0]) == (3, 3, 6)
    assert [int(life.phase(t)[0]) for t in range(1, 8)] == [0, 0, 0, 2, 2, 2, 3]
    np.testing.assert_allclose(life.strata().sum(1), 1)
    assert life.strata().argmax(1).tolist() == [0, 0, 0, 2, 2, 2, 3]
    assert life.stragglers(1).tolist() == []
    assert life.stragglers(2).tolist() == [0]


def test_a_token_that_never_moved():
    life = freezing.lives(moves([0, 0, 0]))
    assert life.motion[0] == 0
    assert int(life.phase(1)[0]) == freezing.Phase.FIMBULWINTER


def test_standing_still_is_not_frozen():
    once_more = moves([1, 0, 0, 0, 1, 0])
    assert freezing.still(once_more).tolist() == [0, 1, 1, 1, 0, 1]
    assert freezing.frozen(freezing.lives(once_more)).tolist() == [0, 0, 0, 0, 0, 1]


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


def test_looking_less_often_makes_winter_come_sooner():
    rng = np.random.default_rng(0)
    moved = rng.random((100, 30)) < 0.1
    truth = freezing.sampled(moved, 1)
    for row in range(30):
        steps = np.flatnonzero(moved[:, row]) + 1
        assert truth[row] == (steps.max() if len(steps) else 0)
        tenth = steps[steps % 10 == 0]
        assert freezing.sampled(moved, 10)[row] == (tenth.max() if len(tenth) else 0)


def test_associations_find_a_rank_and_miss_noise():
    rng = np.random.default_rng(0)
    last = rng.integers(1, 1000, 200)
    traits = {"cubed": last.astype(float) ** 3, "noise": rng.random(200), "same": np.ones(200)}
    cubed, noise, same = freezing.associations(last, traits, draws=200, rng=rng)
    assert cubed.rho == pytest.approx(1) and cubed.low == pytest.approx(1)
    assert noise.low < 0 < noise.high and abs(noise.rho) < 0.2
    assert np.isnan(same.rho) and same.count == 200


def test_last_motion_by_binade():
    value = np.array([[0.3, 0.6], [0.26, -0.7]], np.float32)
    found = freezing.by_size(
        lattice.round_nearest(value), np.array([[1, 9], [3, 10]]), steps=10, window=2, least=2
    )
    assert [(b.exponent, b.count, b.median, b.moving) for b in found] == [
        (-2, 2, 2.0, 0.0),
        (-1, 2, 9.5, 1.0),
    ]


def test_shares_of_last_motion_sum_and_name_the_cause():
    token, dimension = np.arange(6.0)[:, None], np.arange(4.0) ** 2
    for component, name in ((token + 0 * dimension, "token"), (0 * token + dimension, "dimension")):
        assert freezing.shares(component)[name] == pytest.approx(1)
    mixed = freezing.shares(np.random.default_rng(0).random((6, 4)))
    assert sum(mixed.values()) == pytest.approx(1) and min(mixed.values()) > 0
    with pytest.raises(ValueError, match="same step"):
        freezing.shares(np.ones((3, 3)))
