"""Every activation of the table is the function, and has the derivative, that its name promises.

x_BF are pre-activations, B rows of F channels. EPS is half a unit in the last place of a float32 of
order one. Parametrised over the table, so that registering is being tested.
"""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
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
    StepDependent,
    activation_label,
    build_activation,
    check_activation,
    neg_beta,
    with_defaults,
)
from trainer.activations.rrelu2 import uniform
from trainer.config.config_errors import ConfigError
from trainer.optim.optimizers import Optimizers
from trainer.optim.parameter_kinds import parameters_by_kind

EPS = 2.0**-24
CHANNELS = 8
CASES = activation_cases()
RANDOM = [case for case in CASES if isinstance(build_activation(*case, CHANNELS), StepDependent)]


def label(case):
    return activation_label(*case) if isinstance(case, tuple) else None


every = pytest.mark.parametrize("case", CASES, ids=label)
every_random_one = pytest.mark.parametrize("case", RANDOM, ids=label)
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


# -- the function and its derivative


@every
def test_the_function_is_that_of_a_reference_in_python(case):
    """Tolerance: β and its two products with x are 4 roundings, relative, where a slope is squared
    first. Outside the family a term of order one, 1 + erf or 1 + e⁻ˣ, is rounded beside x."""
    module, x_BF = build(case, seed=1), inputs()
    expected, _ = reference(case, module, x_BF)
    beside = 0.0 if case[0] in BETA else x_BF.double().abs()
    assert_within(module(x_BF), expected, 4 * EPS * (expected.abs() + beside))


@every
def test_the_derivative_is_that_of_a_reference_in_python(case):
    """Tolerance: as for the function; the factor 2 is exact. Outside the family the derivative is
    of order one, and x stands in it beside a tail that is below EPS from |x| = 17 on."""
    module, x_BF = build(case, seed=1), inputs()
    _, expected = reference(case, module, x_BF)
    _, gradient = forward_and_gradient(module, x_BF)
    beside = 0.0 if case[0] in BETA else 1 + x_BF.double().abs().clamp(max=17.0)
    assert_within(gradient, expected, 4 * EPS * (expected.abs() + beside))


@every
def test_who_has_a_beta_goes_through_the_one_function_of_the_family(case):
    module = build(case)
    y = module(inputs().requires_grad_())
    assert hasattr(module, "beta") == (case[0] in BETA)
    assert (type(y.grad_fn).__name__ == "_SquaredBackward") == (case[0] in BETA)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BETA)
def test_what_a_compiler_is_given_is_the_same_function(name, dtype):
    """Tolerance: the output is the same in every bit; two products in another order are one float32
    rounding apart, which may turn one rounding to bfloat16; gradients of β are sums of 64 rows."""
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
    """Nor does its gradient, though x² overflows from 2e19 on. Not claimed for infinite inputs, nor
    where β·x is: there a β above one meets a gradient of zero as 0·∞."""
    module = build(case)
    info = torch.finfo(dtype)
    greatest = info.max / max(1.0, module.beta.abs().max().item() if case[0] in BETA else 1.0)
    magnitudes = torch.tensor([0.0, info.tiny, 1e-20, 1.0, 1e19, 1e30, greatest], dtype=dtype)
    x = torch.cat([magnitudes, -magnitudes])[:, None].expand(-1, CHANNELS)
    y, gradient = forward_and_gradient(module, x, upstream)
    assert y.dtype == gradient.dtype == dtype
    assert not y.isnan().any()
    assert not gradient.isnan().any()
    assert not any(p.grad.isnan().any() for p in module.parameters())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_finite_is_computed_as_finite(case, dtype):
    """Function and derivative alike; what is beyond the greatest number is infinite. Not claimed of
    subnormal inputs, nor above half the greatest number, where torch's GELU is infinite too soon:
    it halves 2x."""
    module, info = build(case, seed=1), torch.finfo(dtype)
    magnitudes = torch.tensor([0.0, info.tiny, 1e-20, 1.0, 1e10, 1e30, info.max / 4], dtype=dtype)
    x = torch.cat([magnitudes, -magnitudes])[:, None].expand(-1, CHANNELS)
    for found, expected in zip(
        forward_and_gradient(module, x), reference(case, module, x), strict=True
    ):
        assert torch.equal(found.isfinite(), expected.abs() <= info.max)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_both_zeros_are_mapped_to_zero_and_have_one_derivative(case, dtype):
    """That of the negative side, of which a parameter such as a slope of 0.1 is rounded once."""
    module, x = build(case, seed=1), torch.tensor([[0.0], [-0.0]], dtype=dtype).expand(2, CHANNELS)
    y, gradient = forward_and_gradient(module, x)
    _, expected = reference(case, module, x)
    assert not y.any()
    assert torch.equal(gradient[0], gradient[1])
    torch.testing.assert_close(gradient, expected.to(dtype), rtol=0.0, atol=0.0)


