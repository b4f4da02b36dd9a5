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

from trainer.quantizers import QUANTIZERS, dequantize
from trainer.quantizers.rows import encode, row_quantile, sorted_magnitudes

EPS = 2.0**-24
LEVELS = {"int6_row": 31, "int8_row": 127}  # a new quantizer says here how many it has
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

every_quantizer = pytest.mark.parametrize("name", QUANTIZERS)
any_matrix = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=16),
    elements=st.floats(-8, 8, width=32),
).map(torch.from_numpy)


def normal_rows(rows=16, columns=64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=draw) * torch.logspace(-2, 1, rows)[:, None]


def check_bound(name, w_RC, scale_floor=None):
    """|w − w'| ≤ scale / 2 where |w| ≤ (levels + ½)·scale, and |w| − levels·scale beyond."""
    levels, q = LEVELS[name], QUANTIZERS[name](w_RC, scale_floor)
    assert q.codes_RC.dtype == torch.int8
    assert q.scale_R.dtype == torch.float16
    assert q.codes_RC.shape == w_RC.shape
    assert q.scale_R.shape == w_RC.shape[:1]
    assert q.codes_RC.int().abs().max() <= levels
    w, scale = w_RC.double(), q.scale_R.double()[:, None]
    assert (scale > 0).all()
    error = (w - dequantize(q.codes_RC, q.scale_R).double()).abs()
    inside = w.abs() <= (levels + 0.5) * scale
    bound = torch.where(inside, scale / 2, w.abs() - levels * scale)
    assert (error <= bound + 2 * EPS * w.abs()).all()
    return q


@every_quantizer
@settings(max_examples=50)
@given(any_matrix)
def test_the_error_bound_holds_on_any_matrix(name, w_RC):
    check_bound(name, w_RC)


@every_quantizer
@settings(max_examples=50)
@given(any_matrix, st.sampled_from([1 / 127, 1 / 31, 0.5]))
def test_the_error_bound_holds_with_a_scale_floor(name, w_RC, floor):
    check_bound(name, w_RC, floor)


@every_quantizer
@pytest.mark.parametrize("rows", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_the_error_bound_holds_on_adversarial_rows(name, rows):
    check_bound(name, torch.tensor(rows))


@every_quantizer
def test_nothing_is_clipped_in_a_row_of_ordinary_length(name):
    """With up to 1000 columns the smallest percentile lies within the last two values, and the
    bound then is scale / 2 wherever the clip was not the better choice by mean squared error."""
    w_RC = normal_rows()
    q = QUANTIZERS[name](w_RC, None)
    unclipped = encode(w_RC, w_RC.abs().amax(dim=1), LEVELS[name], None)
    ours, theirs = (
        float((w_RC - dequantize(each.codes_RC, each.scale_R)).square().mean())
        for each in (q, unclipped)
    )
    assert ours <= theirs * 1.01


@every_quantizer
def test_zero_rows_stay_zero(name):
    w_RC = normal_rows()
    w_RC[3] = 0.0
    q = check_bound(name, w_RC)
    assert not q.codes_RC[3].any()
    assert not QUANTIZERS[name](torch.zeros(4, 8), None).codes_RC.any()


@every_quantizer
@pytest.mark.parametrize("exponent", [-5, -1, 1, 6])
def test_a_power_of_two_passes_through(name, exponent):
    """Without a floor, and while every float16 scale is normal: at least 2⁻¹⁴ on both sides."""
    w_RC = 30 * normal_rows()
    factor = 2.0**exponent
    one, other = QUANTIZERS[name](w_RC, None), QUANTIZERS[name](factor * w_RC, None)
    assert one.scale_R.min() * min(factor, 1.0) >= SMALLEST_NORMAL_HALF
    assert torch.equal(one.codes_RC, other.codes_RC)
    assert torch.equal(factor * one.scale_R.float(), other.scale_R.float())


@every_quantizer
@settings(max_examples=50)
@given(any_matrix)
def test_the_sign_passes_through(name, w_RC):
    one, other = QUANTIZERS[name](w_RC, None), QUANTIZERS[name](-w_RC, None)
    assert torch.equal(one.codes_RC, -other.codes_RC)
    assert torch.equal(one.scale_R, other.scale_R)


@every_quantizer
def test_a_matrix_that_is_already_quantized_comes_back_exactly(name):
    """Where its rows use the whole range and their scale is a float16."""
    levels = LEVELS[name]
    codes = torch.randint(-levels, levels + 1, (8, 64), generator=torch.Generator().manual_seed(1))
    codes[:, :2] = torch.tensor([levels, -levels])
    w_RC = codes.float() * torch.logspace(-3, 0, 8).half().float()[:, None]
    q = QUANTIZERS[name](w_RC, None)
    assert torch.equal(dequantize(q.codes_RC, q.scale_R), w_RC)


@every_quantizer
@pytest.mark.parametrize("floor", [1 / 127, 1 / 31, 0.25])
def test_rows_at_the_floor_are_counted(name, floor):
    """Exactly those whose clip over levels is below it; none without a floor.

    Not claimed for a clip within the reach of a percentile of the floor: rows are far from it.
    """
    largest = torch.tensor([0.1, 0.5, 2.0, 10.0]) * floor * LEVELS[name]
    w_RC = torch.linspace(-1, 1, 65)[None] * largest[:, None]
    q = check_bound(name, w_RC, floor)
    assert q.floored_rows == 2
    assert torch.equal(q.scale_R[:2], torch.full((2,), floor).half())
    assert (q.scale_R[2:].float() > floor).all()
    assert QUANTIZERS[name](w_RC, None).floored_rows == 0


@settings(max_examples=50)
@given(any_matrix)
def test_int6_is_never_worse_than_without_clipping(w_RC):
    """In the mean squared error that it chooses by, a float32 mean."""

    def error(q):
        return float((w_RC - dequantize(q.codes_RC, q.scale_R)).square().mean())

    unclipped = encode(w_RC, w_RC.abs().amax(dim=1), LEVELS["int6_row"], None)
    assert error(QUANTIZERS["int6_row"](w_RC, None)) <= error(unclipped)


def test_int6_clips_where_that_is_better():
    """2,000 values within 1 and one of 2: a step a third finer for all outweighs the one."""
    w_RC = torch.linspace(-1, 1, 3999)[None].repeat(2, 1)
    w_RC[:, 0] = 1.3
    q = check_bound("int6_row", w_RC)
    assert (q.scale_R.float() * 31 < 1.2).all()


def test_int8_is_finer_than_int6():
    w_RC = normal_rows()
    errors = [
        (w_RC - dequantize(q.codes_RC, q.scale_R)).square().mean()
        for q in (QUANTIZERS[name](w_RC, None) for name in ("int8_row", "int6_row"))
    ]
    # Noise of a uniform error is scale²/12, and the scales are as 31 to 127: 16.8 in squares.
    assert errors[0] < errors[1] / 10


@settings(max_examples=50)
@given(any_matrix, st.floats(0, 1))
def test_a_quantile_is_numpys(w_RC, q):
    """Tolerance: an interpolation of two neighbours at a position in float32."""
    expected = np.quantile(w_RC.abs().numpy().astype(np.float64), q, axis=1)
    found = row_quantile(sorted_magnitudes(w_RC), q).double().numpy()
    np.testing.assert_allclose(found, expected, rtol=4 * EPS, atol=8 * 16 * EPS)
