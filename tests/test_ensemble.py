"""The ensemble: a member is the single engine's run, whoever stands beside it."""

import dataclasses

import numpy as np
import pytest
import torch

from lib.training import ensemble, loop
from lib.training.config import FLOAT32, FP32_MASTER, ConfigError
from tests.small import TINY, tiny_world

SMALL = TINY.replace(**FLOAT32, steps=5, lr=3e-3, weight_decay=0.1)


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    return tiny_world().stream


def agree(one: loop.Outcome, other: loop.Outcome) -> None:
    """Both runs came to the same, but for the last bits that a kernel may cost."""
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-6)
    for name, tensor in one.state.tensors().items():
        torch.testing.assert_close(tensor, other.state.tensors()[name], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied": False},
        {"positions": "none"},
        {"layers": 1, "heads": 1, "seq": 15, "batch": 5},
        {"param_dtype": "bfloat16", "grad_dtype": "bfloat16", **FP32_MASTER},
        {"param_dtype": "bfloat16", "rounding": "stochastic"},
        {"steps": 0},
    ],
)
def test_an_ensemble_of_one_is_the_single_engine(changes, stream):
    run = SMALL.replace(**changes)
    [outcome] = ensemble.train([run], stream)
    agree(loop.train(run, stream), outcome)


def test_a_member_does_not_know_its_companions(stream):
    """Seeds, rates, decays, moments and eps differ by member; each is its own run."""
    ways = ({}, {"lr": 1e-2}, {"weight_decay": 0.0, "eps": 1e-12}, {"beta2": 0.95, "beta1": 0.8})
    runs = [SMALL.replace(**way, seed=i) for i, way in enumerate(ways)]
    together = ensemble.train(runs, stream)
    for run, outcome in zip(runs, together, strict=True):
        [alone] = ensemble.train([run], stream)
        assert torch.equal(alone.state.param, outcome.state.param)
        agree(loop.train(run, stream), outcome)
    assert not torch.equal(together[0].state.param, together[1].state.param)


@pytest.mark.parametrize("threads", [1, 2])
def test_passes_and_threads_change_nothing(threads, stream, monkeypatch):
    runs = [SMALL.replace(seed=i, threads=threads) for i in range(5)]
    whole = ensemble.train(runs, stream)
    monkeypatch.setattr(ensemble, "CACHE", 1)  # every member a pass of its own
    for one, other in zip(whole, ensemble.train(runs, stream), strict=True):
        assert torch.equal(one.state.param, other.state.param)


def test_observers_see_every_member_at_every_step(stream):
    runs = [SMALL.replace(seed=i) for i in range(3)]
    seen, single = [], []

    def look(moment: ensemble.Moment) -> None:
        views = {name: tensor.clone() for name, tensor in moment.params.items()}
        seen.append(dataclasses.replace(moment, params=views, h=moment.h.clone()))
        seen[-1].surprise.copy_(moment.surprise)

    def note(moment: loop.Moment) -> None:
        single.append((moment.step, moment.params["W"].clone(), moment.h, moment.loss))

    outcomes = ensemble.train(runs, stream, observers=[look])
    loop.train(runs[1], stream, observers=[note])
    assert [moment.step for moment in seen] == [step for step, *_ in single] == list(range(6))
    for moment, (_, W, h, _) in zip(seen, single, strict=True):
        torch.testing.assert_close(moment.params["W"][1], W, rtol=2e-5, atol=1e-7)
        if h is not None:
            torch.testing.assert_close(moment.h[1], h.flatten(0, 1), rtol=2e-5, atol=1e-6)
    last = seen[-1].surprise[1].mean().item()
    assert last == pytest.approx(outcomes[1].losses[-1], rel=1e-6)


def test_surprise_of_a_hopeless_token_is_finite():
    """Its probability underflows; its logarithm must not."""
    h, W = torch.full((2, 3, 4), 100.0), torch.tensor([[[1.0] * 4, [-1.0] * 4]] * 2)
    targets, surprise = torch.ones(2, 3, dtype=torch.int64), torch.zeros(2, 3)
    loss, _ = ensemble.cross_entropy_(h, W, targets, torch.zeros_like(W), surprise)
    assert loss.tolist() == [800.0, 800.0] and (surprise == 800).all()


def test_members_must_be_of_one_shape(stream):
    with pytest.raises(ConfigError, match="agree in dim; got 16, 32"):
        ensemble.train([SMALL, SMALL.replace(dim=32)], stream)
    with pytest.raises(ConfigError, match="at least one"):
        ensemble.train([], stream)
    with pytest.raises(ConfigError, match="float32 on the CPU"):
        ensemble.train([SMALL.replace(compute_dtype="bfloat16")], stream)


def test_a_member_that_diverges_is_named(stream):
    runs = [SMALL, SMALL.replace(lr=1e30, eps=1e-30)]
    with pytest.raises(loop.Diverged, match="member 1"):
        ensemble.train(runs, stream)


def test_the_number_of_threads_is_put_back(stream):
    before = torch.get_num_threads()
    ensemble.train([SMALL.replace(threads=2)], stream)
    assert torch.get_num_threads() == before