@every
def test_in_bfloat16_the_function_is_within_its_rounding(case):
    """Tolerance: β, β·x and its product with x, each rounded to 8 bits: (1 + 2⁻⁸)³ − 1. Outside the
    family it is computed in float32, as above, and rounded once."""
    module, x = build(case, seed=1), inputs().bfloat16()
    expected, _ = reference(case, module, x)
    beside = 0.0 if case[0] in BETA else x.double().abs()
    assert_within(module(x), expected, 4 * (2.0**-8 * expected.abs() + EPS * beside))


@every
def test_autocast_keeps_bfloat16(case):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert build(case)(inputs().bfloat16()).dtype == torch.bfloat16


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


@pytest.mark.parametrize(
    "case",
    [
        ("asqu", {"init": 0.25}),
        ("prelu2", {"init": 0.5}),
        ("rrelu2", {"low": 0.5, "high": 0.5}),
        ("rrelu2", {"low": 0.25, "high": 0.75}),
    ],
    ids=label,
)
def test_what_begins_at_slope_one_half_is_leaky_relu2_of_it_in_every_bit(case):
    one = forward_and_gradient(build(case), inputs())
    other = forward_and_gradient(build(("leaky_relu2", {"slope": 0.5})), inputs())
    for a, b in zip(one, other, strict=True):
        assert torch.equal(bits(a), bits(b))


# -- what is learned


@pytest.mark.parametrize(
    ("case", "parameter", "value", "numel"),
    [
        (("asqu", {}), "beta", 0.25, CHANNELS),
        (("asqu", {"init": 0.0}), "beta", 0.0, CHANNELS),
        (("asqu", {"init": -0.5}), "beta", -0.5, CHANNELS),
        (("prelu2", {}), "slope", 0.25, 1),
        (("prelu2", {"init": 0.5}), "slope", 0.5, 1),
    ],
    ids=str,
)
def test_what_is_learned_begins_at_init(case, parameter, value, numel):
    learned = dict(build(case).named_parameters())
    assert learned.keys() == {parameter}
    assert learned[parameter].tolist() == [value] * numel


def test_the_slope_of_prelu2_gets_2a_times_the_sum_of_squares_below_zero():
    """Tolerance: the terms are positive, so their sum loses no more than one EPS for each."""
    module, x_BF = build(("prelu2", {"init": 0.75})), inputs()
    module(x_BF).sum().backward()
    expected = 2 * 0.75 * sum(x * x for x in x_BF.flatten().tolist() if x <= 0)
    assert module.slope.grad.item() == pytest.approx(expected, rel=x_BF.numel() * EPS)
    assert module.beta.tolist() == [0.75**2]


# -- what is random in training


def beta_in(module, seed, step, layer):
    module.begin_step(seed, step, layer)
    return module.beta.item()


def test_rrelu2_alone_is_random():
    assert {name for name, _ in RANDOM} == {"rrelu2"}


@every_random_one
def test_beta_is_the_square_of_a_slope_between_low_and_high(case):
    """Tolerance: the slope is rounded in float64 and its square to float32."""
    module, bounds = build(case), with_defaults(*case)
    for step in range(100):
        slope = math.sqrt(beta_in(module, 7, step, 0))
        assert bounds["low"] * (1 - EPS) <= slope <= bounds["high"] * (1 + EPS)
        x = torch.full((1, CHANNELS), -1.0)
        torch.testing.assert_close(module(x), torch.full_like(x, slope**2), rtol=EPS, atol=0.0)


@every_random_one
def test_without_a_step_beta_is_that_of_the_mean_slope_as_it_was_built(case):
    module, bounds = build(case), with_defaults(*case)
    scored = torch.tensor([((bounds["low"] + bounds["high"]) / 2) ** 2])
    assert torch.equal(module.beta, scored)
    module.begin_step(7, 3, 1)
    assert torch.equal(module.beta, scored) == (bounds["low"] == bounds["high"])
    module.begin_step(7, None, 1)
    assert torch.equal(module.beta, scored)


def test_beta_changes_in_place_and_draws_from_nobody_elses_numbers():
    module, torch_state, numpy_state = build(("rrelu2", {})), torch.get_rng_state(), numpy_random()
    where = module.beta.data_ptr()
    module.begin_step(7, 3, 1)
    assert module.beta.data_ptr() == where
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert numpy_random() == numpy_state
    assert not list(module.parameters())
    assert not module.state_dict()


def numpy_random():
    name, keys, *rest = np.random.get_state()
    return name, keys.tolist(), *rest


POINTS = [
    (seed, step, layer) for seed in (0, 7, 2**63 - 1) for step in range(4) for layer in (0, 9)
]


