"""The one forward path is the published function, and looks back only.

B sequences, T tokens, D width. EPS is half a unit in the last place of a float32 of order one.
"""

import pytest
import torch

from tests.support.graphs import Kept
from tests.support.reference import reference_logits
from tests.support.tiny import (
    VOCAB_SIZE,
    busy_model,
    default_params,
    random_tokens,
    tiny_model,
    tiny_recipe,
)
from trainer.activations import ACTIVATIONS
from trainer.model.attention import rope_table
from trainer.model.compilation import compiled

EPS = 2.0**-24
T = 32

# Shapes of the same architecture that differ in every optional part.
VARIANTS = {
    "tiny": {},
    "three layers": {"model.num_layers": 3, "model.xsa_last_layers": 2},
    "five layers": {"model.num_layers": 5, "model.value_embedding.layers": [0, 3, 4]},
    "groups": {"model.num_heads": 4, "model.num_kv_heads": 2, "model.xsa_last_layers": 2},
    "no groups": {"model.num_kv_heads": 2, "model.value_embedding.dim": 32},
    "projected": {"model.value_embedding.dim": 8, "model.bigram.dim": 32},
    "plain": {
        "model.smear_gate": False,
        "model.layer_scale": "none",
        "model.xsa_last_layers": 0,
        "model.bigram": None,
        "model.value_embedding": None,
    },
}
every_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
# Logits are sums of D = 32 products of normed values with weights of 0.2, behind at most 5 layers
# of as many: float32 loses 5 · 64 · EPS of values up to the soft-cap of 30.
ROUNDING = 5 * 64 * EPS * 30


def logits(model, tokens):
    with torch.no_grad():
        return model.head(model.body(tokens))


# -- the function


@every_variant
def test_the_logits_are_those_of_a_slow_reference_in_float64(variant):
    model = busy_model(variant)
    tokens = random_tokens(1, T)
    expected = reference_logits(model, tokens[0].tolist())
    assert expected.std() > 0.5
    torch.testing.assert_close(logits(model, tokens)[0].double(), expected, rtol=0.0, atol=ROUNDING)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_parameter_gets_a_gradient(name):
    model = busy_model(activation=name, params=default_params(name))
    tokens = random_tokens(4, T + 1)
    model.nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_every_switch_of_the_recipe_reaches_the_logits():
    """The same weights where both have them; the switch alone differs."""
    tokens, model = random_tokens(2, T), busy_model()
    ours, before = dict(model.named_parameters()), logits(model, tokens)
    for key, value in {
        "model.rope_base": 50.0,
        "model.rope_dims": 4,
        "model.xsa_last_layers": 0,
        "model.smear_gate": False,
        "model.layer_scale": "none",
        "model.logit_softcap": 10.0,
        "model.value_embedding.layers": [0],
        "model.qk_gain": 4.0,
        "model.bigram.scale": 1.0,
    }.items():
        other = busy_model({key: value})
        if key not in ("model.qk_gain", "model.bigram.scale"):
            with torch.no_grad():
                for name, p in other.named_parameters():
                    p.copy_(ours[name])
        assert not torch.allclose(before, logits(other, tokens), atol=1e-3), key


# -- looks back only


@every_variant
def test_changing_a_token_changes_no_earlier_logit_in_any_bit(variant):
    model, tokens = busy_model(variant), random_tokens(2, T)
    before = logits(model, tokens)
    for position in (0, 1, 15, 30, 31):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % VOCAB_SIZE
        after = logits(model, changed)
        assert torch.equal(before[:, :position], after[:, :position])
        assert not torch.equal(before[:, position], after[:, position])
        assert not torch.equal(before[:, -1], after[:, -1])


def test_sequences_of_a_batch_do_not_see_each_other():
    model, tokens = busy_model(), random_tokens(3, T)
    changed = tokens.clone()
    changed[1] = (changed[1] + 1) % VOCAB_SIZE
    before, after = logits(model, tokens), logits(model, changed)
    assert torch.equal(before[[0, 2]], after[[0, 2]])


def test_the_nll_is_the_cross_entropy_of_the_last_logits():
    """Tolerance: the logarithm of a sum of 512 exponentials, and a difference, of order 10."""
    model, tokens = busy_model(), random_tokens(3, T + 1)
    log_p = torch.log_softmax(logits(model, tokens[:, :-1]).double(), dim=-1)
    expected = -log_p.gather(-1, tokens[:, 1:, None])[..., 0]
    for tail in (1, 5, T, None):
        with torch.no_grad():
            nll = model.nll(tokens[:, :-1], tokens[:, 1:], tail)
        assert nll.dtype == torch.float32
        wanted = expected[:, -(tail or T) :]
        torch.testing.assert_close(nll.double(), wanted, rtol=0.0, atol=64 * EPS * 10)


