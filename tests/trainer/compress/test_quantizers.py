"""Every quantizer of the table keeps the error bound that it states, on any row.

R rows, C columns. Codes times a float16 scale are exact in float32 (8 and 11 bits), so the only
rounding to allow for is that of w / scale, half a unit in the last place: EPS · |w|.
"""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.compress import QUANTIZERS, dequantize
from trainer.compress.row_codes import (
    Quantized,
    best_by_squared_error,
    encode,
    row_quantile,
    sorted_magnitudes,
)
from trainer.config import Quantization

EPS = 2.0**-24
LEVELS = {"int6_row": 31, "int8_row": 127}  # a new quantizer says here how many it has
EXACT = "int8_row by the exact scale"
CASES = {name: (name, {}) for name in QUANTIZERS} | {
    EXACT: ("int8_row", {"int8_codes_by": "exact_scale"})
}
SMALLEST_NORMAL_HALF = 2.0**-14
ADVERSARIAL = {
    "one outlier": [[1e-3] * 63 + [100.0]],
    "ties at half a step": [[i / 2 for i in range(-63, 64)]],
    "all equal": [[0.1] * 64],
    "tiny": [[1e-7, -1e-7, 3e-8, 0.0]],
    "below the smallest scale": [[1e-30, -1e-38, 1e-45]],
    "huge": [[6e4, -6e4, 1.0]],
    "mixed rows": [[1e-6, 2e-6, -3e-6], [1e3, -2e3, 0.5], [0.0, 0.0, 0.0]],
    "one column": [[0.3], [-5.0], [0.0]],
    "alternating": [[1.0, -1.0] * 32],
    "a power series": [[2.0**-i for i in range(40)]],
}

every_quantizer = pytest.mark.parametrize("case", CASES)
any_matrix = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=16),
    elements=st.floats(-8, 8, width=32),
).map(torch.from_numpy)


def normal_rows(rows=16, columns=64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=draw) * torch.logspace(-2, 1, rows)[:, None]


def config_of(**options):
    return Quantization(
        matrices="int6_row",
        embeddings="int8_row",
        passthrough_numel=0,
        compressor="lzma",
        preset=0,
        **options,
    )


def quantize(case, w_RC, scale_floor=None, **changes):
    name, options = CASES[case]
    floors = {"scale_floor": scale_floor, "int8_scale_floor": scale_floor}
    return QUANTIZERS[name](w_RC, config_of(**floors | options | changes))


def levels_of(case):
    return LEVELS[CASES[case][0]]


def error_of(w_RC, q):
    """The float32 mean that a clip is chosen by."""
    return float((w_RC - dequantize(q.codes_RC, q.scale_R)).square().mean())


def stated_bound(case, w_RC, q):
    """Of |w − w'|. By the stored scale: scale / 2 where |w| ≤ (levels + ½)·scale, and
    |w| − levels·scale beyond. By the exact one: what the clip takes off, half the exact scale, and
    for each of up to 127 steps the difference of the two scales, half a unit of float16."""
    w, scale = w_RC.double().abs(), q.scale_R.double()[:, None]
    if case == EXACT:
        clip = row_quantile(sorted_magnitudes(w_RC), 0.9999984, "float64").double()[:, None]
        rounding = (2.0**-11 * scale).clamp(min=2.0**-25)
        return (w - clip).clamp(min=0) + (scale + rounding) / 2 + 127 * rounding
    levels = levels_of(case)
    return torch.where(w <= (levels + 0.5) * scale, scale / 2, w - levels * scale)


def check_bound(case, w_RC, scale_floor=None):
    levels, q = levels_of(case), quantize(case, w_RC, scale_floor)
    assert q.codes_RC.dtype == torch.int8
    assert q.scale_R.dtype == torch.float16
    assert q.codes_RC.shape == w_RC.shape
    assert q.scale_R.shape == w_RC.shape[:1]
    assert q.codes_RC.int().abs().max() <= levels
    assert (q.scale_R > 0).all()
    w = w_RC.double()
    error = (w - dequantize(q.codes_RC, q.scale_R).double()).abs()
    assert (error <= stated_bound(case, w_RC, q) + 2 * EPS * w.abs()).all()
    return q


@every_quantizer
@settings(max_examples=60)
@given(any_matrix, st.sampled_from([None, 1 / 127, 1 / 31, 0.5]))
def test_the_error_bound_holds_on_any_matrix_and_the_sign_passes_through(case, w_RC, floor):
    one, other = check_bound(case, w_RC, floor), quantize(case, -w_RC, floor)
    assert torch.equal(one.codes_RC, -other.codes_RC)
    assert torch.equal(one.scale_R, other.scale_R)


