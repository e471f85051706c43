"""Observations: each keeps what a film of the same run shows, or what theory says of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib import lattice
from lib.analysis import coalescence, freezing, motion, observers
from lib.analysis.observers import Coalescence, Distinct, Gauge, Lives, Pace
from lib.training import films, loop, model, optim
from lib.training.config import FLOAT32, Run
from lib.training.worlds import World
from tests import oracles
from tests.small import DEAD, FILMED, filmed_world, world_of


def test_lives_are_what_a_film_shows(film):
    seen = Lives().watch(FILMED, filmed_world())
    moves = motion.moves_of_film(film, DEAD)
    life = freezing.last_exits(moves)
    cloud = motion.cloud_of_film(film, DEAD)
    for name in ("early", "midlife", "motion"):
        np.testing.assert_array_equal(seen[name], life[name])
    np.testing.assert_allclose(seen["radius"], cloud.radius, rtol=1e-6)
    np.testing.assert_allclose(seen["norm"], cloud.norm, rtol=1e-6)
    np.testing.assert_allclose(seen["outward"], cloud.outward, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(seen["centroid"], cloud.centroid, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(seen["still"], moves.still, rtol=1e-6)
    np.testing.assert_array_equal(seen["losses"], films.read(film, "loss")[1:])
    np.testing.assert_array_equal(seen["last"], films.read(film, "W", -1, DEAD))
    frames = films.read(film, "W", rows=DEAD)
    moved = lattice.ordinal(frames[:-1]) != lattice.ordinal(frames[1:])
    at = np.arange(1, FILMED.steps + 1)[:, None, None]
    np.testing.assert_array_equal(seen["component"], (moved * at).max(0))
    np.testing.assert_array_equal(seen["component"].max(1), life["motion"])
    grads = lattice.value(films.read(film, "W.grad", slice(FILMED.steps // 2 + 1, None), DEAD))
    np.testing.assert_allclose(seen["push"], np.linalg.norm(grads, axis=-1).mean(0), rtol=1e-5)


@pytest.mark.parametrize("name", list(observers.INTERVENTIONS))
def test_interventions_take_away_what_they_say(name):
    grads = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    rows = observers.INTERVENTIONS[name](grads).expand_as(grads)
    length = rows.norm(dim=1)
    if name != "one direction":
        torch.testing.assert_close(length, length.mean().expand(20))
    if name != "equal length":
        assert oracles.coherence(rows.numpy()) == pytest.approx(1, abs=1e-5)
    if name == "one direction":
        torch.testing.assert_close(length, grads.norm(dim=1))


def test_a_common_push_in_float32_moves_the_cloud_as_a_rigid_body():
    run = FILMED.replace(**FLOAT32, steps=30)
    radius = Lives(intervene="common").watch(run, filmed_world())["radius"]
    np.testing.assert_allclose(radius, radius[0], rtol=1e-5)
    assert np.ptp(Lives().watch(run, filmed_world())["radius"]) > 1e-4 * radius[0]


def test_the_lives_of_an_untied_embedding_s_dead_rows_are_quiet():
    found = Lives(matrix="E").watch(FILMED.replace(tied=False, steps=10), filmed_world())
    assert (found["motion"] == 0).all() and (found["push"] == 0).all()


def test_a_gauge_reads_every_step():
    found = Gauge().watch(FILMED.replace(steps=5), filmed_world())
    assert all(len(values) == 5 for values in found.values())
    assert found["coherence"][0] > 0.5
    assert found["live"][0] > found["dead"][0] > 0
    lives = Lives().watch(FILMED.replace(steps=5), filmed_world())
    np.testing.assert_allclose(found["radius"], lives["radius"][:-1], rtol=1e-5)


def test_readings_are_what_motion_says_of_the_same_gradients():
    """Also where some gradients are shorter than the floor, and one is zero."""
    seen, dead, live = [], torch.from_numpy(DEAD), torch.arange(40)

    def shrink(grads):
        grads["W"][DEAD[::2]] *= 1e-12
        grads["W"][DEAD[1]] = 0

    def observe(moment):
        if moment.step:
            h, grads = moment.h.flatten(0, 1), moment.grads["W"].double().numpy()
            p = torch.softmax(h.double() @ moment.before["W"].double().T, 1).mean(0).numpy()
            W = moment.before["W"].clone().numpy()
            seen.append((observers.readings(moment, dead, live), grads, h.mean(0).numpy(), p, W))

    run = FILMED.replace(steps=2, **FLOAT32)
    loop.train(run, filmed_world().stream, observers=[observe], intervene=shrink)
    for found, every, h, p, W in seen:
        grads, centre = every[DEAD], W[DEAD].mean(axis=0)
        assert 0 < np.linalg.norm(grads[0]) < observers.FLOOR < np.linalg.norm(grads[3])
        floored = torch.nn.functional.normalize(torch.from_numpy(grads), dim=1).numpy()
        wanted = {
            "dead": np.linalg.norm(grads, axis=1).mean(),
            "live": np.linalg.norm(every[:40], axis=1).mean(),
            "coherence": oracles.coherence(grads),
            "with_h": motion.cosine(grads, h).mean(),
            "floored_coherence": oracles.coherence(grads, observers.FLOOR),
            "floored_with_h": (floored @ motion.unit(h)).mean(),
            "probability": p[DEAD].mean(),
            "angle": motion.angle(centre, W[:40].mean(axis=0)),
            "dead_norm": np.linalg.norm(centre),
            "radius": np.linalg.norm(W[DEAD] - centre, axis=1).mean(),
        }
        assert set(found) == set(wanted)
        exact = {"dead", "coherence", "with_h", "floored_coherence", "floored_with_h"}
        for name, value in wanted.items():
            rel = 1e-9 if name in exact else 1e-5
            assert found[name] == pytest.approx(value, rel=rel), name
    assert wanted["floored_coherence"] < 0.9 * wanted["coherence"]


def test_distinct_dead_rows_are_counted_at_every_step(film):
    found = Distinct().watch(FILMED, filmed_world())
    frames = films.read(film, "W", rows=DEAD)
    assert found["distinct"].tolist() == [len(np.unique(f, axis=0)) for f in frames]
    counted = [np.unique(f, axis=0, return_counts=True)[1] for f in frames]
    assert found["holes"].tolist() == [np.sum(counts > 1) for counts in counted]
    for end, counts in (("first", counted[0]), ("last", counted[-1])):
        assert found[end].tolist() == sorted(counts, reverse=True)
    merged = FILMED.replace(init="point", steps=4)
    found = Distinct().watch(merged, filmed_world())
    assert found["distinct"].tolist() == found["holes"].tolist() == [1] * 5
    assert found["last"].tolist() == [len(DEAD)]


def test_the_pace_of_the_dead_is_that_of_their_film(film):
    found, frames = Pace().watch(FILMED, filmed_world()), films.read(film, "W", rows=DEAD)
    cloud, moves = motion.cloud(lattice.value(frames)), motion.moves(frames)
    np.testing.assert_allclose(found["norm"], np.linalg.norm(cloud.centroid, axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["radius"], cloud.radius, rtol=1e-5)
    np.testing.assert_allclose(found["still"], moves.still, rtol=1e-6)


# ----------------------------------------------------------------------------- coalescence
ALIVE, DYING = 40, 12
SMALL = Run(
    vocab=ALIVE + DYING, dim=16, layers=1, heads=2, ff=16, seq=8, batch=4, steps=60, lr=1e-3,
    weight_decay=3.0, beta2=0.95, **FLOAT32,
)  # fmt: skip
WATCHED = slice(ALIVE, ALIVE + DYING)


def small_world(seed: int = 42) -> World:
    return world_of(np.random.default_rng(seed).integers(0, ALIVE, 4000), SMALL, ALIVE)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return Coalescence(snapshots=6, tangent_from=20).watch(SMALL, small_world())


def test_gradients_of_dead_rows_are_probability_weighted_sums_of_h_and_nearly_parallel():
    run, checked = SMALL.replace(steps=3), []

    def observe(moment):
        if moment.step:
            h = moment.h.reshape(-1, run.dim).double()
            W, targets = moment.before["W"], moment.targets.flatten()
            expected = oracles.gradient(h.numpy(), W.numpy(), targets.numpy())[WATCHED]
            got = moment.grads["W"][WATCHED].double()
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-9)
            unit = got / got.norm(dim=1, keepdim=True)
            checked.append(float((unit @ unit.T).min()))

    loop.train(run, small_world().stream, observers=[observe])
    assert len(checked) == 3 and min(checked) > 0.95


def test_rows_that_start_equal_take_equal_updates_for_ever():
    flat = model.initialise(SMALL)
    named = model.views(flat, SMALL)
    named["W"][ALIVE + 1] = named["W"][ALIVE]
    scribe = observers.Scribe(SMALL, ALIVE, snapshots=5)
    start = loop.Outcome(np.empty(0, np.float32), optim.start(SMALL, flat))
    loop.train(SMALL, small_world().stream, observers=[scribe], resume=start)
    rows = np.array([shot["rows"] for shot in scribe.shots])
    assert len(rows) == 6 and (rows[:, 0] == rows[:, 1]).all()
    assert (rows[-1, 0] != rows[-1, 2]).any()


def test_the_two_shares_of_contraction_account_for_every_step(arrays):
    width = coalescence.spread(arrays["rows"])
    shares = arrays["contraction"].sum(axis=1)
    assert np.isclose(width[-1] / width[0], np.sqrt(np.prod(1 - shares)), rtol=1e-5)
    decay = 1 - (1 - SMALL.lr * SMALL.weight_decay) ** 2
    np.testing.assert_allclose(arrays["contraction"][:, 0], decay)
    assert np.isclose(arrays["exposure"][-1], -60 * np.log1p(-SMALL.lr * SMALL.weight_decay))
    assert arrays["steps"].tolist() == [0, 10, 20, 30, 40, 50, 60]


def test_the_tangent_follows_small_differences_and_a_wrong_decay_does_not():
    run = SMALL.replace(init_std=0.002, steps=80, lr=3e-3, weight_decay=1.0)
    found = Coalescence(snapshots=4, tangent_from=20).watch(run, small_world())
    width = coalescence.spread(found["rows"])
    assert np.isnan(found["predicted"][0])
    assert np.allclose(found["predicted"][1:] / width[1:], 1, atol=2e-3)
    wrong = observers.Tangent(run.replace(weight_decay=2.0), WATCHED, 20)
    loop.train(run, small_world().stream, observers=[wrong])
    assert abs(wrong.spread() / width[-1] - 1) > 0.02


def test_a_second_stage_starts_from_the_cast_and_never_splits_a_hole():
    run = SMALL.replace(steps=40, init_std=1e-6, param_dtype="bfloat16", master="fp32")
    found = Coalescence(3, second={"steps": 20, "seed": 43}).watch(run, small_world())
    assert {name for name in found if name.startswith("second.")} == {
        f"second.{name}" for name in found if not name.startswith("second.")
    }
    assert found["second.steps"][-1] == 20 and len(found["second.losses"]) == 20
    cast = lattice.round_nearest(found["rows"][-1])
    assert (lattice.value(cast) == found["second.rows"][0]).all()
    assert len(np.unique(cast, axis=0)) < len(cast)
    for later in found["second.rows"]:
        for bits in np.unique(cast, axis=0):
            assert len(np.unique(later[(cast == bits).all(axis=1)], axis=0)) == 1


def test_one_text_follows_another_as_if_the_run_had_not_stopped():
    run, world = SMALL.replace(steps=12), small_world()
    whole = Coalescence(3).watch(run, world)
    same = Coalescence(3, until=5).watch(run, replace(world, later=world.stream))
    other = Coalescence(3, until=5).watch(run, replace(world, later=world.stream[::-1].copy()))
    for name in ("rows", "losses", "push", "gradient", "hidden", "exposure"):
        assert np.array_equal(whole[name], same[name]), name
    assert not np.array_equal(whole["rows"][-1], other["rows"][-1])


def test_the_push_holds_the_centroid_that_the_run_reaches():
    """With steady updates the rows come to rest at minus the push over the decay."""
    found = Coalescence(8).watch(SMALL.replace(steps=400, lr=4e-3), small_world(7))
    centre, push = found["rows"][-1].astype(float).mean(0), found["push"][-1]
    assert centre @ -push / np.linalg.norm(centre) / np.linalg.norm(push) > 0.95
    assert np.linalg.norm(centre) < np.sqrt(SMALL.dim) / SMALL.weight_decay


def test_the_noise_of_stochastic_rounding_is_the_spread_that_it_adds():
    """Rows that start as one are heated as the record of the noise foretells."""
    run = SMALL.replace(
        param_dtype="bfloat16", rounding="stochastic", init="point", steps=40, vocab=640
    )
    world = world_of(small_world().stream, run, ALIVE)
    found = Coalescence(snapshots=40).watch(run, world)
    width = coalescence.spread(found["rows"])
    left = np.cumprod(1 - found["contraction"][:, 0])  # of the squared spread, after decay
    foretold = np.sqrt(left * np.cumsum(found["rounding_noise"] / left))
    assert width[0] == 0 and (found["moving"] > 0).all()
    np.testing.assert_allclose(width[5:], foretold[4:], rtol=0.1)
