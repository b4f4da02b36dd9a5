"""Every activation of the table is the function, and has the derivative, that its name promises.

x_BF are pre-activations, B rows of F channels. EPS is half a unit in the last place of a float32 of
order one. Parametrised over the table, so that registering is being tested.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from tests.support.reference import BETA, reference_activations, reference_logits
from tests.support.tiny import (
    RANK_0,
    activation_cases,
    busy_model,
    default_params,
    random_tokens,
    tiny_model,
    tiny_recipe,
)
from trainer.activations import (
    ACTIVATIONS,
    activation_label,
    build_activation,
    check_activation,
    neg_beta,
    with_defaults,
)
from trainer.config.config_errors import ConfigError
from trainer.optim.optimizers import Optimizers

EPS = 2.0**-24
CHANNELS = 8
CASES = activation_cases()
DTYPES = (torch.float32, torch.bfloat16)


def cases_of(name):
    """The activation with several values of its parameters."""
    return [case for case in CASES if case[0] == name]


every_name = pytest.mark.parametrize("name", ACTIVATIONS)


def build(case, dtype=torch.float32, seed=None):
    """The activation; with ``seed``, its learned parameters anywhere, negative ones among them."""
    module = build_activation(*case, CHANNELS).to(dtype)
    if seed is not None:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return module


def inputs(dtype=torch.float32, rows=64, seed=0):
    """Normal values over six orders of magnitude, both signs, and both zeros."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, CHANNELS, generator=draw, dtype=dtype)
    x *= 10.0 ** torch.randint(-3, 4, x.shape, generator=draw)
    x[0, :2] = torch.tensor([0.0, -0.0])
    return x


def reference(case, module, x_BF):
    """f and f' of every number, from the parameters given and learned."""
    learned = {name: p.detach() for name, p in module.named_parameters()}
    return reference_activations(case[0], x_BF, case[1], learned)


def assert_within(found, expected, tolerance):
    error = (found.double() - expected).abs()
    assert (error <= tolerance).all(), float((error / tolerance).nan_to_num().max())


def forward_and_gradient(module, x, upstream=1.0):
    x = x.detach().clone().requires_grad_()
    y = module(x)
    y.backward(torch.full_like(y, upstream))
    return y.detach(), x.grad


def bits(tensor):
    return tensor.view({4: torch.int32, 2: torch.int16}[tensor.element_size()])


def assert_same_bits(one, other, upstream=1.0):
    """Values and gradients of two activations."""
    for a, b in zip(
        forward_and_gradient(build(one), inputs(), upstream),
        forward_and_gradient(build(other), inputs(), upstream),
        strict=True,
    ):
        assert torch.equal(bits(a), bits(b))


# -- the function and its derivative


@every_name
def test_function_and_derivative_are_those_of_a_reference_in_python(name):
    """Tolerance: β and its two products with x are 4 roundings, relative, where a slope is squared
    first; the factor 2 is exact. Outside the family a term of order one, 1 + erf or 1 + e⁻ˣ, is
    rounded beside x; of the derivative, beside a tail that is below EPS from |x| = 17 on."""
    for case in cases_of(name):
        module, x_BF = build(case, seed=1), inputs()
        expected, derivative = reference(case, module, x_BF)
        size = x_BF.double().abs()
        beside, beside_it = (0.0, 0.0) if name in BETA else (size, 1 + size.clamp(max=17.0))
        y, gradient = forward_and_gradient(module, x_BF)
        assert_within(y, expected, 4 * EPS * (expected.abs() + beside))
        assert_within(gradient, derivative, 4 * EPS * (derivative.abs() + beside_it))
        # Leading dimensions do not matter.
        assert torch.equal(module(x_BF.view(4, 4, 4, CHANNELS)).flatten(0, 2), y)


@every_name
def test_in_bfloat16_the_function_is_within_its_rounding_and_autocast_keeps_its_type(name):
    """Tolerance: computed in float32, as above, and rounded once to 8 bits. Where there is a β, the
    value and the derivative are those of float32 in every bit: β rounded to bfloat16 would be off
    by up to 2⁻⁹, by another amount for each slope."""
    x = inputs(torch.bfloat16)
    for case in cases_of(name):
        module = build(case, seed=1)
        expected, _ = reference(case, module, x)
        beside = 0.0 if name in BETA else x.double().abs()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, gradient = forward_and_gradient(module, x)
        assert y.dtype is torch.bfloat16
        assert_within(y, expected, 4 * (2.0**-8 * expected.abs() + EPS * beside))
        if name in BETA:
            wide = forward_and_gradient(module, x.float())
            assert torch.equal(y, wide[0].bfloat16())
            assert torch.equal(gradient, wide[1].bfloat16())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", BETA)
