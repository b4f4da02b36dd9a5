"""Every parameter is moved by exactly one rule, and the matrices' rule is Muon's.

N matrices of a bank, R rows, C columns. EPS is half a unit in the last place of a float32.
"""

import pytest
import torch

from tests.support.tiny import (
    RANK_0,
    busy_model,
    default_params,
    random_tokens,
    tiny_model,
    tiny_recipe,
)
from trainer.activations import ACTIVATIONS
from trainer.distributed.world import PendingTensor
from trainer.optim.muon import QUINTIC, Muon, NewtonSchulz
from trainer.optim.optimizers import Optimizers
from trainer.optim.parameter_kinds import kind_of

EPS = 2.0**-24
SHAPES = [(16, 16), (16, 48), (48, 16), (1, 8), (8, 1)]
# A step of the quintic has slope a = 3.4445 at zero and less elsewhere in size, so five of them
# magnify an error by at most a⁵ = 485.
AMPLIFICATION = QUINTIC[0] ** 5

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def matrices(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def quintic(values, steps=5):
    a, b, c = QUINTIC
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return values


# -- who moves whom


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_one_step_moves_every_parameter(name):
    """With every gradient one, so that none can hide behind a gradient that is zero."""
    model = tiny_model(activation=name, params=default_params(name))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    Optimizers(model, tiny_recipe().optim, RANK_0).step(0, 1.0)
    assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] == []
    assert all(p.grad is None for p in model.parameters())


def test_a_parameter_is_of_the_published_kind():
    kinds = {
        "matrices": {"qo_bank", "kv_bank", "up_bank", "down_bank"},
        "embeddings": {"embed", "bigram.embed", "value_embedding.embed"},
        "projections": {"bigram.proj", "value_embedding.proj"},
        "activation": {"activations.0.beta", "activations.1.beta"},
    }
    model = tiny_model({"model.value_embedding.dim": 8}, activation="asqu")
    for name, _ in model.named_parameters():
        kind = next((kind for kind, names in kinds.items() if name in names), "gains")
        assert kind_of(name) == kind, name