@every_quantizer
def test_the_error_bound_holds_on_adversarial_rows_and_zero_rows_stay_zero(case):
    for rows in ADVERSARIAL.values():
        check_bound(case, torch.tensor(rows))
    w_RC = normal_rows()
    w_RC[3] = 0.0
    assert not check_bound(case, w_RC).codes_RC[3].any()
    assert not quantize(case, torch.zeros(4, 8)).codes_RC.any()


@every_quantizer
def test_a_clip_costs_a_row_of_ordinary_length_nothing(case):
    """In the mean square, up to a hundredth: the least clip lies between its last two values, and
    codes by the exact scale are off by 127 · 2⁻¹² steps at the most, next to a noise of √(1/12)."""
    w_RC = normal_rows()
    unclipped = encode(w_RC, w_RC.abs().amax(dim=1), levels_of(case), None)
    assert error_of(w_RC, quantize(case, w_RC)) <= error_of(w_RC, unclipped) * 1.01


@every_quantizer
def test_a_power_of_two_passes_through(case):
    """Without a floor, and while every float16 scale is normal: at least 2⁻¹⁴ on both sides."""
    w_RC = 30 * normal_rows()
    one = quantize(case, w_RC)
    for factor in (2.0**-5, 0.5, 2.0, 64.0):
        other = quantize(case, factor * w_RC)
        assert one.scale_R.min() * min(factor, 1.0) >= SMALLEST_NORMAL_HALF
        assert torch.equal(one.codes_RC, other.codes_RC)
        assert torch.equal(factor * one.scale_R.float(), other.scale_R.float())


@every_quantizer
def test_a_power_of_two_does_not_pass_a_scale_floor(case):
    """Weights of a quarter at one floor: no finer steps, so four times the error in proportion."""
    w_RC, floor = torch.rand(8, 64, generator=torch.Generator().manual_seed(2)) - 0.5, 0.25
    one, other = quantize(case, w_RC, floor), quantize(case, w_RC / 4, floor)
    assert torch.equal(one.scale_R, other.scale_R)
    assert not torch.equal(one.codes_RC, other.codes_RC)
    assert error_of(w_RC / 4, other) > error_of(w_RC, one) / 16
    without = quantize(case, w_RC / 4)
    assert error_of(w_RC / 4, without) < error_of(w_RC / 4, other) / 100


@every_quantizer
def test_weights_beyond_float16_are_cut_off_and_not_lost(case):
    q = quantize(case, torch.tensor([[3e38, -1e30, 0.0], [1.0, 2.0, 3.0]]))
    assert dequantize(q.codes_RC, q.scale_R)[0].tolist() == [
        levels_of(case) * 65504.0,
        -levels_of(case) * 65504.0,
        0.0,
    ]


@every_quantizer
def test_a_matrix_that_is_already_quantized_comes_back_exactly(case):
    """Where its rows use the whole range and their scale is a float16."""
    levels = levels_of(case)
    codes = torch.randint(-levels, levels + 1, (8, 64), generator=torch.Generator().manual_seed(1))
    codes[:, :2] = torch.tensor([levels, -levels])
    w_RC = codes.float() * torch.logspace(-3, 0, 8).half().float()[:, None]
    q = quantize(case, w_RC)
    assert torch.equal(dequantize(q.codes_RC, q.scale_R), w_RC)


@every_quantizer
@pytest.mark.parametrize("floor", [1 / 127, 1 / 31, 0.25])
def test_rows_at_the_floor_are_counted(case, floor):
    """Exactly those whose clip over levels is below it; none without a floor.

    Not claimed for a clip within the reach of a percentile of the floor: rows are far from it.
    """
    largest = torch.tensor([0.1, 0.5, 2.0, 10.0]) * floor * levels_of(case)
    w_RC = torch.linspace(-1, 1, 65)[None] * largest[:, None]
    q = check_bound(case, w_RC, floor)
    assert q.floored_rows == 2
    assert torch.equal(q.scale_R[:2], torch.full((2,), floor).half())
    assert (q.scale_R[2:].float() > floor).all()
    assert quantize(case, w_RC).floored_rows == 0


@every_quantizer
def test_int6_and_int8_have_floors_of_their_own(case):
    w_RC, name = normal_rows(), CASES[case][0]
    own, other = "scale_floor", "int8_scale_floor"
    if name == "int8_row":
        own, other = other, own
    assert quantize(case, w_RC, **{own: 100.0, other: None}).floored_rows == len(w_RC)
    assert quantize(case, w_RC, **{own: None, other: 100.0}).floored_rows == 0


