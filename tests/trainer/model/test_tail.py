"""What is computed of the last positions alone is what all positions give there.

EPS is half a unit in the last place of a float32 of order one. T tokens.
"""

import pytest
import torch

from tests.support.reduced import REDUCED
from tests.support.tiny import make_busy, random_tokens
from trainer.config import load_recipe
from trainer.model import GPT

EPS = 2.0**-24
T, STRIDE = 32, 16
LOCAL = {"train.seq_len": T, "scoring.seq_len": T, "scoring.stride": STRIDE}
RECIPES = {"pr1035": REDUCED["pr1035"], "pr1176": REDUCED["pr1176"], "local": LOCAL}
# Sums of up to 128 products in another order, in each of eight products of the last layer, of
# values of order ten.
ROUNDING = 8 * 128 * EPS * 10


@pytest.fixture(scope="module", params=RECIPES)
def model(request):
    """A model of each recipe at a reduced size, in which every parameter matters."""
    config = load_recipe(request.param, RECIPES[request.param]).model
    return make_busy(GPT(config, activation="asqu", activation_params={}, num_positions=T))


def test_the_tail_is_the_last_positions_of_the_whole_in_value_and_gradient(model):
    """Tolerance of gradients: sums over up to 3·T positions and through every layer, each as above,
    in terms of the largest gradient. A tail of all positions is the whole in every bit."""
    tokens = random_tokens(3, T + 1)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    weights = dict(model.named_parameters())
    with torch.no_grad():
        whole = model.body(inputs)
        assert torch.equal(model.body(inputs, T), whole)
    for tail in (1, STRIDE, T):
        with torch.no_grad():
            states = model.body(inputs, tail)
        assert states.shape == (3, tail, model.config.width)
        torch.testing.assert_close(states, whole[:, -tail:], rtol=0.0, atol=ROUNDING)
        of_whole = model.nll(inputs, targets)[:, -tail:].sum()
        expected = torch.autograd.grad(of_whole, list(weights.values()))
        found = torch.autograd.grad(model.nll(inputs, targets, tail).sum(), list(weights.values()))
        largest = max(float(g.abs().max()) for g in expected)
        for name, g, reference in zip(weights, found, expected, strict=True):
            assert reference.any(), name
            torch.testing.assert_close(g, reference, rtol=0.0, atol=ROUNDING * largest)


def test_changing_a_token_changes_no_earlier_state_of_the_tail_in_any_bit(model):
    tokens = random_tokens(2, T)
    with torch.no_grad():
        before = model.body(tokens, STRIDE)
        for position in (0, T - STRIDE, T - STRIDE + 1, T - 1):
            changed = tokens.clone()
            changed[:, position] = (changed[:, position] + 1) % model.config.vocab_size
            after = model.body(changed, STRIDE)
            first = max(0, position - (T - STRIDE))
            assert torch.equal(before[:, :first], after[:, :first])
            assert not torch.equal(before[:, first], after[:, first])


def test_a_tap_is_shown_what_is_computed_and_changes_nothing(model):
    """Keys and values need all positions of the last layer; nothing else of it does."""
    tokens, seen = random_tokens(2, T), {}
    with torch.no_grad():
        plain = model.body(tokens, STRIDE)
        tapped = model.body(
            tokens, STRIDE, tap=lambda site, layer, x: seen.update({(site, layer): x})
        )
    assert torch.equal(tapped, plain)
    last = model.config.num_layers - 1
    for (site, layer), x in seen.items():
        assert x.shape[1] == (STRIDE if layer == last and site != "attention_in" else T), site
