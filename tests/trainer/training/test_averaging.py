"""What is scored is the average that the recipe asks for."""

import pytest
import torch

from trainer.config import Averaging
from trainer.training.averaging import Average

EPS = 2.0**-24
NUM_UPDATES = 20


def walk(seed=0):
    """A weight of two tensors and the values that it takes, the first before any update."""
    draw = torch.Generator().manual_seed(seed)
    values = [
        {"a": torch.randn(3, 4, generator=draw), "b": torch.randn((), generator=draw)}
        for _ in range(NUM_UPDATES + 1)
    ]
    return {name: value.clone() for name, value in values[0].items()}, values


def follow(average, weights, values):
    for value in values[1:]:
        for name, weight in weights.items():
            weight.copy_(value[name])
        average.update()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95, 0.997])
def test_the_average_is_its_closed_form(decay):
    """d^n·w₀ + (1 − d)·Σ d^(n−i)·w_i. Tolerance: three roundings an update, of values below 5."""
    weights, values = walk()
    average = Average(Averaging(kind="ema", decay=decay), weights)
    follow(average, weights, values)
    for name, got in average.current().items():
        w = [value[name].double() for value in values]
        n = NUM_UPDATES
        terms = ((1 - decay) * decay ** (n - i) * w[i] for i in range(1, n + 1))
        expected = sum(terms, decay**n * w[0])
        torch.testing.assert_close(got.double(), expected, rtol=0.0, atol=3 * n * 5 * EPS)


def test_before_the_first_update_the_average_is_the_weights():
    weights, values = walk()
    average = Average(Averaging(kind="ema", decay=0.9), weights)
    assert all(torch.equal(average.current()[name], values[0][name]) for name in weights)


def test_without_averaging_the_last_weights_are_scored():
    weights, values = walk()
    average = Average(Averaging(kind="none"), weights)
    follow(average, weights, values)
    assert all(torch.equal(average.current()[name], values[-1][name]) for name in weights)


@pytest.mark.parametrize("config", [Averaging(kind="none"), Averaging(kind="ema", decay=0.5)])
def test_what_is_handed_out_is_a_copy(config):
    weights, values = walk()
    average = Average(config, weights)
    follow(average, weights, values)
    before = {name: value.clone() for name, value in average.current().items()}
    for value in average.current().values():
        value.zero_()
    assert all(torch.equal(weights[name], values[-1][name]) for name in weights)
    assert all(torch.equal(average.current()[name], before[name]) for name in weights)


def test_the_average_leaves_the_weights_alone_and_needs_no_gradient():
    weights = {"a": torch.nn.Parameter(torch.ones(3))}
    average = Average(Averaging(kind="ema", decay=0.5), weights)
    average.update()
    assert torch.equal(weights["a"], torch.ones(3))
    assert not average.current()["a"].requires_grad


def test_the_shadow_of_bfloat16_weights_is_float32():
    """200 small moves of 2⁻⁸ · 0.003 each would all be lost in an average of 8 bits."""
    weights = {"a": torch.ones(1, dtype=torch.bfloat16)}
    average = Average(Averaging(kind="ema", decay=0.997), weights)
    weights["a"].fill_(1 + 2**-7)
    for _ in range(1000):
        average.update()
    assert average.current()["a"].dtype == torch.bfloat16
    assert average.current()["a"].item() == 1 + 2**-7
