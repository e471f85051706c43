"""AdamW: the transparent form, the fast form and torch's own agree, bit for bit."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from lib import lattice
from lib.training import optim
from lib.training.config import ConfigError, Run, Update

N = 4096 + 16  # whole vectors: torch's scalar tail rounds float32 in another way
TORCH = {
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def numbers(seed: int, scale: float = 1.0) -> torch.Tensor:
    """Float32 spread over 24 binades."""
    generator = torch.Generator().manual_seed(seed)
    binade = torch.randint(-20, 4, (N,), generator=generator).float()
    return torch.randn(N, generator=generator) * scale * torch.exp2(binade)


def run_with(dtype: str, **changes) -> Run:
    return Run(param_dtype=dtype, grad_dtype=dtype, state_dtype=dtype, **changes)


@pytest.mark.parametrize("update", list(TORCH))
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("settings", [(1e-3, 0.999, 0.0), (3e-4, 0.95, 0.1)])
@pytest.mark.parametrize("piece", [optim.PIECE, 512])
def test_reference_fast_and_torch_are_equal(update, dtype, settings, piece, monkeypatch):
    monkeypatch.setattr(optim, "PIECE", piece)
    lr, beta2, decay = settings
    run = run_with(dtype, lr=lr, beta2=beta2, weight_decay=decay, update=update)
    grid = getattr(torch, dtype)
    peer = torch.nn.Parameter(numbers(0).to(grid))
    adamw = torch.optim.AdamW(
        [peer], lr=lr, betas=(0.9, beta2), weight_decay=decay, **TORCH[update]
    )
    state = optim.start(run, numbers(0))
    reference = (state.param.clone(), state.exp_avg.clone(), state.exp_avg_sq.clone())
    for step in range(1, 9):
        grad = numbers(step, 1e-3).to(grid)
        peer.grad = grad
        adamw.step()
        optim.step_(state, grad, run)
        p, m, v = reference
        reference = optim.adamw_reference(p, grad, m, v, run, step)
        theirs = (peer, adamw.state[peer]["exp_avg"], adamw.state[peer]["exp_avg_sq"])
        for a, b, c in zip(theirs, state_tensors(state), reference, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)


def state_tensors(state):
    return state.param, state.exp_avg, state.exp_avg_sq


def test_torchs_own_orders_differ_on_the_lattice():
    ends = {}
    for update in Update:
        run = run_with("bfloat16", lr=3e-4, beta2=0.95, update=update)
        state = optim.start(run, numbers(0))
        for step in range(1, 9):
            optim.step_(state, numbers(step, 1e-3).bfloat16(), run)
        ends[str(update)] = state.exp_avg_sq
    assert not torch.equal(ends["for-loop"], ends["foreach"])
    assert not torch.equal(ends["for-loop"], ends["fused"])
    assert not torch.equal(ends["foreach"], ends["fused"])


def test_ratchet_second_moment_never_decays_in_bf16():
    """With beta2 = 0.999 and no gradient, v * beta2 rounds back to every positive normal v."""
    v = torch.arange(0x0080, 0x7F80, dtype=torch.int16).view(torch.bfloat16)
    run = run_with("bfloat16", beta2=0.999)
    state = optim.start(run, torch.zeros(len(v)))
    state.exp_avg_sq.copy_(v)
    for _ in range(3):
        optim.step_(state, torch.zeros_like(v), run)
    assert torch.equal(state.exp_avg_sq, v)
    for beta2 in (0.99, 0.95):
        state = optim.start(run, torch.zeros(len(v)))
        state.exp_avg_sq.copy_(v)
        optim.step_(state, torch.zeros_like(v), run.replace(beta2=beta2))
        assert not torch.equal(state.exp_avg_sq, v)
    free = run_with("float32", beta2=0.999)
    state = optim.start(free, torch.zeros(len(v)))
    state.exp_avg_sq.copy_(v)
    optim.step_(state, torch.zeros(len(v)), free)
    assert (state.exp_avg_sq < v.float()).all()


def test_decay_below_2_to_the_minus_9_moves_no_normal_number_and_above_it_some():
    patterns = np.arange(1 << 16, dtype=np.uint16)
    exponent = (patterns >> 7) & 0xFF
    normal = patterns[(exponent > 1) & (exponent < 0xFF)]
    value = lattice.value(normal)
    assert len(normal) == 2 * 253 * 128  # both signs, every mantissa of every exponent
    below = lattice.round_nearest(value * np.float32(1 - 0.99 * 2**-9))
    above = lattice.round_nearest(value * np.float32(1 - 1.02 * 2**-9))
    assert (below == normal).all()
    assert (above != normal).any()


def test_weight_decay_rounds_away_in_bf16():
    """p * (1 - lr * wd) rounds back to p for every normal p when lr * wd is below 2^-9."""
    p = torch.arange(0x0080, 0x7F80, dtype=torch.int16).view(torch.bfloat16)
    run = run_with("bfloat16", lr=1e-3, weight_decay=0.1)
    state = optim.start(run, p.float())
    optim.step_(state, torch.zeros_like(p), run)
    assert torch.equal(state.param, p)
    master = run.replace(master="fp32", state_dtype="float32")
    state = optim.start(master, p.float())
    optim.step_(state, torch.zeros_like(p), master)
    assert (state.master < p.float()).all()


def test_the_device_is_found_and_a_missing_one_named():
    assert optim.device("auto").type in ("cuda", "mps", "cpu")
    for name in ("cuda", "mps"):
        if not getattr(torch, name).is_available():
            with pytest.raises(ConfigError, match="not available here; there is"):
                optim.device(name)


def test_fma_rounds_once():
    a = torch.tensor([1 + 2**-12, 1 + 2**-23], dtype=torch.float32)
    c = torch.tensor([-1.0, 2.0**60], dtype=torch.float32)
    exact = [2**-11 + 2**-24, 2.0**60]
    assert optim.fma(a, a, c).tolist() == pytest.approx(exact, rel=0, abs=0)
    # a sum that float64 rounds onto a float32 tie: only rounding to odd gets it right
    big, tiny = torch.tensor([1 + 2.0**-23]), torch.tensor([2.0**-24])
    just_above = optim.fma(tiny, 1 + torch.tensor([2.0**-23]), big)
    assert just_above.item() == 1 + 2.0**-22
    rng = np.random.default_rng(0)
    numbers = np.ldexp(rng.normal(size=(3, 300)), rng.integers(-30, 30, (3, 300)))
    given = numbers.astype(np.float32)
    given[2, ::2] = -given[0, ::2] * given[1, ::2]  # what is left is the product's own rounding
    found = optim.fma(*map(torch.from_numpy, given)).numpy()
    for a, b, c, one in zip(*given.tolist(), found, strict=True):
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        near = abs(Fraction(float(one)) - exact)
        for side in np.nextafter(one, np.float32([-np.inf, np.inf])):
            assert near <= abs(Fraction(float(side)) - exact)


@pytest.mark.parametrize("master", ["fp32", "low16"])
def test_masters_follow_float32(master):
    """Both masters take exactly the steps of a float32 parameter given the same gradients."""
    plain = Run(
        param_dtype="float32", grad_dtype="bfloat16", state_dtype="float32", weight_decay=0.1
    )
    kept = plain.replace(param_dtype="bfloat16", master=master)
    a, b = optim.start(plain, numbers(0)), optim.start(kept, numbers(0))
    for step in range(1, 6):
        grad = numbers(step, 1e-3).bfloat16()
        optim.step_(a, grad, plain)
        optim.step_(b, grad, kept)
        assert torch.equal(a.param, optim.finest(b))
    if master == "fp32":
        assert torch.equal(b.param, b.master.bfloat16())
    else:  # truncated towards zero
        assert (b.param.float().abs() <= a.param.abs()).all()
        assert not torch.equal(b.param, a.param.bfloat16())


def test_stochastic_rounding_keeps_the_mean():
    """Adam's first step is lr long: between 1 - 2^-8 and 1 here."""
    run = Run(lr=1e-3, rounding="stochastic", state_dtype="float32")
    state = optim.start(run, torch.ones(100_000))
    optim.step_(state, torch.full((100_000,), 10.0).bfloat16(), run)
    assert set(state.param.float().unique().tolist()) == {1 - 2**-8, 1.0}
    sigma = 2**-8 / 2 / 100_000**0.5
    assert abs(state.param.float().mean().item() - (1 - 1e-3)) < 6 * sigma


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules(schedule):
    run = Run(lr=1.0, steps=100, warmup=10, schedule=schedule, lr_end=0.1)
    rates = [optim.learning_rate(run, step) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