def test_what_a_compiler_is_given_is_the_same_function(name, dtype):
    """As on CUDA. Tolerance: the output is the same in every bit; two products in another order are
    one float32 rounding apart, which may turn one rounding to bfloat16; gradients of β are sums of
    64 rows."""
    module, x = build((name, default_params(name)), seed=1), inputs().to(dtype)
    torch._dynamo.reset()
    traced = torch.compile(module, backend="eager", fullgraph=True)
    results = []
    for compute in (module, traced):
        y, gradient = forward_and_gradient(compute, x, 0.7)
        results.append((y, gradient, [p.grad for p in module.parameters()]))
        module.zero_grad()
    (y, gradient, to_beta), (traced_y, traced_gradient, traced_to_beta) = results
    assert torch.equal(bits(y), bits(traced_y))
    one_rounding = 2 * torch.finfo(dtype).eps * gradient.double().abs()
    assert_within(traced_gradient, gradient.double(), one_rounding)
    for found, expected in zip(traced_to_beta, to_beta, strict=True):
        torch.testing.assert_close(found, expected, rtol=64 * EPS, atol=0.0)


@every_name
def test_in_the_model_every_activation_is_its_reference(name):
    """Tolerance: that of the logits in test_model.py, for two layers and a soft-cap of 30."""
    params = default_params(name)
    model, tokens = busy_model(activation=name, params=params), random_tokens(1, 12)
    with torch.no_grad():
        found = model.head(model.body(tokens))[0]
    expected = reference_logits(model, tokens[0].tolist(), name, params)
    torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=2 * 64 * EPS * 30)


@every_name
def test_the_tables_beta_is_the_one_that_is_computed_with(name):
    """Tolerance: −1 is squared without rounding, so only β itself is rounded."""
    for case in cases_of(name):
        assert hasattr(build(case), "beta") == (name in BETA)
        if (beta := neg_beta(*case)) is not None:
            y = build(case)(torch.full((1, CHANNELS), -1.0))
            torch.testing.assert_close(y, torch.full_like(y, beta), rtol=EPS, atol=0.0)


