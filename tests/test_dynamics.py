"""Analyses of motion: each against a case whose answer is known, or by brute force."""

import itertools

import numpy as np
import pytest
import torch

from lib import lattice
from lib.analysis import arms, freezing, gauge, laboratory, motion
from lib.training import experiments, films, loop, model
from lib.training.config import FLOAT32, FP32_MASTER, GOLDILOCKS, Run
from tests import oracles

RUN = Run(vocab=60, dim=8, layers=1, heads=1, ff=16, seq=8, batch=4, steps=160, lr=3e-3)
DEAD, LIVE = np.arange(40, 60), np.arange(40)


def stream() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 40, 1000).astype(np.uint16)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.h5"
    record = ["W", "W.grad:few", "W.exp_avg:few", "W.exp_avg_sq:few", "mean_h"]
    rows = np.concatenate([DEAD, LIVE])
    films.film(path, RUN, stream(), record=record, rows=rows, few=len(DEAD))
    return path


def test_moves_by_segments_are_the_moves_of_the_whole(film):
    whole = motion.moves_of(films.read(film, "W", rows=DEAD))
    pieces = motion.moves_of_film(film, DEAD)
    for name in ("l1", "l2", "linf", "weight"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


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


def test_bulk_and_thermal_sum_exactly():
    frames = np.random.default_rng(0).normal(size=(7, 50, 6))
    cloud = motion.cloud(frames)
    np.testing.assert_allclose(cloud.bulk + cloud.thermal, cloud.speed, rtol=1e-12)
    distance = np.linalg.norm(frames - frames.mean(1, keepdims=True), axis=-1)
    np.testing.assert_allclose(cloud.radius, distance.mean(1))


def test_mean_squared_length_is_centroid_and_cloud():
    frames = np.random.default_rng(0).normal(size=(4, 30, 6)) + 2
    seen = motion.cloud(frames)
    np.testing.assert_allclose(seen.norm, np.linalg.norm(frames, axis=-1).mean(1))
    squares = (frames**2).sum(-1).mean(1)
    np.testing.assert_allclose((seen.centroid**2).sum(1) + seen.rms**2, squares)


def test_a_walk_in_random_directions_follows_its_null():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4000, 32))
    step = rng.normal(size=(4000, 32))
    step *= 0.6 / np.linalg.norm(step, axis=1, keepdims=True)
    cloud = motion.cloud(np.stack([start, start + step]))
    spread = 0.6 / 32**0.5 / 4000**0.5
    assert cloud.null[0] > 10 * spread  # the bias is there to be seen
    assert abs(cloud.outward[0] - cloud.null[0]) < 4 * spread


def test_coherence_is_the_mean_cosine_of_pairs():
    vectors = np.random.default_rng(0).normal(size=(9, 5)) + 1
    pairs = [motion.cosine(vectors[i], vectors[j]) for i in range(9) for j in range(i)]
    assert motion.coherence(vectors) == pytest.approx(np.mean(pairs))
    assert motion.coherence(np.ones((3, 4))) == pytest.approx(1)
    assert np.isnan(motion.coherence(np.zeros((3, 4))))
    small = 1e-15 * vectors  # torch's own measure of vectors shorter than its floor
    units = torch.nn.functional.normalize(torch.from_numpy(small), dim=1).numpy()
    pairs = [units[i] @ units[j] for i in range(9) for j in range(i)]
    assert motion.coherence(small, 1e-12) == pytest.approx(np.mean(pairs), rel=1e-9)
    assert motion.coherence(small) == pytest.approx(motion.coherence(vectors))


def test_epochs_of_a_drawn_breath():
    radius = np.array([1.0, 0.99, 0.98, 0.985, 0.99, 1.2, 1.3, 1.31])
    found = motion.epochs(radius)
    assert (found.inhale, found.sneeze, found.dip, found.winter) == (2, 5, 0.98, None)
    assert found.inhales
    frozen = np.array([0, 0, 0.5, 0.89, 0.9, 1, 1])
    assert motion.epochs(radius, frozen).winter == 5
    assert motion.epochs(radius, frozen / 2).winter is None


