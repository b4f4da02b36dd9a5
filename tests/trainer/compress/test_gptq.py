"""GPTQ codes make up for each other's error as an independent elimination says, and as bounded.

R rows, C columns. In float64 the arithmetic under test and that of the reference differ by about
1e-13 steps, so codes are compared exactly: a weight that near to a tie is not among the drawn.
"""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.compress import dequantize, gptq
from trainer.compress.int6_row import int6_row
from trainer.config import Gptq, Quantization

PERCENTILES = (0.9, 0.99, 0.999, 1.0)  # that differ in rows of a few values
FLOOR = 0.125


def config_of(percentiles=PERCENTILES, scale_floor=None, **options):
    return Quantization(
        matrices="gptq",
        embeddings="int8_row",
        passthrough_numel=0,
        compressor="lzma",
        preset=0,
        percentiles=percentiles,
        scale_floor=scale_floor,
        gptq=Gptq(**options),
    )


def problem(rows=6, columns=20, seed=0, dtype=torch.float64):
    """Normal weights, and the Hessian of inputs that have much in common."""
    draw = torch.Generator().manual_seed(seed)
    w_RC = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
    mixing = torch.randn(columns, columns, generator=draw, dtype=torch.float64)
    x = torch.randn(200, columns, generator=draw, dtype=torch.float64) @ mixing
    return w_RC.to(dtype), (x.T @ x / 200).to(dtype)


def miss(w_RC, q):
    return w_RC.double() - dequantize(q.codes_RC, q.scale_R).double()


def weighted_errors(w_RC, q, hessian_CC):
    """(w − w')·H·(w − w')ᵀ of every row."""
    d = miss(w_RC, q)
    return ((d @ hessian_CC.double()) * d).sum(dim=1)


def damped(hessian_CC, damping=0.01):
    mean = hessian_CC.diagonal().mean()
    return hessian_CC + damping * mean * torch.eye(len(hessian_CC), dtype=hessian_CC.dtype)


def reference(w_RC, hessian_CC, percentiles, scale_floor, damping=0.01):
    """One row and one column at a time, from the inverse Hessian and no factor of it: what a code
    misses is spread over the columns to come by the inverse, which then forgets that column."""
    w, h = w_RC.tolist(), damped(hessian_CC, damping)
    size = len(h)
    order = sorted(range(size), key=lambda c: -float(h[c, c]))
    best = None
    for p in percentiles:
        scales = []
        for row in w:
            clip = float(np.quantile(np.abs(row), p))
            scales.append(float(np.float16(max(clip / 31, scale_floor or 2.0**-24))))
        codes = [[0] * size for _ in w]
        rest = [[row[c] for c in order] for row in w]
        inverse = torch.linalg.inv(h[order][:, order]).tolist()
        for j in range(size):
            for r, row in enumerate(rest):
                code = max(-31, min(31, round(row[j] / scales[r])))
                codes[r][order[j]] = code
                error = (row[j] - code * scales[r]) / inverse[j][j]
                for k in range(j + 1, size):
                    row[k] -= error * inverse[j][k]
            pivot = list(inverse[j])
            for i in range(j + 1, size):
                share = inverse[i][j] / pivot[j]
                for k in range(size):
                    inverse[i][k] -= share * pivot[k]
        error = sum(
            (w[r][c] - codes[r][c] * scales[r]) ** 2 for r in range(len(w)) for c in range(size)
        )
        if best is None or error < best[0]:
            best = error, codes, scales
    return best[1:]


# -- what it computes


@pytest.mark.parametrize("scale_floor", [None, FLOOR])
def test_the_codes_are_those_of_an_elimination_column_by_column(scale_floor):
    for seed in range(3):
        w_RC, hessian_CC = problem(seed=seed)
        codes, scales = reference(w_RC, hessian_CC, PERCENTILES, scale_floor)
        for block in (1, 3, 7, 20, 128):
            q = gptq(w_RC, config_of(scale_floor=scale_floor, block=block), hessian_CC)
            assert q.compensated
            assert q.codes_RC.tolist() == codes
            assert q.scale_R.tolist() == scales


def test_one_percentile_alone_and_another_damping():
    w_RC, hessian_CC = problem(seed=5)
    for percentile, damping in itertools.product(PERCENTILES, (0.0, 0.5)):
        q = gptq(w_RC, config_of((percentile,), damping=damping), hessian_CC)
        codes, scales = reference(w_RC, hessian_CC, (percentile,), None, damping)
        assert q.codes_RC.tolist() == codes
        assert q.scale_R.tolist() == scales


