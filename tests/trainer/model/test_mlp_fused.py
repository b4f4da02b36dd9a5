"""The fused MLP is the function of the family, with every gradient; proven in the interpreter.

The reference is autograd through the formula in float64. Errors are norms of differences over norms
of what was expected. N tokens, D width, F hidden channels; tiles are 16 × 32 × 16 there.
"""

from dataclasses import replace

import pytest
import torch

from tests.support import fused
from tests.support.fused import Found, Given, given, reference

# N, D, F: a part of a tile in each dimension; whole tiles; one token and less than a tile.
ODD, EVEN = (37, 25, 75), (32, 32, 64)
SHAPES = [ODD, EVEN, (1, 7, 11)]
BFLOAT16 = 2.0**-9  # one rounding


def betas(hidden: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(9)
    mixed = torch.randn(hidden, generator=draw)
    mixed[::5] = 0.0
    return {
        "one": torch.tensor([0.25]),
        "zero": torch.tensor([0.0]),
        "negative": torch.tensor([-0.3]),
        "each channel's": mixed,
    }


CASES = [(ODD, "negative"), *((shape, "each channel's") for shape in SHAPES)]


def errors(found: Found, expected: Found) -> dict[str, float]:
    pairs = {name: (getattr(found, name), getattr(expected, name)) for name in vars(expected)}
    return {name: float((a.double() - b).norm() / b.norm()) for name, (a, b) in pairs.items()}


@pytest.mark.parametrize(("shape", "kind"), CASES, ids=str)
def test_in_float32_values_and_every_gradient_are_those_of_float64(interpreted, shape, kind):
    """Tolerance 1e-6: sums of up to 75 products err by about √75 · 2⁻²⁴ = 5e-7, and two follow on
    each other."""
    case = given(*shape, betas(shape[2])[kind])
    found = errors(interpreted(fused.fused, case), reference(case))
    assert max(found.values()) < 1e-6, found


@pytest.mark.parametrize(("shape", "kind"), CASES[:2], ids=str)
def test_in_bfloat16_each_value_is_rounded_where_it_is_stored_and_nowhere_else(
    interpreted, shape, kind
):
    """Against float64 on the same rounded inputs. Roundings between input and output, each of at
    most 2⁻⁹: of y those of h and y; of ∂x and ∂U those of z, ∂z and themselves; of ∂D twice that
    of z, which is squared, those of h and itself; of each term of ∂β twice that of z."""
    case = given(*shape, betas(shape[2])[kind]).to(torch.bfloat16)
    assert_rounded_where_stored(case, interpreted(fused.fused, case))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("shape", [ODD, (4099, 512, 1536)], ids=str)
@pytest.mark.parametrize("kind", betas(1))
def test_on_a_gpu_too(shape, kind):
    case = given(*shape, betas(shape[2])[kind]).to(torch.bfloat16)
    found = fused.fused(Given(**{name: t.cuda() for name, t in vars(case).items()}))
    assert_rounded_where_stored(case, Found(**{name: t.cpu() for name, t in vars(found).items()}))


def assert_rounded_where_stored(case: Given, result: Found) -> None:
    expected = reference(case)
    found = errors(result, expected)
    roundings = {"y": 2, "to_x": 3, "to_up": 3, "to_down": 4}
    assert all(found[name] < n * BFLOAT16 for name, n in roundings.items()), found
    z_NF = case.x_ND.double() @ case.up_FD.double().T
    terms_NF = (case.to_y_ND.double() @ case.down_DF.double()) * z_NF.clamp(max=0).square()
    bound = 2 * BFLOAT16 * terms_NF.abs().sum(0).sum_to_size(case.beta.shape)
    assert ((result.to_beta - expected.to_beta).abs() < bound).all()


def test_where_nothing_is_differentiated_the_output_is_the_same_in_every_bit(interpreted):
    """Whatever the strides of the input; and the gradient of β is the same in every bit again."""
    case = given(37, 25, 75, betas(75)["each channel's"])
    first, second = (interpreted(fused.fused, case) for _ in range(2))
    assert torch.equal(first.to_beta, second.to_beta)
    assert torch.equal(interpreted(fused.fused_without_gradients, case), first.y)
    strided = replace(case, x_ND=case.x_ND.repeat_interleave(2, dim=1)[:, ::2])
    assert not strided.x_ND.is_contiguous()
    assert torch.equal(interpreted(fused.fused_without_gradients, strided), first.y)


def test_a_fixed_beta_has_no_gradient_and_changes_no_bit_of_the_others(interpreted):
    case = given(37, 25, 75, betas(75)["one"])
    fixed, learned = (interpreted(fused.fused, case, learns) for learns in (False, True))
    assert fixed.to_beta is None
    for name in ("y", "to_x", "to_up", "to_down"):
        assert torch.equal(getattr(fixed, name), getattr(learned, name)), name


def test_one_beta_gets_the_sum_of_what_every_channel_would_get(interpreted):
    """Tolerance: 75 additions in float32."""
    one = given(37, 25, 75, torch.tensor([0.25]))
    each = given(37, 25, 75, torch.full((75,), 0.25))
    of_one, of_each = (interpreted(fused.fused, case).to_beta for case in (one, each))
    torch.testing.assert_close(of_one, of_each.sum(0, keepdim=True), rtol=75 * 2.0**-24, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_where_z_is_zero_all_that_flows_through_it_is_zero(interpreted, dtype):
    case = given(5, 7, 11, betas(11)["one"].expand(11).clone())
    case.up_FD[3] = 0.0
    found = interpreted(fused.fused, case.to(dtype))
    assert not found.to_up[3].any()
    assert not found.to_down[:, 3].any()
    assert found.to_beta[3] == 0
    assert found.to_up[4].any()


def test_a_beta_of_zero_gives_zero_where_the_square_overflows(interpreted):
    """And not 0 · ∞, which would be NaN."""
    case = given(5, 7, 11, torch.zeros(1))
    case.x_ND[:] = -1.0
    case.up_FD[:] = 1e25
    found = interpreted(fused.fused, case, False)
    assert not found.y.any()
    assert not found.to_x.any()


def test_every_operator_passes_torchs_own_check(interpreted):
    checked = interpreted(fused.check_operators, given(37, 25, 75, betas(75)["one"]))
    assert checked == ["fused_mlp", "activated", "gate", "gate_learned"]


@pytest.mark.parametrize(
    ("activation", "params", "form"),
    [
        ("leaky_relu2", {"slope": 0.5}, "fused"),
        ("prelu2", {}, "fused"),
        pytest.param("asqu", {}, "traced", marks=pytest.mark.slow),
    ],
)
def test_a_step_of_the_model_is_the_one_without_the_kernel(interpreted, activation, params, form):
    """Traced: in one graph, as compilation on a GPU traces it. Tolerance: two layers in float32."""
    nll, gradients = interpreted(fused.model_step, activation, params, form)
    expected_nll, expected = fused.model_step(activation, params, "plain")
    torch.testing.assert_close(nll, expected_nll, rtol=1e-5, atol=1e-5)
    assert len(gradients) == len(expected)
    for found, exact in zip(gradients, expected, strict=True):
        assert (found - exact).norm() <= 1e-5 * exact.norm() + 1e-9


def test_in_bfloat16_a_step_of_the_model_is_the_one_without_the_kernel(interpreted):
    """Tolerance: the kernel rounds h once and the expression twice, z before it; 2⁻⁸ relative in
    each of two layers, of an nll of order ten."""
    arguments = "leaky_relu2", {"slope": 0.5}
    nll, gradients = interpreted(fused.model_step, *arguments, "fused", torch.bfloat16)
    expected_nll, expected = fused.model_step(*arguments, "plain", torch.bfloat16)
    assert (nll - expected_nll).norm() <= 2 * 2.0**-8 * expected_nll.norm()
    assert [g.dtype for g in gradients] == [g.dtype for g in expected]