def test_the_gradient_by_hand_is_autograds():
    rng = np.random.default_rng(0)
    h, W = rng.normal(size=(30, 6)), rng.normal(size=(11, 6))
    targets = rng.integers(0, 11, 30)
    weight = torch.tensor(W, requires_grad=True)
    torch.nn.functional.cross_entropy(torch.tensor(h) @ weight.T, torch.tensor(targets)).backward()
    np.testing.assert_allclose(oracles.by_hand(h, W, targets), weight.grad, atol=1e-12)


def test_alignment_through_a_film(film):
    along = motion.alignment_of_film(film, DEAD)
    grads = lattice.value(films.read(film, "W.grad", slice(1, None), DEAD))
    assert len(along.norm) == RUN.steps
    for step in (0, 100, 159):
        assert along.coherence[step] == pytest.approx(motion.coherence(grads[step]))
        assert along.norm[step] == pytest.approx(np.linalg.norm(grads[step], axis=1).mean())


def test_replay_is_exact(film):
    replay = freezing.replay(film, DEAD, RUN, [1, 2, 50, 160])
    assert replay.exact == 1
    assert replay.moments == 1


def test_replay_in_float32_is_within_rounding(tmp_path):
    """The sources' bound for float32: an error of at most 3e-8."""
    run = RUN.replace(steps=40, **FLOAT32)
    path = tmp_path / "film.h5"
    record = ["W:few", "W.grad:few", "W.exp_avg:few", "W.exp_avg_sq:few"]
    rows = np.concatenate([DEAD, LIVE])
    films.film(path, run, stream(), record=record, rows=rows, few=len(DEAD))
    replay = freezing.replay(path, DEAD, run, [1, 20, 40])
    assert replay.exact == replay.moments == 1
    assert 0 < replay.error <= 3e-8


def test_the_ledger_sums_and_agrees_with_the_film(film):
    ledger = freezing.ledger(film, DEAD, RUN, [1, 10, 60, 160])
    total = ledger.room + ledger.gradient + ledger.ratchet + ledger.momentum
    np.testing.assert_allclose(total, ledger.total, atol=1e-3)
    np.testing.assert_allclose(ledger.shares().sum(1), 1)
    clear = np.abs(ledger.total) > 0.1  # away from the edge, where ties are decided
    moves = ledger.causes() == freezing.Cause.MOVES
    assert (moves == ledger.moved)[clear].mean() > 0.99
    assert not moves.all()
    assert moves[0].mean() > 0.9


