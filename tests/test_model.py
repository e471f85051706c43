"""The model: its sizes and starts, the loss, and the written-out pass against autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.training import loop, model
from lib.training.config import FLANNEL, FLANNEL_1, GATSBY, GOLDILOCKS
from tests import oracles
from tests.small import TINY, tiny_world


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    return tiny_world().stream


def test_goldilocks_has_the_printed_size():
    assert model.count(GOLDILOCKS) == 1_057_024


def test_the_other_models_of_the_sources():
    def sizes(run):
        return run.vocab, run.dim, run.layers, run.heads, run.seq

    assert sizes(GATSBY) == (128, 64, 2, 2, 128)
    assert sizes(FLANNEL) == (10_000, 64, 2, 2, 128)
    assert sizes(GOLDILOCKS) == (3988, 128, 4, 2, 128)
    assert (FLANNEL_1.steps, FLANNEL_1.seq) == (1_000, 128)


@pytest.mark.parametrize("std", [0.02, 1.0])
def test_a_normal_start_is_drawn_in_float32(std):
    run = TINY.replace(vocab=2000, dim=64, init_std=std)
    named = model.views(model.initialise(run), run)
    assert named["W"].std().item() == pytest.approx(std, rel=0.01)
    assert not torch.equal(named["W"], named["W"].bfloat16().float()), "already on the lattice"
    assert named["0.qkv.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    for name, tensor in named.items():
        if "norm" in name or name.endswith("bias"):
            assert (tensor == name.endswith("weight")).all(), name


def test_each_kind_of_matrix_has_its_own_spread():
    run = TINY.replace(vocab=2000, dim=64, seq=512, positions_std=1.0, hidden_std=0.05)
    named = model.views(model.initialise(run), run)
    for name, std in {
        "W": 0.02,
        "positions": 1.0,
        "0.qkv.weight": 0.05,
        "1.up.weight": 0.05,
    }.items():
        assert named[name].std().item() == pytest.approx(std, rel=0.05), name
    plain = model.views(model.initialise(run.replace(positions_std=0.02)), run)
    assert torch.equal(plain["W"], named["W"])  # the same numbers are drawn
    torch.testing.assert_close(plain["positions"] * 50, named["positions"])


def test_starts_from_one_point():
    def rows(kind: str) -> torch.Tensor:
        run = TINY.replace(vocab=500, init=kind, init_std=1.0, init_noise=3e-3)
        return model.views(model.initialise(run), run)["W"]

    point, noisy, cast = (rows(kind) for kind in ("point", "point+noise", "point+noise-cast"))
    assert (point == point[0]).all()
    spread = (noisy - point).std().item()
    assert spread == pytest.approx(3e-3, rel=0.05)
    assert torch.equal(cast, cast.bfloat16().float()), "the sum is on the lattice"
    assert not torch.equal(cast.bfloat16(), noisy.bfloat16()), "two roundings differ from one"
    assert len(noisy.bfloat16().float().unique(dim=0)) > 1


def test_without_positions_order_does_not_reach_the_first_token_alone(stream):
    """Without positions, equal tokens before each other give equal states at every place."""
    run = TINY.replace(positions="none")
    assert "positions" not in model.shapes(run)
    same = torch.full((1, run.seq), 7)

    def hidden(run):
        flat = model.initialise(run)
        named, grads = model.views(flat, run), model.views(torch.empty_like(flat), run)
        return model.loss_and_gradients_(named, grads, same, same, run)[1][0]

    h, other = hidden(run), hidden(TINY)
    torch.testing.assert_close(h, h[:1].expand_as(h), rtol=1e-4, atol=1e-5)
    assert (other - other[:1]).abs().max() > 0.1


@pytest.mark.parametrize("tokens", [1, 63, 64, 200])
def test_chunked_cross_entropy_is_cross_entropy(tokens):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(tokens, 16, generator=generator, requires_grad=True)
    W = torch.randn(50, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (tokens,), generator=generator)
    grad_W = torch.full_like(W, 7.0)
    ours, grad_h = model.cross_entropy_(h.detach(), W.detach(), targets, grad_W)
    exact = F.cross_entropy(F.linear(h.double(), W.double()), targets)
    exact.backward()
    assert ours.item() == pytest.approx(exact.item(), rel=1e-6)
    torch.testing.assert_close(grad_h, h.grad, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(grad_W, W.grad, rtol=1e-4, atol=1e-8)


def test_cross_entropy_survives_a_hopeless_token():
    """N(0,1) rows give logits of hundreds: the probability underflows, the loss must not."""
    h, W = torch.full((3, 4), 100.0), torch.tensor([[1.0] * 4, [-1.0] * 4])
    loss, _ = model.cross_entropy_(h, W, torch.tensor([1, 1, 1]), torch.empty_like(W))
    assert loss.item() == pytest.approx(800.0)


def test_mean_probabilities_are_those_of_the_softmax():
    generator = torch.Generator().manual_seed(0)
    h, W = (torch.randn(n, 8, generator=generator) for n in (model.CHUNK * 2 + 3, 20))
    expected = torch.softmax(h.double() @ W.double().T, 1).mean(0)
    torch.testing.assert_close(model.probabilities(h, W).double(), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "changes",
    [{}, {"tied": False}, {"positions": "none"}, {"layers": 1, "heads": 4}, {"batch": 1, "seq": 5},
     {"batch": 9, "init_std": 1.0}, {"dim": 128, "ff": 256, "seq": 70}],
)  # fmt: skip
def test_the_written_out_pass_is_autograds(stream, changes):
    """Loss, hidden states and every gradient, to the last bit; what stood there before is gone."""
    run = TINY.replace(**changes)
    flat = model.initialise(run).bfloat16().float()
    tokens, targets = loop.batch(stream, run, 1)
    leaves = model.views(flat.clone(), run)
    wanted = model.views(torch.full_like(flat, 7.0), run)
    for name, leaf in leaves.items():
        leaf.requires_grad_().grad = wanted[name]
    loss, h = model.by_autograd_(leaves, wanted, tokens, targets, run)
    found = model.views(torch.full_like(flat, 7.0), run)
    ours, hidden = model.loss_and_gradients_(model.views(flat, run), found, tokens, targets, run)
    assert ours.item() == loss.item()
    assert torch.equal(hidden, h)
    for name, gradient in wanted.items():
        assert torch.equal(found[name], gradient), name
    assert all(gradient.any() for gradient in wanted.values())


def test_the_gradient_of_the_unembedding_is_the_formula_s(stream):
    """Mean over positions of (p - y) h, by hand, for every row of an untied W."""
    run = TINY.replace(tied=False)
    flat = model.initialise(run)
    grads = model.views(torch.zeros_like(flat), run)
    tokens, targets = loop.batch(stream, run, 1)
    _, h = model.loss_and_gradients_(model.views(flat, run), grads, tokens, targets, run)
    W = model.views(flat, run)["W"].numpy()
    expected = oracles.gradient(h.flatten(0, 1).numpy(), W, targets.flatten().numpy())
    np.testing.assert_allclose(grads["W"], expected, rtol=1e-4, atol=1e-8)
    assert (np.abs(expected).sum(axis=1) > 0).all()