# -- the tap


def test_a_tap_is_shown_every_product_and_changes_nothing():
    overrides = {"model.num_layers": 3, "model.value_embedding.dim": 8}
    model, tokens = busy_model(overrides), random_tokens(2, T)
    config, seen = model.config, {}

    def tap(site, layer, tensor):
        assert (site, layer) not in seen
        seen[site, layer] = tensor.clone()

    with torch.no_grad():
        assert torch.equal(model.body(tokens, tap=tap), model.body(tokens))
    sites = ("attention_in", "attention_out", "mlp_in", "mlp_hidden")
    in_layers = {(site, layer) for site in sites for layer in range(config.num_layers)}
    assert set(seen) == in_layers | {("bigram_in", 0), ("value_in", 0)}
    assert torch.equal(seen["value_in", 0], model.value_embedding.embed[tokens])
    for layer in range(config.num_layers):
        assert seen["attention_in", layer].shape == (2, T, config.width)
        assert seen["attention_out", layer].shape == (2, T, config.width)
        with torch.no_grad():
            hidden = model.activations[layer](seen["mlp_in", layer] @ model.up_bank[layer].T)
        # Tolerance: a sum of 32 products before the square, of order one to ten.
        torch.testing.assert_close(seen["mlp_hidden", layer], hidden, rtol=1e-5, atol=1e-5)


# -- precision


def test_in_bfloat16_weights_begin_rounded_and_embeddings_stay_so():
    """In float32 setting the precision changes no bit."""
    overrides = {"model.value_embedding.dim": 8}
    exact = dict(tiny_model(overrides).named_parameters())
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_model(overrides, dtype=dtype)
        model.set_precision()
        for name, p in model.named_parameters():
            assert torch.equal(p.float(), exact[name].to(dtype).float()), name
            embedding = name == "embed" or name.endswith(".embed")
            assert p.dtype is (dtype if embedding else torch.float32), name


# -- weights of a seed


def test_fresh_weights_have_the_published_zeros_and_scales():
    model, config = tiny_model(), tiny_recipe().model
    num_layers = config.num_layers
    assert not model.down_bank.any()
    assert not model.qo_bank[num_layers:].any()
    assert not model.bigram.embed.any()
    for bank in (model.qo_bank[:num_layers], model.kv_bank, model.up_bank):
        assert torch.linalg.svdvals(bank.detach()).sub(1).abs().max() < 1e-5
    # Standard error of a standard deviation of 16,384 draws: 0.6 %. Four of them.
    assert model.embed.std().item() == pytest.approx(config.embed_init_std, rel=0.024)


def test_kaiming_weights_are_those_of_linear_layers_built_in_the_published_order():
    """The layers are built by torch itself, from its global generator; the token embedding is drawn
    before and after them."""
    model = tiny_model({"model.init": "kaiming", **VARIANTS["plain"]}, seed=1337)
    config = model.config
    width, kv, hidden = config.width, config.kv_dim, config.mlp_hidden
    shapes = [(width, width), (kv, width), (kv, width), (width, width), (hidden, width)]
    with torch.random.fork_rng():
        torch.manual_seed(1337)
        embedding = torch.nn.Embedding(config.vocab_size, width)
        layers = [
            [
                torch.nn.Linear(columns, rows, bias=False).weight
                for rows, columns in (*shapes, (width, hidden))
            ]
            for _ in range(config.num_layers)
        ]
        torch.nn.init.normal_(embedding.weight, std=config.embed_init_std)
    assert torch.equal(model.embed, embedding.weight)
    for layer, (q, k, v, _, up, _) in enumerate(layers):
        assert torch.equal(model.qo_bank[layer], q)
        assert torch.equal(model.kv_bank[layer], k)
        assert torch.equal(model.kv_bank[config.num_layers + layer], v)
        assert torch.equal(model.up_bank[layer], up)
    assert not model.qo_bank[config.num_layers :].any()
    assert not model.down_bank.any()


# -- what the published recipes add