def test_a_watcher_sees_what_a_film_shows(film):
    watcher = arms.Watcher(DEAD)
    loop.train(RUN, stream(), observers=[watcher])
    seen = watcher.result()
    life = freezing.lives(motion.moves_of_film(film, DEAD))
    cloud = motion.cloud_of_film(film, DEAD)
    for name in ("early", "midlife", "motion"):
        np.testing.assert_array_equal(seen[name], getattr(life, name))
    np.testing.assert_allclose(seen["radius"], cloud.radius, rtol=1e-6)
    np.testing.assert_allclose(seen["norm"], cloud.norm, rtol=1e-6)
    np.testing.assert_allclose(seen["outward"], cloud.outward, rtol=1e-4, atol=1e-9)
    assert len(seen["still"]) == RUN.steps
    moved = motion.moved(films.read(film, "W", rows=DEAD))
    at = np.arange(1, RUN.steps + 1)[:, None, None]
    np.testing.assert_array_equal(seen["component"], (moved * at).max(0))
    np.testing.assert_array_equal(seen["component"].max(1), life.motion)
    grads = lattice.value(films.read(film, "W.grad", slice(RUN.steps // 2 + 1, None), DEAD))
    np.testing.assert_allclose(seen["push"], np.linalg.norm(grads, axis=-1).mean(0), rtol=1e-5)


def test_plus_and_minus_zero_are_one_place():
    frames = np.array([0x0000, 0x8000, 0x0001, 0x0001], np.uint16)[:, None, None]
    assert motion.moved(frames)[:, 0, 0].tolist() == [False, True, False]


@pytest.mark.parametrize("name", list(arms.INTERVENTIONS))
def test_interventions_take_away_what_they_say(name):
    grads = {"W": torch.randn(60, 8, generator=torch.Generator().manual_seed(0))}
    before = grads["W"].clone()
    dead = torch.from_numpy(DEAD)
    arms.INTERVENTIONS[name](dead)(grads)
    rows, length = grads["W"][dead], grads["W"][dead].norm(dim=1)
    assert torch.equal(grads["W"][:40], before[:40])
    if name != "one direction":
        torch.testing.assert_close(length, length.mean().expand(20))
    if name != "equal length":
        assert motion.coherence(rows.numpy()) == pytest.approx(1, abs=1e-5)
    if name == "one direction":
        torch.testing.assert_close(length, before[dead].norm(dim=1))


def test_a_common_push_in_float32_moves_the_cloud_as_a_rigid_body():
    dead = torch.from_numpy(DEAD)
    run = RUN.replace(param_dtype="float32", grad_dtype="float32", state_dtype="float32", steps=30)
    watcher = arms.Watcher(DEAD)
    loop.train(run, stream(), observers=[watcher], intervene=arms.common(dead))
    radius = watcher.result()["radius"]
    np.testing.assert_allclose(radius, radius[0], rtol=1e-5)


def test_weight_decay_is_absent_in_bf16_and_present_with_a_master():
    def last(**changes):
        run = RUN.replace(steps=60, **changes)
        W = model.views(loop.train(run, stream()).state.param, run)["W"]
        return W[DEAD].view(torch.int16)

    assert torch.equal(last(), last(weight_decay=0.1))
    assert not torch.equal(last(**FP32_MASTER), last(weight_decay=0.5, **FP32_MASTER))


def test_a_gauge_reads_every_step():
    reader = gauge.Gauge(DEAD, LIVE)
    loop.train(RUN.replace(steps=5), stream(), observers=[reader])
    assert all(len(values) == 5 for values in reader.found.values())
    assert reader.found["coherence"][0] > 0.5
    assert reader.found["live"][0] > reader.found["dead"][0] > 0


def test_a_gauge_reads_what_motion_says_of_the_same_gradients():
    """Also where some gradients are shorter than the floor, and one is zero."""
    seen = []

    def shrink(grads):
        grads["W"][DEAD[::2]] *= 1e-12
        grads["W"][DEAD[1]] = 0

    def observe(moment):
        if moment.step:
            seen.append((moment.grads["W"][DEAD].double().numpy(), moment.h.flatten(0, 1).mean(0)))

    reader = gauge.Gauge(DEAD, LIVE)
    run = RUN.replace(steps=2, grad_dtype="float32", state_dtype="float32", param_dtype="float32")
    loop.train(run, stream(), observers=[reader, observe], intervene=shrink)
    for step, (grads, h) in enumerate(seen):
        assert 0 < np.linalg.norm(grads[0]) < gauge.FLOOR < np.linalg.norm(grads[3])
        wanted = {
            "dead": np.linalg.norm(grads, axis=1).mean(),
            "coherence": motion.coherence(grads),
            "with_h": motion.cosine(grads, h.numpy()).mean(),
            "floored_coherence": motion.coherence(grads, gauge.FLOOR),
            "floored_with_h": motion.cosine(grads, h.numpy(), gauge.FLOOR).mean(),
        }
        for name, value in wanted.items():
            assert reader.found[name][step] == pytest.approx(value, rel=1e-9), name
    assert wanted["floored_coherence"] < 0.9 * wanted["coherence"]


# ----------------------------------------------------------------------------- the walk on a shell
def test_the_account_of_the_radius_sums_and_splits():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(9, 40, 5)).cumsum(0)
    seen = motion.shell_of(frames)
    np.testing.assert_allclose(seen.walk + seen.memory + seen.origin, seen.growth, atol=1e-9)
    place = frames - frames.mean(1, keepdims=True)
    squares = (place**2).sum(-1).mean(1)
    np.testing.assert_allclose(seen.growth, squares - squares[0], atol=1e-9)
    np.testing.assert_allclose(seen.radial + seen.tangential, (seen.length**2).mean(1))
    np.testing.assert_allclose(seen.radius, motion.cloud(frames).radius)


def test_the_shell_of_a_movie_is_that_of_its_frames(film):
    whole = motion.shell_of(lattice.value(films.read(film, "W", rows=DEAD)))
    pieces = motion.shell_of_film(film, DEAD)
    for name in ("length", "radial", "tangential", "persistence", "radius", "walk", "growth"):
        np.testing.assert_allclose(
            getattr(whole, name), getattr(pieces, name), rtol=2e-4, atol=1e-7, err_msg=name
        )


def test_straight_motion_is_memory_and_a_pull_is_origin():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(200, 8))
    away = rng.normal(size=(200, 8))
    away -= away.mean(0)
    straight = motion.shell_of(start + np.arange(11)[:, None, None] * 0.1 * away)
    assert straight.memory[-1] == pytest.approx(9 * straight.walk[-1])  # |10 v|^2 - 10 |v|^2
    assert np.nanmin(straight.persistence) == pytest.approx(1)
    pulled = motion.shell_of(start * 0.9 ** np.arange(6)[:, None, None])
    assert pulled.origin[-1] < 0
    assert pulled.radial_share == pytest.approx(1)


def test_a_simulated_walk_follows_the_formula():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(500, 32)).astype(np.float32)
    length = np.full((20, 500), 0.5)
    walks = motion.simulate_walks(start, length, walks=3, rng=rng)
    distance = np.linalg.norm(start, axis=1)
    expected = motion.null_drift(length, np.broadcast_to(distance, length.shape), 32).sum(0).mean()
    assert walks[:, 0] == pytest.approx(distance.mean())
    assert np.abs(walks[:, -1] - walks[:, 0] - expected).max() < 0.2 * expected
    seen = motion.shell_of(start + np.zeros((2, 1, 1), np.float32))
    assert seen.walk[-1] == 0


