"""Every activation of the table is the function, and has the derivative, that its name promises.

x_BF are pre-activations, B rows of F channels. EPS is half a unit in the last place of a float32 of
order one. Parametrised over the table, so that registering is being tested.
"""

import math

import pytest
import torch
from torch.func import functional_call

from tests.support.tiny import activation_cases, default_params, tiny_model, tiny_recipe
from trainer.activations import (
    ACTIVATIONS,
    activation_label,
    build_activation,
    check_activation,
    neg_beta,
)
from trainer.optim import Optimizers, parameters_by_kind
from trainer.strict import ConfigError

EPS = 2.0**-24
CHANNELS = 8
CASES = activation_cases()
# Those with a β, fixed or learned. An activation outside of the family is tested by all that
# follows but for the formula, which it has to bring itself.
FAMILY = [
    (name, params)
    for name, params in CASES
    if neg_beta(name, params) is not None
    or hasattr(build_activation(name, params, CHANNELS), "beta")
]


def label(case):
    return activation_label(*case) if isinstance(case, tuple) else None


every = pytest.mark.parametrize("case", CASES, ids=label)
every_of_the_family = pytest.mark.parametrize("case", FAMILY, ids=label)
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


def betas(module):
    """β of each channel as Python numbers."""
    return module.beta.detach().double().expand(CHANNELS).tolist()


def family(x, beta):
    return x * x if x > 0 else beta * x * x


def family_slope(x, beta):
    return 2 * x if x > 0 else 2 * beta * x


def forward_and_gradient(module, x, upstream=1.0):
    x = x.detach().clone().requires_grad_()
    y = module(x)
    y.backward(torch.full_like(y, upstream))
    return y.detach(), x.grad


def bits(tensor):
    return tensor.view({4: torch.int32, 2: torch.int16}[tensor.element_size()])


# -- the function and its derivative


@every_of_the_family
def test_the_function_is_the_formula_of_its_family(case):
    """Tolerance: β rounded to float32 once, then two products: 3 roundings, relative."""
    module, x_BF = build(case, seed=1), inputs()
    expected = torch.tensor(
        [[family(x, b) for x, b in zip(row, betas(module), strict=True)] for row in x_BF.tolist()],
        dtype=torch.float64,
    )
    torch.testing.assert_close(module(x_BF).double(), expected, rtol=4 * EPS, atol=0.0)


