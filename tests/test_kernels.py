"""The compiled loops: what torch says, in blocks and in threads, bit for bit."""

import numpy as np
import pytest
import torch

from lib import kernels, lattice
from tests.test_lattice import ALL, FINITE, edge_floats, same_bits


@pytest.mark.parametrize("name", sorted(lattice.TORCH))
def test_what_torch_does_on_an_accelerator_is_what_the_kernels_do(name):
    """Every pattern (and every edge of float32) through both, bit for bit."""
    patterns, finite = ALL.view(np.int16), ALL[FINITE].view(np.int16)
    f = edge_floats().view(np.int32)
    dtypes = dict.fromkeys(("sign", "exponent", "mantissa"), "int16")
    dtypes |= dict.fromkeys(("unfold", "up", "down", "stochastic"), "uint16")
    dtypes |= dict.fromkeys(("ordinal", "steps"), "int32") | dict.fromkeys(
        ("value", "ulp"), "float32"
    )
    dtypes |= {"not_finite": "bool", "historical": "float64"}
    arrays = {
        "unfold": (lattice.ordinal(ALL[FINITE]),),
        "steps": (patterns, patterns[::-1].copy()),
        "historical": (finite, finite[::-1].copy()),
        "stochastic": (f, np.random.default_rng(3).integers(0, 1 << 16, len(f)).astype(np.int32)),
    }.get(name, (patterns,))
    ours = kernels.apply(getattr(kernels, name), *arrays, out=dtypes[name])
    theirs = lattice.TORCH[name](*map(torch.from_numpy, arrays)).numpy()
    theirs = theirs.astype(np.int16).view(np.uint16) if dtypes[name] == "uint16" else theirs
    np.testing.assert_array_equal(ours, theirs.astype(ours.dtype))


def test_blocks_draw_the_same_dust_as_the_whole():
    """Stochastic rounding block by block is one draw of bytes, added and cut."""
    x = np.random.default_rng(1).normal(size=(5, kernels.CACHE // 8 + 1)).astype(np.float32)
    dust = np.frombuffer(np.random.default_rng(42).bytes(2 * x.size), np.uint16).reshape(x.shape)
    expected = ((x.view(np.uint32).astype(np.uint64) + dust) >> 16).astype(np.uint16)
    for kind in (x, np.asfortranarray(x), torch.from_numpy(x)):
        same_bits(lattice.round_stochastic(kind, rng=np.random.default_rng(42)), expected)


def test_norms_take_blocks_of_rows():
    displacement = np.random.default_rng(2).integers(-65280, 65281, (3, 7_000, 11))
    size = np.abs(displacement)
    for kind in (displacement, displacement.astype(np.int32), torch.from_numpy(displacement)):
        l1, l2, linf = (np.asarray(part) for part in lattice.norms(kind))
        same_bits(l1, size.sum(-1))
        same_bits(linf, size.max(-1))
        same_bits(l2, np.sqrt((size**2).sum(-1)))


def test_many_threads_give_the_same_bits(monkeypatch):
    u = np.tile(ALL[FINITE], 3)[:-5]  # no multiple of the threads
    v = np.random.default_rng(42).permutation(u)
    f = lattice.value(u)

    def everything() -> list[np.ndarray]:
        moved = lattice.steps(u, v)
        return [
            lattice.ordinal(u),
            lattice.ulp(u),
            lattice.neighbour_up(u),
            moved,
            lattice.historical_displacement(u, v),
            lattice.value(torch.from_numpy(u)).numpy(),
            lattice.round_stochastic(f, rng=np.random.default_rng(1)),
            *lattice.norms(moved[: len(moved) // 7 * 7].reshape(-1, 7)),
        ]

    alone = everything()
    monkeypatch.setattr(kernels, "WORTH_THREADS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for one, many in zip(alone, everything(), strict=True):
        np.testing.assert_array_equal(one, many)


def test_an_error_in_a_thread_is_the_caller_s(monkeypatch):
    monkeypatch.setattr(kernels, "WORTH_THREADS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    beyond = np.zeros(5_000, np.int32)
    beyond[4_900] = lattice.INFINITY + 1
    with pytest.raises(ValueError, match="ordinals run"):
        lattice.from_ordinal(beyond)
