"""The compiled loops: what torch says, in blocks and in threads, bit for bit."""

import numpy as np
import pytest
import torch

from lib import kernels, lattice
from tests.test_lattice import ALL, FINITE, same_bits


@pytest.mark.parametrize("name", sorted(lattice.TORCH))
def test_what_torch_does_on_an_accelerator_is_what_the_kernels_do(name):
    """Every pattern through both, bit for bit."""
    patterns = ALL.view(np.int16)
    arrays = (patterns, patterns[::-1].copy()) if name == "steps" else (patterns,)
    out = "int32" if name in ("ordinal", "steps") else "float32"
    ours = kernels.apply(getattr(kernels, name), *arrays, out=out)
    theirs = lattice.TORCH[name](*map(torch.from_numpy, arrays)).numpy()
    assert theirs.dtype == ours.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_an_accelerator_s_answers_stay_there():
    """The device "meta" computes no values, but goes the way of an accelerator."""
    u, o = (torch.empty((3, 2), dtype=d, device="meta") for d in (torch.bfloat16, torch.int32))
    for answer, dtype in (
        (lattice.value(u), torch.float32),
        (lattice.ordinal(u, "int16"), torch.int16),
        (lattice.steps(np.zeros(2, np.uint16), u), torch.int32),
        (lattice.norms(o).linf, torch.int64),
        (lattice.fields(u).exponent, torch.int16),
        (lattice.round_nearest(u.float()), torch.uint16),
    ):
        assert answer.device.type == "meta" and answer.dtype == dtype


def test_pieces_draw_the_same_dust_as_the_whole():
    """Stochastic rounding is one draw of bytes, added and cut, however the numbers lie."""
    x = np.random.default_rng(1).normal(size=(5, 100_001)).astype(np.float32)
    random_bits = np.frombuffer(np.random.default_rng(42).bytes(2 * x.size), np.uint16).reshape(
        x.shape
    )
    expected = ((x.view(np.uint32).astype(np.uint64) + random_bits) >> 16).astype(np.uint16)
    for kind in (x, np.asfortranarray(x), torch.from_numpy(x)):
        same_bits(lattice.round_stochastic(kind, rng=np.random.default_rng(42)), expected)


def test_norms_of_rows_of_any_type():
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
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with pytest.raises(ZeroDivisionError):
        kernels.in_threads(lambda x: 1 / x, [(2,), (1,), (0,)])
