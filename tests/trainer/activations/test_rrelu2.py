"""RReLU² draws one slope a layer and step, which seed, step and layer decide and nothing else.

EPS is half a unit in the last place of a float32 of order one.
"""

import math

import numpy as np
import torch

from tests.support.tiny import activation_cases
from trainer.activations import ACTIVATIONS, StepDependent, build_activation, with_defaults
from trainer.activations.rrelu2 import uniform

EPS = 2.0**-24
CHANNELS = 8
CASES = [case for case in activation_cases() if case[0] == "rrelu2"]
POINTS = [
    (seed, step, layer) for seed in (0, 7, 2**63 - 1) for step in range(4) for layer in (0, 9)
]


def beta_in(module, seed, step, layer):
    module.begin_step(seed, step, layer)
    return module.beta.item()


def test_rrelu2_alone_is_random():
    modules = {case[0]: build_activation(*case, CHANNELS) for case in activation_cases()}
    assert modules.keys() == ACTIVATIONS.keys()
    assert {n for n, module in modules.items() if isinstance(module, StepDependent)} == {"rrelu2"}


def test_beta_is_the_square_of_a_slope_between_low_and_high():
    """Tolerance: the slope is rounded in float64 and its square to float32."""
    for case in CASES:
        module, bounds = build_activation(*case, CHANNELS), with_defaults(*case)
        for step in range(20):
            slope = math.sqrt(beta_in(module, 7, step, 0))
            assert bounds["low"] * (1 - EPS) <= slope <= bounds["high"] * (1 + EPS)
            x = torch.full((1, CHANNELS), -1.0)
            torch.testing.assert_close(module(x), torch.full_like(x, slope**2), rtol=EPS, atol=0.0)


def test_without_a_step_beta_is_that_of_the_mean_slope_as_it_was_built():
    for case in CASES:
        module, bounds = build_activation(*case, CHANNELS), with_defaults(*case)
        scored = torch.tensor([((bounds["low"] + bounds["high"]) / 2) ** 2])
        assert torch.equal(module.beta, scored)
        module.begin_step(7, 3, 1)
        assert torch.equal(module.beta, scored) == (bounds["low"] == bounds["high"])
        module.begin_step(7, None, 1)
        assert torch.equal(module.beta, scored)


def test_beta_changes_in_place_and_draws_from_nobody_elses_numbers():
    """And is neither trained nor stored."""
    module, torch_state = build_activation("rrelu2", {}, CHANNELS), torch.get_rng_state()
    numpy_state, place = str(np.random.get_state()), module.beta.data_ptr()
    module.begin_step(7, 3, 1)
    assert module.beta.data_ptr() == place
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert str(np.random.get_state()) == numpy_state
    assert not list(module.parameters())
    assert not module.state_dict()


def philox4x64_10(counter, key):
    """Salmon et al. (2011), as published."""
    word, (c0, c1, c2, c3), (k0, k1) = 2**64, counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c0, word)
        high1, low1 = divmod(0xCA5A826395121157 * c2, word)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % word, (k1 + 0xBB67AE8584CAA73B) % word
    return c0, c1, c2, c3


def test_the_draw_is_philox_of_seed_step_and_layer():
    """So that a cell asked again under another numpy has the slopes of old."""
    for seed, step, layer in POINTS:
        first, *_ = philox4x64_10((1, 0, step, layer), (seed, 0))
        assert uniform(seed, step, layer) == (first >> 11) / 2**53


def test_along_each_axis_the_draws_are_uniform():
    """Kolmogorov–Smirnov distance of 10,000 draws from U(0, 1), and the correlation of neighbours.

    Tolerances: a distance above 1.95/√n has probability 0.001 under the hypothesis; a correlation
    has standard deviation 1/√n, four of which are passed with probability 6e-5. The draws are
    fixed: the test fails always or never.
    """
    n, fixed = 10_000, {"seed": 7, "step": 3, "layer": 1}
    for axis in fixed:
        draws = np.array([uniform(**(fixed | {axis: i})) for i in range(n)])
        assert draws.min() >= 0.0
        assert draws.max() < 1.0
        distance = np.abs(np.sort(draws) - (np.arange(n) + 0.5) / n).max() + 0.5 / n
        assert distance < 1.95 / math.sqrt(n)
        assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 4 / math.sqrt(n)