def test_no_percentile_is_always_the_best():
    """Or the tests above would not see which one is chosen."""
    chosen = set()
    for seed in range(10):
        w_RC, hessian_CC = problem(seed=seed)
        q = gptq(w_RC, config_of(), hessian_CC)
        alone = [gptq(w_RC, config_of((p,)), hessian_CC) for p in PERCENTILES]
        chosen.add([torch.equal(q.codes_RC, each.codes_RC) for each in alone].index(True))
    assert len(chosen) > 1


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.floats(0.01, 100.0), st.sampled_from([None, FLOOR]))
def test_where_inputs_have_nothing_in_common_the_codes_are_those_of_int6(seed, size, scale_floor):
    """Any multiple of the identity, whose inverse has no entry to spread an error by."""
    w_RC = torch.randn(5, 17, generator=torch.Generator().manual_seed(seed))
    config = config_of(scale_floor=scale_floor)
    q, plain = gptq(w_RC, config, size * torch.eye(17)), int6_row(w_RC, config)
    assert torch.equal(q.codes_RC, plain.codes_RC)
    assert torch.equal(q.scale_R, plain.scale_R)
    assert q.floored_rows == plain.floored_rows


def test_two_inputs_that_are_one_get_codes_for_their_sum():
    """0.4 and 0.4 in steps of 1: alone each is nearest to 0, together they are nearest to 1."""
    w_RC, config = torch.tensor([[0.4, 0.4]]), config_of((1.0,), scale_floor=1.0)
    assert int6_row(w_RC, config).codes_RC.tolist() == [[0, 0]]
    assert gptq(w_RC, config, torch.ones(2, 2)).codes_RC.tolist() == [[0, 1]]


# -- what it promises


@pytest.mark.parametrize("scale_floor", [None, FLOOR])
def test_on_correlated_inputs_the_outputs_change_less_than_with_int6(scale_floor):
    """And the weights themselves change more. In float32, which real runs compute in."""
    config = config_of(scale_floor=scale_floor)
    for seed in range(5):
        w_RC, hessian_CC = problem(rows=32, columns=64, seed=seed, dtype=torch.float32)
        ours, plain = gptq(w_RC, config, hessian_CC), int6_row(w_RC, config)
        errors = [float(weighted_errors(w_RC, q, hessian_CC).sum()) for q in (ours, plain)]
        assert errors[0] < 0.5 * errors[1]
        assert miss(w_RC, ours).square().mean() > miss(w_RC, plain).square().mean()


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_the_outputs_is_within_its_bound(seed):
    """scale² / 4 · Σ U_jj⁻², where the floor keeps every code off the end of its range. U_jj⁻² is
    what is left of input j's square once those after it, of smaller squares, explain it."""
    w_RC, hessian_CC = problem(rows=32, columns=24, seed=seed)
    q = gptq(w_RC, config_of(scale_floor=0.5), hessian_CC)
    assert q.codes_RC.abs().max() < 31
    h = damped(hessian_CC)
    order = torch.argsort(h.diagonal(), descending=True)
    ordered = h[order][:, order]
    left = sum(1 / torch.linalg.inv(ordered[j:, j:])[0, 0] for j in range(len(h)))
    bound_R = q.scale_R.double().square() / 4 * left
    error_R = weighted_errors(w_RC, q, h)
    assert (error_R <= bound_R).all()
    assert (error_R.max() > 0.2 * bound_R).all()  # the mean is a third: uniform in ± half a step


@pytest.mark.parametrize("scale_floor", [None, FLOOR])
def test_scales_are_those_of_int6_at_one_percentile_whatever_the_hessian(scale_floor):
    w_RC, hessian_CC = problem(rows=16, columns=40)
    q = gptq(w_RC, config_of(scale_floor=scale_floor), hessian_CC)
    alone = [int6_row(w_RC, config_of((p,), scale_floor)) for p in PERCENTILES]
    matching = [each for each in alone if torch.equal(each.scale_R, q.scale_R)]
    assert matching
    assert q.floored_rows in {each.floored_rows for each in matching}
    assert q.scale_R.dtype == torch.float16
    assert q.codes_RC.dtype == torch.int8
    assert q.codes_RC.abs().max() <= 31


@settings(max_examples=50)
@given(st.permutations(range(20)))
def test_the_order_of_the_columns_does_not_matter(order):
    """Every bit, in float32: columns are put in one order before anything is computed."""
    w_RC, hessian_CC = problem(dtype=torch.float32)
    q = gptq(w_RC, config_of(), hessian_CC)
    other = gptq(w_RC[:, order], config_of(), hessian_CC[order][:, order])
    assert torch.equal(other.codes_RC, q.codes_RC[:, order])
    assert torch.equal(other.scale_R, q.scale_R)


HOPELESS = {
    "nothing seen": torch.zeros(20, 20),
    "negative": -torch.eye(20),
    "indefinite": torch.ones(20, 20) - 2 * torch.eye(20),
    "not a number": torch.full((20, 20), torch.nan),
    "infinite": torch.full((20, 20), torch.inf),
}


def test_a_hessian_without_an_inverse_leaves_the_codes_to_int6():
    w_RC, config = problem(dtype=torch.float32)[0], config_of()
    plain = int6_row(w_RC, config)
    for name, hessian_CC in HOPELESS.items():
        q = gptq(w_RC, config, hessian_CC)
        assert not q.compensated, name
        assert torch.equal(q.codes_RC, plain.codes_RC)
        assert torch.equal(q.scale_R, plain.scale_R)