@pytest.mark.parametrize("length", [16, 17, 32])
def test_the_rope_base_grows_with_the_length_beyond_ntk_len_alone(length):
    """(length / ntk_len)^(8/6) times the base; the reference rotates position by position."""
    tokens = random_tokens(1, length)
    model = busy_model({"model.rope_ntk_len": 16})
    twin = busy_model({"model.rope_base": 10000.0 * max(1.0, length / 16) ** (8 / 6)})
    expected = reference_logits(twin, tokens[0].tolist())
    torch.testing.assert_close(logits(model, tokens)[0].double(), expected, rtol=0.0, atol=ROUNDING)


def test_lengths_may_alternate_and_adapting_follows_scoring():
    """A table that inference mode has seen made serves a backward pass, and each length its own."""
    model = busy_model({"model.rope_ntk_len": 16})
    tokens = random_tokens(1, T + 1)
    with torch.inference_mode():
        first = [model.body(tokens[:, :length]).clone() for length in (T, 20, T)]
    assert torch.equal(first[0], first[2])
    model.nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()
    assert model.embed.grad is not None


def test_rounded_frequencies_are_bfloat16_values_where_the_run_is_in_bfloat16_alone():
    exact = rope_table(T, 8, 10000.0)
    rounded = rope_table(T, 8, 10000.0, torch.bfloat16)
    frequencies = (10000.0 ** (-torch.arange(0, 8, 2) / 8)).bfloat16().float()
    assert torch.equal(rounded[0], torch.outer(torch.arange(T).float(), frequencies).cos())
    assert not torch.equal(rounded[0], exact[0])
    overrides = {"model.rope_frequencies": "rounded"}
    assert torch.equal(tiny_model(overrides).cos_TR, exact[0])
    assert torch.equal(tiny_model(overrides, dtype=torch.bfloat16).cos_TR, rounded[0])


def test_late_qat_rounds_the_two_projections_to_six_bits_and_lets_gradients_through():
    """Codes −32 … 31 at a scale of max|w_r| / 31 or 1/31, whichever is more."""
    overrides = {"model.value_embedding.dim": 8, "model.bigram.dim": 8}
    model, twin = busy_model(overrides), busy_model(overrides)
    tokens = random_tokens(2, T + 1)
    with torch.no_grad():
        model.bigram.proj[0] *= 100
        twin.bigram.proj[0] *= 100
        for proj in (twin.bigram.proj, twin.value_embedding.proj):
            for row in proj:
                scale = max(row.abs().max() / 31, torch.tensor(1 / 31))
                row.copy_((row / scale).round().clamp(-32, 31) * scale)
    with model.late_qat():
        nll = model.nll(tokens[:, :-1], tokens[:, 1:])
    expected = twin.nll(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(nll, expected, rtol=1e-6, atol=1e-6)
    nll.mean().backward()
    expected.mean().backward()
    for module, other in (
        (model.bigram, twin.bigram),
        (model.value_embedding, twin.value_embedding),
    ):
        torch.testing.assert_close(module.proj.grad, other.proj.grad, rtol=1e-4, atol=1e-8)
    plain = model.nll(tokens[:, :-1], tokens[:, 1:])
    assert not torch.equal(plain, nll)
    with pytest.raises(RuntimeError, match="midway"), model.late_qat():
        raise RuntimeError("midway")
    assert torch.equal(model.nll(tokens[:, :-1], tokens[:, 1:]), plain)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize(
    "name",
    ["asqu", *(pytest.param(n, marks=pytest.mark.slow) for n in ("relu2", "rrelu2", "xielu"))],
)
def test_a_step_is_one_graph(name):
    """Traced as compilation on a GPU traces it, in training and in scoring, and such that torch
    keeps it on disk for the next cell; the kernels are torch's own here. Nats and gradients are
    those without a compiler."""
    overrides = {"model.rope_ntk_len": 16, "model.value_embedding.dim": 8}
    model = busy_model(overrides, activation=name, params=default_params(name))
    tokens = random_tokens(2, T + 1)
    weights = list(model.parameters())
    expected = model.nll(tokens[:, :-1], tokens[:, 1:])
    of_expected = torch.autograd.grad(expected.mean(), weights)
    torch._dynamo.reset()
    kept = Kept()
    traced = compiled(model.nll, model.precision, backend=kept)
    found = traced(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    of_found = torch.autograd.grad(found.mean(), weights)
    for gradient, reference in zip(of_found, of_expected, strict=True):
        assert (gradient - reference).norm() <= 1e-4 * reference.norm()
    with torch.inference_mode():
        torch.testing.assert_close(traced(tokens[:, :-1], tokens[:, 1:]), expected)
    assert kept.num_graphs == 2