def test_int6_clips_where_that_is_better():
    """3,998 values within 1 and one of 1.3: a finer step for all outweighs the one."""
    w_RC = torch.linspace(-1, 1, 3999)[None].repeat(2, 1)
    w_RC[:, 0] = 1.3
    q = check_bound("int6_row", w_RC)
    assert (q.scale_R.float() * 31 < 1.2).all()


@settings(max_examples=50)
@given(any_matrix, st.permutations([0.5, 0.9, 0.99, 1.0]))
def test_int6_takes_the_best_percentile_in_whatever_order_they_are_given(w_RC, percentiles):
    q = quantize("int6_row", w_RC, percentiles=tuple(percentiles))
    alone = [quantize("int6_row", w_RC, percentiles=(p,)) for p in sorted(percentiles)]
    best = min(alone, key=lambda each: error_of(w_RC, each))
    assert torch.equal(q.codes_RC, best.codes_RC)
    assert torch.equal(q.scale_R, best.scale_R)


def test_of_equally_good_candidates_the_first_is_taken():
    w_RC = torch.tensor([[1.0, -1.0]])
    below, above = (
        Quantized(torch.tensor([[1, -1]], dtype=torch.int8), torch.tensor([s]).half(), 0)
        for s in (0.5, 1.5)
    )
    assert best_by_squared_error(w_RC, [below, above]) is below
    assert best_by_squared_error(w_RC, [above, below]) is above


def test_the_exact_scale_gives_the_codes_of_unrounded_arithmetic():
    """round(127·w / max|w|), which the float16 scale does not give. Weights within 2⁻¹² of a tie
    may go either way: three float32 roundings of up to 127 steps."""
    w_RC = normal_rows()
    steps = 127 * w_RC.double() / w_RC.double().abs().amax(dim=1, keepdim=True)
    clear = ((steps - steps.floor()) - 0.5).abs() > 2.0**-12
    by_exact, by_stored = (quantize(case, w_RC, int8_clip=1.0) for case in (EXACT, "int8_row"))
    assert clear.float().mean() > 0.99
    assert torch.equal(by_exact.codes_RC[clear].double(), steps.round()[clear])
    assert not torch.equal(by_stored.codes_RC[clear], by_exact.codes_RC[clear])
    assert torch.equal(by_stored.scale_R, by_exact.scale_R)


def test_by_the_exact_scale_weights_are_clipped_before_they_are_coded():
    """Which shows at a scale floor: there the range of codes reaches beyond the clip, here 1.5."""
    w_RC = torch.tensor([[1.0, 1.0, 2.0, -3.0]])
    by_exact, by_stored = (quantize(c, w_RC, 0.5, int8_clip=0.5) for c in (EXACT, "int8_row"))
    assert by_exact.codes_RC.tolist() == [[2, 2, 3, -3]]
    assert by_stored.codes_RC.tolist() == [[2, 2, 4, -6]]


def test_the_exact_scale_may_miss_by_more_than_half_a_step():
    """A scale of 1 + 2⁻¹¹ is stored as 1. A weight of 100.49 of those steps gets the code 100,
    which is 0.54 off; the stored scale gives it 101."""
    scale = 1 + 2.0**-11
    w_RC = torch.tensor([[127 * scale, 100.49 * scale]])
    by_exact, by_stored = (quantize(case, w_RC, int8_clip=1.0) for case in (EXACT, "int8_row"))
    assert by_exact.scale_R.item() == by_stored.scale_R.item() == 1.0
    assert by_exact.codes_RC.tolist() == [[127, 100]]
    assert by_stored.codes_RC.tolist() == [[127, 101]]


@settings(max_examples=50)
@given(any_matrix, st.floats(0, 1))
def test_a_quantile_is_numpys(w_RC, q):
    """Tolerance: an interpolation of two neighbours at a position in float32."""
    expected = np.quantile(w_RC.abs().numpy().astype(np.float64), q, axis=1)
    found = row_quantile(sorted_magnitudes(w_RC), q, "float64").double().numpy()
    np.testing.assert_allclose(found, expected, rtol=4 * EPS, atol=8 * 16 * EPS)


@given(any_matrix, st.floats(0, 1))
def test_by_a_rank_in_float32_a_quantile_is_torchs(w_RC, q):
    found = row_quantile(sorted_magnitudes(w_RC), q, "float32")
    assert torch.equal(found, torch.quantile(w_RC.abs(), q, dim=1))