def test_each_rate_moves_its_own_kind_alone():
    rates = dict.fromkeys(("matrix_lr", "embed_lr", "scalar_lr", "activation_lr"), 0.0)
    for key, moved in (
        ("matrix_lr", {"matrices"}),
        ("embed_lr", {"embeddings"}),
        ("scalar_lr", {"gains", "projections"}),
        ("activation_lr", {"activation"}),
    ):
        recipe = tiny_recipe({f"optim.{k}": v for k, v in (rates | {key: 0.1}).items()})
        model = tiny_model()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        Optimizers(model, recipe.optim, RANK_0).step(0, 1.0)
        changed = {kind_of(n) for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        assert changed == moved


def gradients_of(model):
    tokens = random_tokens(4, 33)
    model.nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


def stepped(multiplier):
    """By how much a first step with this multiplier moves each parameter of one model."""
    model = busy_model()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    gradients_of(model)
    Optimizers(model, tiny_recipe().optim, RANK_0).step(0, multiplier)
    return {n: p.detach() - before[n] for n, p in model.named_parameters()}, before


def test_the_multiplier_scales_the_step():
    """Decay included. Tolerance: w is rounded three times on the way, |w| ≤ 2 and moves ≤ 1."""
    full, _ = stepped(1.0)
    for multiplier in (0.5, 0.1, 0.0):
        part, before = stepped(multiplier)
        for name, move in part.items():
            atol = 6 * EPS * (before[name].abs().max().item() + 1)
            torch.testing.assert_close(move, multiplier * full[name], rtol=1e-5, atol=atol)


# -- orthogonalize


@every_shape
def test_orthogonalize_maps_singular_values_by_the_quintic_and_keeps_the_vectors(shape):
    """U·p(S/‖S‖)·Vᵀ, with U, S, V from another algorithm. In float64; 1e-7 is the guard of ‖S‖."""
    x = matrices(3, *shape)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    norm = s.square().sum(dim=-1, keepdim=True).sqrt() + 1e-7
    expected = u @ torch.diag_embed(quintic(s / norm)) @ vt
    torch.testing.assert_close(NewtonSchulz()(x), expected, rtol=0.0, atol=1e-10)


def test_a_zero_matrix_stays_zero():
    assert not NewtonSchulz()(torch.zeros(2, 4, 6)).any()


@every_shape
def test_in_float32_the_result_is_that_of_float64(shape):
    """Tolerance: each product sums at most 48 terms of order one in float32; magnified."""
    x = matrices(2, *shape)
    atol = AMPLIFICATION * 48 * EPS
    torch.testing.assert_close(
        NewtonSchulz()(x.float()).double(), NewtonSchulz()(x), rtol=0.0, atol=atol
    )


# -- Muon


def muon_by_hand(weight, gradients, *, lr, decay, momentum, steps=5):
    """Nesterov momentum and decoupled decay, as the docstring says, one matrix at a time."""
    buffer = torch.zeros_like(weight)
    for gradient in gradients:
        buffer = momentum * buffer + gradient
        update = NewtonSchulz(steps)((gradient + momentum * buffer)[None])[0]
        scale = max(1.0, weight.size(0) / weight.size(1)) ** 0.5
        weight = weight * (1 - lr * decay) - lr * scale * update
    return weight


def muon_of(banks, *, lr, weight_decay, dtype=torch.float64, world=RANK_0):
    return Muon(
        banks,
        lr=lr,
        weight_decay=weight_decay,
        newton_schulz=NewtonSchulz(),
        momentum_dtype=dtype,
        update_dtype=dtype,
        world=world,
    )


@every_shape
def test_muon_on_a_bank_is_muon_on_each_of_its_matrices(shape):
    """In float64 over four steps, with momentum and decay."""
    bank = torch.nn.Parameter(matrices(3, *shape))
    start = bank.detach().clone()
    muon = muon_of([bank], lr=0.1, weight_decay=0.3)
    muon.param_groups[0]["momentum"] = 0.9
    gradients = [matrices(3, *shape, seed=10 + i) for i in range(4)]
    for gradient in gradients:
        bank.grad = gradient.clone()
        muon.reduce()
        muon.step()
        assert torch.equal(bank.grad, gradient)
    for n in range(3):
        expected = muon_by_hand(
            start[n], [g[n] for g in gradients], lr=0.1, decay=0.3, momentum=0.9
        )
        torch.testing.assert_close(bank[n].detach(), expected, rtol=0.0, atol=1e-9)


class Ranks:
    """Rank ``rank`` of ``size`` alone: it is given its part; ``parts`` keeps its updates."""

    def __init__(self, rank, size):
        self.rank, self.size, self.parts = rank, size, []

    def reduce_scatter(self, whole_NRC):
        missing = -len(whole_NRC) % self.size
        padded = torch.cat([whole_NRC, whole_NRC.new_zeros(missing, *whole_NRC.shape[1:])])
        return PendingTensor(padded.chunk(self.size)[self.rank].clone())

    def all_gather(self, part_PRC, num_matrices):
        self.parts.append(part_PRC.clone())
        return PendingTensor(part_PRC.new_zeros(num_matrices, *part_PRC.shape[1:]))


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("num_matrices", [3, 4, 5])
def test_each_rank_updates_its_own_matrices_and_no_other(size, num_matrices):
    """Over three steps: the parts of all ranks, in order, are the updates of one rank alone; what
    stands behind the last matrix is zero."""
    shape = (num_matrices, 8, 16)
    gradients = [matrices(*shape, seed=20 + i) for i in range(3)]

    def parts(rank, of):
        world = Ranks(rank, of)
        bank = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        muon = muon_of([bank], lr=0.1, weight_decay=0.0, world=world)
        muon.param_groups[0]["momentum"] = 0.9
        for gradient in gradients:
            bank.grad = gradient.clone()
            muon.reduce()
            muon.step()
        return world.parts

    alone = parts(0, 1)
    together = zip(*(parts(rank, size) for rank in range(size)), strict=True)
    for whole, shares in zip(alone, together, strict=True):
        joined = torch.cat(shares)
        torch.testing.assert_close(joined[:num_matrices], whole, rtol=0.0, atol=1e-12)
        assert not joined[num_matrices:].any()


def test_gains_decay_at_a_rate_of_their_own_where_one_is_given():
    """With gradients of zero only decay moves a weight; the projections keep the other rate."""
    overrides = {
        "model.value_embedding.dim": 8,
        "optim.weight_decay": 0.5,
        "optim.adam_weight_decay": 0.25,
        "optim.gain_weight_decay": 0.0,
    }
    recipe, model = tiny_recipe(overrides), busy_model(overrides)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    Optimizers(model, recipe.optim, RANK_0).step(0, 1.0)
    factors = {
        "matrices": 1 - recipe.optim.matrix_lr * 0.5,
        "embeddings": 1 - recipe.optim.embed_lr * 0.25,
        "projections": 1 - recipe.optim.scalar_lr * 0.25,
        "gains": 1.0,
        "activation": 1.0,
    }
    for name, p in model.named_parameters():
        expected = before[name] * factors[kind_of(name)]
        torch.testing.assert_close(p.detach(), expected, rtol=2 * EPS, atol=0.0, msg=name)


@pytest.mark.parametrize("norm", [1e-3, 1e6])
def test_the_global_clip_is_that_of_torch(norm):
    """Tolerance: the norm is summed in another order, 2⁻²⁴ for each of 64 partial sums."""
    model, twin = busy_model(), busy_model()
    gradients_of(model), gradients_of(twin)
    torch.nn.utils.clip_grad_norm_(twin.parameters(), norm)
    optimizers = Optimizers(model, tiny_recipe({"optim.grad_clip": norm}).optim, RANK_0)
    optimizers._muon.reduce()
    optimizers._clip_to(norm)
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=64 * EPS, atol=0.0, msg=name)


@pytest.mark.parametrize(
    ("kept", "expected"), [("float32", torch.float32), ("compute", torch.bfloat16)]
)
def test_a_run_in_bfloat16_keeps_the_momentum_as_the_recipe_says(kept, expected):
    model = busy_model(dtype=torch.bfloat16)
    model.set_precision()
    gradients_of(model)
    recipe = tiny_recipe({"optim.muon_momentum_dtype": kept})
    optimizers = Optimizers(model, recipe.optim, RANK_0)
    optimizers.step(0, 1.0)
    assert optimizers._muon.state[model.up_bank]["momentum"].dtype is expected
    assert optimizers._adam.state[model.embed]["exp_avg"].dtype is torch.bfloat16
    assert optimizers._adam.state[model.q_gain_LH]["exp_avg"].dtype is torch.float32