def test_equal_seed_step_and_layer_give_equal_slopes_and_unequal_ones_unequal():
    slopes = {point: uniform(*point) for point in POINTS}
    assert len(set(slopes.values())) == len(POINTS)
    assert {point: uniform(*point) for point in reversed(POINTS)} == slopes


def test_another_process_draws_the_same_slopes_in_another_order():
    code = (
        "from trainer.activations.rrelu2 import uniform\n"
        f"print([uniform(*point).hex() for point in {POINTS[::-1]}])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stderr == ""
    assert answer.stdout.strip() == str([uniform(*point).hex() for point in POINTS[::-1]])


def philox4x64_10(counter, key):
    """Salmon et al. (2011), as published."""
    word, (c0, c1, c2, c3), (k0, k1) = 2**64, counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c0, word)
        high1, low1 = divmod(0xCA5A826395121157 * c2, word)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % word, (k1 + 0xBB67AE8584CAA73B) % word
    return c0, c1, c2, c3


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_the_draw_is_philox_of_seed_step_and_layer(point):
    """So that a cell asked again under another numpy has the slopes of old."""
    seed, step, layer = point
    first, *_ = philox4x64_10((1, 0, step, layer), (seed, 0))
    assert uniform(seed, step, layer) == (first >> 11) / 2**53


@pytest.mark.parametrize("axis", ["seed", "step", "layer"])
def test_along_each_axis_the_draws_are_uniform(axis):
    """Kolmogorov–Smirnov distance of 10,000 draws from U(0, 1), and the correlation of neighbours.

    Tolerances: a distance above 1.95/√n has probability 0.001 under the hypothesis; a correlation
    has standard deviation 1/√n, four of which are passed with probability 6e-5. The draws are
    fixed: the test fails always or never.
    """
    n, fixed = 10_000, {"seed": 7, "step": 3, "layer": 1}
    draws = np.array([uniform(**(fixed | {axis: i})) for i in range(n)])
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    distance = np.abs(np.sort(draws) - (np.arange(n) + 0.5) / n).max() + 0.5 / n
    assert distance < 1.95 / math.sqrt(n)
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 4 / math.sqrt(n)


def test_the_mean_of_the_slopes_is_near_the_one_that_is_scored():
    """Tolerance: five standard errors, (high − low)/√(12 n) each."""
    module, n = build(("rrelu2", {})), 2000
    slopes = [math.sqrt(beta_in(module, 7, step, 0)) for step in range(n)]
    module.begin_step(7, None, 0)
    error = (1 / 3 - 1 / 8) / math.sqrt(12 * n)
    assert abs(math.fsum(slopes) / n - math.sqrt(module.beta.item())) < 5 * error


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


def test_the_table_imports_neither_torch_nor_numpy():
    code = "import sys, trainer.activations; print(sys.modules.keys() & {'torch', 'numpy'})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stderr == ""
    assert answer.stdout.strip() == "set()"


@every
def test_what_is_within_its_range_is_accepted_and_what_has_a_default_may_be_omitted(case):
    name, params = case
    assert check_activation(name, params) is ACTIVATIONS[name]
    assert with_defaults(name, params).keys() == ACTIVATIONS[name].params.keys()
    assert with_defaults(name, params).items() >= params.items()


@every_name
def test_every_default_is_within_its_range(name):
    bounds = ACTIVATIONS[name].params
    defaults = {key: b.default for key, b in bounds.items() if b.default is not None}
    assert check_activation(name, default_params(name) | defaults) is ACTIVATIONS[name]


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


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        ("asqu", {}, "asqu"),
        ("asqu", {"init": 0.0}, "asqu-init0"),
        ("asqu", {"init": -0.5}, "asqu-init-0.5"),
        ("rrelu2", {"low": 0.1, "high": 0.5}, "rrelu2-high0.5-low0.1"),
        ("leaky_relu", {"slope": 0.1}, "leaky_relu-s0.1"),
    ],
)
def test_a_label_names_what_was_given_and_nothing_that_was_omitted(name, params, text):
    assert activation_label(name, params) == text


def test_no_two_activations_of_the_table_share_a_label():
    labels = [activation_label(*case) for case in CASES]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    "case", [c for c in CASES if hasattr(build_activation(*c, 1), "beta")], ids=label
)
def test_in_bfloat16_only_the_result_is_rounded(case):
    """β enters in float32: rounded to bfloat16 it would be off by up to 2⁻⁹, by another amount for
    each slope. The value and the derivative are those of float32, rounded once."""
    module = build(case)
    x = inputs(torch.bfloat16)
    y, slope, *_ = forward_and_gradient(module, x)
    wide, wide_slope, *_ = forward_and_gradient(build(case), x.float())
    assert y.dtype is torch.bfloat16
    assert torch.equal(y, wide.bfloat16())
    assert torch.equal(slope, wide_slope.bfloat16())
