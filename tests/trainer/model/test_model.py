"""The one forward path is the published function, and looks back only.

B sequences, T tokens, D width, H query heads, G key-value heads, K dimensions of a head. EPS is
half a unit in the last place of a float32 of order one.
"""

import importlib.util
import sys
import types

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
from trainer.model import GPT, attention
from trainer.model.attention import (
    attend,
    attention_backend,
    attention_for,
    exclude_self,
    rope_table,
)
from trainer.model.compilation import compiled
from trainer.model.embeddings import HashedBigram, bigram_hash, smear
from trainer.model.norm import rms_norm, rotate

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


def logits(model, tokens):
    with torch.no_grad():
        return model.head(model.body(tokens))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- the function


@every_variant
def test_the_logits_are_those_of_a_slow_reference_in_float64(variant):
    """Tolerance: logits are sums of D = 32 products of normed values with weights of 0.2, behind
    at most 5 layers of as many: float32 loses 5 · 64 · EPS of values up to the soft-cap of 30."""
    model = busy_model(variant)
    tokens = random_tokens(1, T)
    expected = reference_logits(model, tokens[0].tolist())
    assert expected.std() > 0.5
    torch.testing.assert_close(
        logits(model, tokens)[0].double(), expected, rtol=0.0, atol=5 * 64 * EPS * 30
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_parameter_gets_a_gradient(name):
    model = busy_model(activation=name, params=default_params(name))
    tokens = random_tokens(4, T + 1)
    model.nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_recipe_without_bigram_value_embedding_and_smear_gate_trains():
    model = busy_model(VARIANTS["plain"])
    assert model.bigram is model.value_embedding is model.smear_gate is None
    tokens = random_tokens(4, T + 1)
    model.nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"model.rope_base": 50.0},
        {"model.rope_dims": 4},
        {"model.xsa_last_layers": 0},
        {"model.xsa_last_layers": 2},
        {"model.smear_gate": False},
        {"model.layer_scale": "none"},
        {"model.logit_softcap": 10.0},
        {"model.value_embedding.layers": [0]},
        {"model.qk_gain": 4.0},
        {"model.bigram.scale": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_switch_of_the_recipe_reaches_the_logits(change):
    """The same weights where both have them; the switch alone differs."""
    tokens = random_tokens(2, T)
    model, other = busy_model(), busy_model(change)
    ours, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    if "model.qk_gain" not in change and "model.bigram.scale" not in change:
        with torch.no_grad():
            for name in ours.keys() & theirs.keys():
                theirs[name].copy_(ours[name])
    assert not torch.allclose(logits(model, tokens), logits(other, tokens), atol=1e-3)


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


# -- looks back only


@every_variant
@pytest.mark.parametrize("position", [0, 1, 15, 30, 31])
def test_changing_a_token_changes_no_earlier_logit_in_any_bit(variant, position):
    model, tokens = busy_model(variant), random_tokens(2, T)
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % VOCAB_SIZE
    before, after = logits(model, tokens), logits(model, changed)
    assert torch.equal(before[:, :position], after[:, :position])
    assert not torch.equal(before[:, position], after[:, position])
    if position + 1 < T:
        assert not torch.equal(before[:, -1], after[:, -1])


def test_sequences_of_a_batch_do_not_see_each_other():
    model, tokens = busy_model(), random_tokens(3, T)
    changed = tokens.clone()
    changed[1] = (changed[1] + 1) % VOCAB_SIZE
    before, after = logits(model, tokens), logits(model, changed)
    assert torch.equal(before[[0, 2]], after[[0, 2]])


@pytest.mark.parametrize("tail", [1, 5, T, None])
def test_the_nll_is_the_cross_entropy_of_the_last_logits(tail):
    """Tolerance: the logarithm of a sum of 512 exponentials, and a difference, of order 10."""
    model, tokens = busy_model(), random_tokens(3, T + 1)
    with torch.no_grad():
        nll = model.nll(tokens[:, :-1], tokens[:, 1:], tail)
    log_p = torch.log_softmax(logits(model, tokens[:, :-1]).double(), dim=-1)
    expected = -log_p.gather(-1, tokens[:, 1:, None])[..., 0]
    expected = expected if tail is None else expected[:, -tail:]
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll.double(), expected, rtol=0.0, atol=64 * EPS * 10)


