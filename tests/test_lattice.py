"""The lattice, all 65,536 patterns, against torch and ml_dtypes: tolerance zero."""

import ml_dtypes
import numpy as np
import pytest
import torch

from lib import lattice

ALL = np.arange(1 << 16, dtype=np.uint16)
FLOATS = ALL.view(ml_dtypes.bfloat16)
NAN = np.isnan(FLOATS.astype(np.float32))
FINITE = np.isfinite(FLOATS.astype(np.float32))
LINE = ALL[~NAN]  # infinities included


def same_bits(ours, theirs):
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


# ---------------------------------------------------------------- bits, fields, value, ULP
def test_bits_is_a_view_of_every_accepted_kind():
    base = ALL.copy()
    for x in (base, base.view(np.int16), base.view(ml_dtypes.bfloat16)):
        view = lattice.bits(x)
        assert view.dtype == np.uint16 and np.shares_memory(view, base)
    tensor = torch.from_numpy(base)
    for x in (tensor, tensor.view(torch.int16), tensor.view(torch.bfloat16)):
        view = lattice.bits(x)
        assert view.dtype == torch.uint16 and view.data_ptr() == tensor.data_ptr()
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    assert not lattice.bits(parameter).requires_grad


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(2, np.float32), np.zeros(2, np.float16), torch.zeros(2), torch.zeros(2).half()],
)
def test_other_floats_are_refused_not_rounded(wrong):
    with pytest.raises(TypeError, match="round_nearest"):
        lattice.bits(wrong)
    with pytest.raises(TypeError, match="round_nearest"):
        lattice.ordinal(wrong)


def test_value_is_exact():
    same_bits(
        lattice.value(ALL).view(np.uint32)[~NAN], FLOATS.astype(np.float32).view(np.uint32)[~NAN]
    )
    torch_values = torch.from_numpy(ALL).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(lattice.value(ALL), torch_values)


def test_fields_rebuild_the_value_by_the_formula():
    sign, exponent, mantissa = (f.astype(np.float64) for f in lattice.fields(ALL))
    normal = (-1) ** sign * 2.0 ** (exponent - 127) * (1 + mantissa / 128)
    subnormal = (-1) ** sign * 2.0**-126 * (mantissa / 128)
    expected = np.where(exponent == 0, subnormal, normal)
    np.testing.assert_array_equal(lattice.value(ALL)[FINITE].astype(np.float64), expected[FINITE])
    assert lattice.fields(ALL).exponent.dtype == np.int16


def test_ulp_is_the_gap_away_from_zero():
    magnitude = ALL[:0x7F80]  # 0 .. largest finite
    gap = lattice.value(magnitude + np.uint16(1)).astype(np.float64) - lattice.value(magnitude)
    gap[-1] = 2.0 ** (254 - 134)  # to infinity: the gap that one more exponent would give
    same_bits(lattice.ulp(magnitude), gap.astype(np.float32))
    same_bits(lattice.ulp(magnitude | np.uint16(0x8000)), gap.astype(np.float32))
    assert lattice.ulp(0) == np.float32(2.0**-133)
    assert np.isnan(lattice.ulp(ALL[~FINITE])).all()
    spacing = np.abs(np.spacing(FLOATS[FINITE]).astype(np.float32))
    away = lattice.ulp(ALL[FINITE])
    inner = FINITE & (ALL != 0x7F7F) & (ALL != 0xFF7F)
    same_bits(away[inner[FINITE]], spacing[inner[FINITE]])


# ---------------------------------------------------------------- the number line
def test_ordinal_follows_its_definition_and_the_order_of_values():
    expected = np.where(ALL < 0x8000, ALL.astype(np.int32), 0x8000 - ALL.astype(np.int32))
    same_bits(lattice.ordinal(ALL), expected)
    same_bits(lattice.ordinal(ALL, "int16"), expected)
    order = np.argsort(lattice.ordinal(LINE), kind="stable")
    values, ordinals = lattice.value(LINE)[order], lattice.ordinal(LINE)[order]
    grew = np.diff(ordinals)
    assert set(grew.tolist()) == {0, 1} and (grew == 0).sum() == 1  # only -0 and +0 coincide
    np.testing.assert_array_equal(np.diff(values) > 0, grew == 1)


