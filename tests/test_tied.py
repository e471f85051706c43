"""Two contractions: the batched linear response against the single one, widths, exact inputs."""

import numpy as np
import pytest

from lib.analysis import coalescence, observers, tied
from lib.training import worlds
from lib.training.config import FLOAT32
from tests.small import LIVE, TINY, tiny_world

RUN = TINY.replace(**FLOAT32, steps=40, lr=3e-3, weight_decay=0.5, beta2=0.95)
ARMS = ({}, {"weight_decay": 0.0, "eps": 1e-5}, {"beta2": 0.999, "seed": 7})


@pytest.fixture(scope="module")
def world() -> worlds.World:
    return tiny_world()


@pytest.fixture(scope="module")
def record(world) -> dict[str, np.ndarray]:
    return tied.Contractions(8, 5).watch([RUN.replace(**arm) for arm in ARMS], world)


def test_the_record_is_that_of_each_run_alone(record, world):
    """Rows, spread and linear response as observers.Coalescence keeps them, member by member."""
    for i, arm in enumerate(ARMS):
        alone = observers.Coalescence(8, 5).watch(RUN.replace(**arm), world)
        np.testing.assert_allclose(record["last"][i], alone["rows"][-1], rtol=1e-4, atol=1e-6)
        spread = np.sqrt((record["width"][i] ** 2).sum(-1))
        np.testing.assert_allclose(spread, coalescence.spread(alone["rows"]), rtol=1e-5)
        foreseen = np.sqrt((record["predicted"][i] ** 2).sum(-1))
        np.testing.assert_allclose(foreseen, alone["predicted"], rtol=1e-4)
        np.testing.assert_array_equal(record["exposure"][i], alone["exposure"])


def test_the_response_foresees_the_rows(record):
    d = record["last"] - record["last"].mean(1, keepdims=True)
    apart = np.linalg.norm(record["foreseen"] - d, axis=(1, 2)) / np.linalg.norm(d, axis=(1, 2))
    assert (apart < 0.02).all()


def test_spectrum_and_widths_have_one_sum(record):
    np.testing.assert_allclose(
        (record["spectrum"] ** 2).sum(-1), (record["width"] ** 2).sum(-1), rtol=1e-9
    )


def test_reach_is_the_sum_of_rates(record):
    np.testing.assert_allclose(record["reach"][:, -1], RUN.lr * RUN.steps, rtol=1e-12)


def test_weighted_means_are_those_of_the_softmax(world):
    """After one step: probability, logit and moments of h from the whole softmax, in float64."""
    run = RUN.replace(steps=1, tied=False)
    seen = {}

    def look(moment):
        if moment.step:
            seen.update(h=moment.h[0].double().clone(), W=moment.before["W"][0].double().clone())

    from lib.training import ensemble

    ensemble.train([run], world.stream, observers=[look])
    record = tied.Contractions(1, 0).watch([run], world)
    h, W = seen["h"], seen["W"]
    centre = W[LIVE:].mean(0)
    p = (h @ centre - (h @ W.T).logsumexp(1)).exp()
    mean = (p @ h / p.sum()).numpy()
    np.testing.assert_allclose(record["mean"][0, 1], mean, rtol=1e-5, atol=1e-7)
    variance = (p @ h**2 / p.sum()).numpy() - mean**2
    np.testing.assert_allclose(record["variance"][0, 1], variance, rtol=1e-5)
    assert record["probability"][0, 1] == pytest.approx(p.mean().item(), rel=1e-5)
    assert record["logit"][0, 1] == pytest.approx((p * (h @ centre)).sum().item() / p.sum().item(),
                                                  rel=1e-4)  # fmt: skip


def test_input_rows_of_the_untied_only_decay(world):
    record = tied.Contractions(4, 5).watch([RUN.replace(tied=False)], world)
    left = record["inputs"][0] * np.exp(record["exposure"][0])[:, None]
    np.testing.assert_allclose(left, np.broadcast_to(left[:1], left.shape), rtol=1e-5)
    assert (record["width"][0, -1] != record["inputs"][0, -1]).all()