# -- attention


def test_rms_norm_has_a_mean_square_of_one():
    """Tolerance: the sum of 16 squares, its root and a quotient; 1.2e-7 guards against zero."""
    x = normal(50, 16) + 0.1
    torch.testing.assert_close(
        rms_norm(x).square().mean(dim=-1), torch.ones(50), rtol=0.0, atol=32 * EPS + 1e-6
    )


def test_a_rotation_keeps_lengths_and_leaves_the_other_dimensions_alone():
    """Tolerance: two products and a sum for each component, and cos² + sin² of rounded values."""
    cos, sin = rope_table(T, 8, 10_000.0)
    x = normal(2, T, 3, 16)
    y = rotate(x, cos, sin)
    assert torch.equal(y[..., 8:], x[..., 8:])
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), rtol=8 * EPS, atol=0.0)
    assert torch.equal(y[:, 0], x[:, 0])


def test_scores_depend_on_the_distance_alone():
    """Tolerance: angles of up to T radians in float32 are known to T · EPS, on each side."""
    cos, sin = rope_table(T, 8, 10_000.0)
    q = rotate(normal(1, 1, 1, 8).expand(1, T, 1, 8), cos, sin)[0, :, 0]
    k = rotate(normal(1, 1, 1, 8, seed=1).expand(1, T, 1, 8), cos, sin)[0, :, 0]
    scores = q @ k.T
    size = float(q[0].norm() * k[0].norm())
    torch.testing.assert_close(scores[1:, 1:], scores[:-1, :-1], rtol=0, atol=4 * T * EPS * size)
    assert scores[0, 0].sub(scores[0, 5]).abs() > 0.01 * size


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1), (6, 2)])
def test_grouped_attention_is_attention_with_repeated_keys_and_values(heads, groups):
    """Query heads g·H/G … belong to group g. Tolerance: a mean of at most T values below 5."""
    q, k, v = (
        normal(2, T, heads, 8),
        normal(2, T, groups, 8, seed=1),
        normal(2, T, groups, 8, seed=2),
    )
    repeat = heads // groups
    expected = attend(q, k.repeat_interleave(repeat, dim=2), v.repeat_interleave(repeat, dim=2))
    torch.testing.assert_close(attend(q, k, v), expected, rtol=0.0, atol=T * EPS * 5)


def test_attention_is_a_softmax_over_its_own_and_earlier_positions():
    """In float64. Tolerance: exponentials and sums of T terms of order one."""
    q, k, v = (normal(2, T, 2, 8, seed=s).double() for s in range(3))
    scores = torch.einsum("bthk,bshk->bhts", q, k) / 8**0.5
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
    expected = torch.einsum("bhts,bshk->bthk", weights, v)
    torch.testing.assert_close(attend(q, k, v), expected, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (2, 1)])