def test_from_ordinal_inverts_ordinal():
    back = lattice.from_ordinal(lattice.ordinal(LINE))
    same_bits(back, np.where(LINE == 0x8000, 0, LINE))
    for beyond in (32641, -32641, 65536, -65536):
        with pytest.raises(ValueError, match="ordinals run"):
            lattice.from_ordinal(np.array([beyond]))
    with pytest.raises(TypeError, match="integers"):
        lattice.from_ordinal(np.array([1.0]))
    with pytest.raises(TypeError, match="integers"):
        lattice.from_ordinal(torch.tensor([1.0]))


@pytest.mark.parametrize("direction", [1, -1])
def test_neighbours_are_nextafter(direction):
    ours = (lattice.neighbour_up if direction > 0 else lattice.neighbour_down)(ALL)
    target = ml_dtypes.bfloat16(direction * np.inf)
    with np.errstate(invalid="ignore"):
        theirs = np.nextafter(FLOATS, target).view(np.uint16)
    same_bits(ours[~NAN], theirs[~NAN])
    same_bits(ours[NAN], ALL[NAN])
    tensor = torch.from_numpy(ALL).view(torch.bfloat16)
    by_torch = torch.nextafter(tensor, torch.full_like(tensor, direction * torch.inf))
    by_torch = by_torch.view(torch.uint16).numpy()
    signless = ~NAN & (theirs != 0x8000)  # torch does not keep the sign of a zero it steps onto
    same_bits(ours[signless], by_torch[signless])


def test_steps_count_neighbours_over_zero_and_binade_edges():
    assert lattice.steps(0x8001, 0x0001) == 2  # through one zero, not two
    assert lattice.steps(0x8000, 0x0000) == 0
    assert lattice.steps(0x3F7F, 0x3F81) == 2  # across the binade edge at 1.0
    assert lattice.steps(0xFF80, 0x7F80) == 2 * 0x7F80
    moving = LINE[(LINE != 0x7F80)]
    same_bits(lattice.steps(moving, lattice.neighbour_up(moving)), np.ones(moving.size))
    walk = np.random.default_rng(42).choice(LINE, (3, 1000))
    there, on = lattice.steps(walk[0], walk[1]), lattice.steps(walk[1], walk[2])
    same_bits(there + on, lattice.steps(walk[0], walk[2]))
    assert lattice.steps(walk[0][:, None], walk[1][None]).shape == (1000, 1000)


def test_norms():
    displacement = np.array([[3, -4, 0], [0, 0, 0], [1, 1, -1]], dtype=np.int32)
    for kind in (displacement, torch.from_numpy(displacement)):
        l1, l2, linf = lattice.norms(kind)
        assert l1.tolist() == [7, 0, 3] and linf.tolist() == [4, 0, 1]
        assert l2.tolist() == [5.0, 0.0, 3**0.5]
    whole = lattice.norms(np.full((1, 1 << 16), 65280, dtype=np.int32))
    assert whole.l1.tolist() == [65280 << 16]  # would overflow int32


def test_check_finite_names_the_first_offender():
    same_bits(lattice.check_finite(ALL[FINITE]), ALL[FINITE])
    bad = np.zeros((3, 4), dtype=np.uint16)
    bad[1, 2], bad[2, 0] = 0x7FC1, 0xFF80
    for kind in (bad, torch.from_numpy(bad)):
        with pytest.raises(ValueError, match=r"weights holds 2 NaN or infinite.*\(1, 2\)"):
            lattice.check_finite(kind, "weights")