@every_name
def test_every_gradient_is_the_limit_of_differences(name):
    """In float64, of the inputs and of what is learned; gradcheck's own tolerance."""
    module = build((name, default_params(name)), torch.float64, seed=2)
    learned = {name: p.detach().requires_grad_() for name, p in module.named_parameters()}
    x = torch.randn(5, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def function(x, *values):
        return functional_call(module, dict(zip(learned, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), *learned.values()))


@every_name
def test_an_input_without_a_gradient_is_served_too(name):
    """As where the layer below is frozen: what is learned gets its gradient all the same."""
    module = build((name, default_params(name)), seed=1)
    y = module(inputs())
    assert y.requires_grad == any(True for _ in module.parameters())
    if y.requires_grad:
        y.sum().backward()
        assert all(p.grad is not None for p in module.parameters())


def magnitudes(dtype, *numbers):
    """Of both signs, in every channel."""
    column = torch.tensor(numbers, dtype=dtype)
    return torch.cat([column, -column])[:, None].expand(-1, CHANNELS)


@every_name
def test_no_finite_input_gives_nan(name):
    """Nor does its gradient, though x² overflows from 2e19 on. Not claimed for infinite inputs, nor
    where β·x is: there a β above one meets a gradient of zero as 0·∞."""
    for case in cases_of(name):
        for dtype in DTYPES:
            module, info = build(case), torch.finfo(dtype)
            largest_beta = module.beta.abs().max().item() if name in BETA else 1.0
            greatest = info.max / max(1.0, largest_beta)
            x = magnitudes(dtype, 0.0, info.tiny, 1e-20, 1.0, 1e19, 1e30, greatest)
            for upstream in (0.0, 1.0, -1.0):
                module.zero_grad()
                y, gradient = forward_and_gradient(module, x, upstream)
                assert y.dtype == gradient.dtype == dtype
                assert not y.isnan().any()
                assert not gradient.isnan().any()
                assert not any(p.grad.isnan().any() for p in module.parameters())


@every_name
def test_what_is_finite_is_computed_as_finite_and_zero_as_zero(name):
    """Function and derivative alike; what is beyond the greatest number is infinite. Not claimed of
    subnormal inputs, nor above half the greatest number, where torch's GELU is infinite too soon:
    it halves 2x. Both zeros have the derivative of the negative side; that of xIELU is a difference
    of two, each rounded."""
    for case in cases_of(name):
        for dtype in DTYPES:
            module, info = build(case, seed=1), torch.finfo(dtype)
            x = magnitudes(dtype, 0.0, info.tiny, 1e-20, 1.0, 1e10, 1e30, info.max / 4)
            results = forward_and_gradient(module, x)
            for found, expected in zip(results, reference(case, module, x), strict=True):
                assert torch.equal(found.isfinite(), expected.abs() <= info.max)
            zeros = torch.tensor([[0.0], [-0.0]], dtype=dtype).expand(2, CHANNELS)
            y, gradient = forward_and_gradient(module, zeros)
            assert not y.any()
            derivative = reference(case, module, zeros)[1].to(dtype).double()
            assert_within(gradient, derivative, 2 * EPS * derivative.abs())


# -- members of the family that are equal


def test_members_of_the_family_that_are_one_function_are_so_in_every_bit():
    half = ("leaky_relu2", {"slope": 0.5})
    for upstream in (1.0, -0.3):
        assert_same_bits(("relu2", {}), ("leaky_relu2", {"slope": 0.0}), upstream)
        for case in (
            ("asqu", {}),
            ("asqu", {"init": 0.25}),
            ("prelu2", {"init": 0.5}),
            ("rrelu2", {"low": 0.5, "high": 0.5}),
            ("rrelu2", {"low": 0.25, "high": 0.75}),
        ):
            assert_same_bits(case, half, upstream)
    x = inputs()
    assert torch.equal(build(("leaky_relu2", {"slope": 1.0}))(x), x * x)


# -- what is learned


def test_what_is_learned_begins_at_init():
    for case, parameter, value, numel in (
        (("asqu", {}), "beta", 0.25, CHANNELS),
        (("asqu", {"init": 0.0}), "beta", 0.0, CHANNELS),
        (("asqu", {"init": -0.5}), "beta", -0.5, CHANNELS),
        (("prelu2", {}), "slope", 0.25, 1),
        (("prelu2", {"init": 0.5}), "slope", 0.5, 1),
    ):
        learned = dict(build(case).named_parameters())
        assert learned.keys() == {parameter}
        assert learned[parameter].tolist() == [value] * numel


def test_both_alphas_of_xielu_begin_at_eight_tenths():
    """α_n − ½ is what is learned of the second. Tolerance: log, expm1 and softplus round."""
    module = build(("xielu", {}))
    alphas = [F.softplus(module.a_p).item(), 0.5 + F.softplus(module.a_n).item()]
    assert alphas == pytest.approx([0.8, 0.8], rel=8 * EPS)
    assert module(torch.tensor([[1.0]])).item() == pytest.approx(0.8 + 0.5, rel=8 * EPS)
    assert module(torch.tensor([[-1.0]])).item() == pytest.approx(0.8 / math.e - 0.5, rel=8 * EPS)


# -- what an activation may not touch


@every_name
def test_one_seed_gives_every_activation_the_same_other_weights(name):
    reference = dict(tiny_model(activation="relu2", params={}).named_parameters())
    model = tiny_model(activation=name, params=default_params(name))
    others = {n: p for n, p in model.named_parameters() if not n.startswith("activations.")}
    assert others.keys() == reference.keys()
    assert all(torch.equal(others[name], reference[name]) for name in others)


def test_another_seed_gives_other_weights():
    one, other = tiny_model(seed=1), tiny_model(seed=2)
    assert not torch.equal(one.embed, other.embed)
    assert not torch.equal(one.qo_bank, other.qo_bank)


@every_name
def test_what_is_learned_has_its_own_rate_and_no_decay(name):
    """A zero gradient moves what decays and nothing else; a gradient of one moves β by the rate.

    Tolerance: Adam's first step is lr · g / (|g| + 1e-8), and the subtraction rounds β once.
    """
    recipe = tiny_recipe({"optim.activation_lr": 0.007, "optim.weight_decay": 0.5})
    model = tiny_model(activation=name, params=default_params(name))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    learned = {n for n in before if n.startswith("activations.")}
    optimizers = Optimizers(model, recipe.optim, RANK_0)
    for gradient in (0.0, 1.0):
        for n, p in model.named_parameters():
            p.grad = torch.full_like(p, gradient if n in learned else 0.0)
        optimizers.step(0, 1.0)
        for n, p in model.named_parameters():
            if n in learned and gradient == 0.0:
                assert torch.equal(p, before[n])
            elif n not in learned and before[n].any() and gradient == 0.0:
                assert not torch.equal(p, before[n])
    for n, p in model.named_parameters():
        if n in learned:
            # The second of Adam's steps: bias-corrected moments 0.1/0.19 and 0.05/0.0975 of one.
            step = 0.007 * (0.1 / 0.19) / math.sqrt(0.05 / 0.0975)
            torch.testing.assert_close(before[n] - p, torch.full_like(p, step), rtol=1e-5, atol=EPS)


def test_a_beta_that_is_fixed_is_no_parameter_and_travels_in_no_artifact():
    module = build(("leaky_relu2", {"slope": 0.3}))
    assert not list(module.parameters())
    assert not module.state_dict()


# -- what is typed


@every_name
def test_what_is_within_its_range_is_accepted_and_what_has_a_default_may_be_omitted(name):
    entry = ACTIVATIONS[name]
    for _, params in cases_of(name):
        assert check_activation(name, params) is entry
        assert with_defaults(name, params).keys() == entry.params.keys()
        assert with_defaults(name, params).items() >= params.items()
    assert check_activation(name, with_defaults(name, default_params(name))) is entry


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("relu22", {}, r"'relu22' is not known\. Did you mean 'relu2'\? Known: relu2, leaky_relu2"),
        ("relu2", {"slope": 0.5}, "relu2 was given slope = 0.5; relu2 takes no parameter"),
        ("asqu", {"slope": 0.5}, "asqu was given slope = 0.5; asqu takes init"),
        ("asqu", {"init": -4.5}, "init = -4.5 is outside its range, -4 to 4"),
        ("prelu2", {"init": 0.0}, r"init = 0 is outside its range, 0\.01 to 2"),
        ("relu", {"slope": 0.5}, "relu takes no parameter"),
        ("leaky_relu", {}, "needs slope; give for example slope = 0.5"),
        ("rrelu2", {"slope": 0.5}, "rrelu2 takes low, high"),
        ("rrelu2", {"low": 0.6, "high": 0.5}, r"low = 0\.6 is above high = 0\.5; give low ≤ high"),
        ("rrelu2", {"low": 0.5}, r"low = 0\.5 is above high = 0\.333333 \(its default\); give low"),
        ("rrelu2", {"high": 0.1}, r"low = 0\.125 \(its default\) is above high = 0\.1; give low"),
        ("leaky_relu2", {"slop": 0.5}, "given slop = 0.5; leaky_relu2 takes slope"),
        ("leaky_relu2", {}, "needs slope; give for example slope = 0.5"),
        ("leaky_relu2", {"slope": 1.5}, "slope = 1.5 is outside its range, 0 to 1"),
        ("leaky_relu2", {"slope": -0.1}, "slope = -0.1 is outside its range"),
        ("leaky_relu2", {"slope": [0.3, 0.5]}, r"slope = \[0.3, 0.5\]: give one number"),
        ("leaky_relu2_layers", {"slopes": 0.3}, "slopes = 0.3: give a list of numbers, one for"),
        ("leaky_relu2_layers", {"slopes": []}, r"slopes = \[\]: give a list of numbers, one for"),
        ("leaky_relu2_layers", {"slopes": [0.3, 1.5]}, "slopes = 1.5 is outside its range, 0 to 1"),
        ("leaky_relu2_layers", {"slope": 0.3}, "slope = 0.3; leaky_relu2_layers takes slopes"),
        ("leaky_relu2_layers", {}, r"needs slopes; give for example slopes = \[0.3, 0.5\], with"),
        ("leaky_relu2", {"slope": float("nan")}, "slope = nan is outside its range"),
        ("leaky_relu2", {"slope": float("inf")}, "slope = inf is outside its range"),
    ],
)
def test_what_an_activation_does_not_take_is_refused(name, params, message):
    with pytest.raises(ConfigError, match=message):
        check_activation(name, params)


def test_a_label_names_what_was_given_in_the_fewest_digits_and_nothing_that_was_omitted():
    for name, params, text in (
        ("leaky_relu2", {"slope": 0.1 + 0.2}, "leaky_relu2-s0.3"),
        ("leaky_relu2", {"slope": -0.0}, "leaky_relu2-s0"),
        ("asqu", {}, "asqu"),
        ("asqu", {"init": 0.0}, "asqu-init0"),
        ("asqu", {"init": -0.5}, "asqu-init-0.5"),
        ("rrelu2", {"low": 0.1, "high": 0.5}, "rrelu2-high0.5-low0.1"),
        ("leaky_relu", {"slope": 0.1}, "leaky_relu-s0.1"),
    ):
        assert activation_label(name, params) == text
    labels = [activation_label(*case) for case in CASES]
    assert len(set(labels)) == len(labels)