def test_what_xsa_leaves_is_orthogonal_to_the_groups_own_value(heads, groups):
    """Tolerance: 16 products, a unit vector and a difference, of lengths |y| and |v|."""
    y, v = normal(2, T, heads, 16), normal(2, T, groups, 16, seed=1)
    left = exclude_self(y, v)
    own = v.repeat_interleave(heads // groups, dim=2)
    cosine = (left * own).sum(-1) / (y.norm(dim=-1) * own.norm(dim=-1))
    assert cosine.abs().max() < 32 * EPS
    # Nothing else is removed: what is missing lies along v.
    along = (y - left) - ((y - left) * own).sum(-1, keepdim=True) * own / own.square().sum(
        -1, keepdim=True
    )
    assert along.abs().max() < 64 * EPS * float(y.norm(dim=-1).max())


def test_a_zero_value_removes_nothing():
    y = normal(1, 3, 2, 8)
    assert torch.equal(exclude_self(y, torch.zeros(1, 3, 1, 8)), y)


# -- embeddings


def test_smear_mixes_each_position_with_the_one_before_and_the_first_with_nothing():
    x, gate = normal(2, 5, 4), normal(4, seed=1)
    g = torch.sigmoid(gate)
    y = smear(x, gate)
    assert torch.equal(y[:, 0], (1 - g) * x[:, 0] + g * 0)
    assert torch.equal(y[:, 1:], (1 - g) * x[:, 1:] + g * x[:, :-1])


@pytest.mark.parametrize("size", [2, 512, 1536])
def test_the_bigram_hash_is_the_published_one(size):
    """In Python integers; the sum of two products of 16 bits each wraps around at 32."""
    tokens = torch.randint(65536, (2, 50), generator=torch.Generator().manual_seed(0))

    def wrap(value):
        return (value + 2**31) % 2**32 - 2**31

    for row, found in zip(
        tokens.tolist(), bigram_hash(tokens, size, (36313, 27191)).tolist(), strict=True
    ):
        pairs = zip(row[1:], row[:-1], strict=True)
        rest = [(wrap(36313 * now) ^ wrap(27191 * before)) % (size - 1) for now, before in pairs]
        assert found == [size - 1, *rest]
        assert all(0 <= bucket <= size - 2 for bucket in found[1:])


def test_the_bigram_sees_its_own_and_the_last_token_alone():
    config = tiny_recipe().model.bigram
    module = HashedBigram(config, 32)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(normal(*parameter.shape))
    tokens = random_tokens(1, T)
    for position in (0, 7, T - 1):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % VOCAB_SIZE
        differs = (module(tokens) != module(changed)).any(dim=-1)[0].nonzero().flatten().tolist()
        assert set(differs) <= {position, position + 1}
        assert position + 1 in differs or position == T - 1


# -- the head


def test_logits_stay_within_the_soft_cap():
    model = busy_model()
    cap = model.config.logit_softcap
    hidden = 1e4 * normal(2, T, 32)
    with torch.no_grad():
        found = model.head(hidden)
    assert found.abs().max() <= cap
    assert found.abs().max() > 0.99 * cap


def test_small_logits_pass_the_soft_cap_unchanged():
    """tanh(z) = z − z³/3: at |z| ≤ 0.01 · cap the difference is 3.4e-5 of z."""
    model = busy_model()
    hidden = 0.01 * normal(2, T, 32)
    with torch.no_grad():
        plain = hidden @ model.embed.T
        assert plain.abs().max() < 0.01 * model.config.logit_softcap
        torch.testing.assert_close(model.head(hidden), plain, rtol=4e-5, atol=64 * EPS)


# -- the tap


def test_a_tap_is_shown_every_product_and_changes_nothing():
    overrides = {"model.num_layers": 3, "model.value_embedding.dim": 8}
    model, tokens = busy_model(overrides), random_tokens(2, T)
    config, seen = model.config, {}

    def tap(what, layer, tensor):
        assert (what, layer) not in seen
        seen[what, layer] = tensor.clone()

    with torch.no_grad():
        assert torch.equal(model.body(tokens, tap=tap), model.body(tokens))
    names = ("attention_in", "attention_out", "mlp_in", "mlp_hidden")
    in_layers = {(name, layer) for name in names for layer in range(config.num_layers)}
    assert set(seen) == in_layers | {("bigram_in", 0), ("value_in", 0)}
    assert torch.equal(seen["value_in", 0], model.value_embedding.embed[tokens])
    for layer in range(config.num_layers):
        assert seen["attention_in", layer].shape == (2, T, config.width)
        assert seen["attention_out", layer].shape == (2, T, config.width)
        assert seen["mlp_hidden", layer].shape == (2, T, config.mlp_hidden)
        with torch.no_grad():
            hidden = model.activations[layer](seen["mlp_in", layer] @ model.up_bank[layer].T)
        # Tolerance: a sum of 32 products before the square, of order one to ten.
        torch.testing.assert_close(seen["mlp_hidden", layer], hidden, rtol=1e-5, atol=1e-5)


def test_a_tap_sees_what_the_output_projection_multiplies():
    """What the output projection makes of it is all that attention adds to the residual stream.

    Tolerance: a sum of 32 products of order one.
    """
    model, tokens = busy_model({"model.xsa_last_layers": 2}), random_tokens(2, T)
    first, last = {}, {}
    with torch.no_grad():
        model.attn_scale_LD.fill_(1.0)
        model.mlp_scale_LD.zero_()
        model.body(tokens, tap=lambda what, layer, x: first.setdefault((what, layer), x.clone()))
        added = first["attention_out", 0] @ model.qo_bank[model.config.num_layers].T
        # With a projection of zero the same stream lacks just that.
        model.qo_bank[model.config.num_layers].zero_()
        model.body(tokens, tap=lambda what, layer, x: last.setdefault((what, layer), x.clone()))
        x0 = model._embed(tokens, None)
        stream = model.resid_mix_L2D[0, 0] * x0 + model.resid_mix_L2D[0, 1] * x0
        torch.testing.assert_close(last["mlp_in", 0], rms_norm(stream), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            first["mlp_in", 0], rms_norm(stream + added), rtol=1e-5, atol=1e-5
        )


# -- precision


def test_bfloat16_computes_in_bfloat16_and_scores_in_float32():
    model = busy_model(dtype=torch.bfloat16)
    tokens = random_tokens(2, T + 1)
    with torch.no_grad():
        hidden = model.body(tokens[:, :-1])
        nll = model.nll(tokens[:, :-1], tokens[:, 1:])
    assert hidden.dtype == torch.bfloat16
    assert nll.dtype == torch.float32
    assert nll.isfinite().all()


def test_bfloat16_loses_no_more_than_its_rounding():
    """Tolerance: 2⁻⁸ a rounding, ten of them in each of two layers, of logits of order 10, in a
    mean over 128 targets."""
    tokens = random_tokens(4, T + 1)
    exact, rounded = busy_model(), busy_model(dtype=torch.bfloat16)
    with torch.no_grad():
        one, other = (m.nll(tokens[:, :-1], tokens[:, 1:]).mean() for m in (exact, rounded))
    assert abs(float(one - other)) < 20 * 2.0**-8 * 10 / 128**0.5


def test_the_model_is_built_for_a_number_of_positions():
    model = GPT(tiny_recipe().model, activation="relu2", activation_params={}, num_positions=48)
    assert model.body(random_tokens(1, 48)).shape == (1, 48, 32)


# -- what the published recipes add


@pytest.mark.parametrize("seed", [1337, 7])
def test_kaiming_weights_are_those_of_linear_layers_built_in_the_published_order(seed):
    """The layers are built by torch itself, from its global generator; the token embedding is drawn
    before and after them."""
    model = tiny_model({"model.init": "kaiming", **VARIANTS["plain"]}, seed=seed)
    config = model.config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        embedding = torch.nn.Embedding(config.vocab_size, config.width)
        layers = [
            [
                torch.nn.Linear(columns, rows, bias=False).weight
                for rows, columns in (
                    (config.width, config.width),
                    (config.kv_dim, config.width),
                    (config.kv_dim, config.width),
                    (config.width, config.width),
                    (config.mlp_hidden, config.width),
                    (config.width, config.mlp_hidden),
                )
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


@pytest.mark.parametrize("length", [16, 17, 32])
def test_the_rope_base_grows_with_the_length_beyond_ntk_len_alone(length):
    """(length / ntk_len)^(8/6) times the base; the reference rotates position by position."""
    tokens = random_tokens(1, length)
    model = busy_model({"model.rope_ntk_len": 16})
    base = 10000.0 * max(1.0, length / 16) ** (8 / 6)
    twin = busy_model({"model.rope_base": base})
    expected = reference_logits(twin, tokens[0].tolist())
    torch.testing.assert_close(
        logits(model, tokens)[0].double(), expected, rtol=0.0, atol=5 * 64 * EPS * 30
    )


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


def test_in_bfloat16_weights_begin_rounded_and_embeddings_stay_so():
    overrides = {"model.value_embedding.dim": 8}
    exact = dict(tiny_model(overrides).named_parameters())
    model = tiny_model(overrides, dtype=torch.bfloat16)
    model.set_precision()
    for name, p in model.named_parameters():
        assert torch.equal(p.float(), exact[name].bfloat16().float()), name
        embedding = name == "embed" or name.endswith(".embed")
        assert p.dtype is (torch.bfloat16 if embedding else torch.float32), name


def test_in_float32_setting_the_precision_changes_no_bit():
    model, untouched = tiny_model(), tiny_model()
    model.set_precision()
    for (name, p), q in zip(model.named_parameters(), untouched.parameters(), strict=True):
        assert p.dtype is torch.float32, name
        assert torch.equal(p, q), name


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


def test_flash_attention_is_given_the_layout_that_it_documents(monkeypatch):
    """A stand-in for the optional package: (B, T, H, K), causal, some versions with the lse."""
    q, k, v = normal(2, T, 4, 8), normal(2, T, 2, 8, seed=1), normal(2, T, 2, 8, seed=2)
    expected = attend(q, k, v)

    def flash_attn_func(q, k, v, *, causal):
        assert causal
        one, two, three = (x.transpose(1, 2) for x in (q, k, v))
        y = torch.nn.functional.scaled_dot_product_attention(
            one, two, three, is_causal=True, enable_gqa=True
        )
        return y.transpose(1, 2), torch.zeros(2, 4, T)

    stand_in = types.SimpleNamespace(flash_attn_func=flash_attn_func)
    monkeypatch.setitem(sys.modules, "flash_attn_interface", stand_in)
    monkeypatch.setattr(attention, "_is_hopper", lambda device: True)
    attention._flash_attention_3.cache_clear()
    try:
        assert torch.equal(attention._flash_attention_3()(q, k, v), expected)
        assert attention_backend(torch.device("cuda"), torch.bfloat16) == "flash_attn_3"
        assert attention_for(torch.device("cuda"), torch.bfloat16) is not attend
        assert attention_backend(torch.device("cuda"), torch.float32) == "torch_sdpa"
        assert attention_backend(torch.device("cpu"), torch.bfloat16) == "torch_sdpa"
        monkeypatch.setattr(attention, "_is_hopper", lambda device: False)
        assert attention_backend(torch.device("cuda"), torch.bfloat16) == "torch_sdpa"
    finally:
        attention._flash_attention_3.cache_clear()


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn_interface") is not None, reason="FlashAttention-3 is here"
)
def test_without_the_package_torch_computes_attention():
    attention._flash_attention_3.cache_clear()
    assert attention_backend(torch.device("cuda"), torch.bfloat16) == "torch_sdpa"


def test_in_bfloat16_the_stream_stays_so_whatever_rms_norm_returns(monkeypatch):
    """Some versions of torch give float32 under CUDA's autocast, which the CPU's does not show."""
    exact = torch.nn.functional.rms_norm
    monkeypatch.setattr(
        torch.nn.functional, "rms_norm", lambda x, shape, eps: exact(x.float(), shape, eps=eps)
    )
    seen = []
    spied = attention.attend
    monkeypatch.setattr(
        "trainer.model.gpt.attend", lambda q, k, v: seen.append(q) or spied(q, k, v)
    )
    model = tiny_model(dtype=torch.bfloat16)
    model.set_precision()
    assert model.body(random_tokens(1, T)).dtype is torch.bfloat16
    assert {q.dtype for q in seen} == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize(
    "name", ["asqu", *(pytest.param(n, marks=pytest.mark.slow) for n in ACTIVATIONS if n != "asqu")]
)
def test_a_step_is_one_graph_for_every_activation(name):
    """Traced as compilation on a GPU traces it, in training and in scoring, and such that torch
    keeps it on disk for the next cell; the kernels are torch's own here."""
    overrides = {"model.rope_ntk_len": 16, "model.value_embedding.dim": 8}
    model = busy_model(overrides, activation=name, params=default_params(name))
    tokens = random_tokens(2, T + 1)
    expected = model.nll(tokens[:, :-1], tokens[:, 1:])
    torch._dynamo.reset()
    kept = Kept()
    traced = compiled(model.nll, model.precision, backend=kept)
    found = traced(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.mean().backward()
    assert model.up_bank.grad is not None
    with torch.inference_mode():
        torch.testing.assert_close(traced(tokens[:, :-1], tokens[:, 1:]), expected)
    assert kept.num_graphs == 2