# ---------------------------------------------------------------- rounding
def edge_floats():
    """float32 at every bf16 value, half way to the next, and just beside both: (6 x 65536,)."""
    base = ALL.astype(np.uint32) << 16
    offsets = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=np.uint32)
    return (base[:, None] | offsets).ravel().view(np.float32)


def test_round_nearest_equals_torch_and_ml_dtypes_at_every_edge():
    x = edge_floats()
    nan = np.isnan(x)
    ours = lattice.round_nearest(x)
    same_bits(ours[~nan], torch.from_numpy(x).to(torch.bfloat16).view(torch.uint16).numpy()[~nan])
    same_bits(ours[~nan], x[~nan].astype(ml_dtypes.bfloat16).view(np.uint16))
    same_bits(ours[nan] & 0x7FC0, np.full(nan.sum(), 0x7FC0))  # quiet, whatever its sign
    random = np.random.default_rng(42).integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    random = random.view(np.float32)[~np.isnan(random.view(np.float32))]
    theirs = torch.from_numpy(random).to(torch.bfloat16).view(torch.uint16).numpy()
    same_bits(lattice.round_nearest(random), theirs)
    same_bits(lattice.round_nearest(random[::-3]), theirs[::-3])
    random.flags.writeable = False
    same_bits(lattice.round_nearest(random), theirs)


def test_the_bit_trick_is_round_to_nearest_even():
    """The rule written out on bits: half a step, less one, plus one if the mantissa is odd."""
    x = edge_floats()
    x = x[~np.isnan(x)]
    u = x.view(np.uint32).astype(np.uint64)
    same_bits(lattice.round_nearest(x), (u + 0x7FFF + (u >> 16 & 1)) >> 16)


def test_rounding_a_lattice_value_changes_nothing():
    values = lattice.value(LINE)
    same_bits(lattice.round_nearest(values), LINE)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        same_bits(lattice.round_stochastic(values, rng=rng), LINE)


def test_round_stochastic_gives_one_of_the_two_neighbours():
    x = edge_floats()
    x = x[np.isfinite(x)]
    ours = lattice.round_stochastic(x, rng=np.random.default_rng(42))
    inward = (x.view(np.uint32) >> 16).astype(np.uint16)  # truncation: the neighbour towards zero
    exact = (x.view(np.uint32) & 0xFFFF) == 0
    assert ((ours == inward) | (ours == inward + 1)).all()
    same_bits(ours[exact], inward[exact])
    assert (ours != inward).any()


def test_round_stochastic_is_unbiased_on_both_sides_of_zero():
    fraction = 0.3
    for start in (0x3EBD, 0xBEBD, 0x0005, 0x8005):
        low, high = float(lattice.value(start)), float(lattice.value(start + 1))
        x = np.full(200_000, low + fraction * (high - low), dtype=np.float32)
        share = (lattice.round_stochastic(x, rng=np.random.default_rng(42)) == start + 1).mean()
        assert abs(share - fraction) < 5 * (fraction * (1 - fraction) / x.size) ** 0.5