# ----------------------------------------------------------------------------- stragglers, sampling
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


def test_film_sizes_are_what_lies_on_disk(film):
    sizes = films.sizes(film)
    assert set(sizes) == {"W", "W.grad", "W.exp_avg", "W.exp_avg_sq"}
    assert sizes["W"].plain == (RUN.steps + 1) * RUN.vocab * RUN.dim * 2
    stored = sum(size.stored.sum() for size in sizes.values())
    assert 0.5 * film.stat().st_size < stored < film.stat().st_size
    assert (sizes["W"].per_frame[-1] * (RUN.steps + 1 - sizes["W"].key)) == pytest.approx(
        sizes["W"].stored[-1]
    )


def test_the_crossed_winters_differ_in_what_they_say():
    settings = {
        "vocab": 60, "layers": 1, "seq": 8, "batch": 4, "steps": 10, "lr": 1e-3, "seed": 42,
        "seeds": 2, "long": 3, "weight_decay": 0.1,
    }  # fmt: skip
    arms_of = laboratory.winter_arms(settings)
    runs = {label: arm["run"] for label, arm in arms_of.items()}
    assert len(set(map(str, runs.values()))) == len(runs) == 4 * 2 + 4 + 6
    for label, (coarse, rounded, slow) in laboratory.FACTORS.items():
        run = runs[label]
        assert (run.master == "none", run.state_dtype == "bfloat16") == (coarse, rounded)
        assert ((1 - run.beta2) < 2**-9) == slow
    long = laboratory.long_winter(settings)["long"]["run"]
    assert long.steps == 30 and long.replace(steps=10) == runs["bf16"]


def test_the_widened_models_differ_in_width_rate_and_seed_alone():
    settings = experiments.settings("dynamics/05-arms")
    wide, seeds = (f(settings, 3967)["runs"] for f in (laboratory.widths, laboratory.widest))
    assert [(r["lr"], r["dim"]) for r in wide] == list(
        itertools.product(settings["width_lrs"], settings["widths"])
    )
    assert seeds[0] == wide[-1]  # one run, one artefact
    assert [r["seed"] for r in seeds] == [settings["seed"] + i for i in range(len(seeds))]
    for run in (*wide, *seeds):
        assert run["init_std"] == GOLDILOCKS.init_std  # the rows as said, the rest unasked
        assert run["positions_std"] == 1.0
        assert run["hidden_std"] == pytest.approx(1 / (3 * run["dim"]) ** 0.5)
        same = {k: v for k, v in run.items() if k not in ("dim", "ff", "lr", "seed", "hidden_std")}
        assert same == {k: v for k, v in wide[0].items() if k in same}
