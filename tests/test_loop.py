"""The loop: reproducible, resumable, stoppable, and the sources' recipe as a special case."""

import copy
import os
import re
import signal

import numpy as np
import pytest
import torch

from lib import progress
from lib.training import loop, model
from lib.training.config import (
    EAGER_BF16,
    FP32_MASTER,
    LOW16_MASTER,
    STOCHASTIC,
    ConfigError,
    Run,
)
from tests.oracles import Peer
from tests.small import LIVE, TINY, tiny_world

DEAD = TINY.vocab - LIVE


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    return tiny_world().stream


def test_the_bar_shows_loss_rate_and_time_left(stream, tmp_path, monkeypatch):
    terminal = tmp_path / "terminal"
    terminal.touch()
    monkeypatch.setenv(progress.TERMINAL, str(terminal))
    monkeypatch.setattr(progress.tqdm, "monitor_interval", 0)
    loop.train(TINY.replace(steps=300), stream, label="a run")
    drawn = terminal.read_text()
    assert re.search(
        r"a run: +\d+%.*\d+/300 \[\d\d:\d\d<\d\d:\d\d, .*step/s, loss=\d\.\d+\]", drawn
    )


# Chosen before looking: the bound of the claim "everyday-recipe-agrees" in the chapters.
AGREE = 0.05


def dead_statistics(run: Run, stream: np.ndarray) -> np.ndarray:
    """(steps + 1, 2): length of the dead centroid, and rms distance to it."""
    kept = []

    def keep(moment):
        dead = moment.params["W"][-DEAD:].float()
        centre = dead.mean(0)
        kept.append([centre.norm().item(), (dead - centre).square().sum(1).mean().sqrt().item()])

    loop.train(run, stream, observers=[keep])
    return np.array(kept)


def test_the_everyday_recipe_agrees_with_eager_bf16_over_100_steps(stream):
    run = TINY.replace(steps=100, lr=3e-3)
    eager = dead_statistics(run.replace(**EAGER_BF16), stream)

    def off(other: Run) -> float:
        return float((np.abs(dead_statistics(other, stream) - eager) / eager.max(0)).max())

    assert off(run) < AGREE
    assert off(run.replace(seed=1)) > AGREE, "another seed is told apart"
    assert off(run.replace(beta2=0.95)) > AGREE, "another optimiser is told apart"


@pytest.mark.parametrize(
    "bad", [np.zeros(5, np.uint16), np.full(100, 50, np.uint16), np.zeros((9, 9), np.int64),
            np.zeros(100, np.float32)],
)  # fmt: skip
def test_a_stream_that_does_not_fit_is_refused(bad):
    with pytest.raises(ConfigError):
        loop.train(TINY, bad)


def test_dead_input_rows_of_an_untied_model_never_move(stream):
    run = TINY.replace(tied=False, lr=1e-2)
    first = model.views(model.initialise(run), run)["E"].bfloat16()
    seen = []

    def look(moment):
        if moment.step:
            seen.append([moment.grads[name][30:].abs().max().item() for name in ("E", "W")])

    state = loop.train(run, stream, observers=[look]).state
    assert len(seen) == run.steps and all(e == 0.0 < w for e, w in seen)
    last = model.views(state.param, run)
    assert torch.equal(first[30:], last["E"][30:])
    assert not torch.equal(first[:30], last["E"][:30])
    assert not torch.equal(
        model.views(model.initialise(run), run)["W"][30:].bfloat16(), last["W"][30:]
    )


@pytest.mark.parametrize("arithmetic", [{}, FP32_MASTER, {"compute_dtype": "bfloat16"}])
def test_identical_dead_rows_stay_identical(stream, arithmetic):
    run = TINY.replace(init="point", lr=1e-2, steps=20, **arithmetic)
    W = model.views(loop.train(run, stream).state.param, run)["W"]
    assert len(W[30:].float().unique(dim=0)) == 1
    assert len(W.float().unique(dim=0)) > 20


@pytest.mark.parametrize("arithmetic", [{}, FP32_MASTER, LOW16_MASTER, STOCHASTIC, EAGER_BF16])
def test_two_runs_are_bitwise_equal_and_so_is_a_resumed_one(stream, arithmetic):
    run = TINY.replace(lr=1e-2, schedule="cosine", weight_decay=0.1, **arithmetic)
    kept = {}

    def save(reached):
        kept[reached.state.step] = copy.deepcopy(reached)

    once, again = loop.train(run, stream), loop.train(run, stream, save=save, save_every=2)
    assert sorted(kept) == [1, 3, 5]
    resumed = loop.train(run, stream, resume=kept[3])
    for other in (again, resumed):
        np.testing.assert_array_equal(once.losses, other.losses)
        for name, tensor in once.state.tensors().items():
            assert torch.equal(tensor, other.state.tensors()[name]), name


def test_every_step_and_every_seed_has_its_own_batch(stream):
    def windows(step: int, seed: int = 42) -> bytes:
        inputs, targets = loop.batch(stream, TINY.replace(seed=seed), step)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        return inputs.numpy().tobytes()

    assert windows(3) == windows(3)
    assert len({windows(step) for step in range(1, 21)}) == 20
    assert len({windows(1, seed) for seed in range(20)}) == 20


def test_a_signal_stops_after_a_whole_step_and_the_run_goes_on(stream):
    saved = []

    def interrupt(moment):
        if moment.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(loop.Stopped, match="step 3 of 6"):
        loop.train(TINY, stream, observers=[interrupt], save=saved.append)
    assert saved[-1].state.step == 3
    whole, rest = loop.train(TINY, stream), loop.train(TINY, stream, resume=saved[-1])
    np.testing.assert_array_equal(whole.losses, rest.losses)
    assert torch.equal(whole.state.param, rest.state.param)


def test_divergence_is_named(stream):
    with pytest.raises(loop.Diverged, match="lower lr"):
        loop.train(TINY.replace(lr=1e30), stream)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_engine_is_the_sources_recipe(stream, dtype):
    """Eager `.to(dtype)` + torch.optim.AdamW + F.cross_entropy: equal bit for bit in bf16."""
    run = TINY.replace(lr=1e-2, weight_decay=0.1, param_dtype=dtype, grad_dtype=dtype,
                       state_dtype=dtype, compute_dtype=dtype)  # fmt: skip
    grid = getattr(torch, dtype)
    peer = Peer(run).load(model.views(model.initialise(run), run)).to(grid)
    adamw = torch.optim.AdamW(
        peer.parameters(), lr=run.lr, weight_decay=run.weight_decay, foreach=False
    )
    losses = []
    for step in range(1, run.steps + 1):
        adamw.zero_grad()
        value = peer(*loop.batch(stream, run, step))
        value.backward()
        adamw.step()
        losses.append(value.item())
    ours = loop.train(run, stream)
    W = model.views(ours.state.param, run)["W"]
    if dtype == "bfloat16":
        np.testing.assert_array_equal(ours.losses, np.float32(losses))
        assert torch.equal(W, peer.W.weight)
    else:  # sums are taken in another order
        np.testing.assert_allclose(ours.losses, losses, rtol=1e-5)
        torch.testing.assert_close(W, peer.W.weight.detach(), rtol=1e-2, atol=1e-4)