@every_of_the_family
def test_the_derivative_is_2x_above_zero_and_2_beta_x_below(case):
    """Tolerance: as for the function; the factor 2 is exact."""
    module, x_BF = build(case, seed=1), inputs()
    _, gradient = forward_and_gradient(module, x_BF)
    expected = torch.tensor(
        [
            [family_slope(x, b) for x, b in zip(row, betas(module), strict=True)]
            for row in x_BF.tolist()
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(gradient.double(), expected, rtol=4 * EPS, atol=0.0)


@every
def test_the_tables_beta_is_the_one_that_is_computed_with(case):
    """Tolerance: −1 is squared without rounding, so only β itself is rounded."""
    beta = neg_beta(*case)
    if beta is not None:
        y = build(case)(torch.full((1, CHANNELS), -1.0))
        torch.testing.assert_close(y, torch.full_like(y, beta), rtol=EPS, atol=0.0)


@every
def test_every_gradient_is_the_limit_of_differences(case):
    """In float64, of the inputs and of what is learned; gradcheck's own tolerance."""
    module = build(case, torch.float64, seed=2)
    learned = {name: p.detach().requires_grad_() for name, p in module.named_parameters()}
    x = torch.randn(5, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def function(x, *values):
        return functional_call(module, dict(zip(learned, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), *learned.values()))


@every
def test_leading_dimensions_do_not_matter(case):
    module, x = build(case, seed=1), inputs(rows=24)
    assert torch.equal(module(x.view(2, 3, 4, CHANNELS)).flatten(0, 2), module(x))


@every
def test_an_input_without_a_gradient_is_served_too(case):
    """As where the layer below is frozen: what is learned gets its gradient all the same."""
    module, x = build(case, seed=1), inputs()
    assert not x.requires_grad
    y = module(x)
    assert y.requires_grad == any(True for _ in module.parameters())
    if y.requires_grad:
        y.sum().backward()
        assert all(p.grad is not None for p in module.parameters())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("upstream", [0.0, 1.0, -1.0])
def test_no_finite_input_gives_nan(case, dtype, upstream):
    """Nor does its gradient, though x² overflows from 2e19 on. Not claimed for infinite inputs."""
    module = build(case)
    info = torch.finfo(dtype)
    magnitudes = torch.tensor([0.0, info.tiny, 1e-20, 1.0, 1e19, 1e30, info.max], dtype=dtype)
    x = torch.cat([magnitudes, -magnitudes])[:, None].expand(-1, CHANNELS)
    y, gradient = forward_and_gradient(module, x, upstream)
    assert y.dtype == gradient.dtype == dtype
    assert not y.isnan().any()
    assert not gradient.isnan().any()
    assert not any(p.grad.isnan().any() for p in module.parameters())


@every
def test_in_bfloat16_the_function_is_within_its_rounding(case):
    """Tolerance: β, β·x and its product with x, each rounded to 8 bits: (1 + 2⁻⁸)³ − 1."""
    module, x = build(case, seed=1), inputs().bfloat16()
    exact = module.double()(x.double())
    rounded = build(case, seed=1)(x).double()
    torch.testing.assert_close(rounded, exact, rtol=4 * 2.0**-8, atol=0.0)


# -- members of the family that are equal


def test_relu2_and_leaky_relu2_of_slope_zero_are_the_same_bits():
    x = inputs()
    for upstream in (1.0, -0.3):
        one = forward_and_gradient(build(("relu2", {})), x, upstream)
        other = forward_and_gradient(build(("leaky_relu2", {"slope": 0.0})), x, upstream)
        for a, b in zip(one, other, strict=True):
            assert torch.equal(bits(a), bits(b))


def test_asqu_begins_as_leaky_relu2_of_slope_one_half_in_every_bit():
    x = inputs()
    one = forward_and_gradient(build(("asqu", {})), x)
    other = forward_and_gradient(build(("leaky_relu2", {"slope": 0.5})), x)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(bits(a), bits(b))


def test_slope_one_is_the_square():
    x = inputs()
    assert torch.equal(build(("leaky_relu2", {"slope": 1.0}))(x), x * x)


# -- what an activation may not touch


@every
def test_one_seed_gives_every_activation_the_same_other_weights(case):
    reference = dict(tiny_model(activation="relu2", params={}).named_parameters())
    model = tiny_model(activation=case[0], params=case[1])
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
    optimizers = Optimizers(model, recipe.optim)
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


@every_name
def test_what_is_learned_is_of_the_kind_activation(name):
    model = tiny_model(activation=name, params=default_params(name))
    expected = [p for module in model.activations for p in module.parameters()]
    found = parameters_by_kind(model)["activation"]
    assert [id(p) for p in found] == [id(p) for p in expected]


def test_a_beta_that_is_fixed_is_no_parameter_and_travels_in_no_artifact():
    module = build(("leaky_relu2", {"slope": 0.3}))
    assert not list(module.parameters())
    assert not module.state_dict()


# -- what is typed


@every_name
def test_the_middle_of_every_range_is_accepted(name):
    assert check_activation(name, default_params(name)) is ACTIVATIONS[name]


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("relu3", {}, r"'relu3' is not known\. Did you mean 'relu2'\? Known: relu2, leaky_relu2"),
        ("relu2", {"slope": 0.5}, "relu2 was given slope = 0.5; relu2 takes no parameter"),
        ("asqu", {"slope": 0.5}, "asqu was given slope"),
        ("leaky_relu2", {"slop": 0.5}, "given slop = 0.5; leaky_relu2 takes slope"),
        ("leaky_relu2", {}, "needs slope; give for example slope = 0.5"),
        ("leaky_relu2", {"slope": 1.5}, "slope = 1.5 is outside its range, 0 to 1"),
        ("leaky_relu2", {"slope": -0.1}, "slope = -0.1 is outside its range"),
        ("leaky_relu2", {"slope": float("nan")}, "slope = nan is outside its range"),
        ("leaky_relu2", {"slope": float("inf")}, "slope = inf is outside its range"),
    ],
)
def test_what_an_activation_does_not_take_is_refused(name, params, message):
    with pytest.raises(ConfigError, match=message):
        check_activation(name, params)


@pytest.mark.parametrize(("value", "text"), [(0.1 + 0.2, "s0.3"), (0.5, "s0.5"), (-0.0, "s0")])
def test_a_label_is_written_in_the_fewest_digits(value, text):
    assert activation_label("leaky_relu2", {"slope": value}) == f"leaky_relu2-{text}"
