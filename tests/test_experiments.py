"""Experiments: what an observation keeps is what the run was; identity, device, speed."""

import numpy as np
import pytest

from lib import artifacts, lattice, paths
from lib.training import films, loop, model, optim, worlds
from lib.training.config import Run
from lib.training.experiments import Ends, Experiment, LastFrame, Probe, Speed
from lib.training.films import Film
from tests import oracles
from tests.small import LIVE, TINY, tiny_world

GATSBY = worlds.Gatsby(3_000)
RUN = Run(vocab=128, dim=8, layers=1, heads=1, ff=8, seq=8, batch=2, steps=2)


@pytest.fixture(autouse=True)
def own_artefacts(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)


def test_a_probe_holds_the_gradient_and_what_made_it():
    run = TINY.replace(grad_dtype="float32")
    found = {name: x.numpy() for name, x in Probe((1, 4)).watch(run, tiny_world()).items()}
    assert set(found) == {f"{name}.{t}" for name in ("h", "targets", "W", "grad") for t in (1, 4)}
    for t in (1, 4):
        expected = oracles.gradient(found[f"h.{t}"], found[f"W.{t}"], found[f"targets.{t}"])
        np.testing.assert_allclose(found[f"grad.{t}"][LIVE:], expected[LIVE:], rtol=1e-4, atol=1e-9)
        assert not np.allclose(found[f"grad.{t}"][:LIVE], expected[:LIVE])  # tied: as inputs too
    first = model.views(model.initialise(run), run)["W"].bfloat16().float().numpy()
    np.testing.assert_array_equal(found["W.1"], first)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_ends_are_the_first_and_the_last_matrix(dtype):
    run = RUN.replace(param_dtype=dtype)
    found = artifacts.cached(Experiment(GATSBY, run, Ends()), "x/y")
    seen = []
    keep = lambda moment: seen.append(moment.params["W"].clone())  # noqa: E731
    outcome = loop.train(run, GATSBY.get().stream, observers=[keep])
    for name, matrix in (("first", seen[0]), ("last", seen[-1])):
        expected = lattice.bits(matrix) if dtype == "bfloat16" else matrix
        np.testing.assert_array_equal(found[name], expected.numpy())
        assert found[name].dtype == (np.uint16 if dtype == "bfloat16" else np.float32)
    np.testing.assert_array_equal(found["losses"], outcome.losses)


def test_an_experiment_is_known_by_world_run_observation_and_the_world_s_contents(monkeypatch):
    base = Experiment(GATSBY, RUN, Ends())
    others = [
        Experiment(worlds.Gatsby(3_001), RUN, Ends()),
        Experiment(GATSBY, RUN.replace(seed=1), Ends()),
        Experiment(GATSBY, RUN, Probe((1,))),
        Experiment(GATSBY, RUN, Probe((2,))),
    ]
    assert len({artifacts.identify(one)[1] for one in [base, *others]}) == 5
    before = artifacts.identify(base)[0]["parameters"]["contents"]
    assert before == GATSBY.artefact().provenance["content"]
    make = worlds.Gatsby.make
    monkeypatch.setattr(worlds.Gatsby, "schema", 2)
    assert artifacts.identify(base)[0]["parameters"]["contents"] == before  # the same came out
    monkeypatch.setattr(worlds.Gatsby, "schema", 3)
    other = lambda self: make(worlds.Gatsby(3_002))  # noqa: E731
    monkeypatch.setattr(worlds.Gatsby, "make", other)
    assert artifacts.identify(base)[0]["parameters"]["contents"] != before


def test_the_device_is_found_and_written_down(capsys):
    found = optim.device("auto").type
    wanted = Experiment(GATSBY, RUN.replace(device="auto"), Film())
    made = artifacts.cached(wanted, "x/y")
    assert made.provenance["parameters"]["run"]["device"] == found
    assert made.recipe.run.device == found and made.recipe.world == GATSBY
    assert f"film of W, loss on {found}" in capsys.readouterr().out


def test_the_last_frame_is_a_specimen_s_matrix():
    film = artifacts.cached(Experiment(GATSBY, RUN, Film()), "x/y")
    last = artifacts.cached(LastFrame("gatsby", film.path.name), "x/y")
    np.testing.assert_array_equal(last["W"], films.read(film.path, "W", -1))
    assert last["W"].dtype == np.uint16 and last.provenance["name"] == "specimen"


def test_the_time_of_a_step_is_taken_in_turn(monkeypatch):
    asked = []
    monkeypatch.setattr(loop, "train", lambda run, *_, **__: asked.append((run.dim, run.steps)))
    found = Speed((RUN, RUN.replace(dim=16, steps=3)), repeats=2).make()["seconds"]
    assert found.shape == (2, 2) and (found > 0).all()
    assert asked == [(8, 1), (8, 2), (16, 1), (16, 3)] * 2  # each after one step that is not timed