def test_round_stochastic_is_seeded_and_never_loses_a_nan():
    x = np.random.default_rng(1).normal(size=100_001).astype(np.float32)
    draws = [lattice.round_stochastic(x, rng=np.random.default_rng(s)) for s in (42, 42, 43)]
    same_bits(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
    from_torch = lattice.round_stochastic(torch.from_numpy(x), rng=np.random.default_rng(42))
    same_bits(from_torch.numpy(), draws[0])
    nans = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    for seed in range(20):
        rounded = lattice.round_stochastic(nans, rng=np.random.default_rng(seed))
        same_bits(rounded & 0x7FC0, np.full(4, 0x7FC0))
    ends = np.array([np.inf, -np.inf], dtype=np.float32)
    same_bits(lattice.round_stochastic(ends, rng=np.random.default_rng(0)), [0x7F80, 0xFF80])


@pytest.mark.parametrize("wrong", [np.zeros(2), torch.zeros(2).double(), np.zeros(2, np.float16)])
def test_rounding_refuses_what_would_round_twice(wrong):
    with pytest.raises(TypeError, match="float32"):
        lattice.round_nearest(wrong)


# ---------------------------------------------------------------- torch, shapes, memory
def test_torch_tensors_give_the_same_answers_in_every_dtype():
    tensor = torch.from_numpy(ALL)
    for x in (tensor, tensor.view(torch.int16), tensor.view(torch.bfloat16)):
        assert torch.equal(lattice.ordinal(x), torch.from_numpy(lattice.ordinal(ALL)))
        same_bits(lattice.ulp(x), lattice.ulp(ALL))
        same_bits(lattice.neighbour_up(x), lattice.neighbour_up(ALL))
        assert isinstance(lattice.value(x), torch.Tensor)
        assert lattice.from_ordinal(lattice.ordinal(tensor[:100])).dtype == torch.uint16


def test_shapes_strides_and_memory_maps(tmp_path):
    block = np.random.default_rng(42).integers(0, 1 << 16, (6, 5, 7), dtype=np.uint16)
    expected = np.vectorize(lambda u: u if u < 0x8000 else 0x8000 - u)(block.astype(int))
    same_bits(lattice.ordinal(block), expected)
    same_bits(lattice.ordinal(block.T), expected.T)
    same_bits(lattice.ordinal(block[::-2, 1:, ::3]), expected[::-2, 1:, ::3])
    assert lattice.ordinal(block[:0]).shape == (0, 5, 7)
    assert lattice.round_nearest(np.float32(1)).shape == () and lattice.value(0x3F80) == 1
    assert lattice.ordinal(0x8005).shape == () and lattice.ordinal(0x8005) == -5
    block.tofile(tmp_path / "rows.bin")
    mapped = np.memmap(tmp_path / "rows.bin", np.uint16, "r", shape=block.shape)
    same_bits(lattice.ordinal(mapped), expected)
    big = np.resize(ALL, 600_003)  # no multiple of the patterns
    same_bits(lattice.ordinal(big), np.resize(lattice.ordinal(ALL), big.size))
    for name in ("value", "ulp", "neighbour_up", "neighbour_down"):
        operation = getattr(lattice, name)
        same_bits(operation(big), np.resize(operation(ALL), big.size))
    pairs = lattice.steps(big, big[::-1])
    same_bits(pairs, lattice.ordinal(big[::-1].copy()) - lattice.ordinal(big))


def test_large_arrays_draw_piece_by_piece_whatever_the_threads(monkeypatch):
    """Each piece has a generator that rng seeds; neither threads nor strides enter."""
    monkeypatch.setattr(lattice, "PIECE", 1_000)
    x = np.random.default_rng(1).normal(size=(7, 501)).astype(np.float32)
    rng = np.random.default_rng(42)
    seeds = rng.integers(0, 1 << 64, (4, 4), dtype=np.uint64)
    words = [
        np.random.Generator(np.random.SFC64(s)).integers(0, 1 << 64, n, dtype=np.uint64)
        for s, n in zip(seeds, (250, 250, 250, 127), strict=True)
    ]
    random_bits = np.concatenate(words).view(np.uint16)[: x.size].reshape(x.shape)
    expected = ((x.view(np.uint32).astype(np.uint64) + random_bits) >> 16).astype(np.uint16)
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for kind in (x, np.asfortranarray(x), torch.from_numpy(x)):
            again = np.random.default_rng(42)
            same_bits(lattice.round_stochastic(kind, rng=again), expected)
            assert again.bit_generator.state == rng.bit_generator.state
    half = np.full(100_000, 1 + 2.0**-8, np.float32)  # midway between two patterns
    up = lattice.round_stochastic(half, rng=rng) - lattice.bits(0x3F80)
    assert abs(up.mean() - 0.5) < 5 * 0.5 / np.sqrt(half.size)
    assert len({tuple(piece) for piece in up.reshape(100, -1)}) == 100  # no piece repeats
