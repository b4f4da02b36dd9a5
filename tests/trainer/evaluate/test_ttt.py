"""Test-time training follows the published procedure, and moves what it says it moves.

That no score depends on a later token is claimed in test_scoring.py, for every way of scoring.
EPS is half a unit in the last place of a float32 of order one.
"""

import copy
import math

import pytest
import torch

from tests.support.tiny import RANK_0, busy_model, default_params, random_stream, tiny_recipe
from trainer.evaluate.bpb import Stream, score
from trainer.evaluate.ttt import adapt_and_score
from trainer.evaluate.ttt_optimizer import adapted_parameters
from trainer.evaluate.windows import windows
from trainer.model import GPT

EPS = 2.0**-24
SEQ_LEN, STRIDE, CHUNK = 32, 16, 64
NUM_TARGETS = 3 * CHUNK + SEQ_LEN  # the last chunk is half a chunk
RECIPE = tiny_recipe({"ttt.chunk_tokens": CHUNK, "ttt.lr": 0.05, "ttt.batch_seqs": 2})
MUON = {"optimizer": "muon", "momentum": 0.0, "lr": 0.01}
# A matrix product may sum its 32 to 64 terms in another order, in each of two layers of eight
# products; nats are of order 10.
ROUNDING = 16 * 64 * EPS * 10
MAGNIFICATION = 485  # of a relative error by Newton-Schulz: 3.4445, its slope at zero, five times

either_optimizer = pytest.mark.parametrize("change", [{}, MUON], ids=["sgd", "muon"])


@pytest.fixture(scope="module")
def model():
    """With every tensor that the published model has: both embeddings need a projection."""
    model = busy_model({"model.value_embedding.dim": 8})
    assert SHARED.keys() | OF_EVERY_LAYER.keys() < dict(model.named_parameters()).keys()
    return model


@pytest.fixture(scope="module")
def stream():
    return random_stream(NUM_TARGETS)


def collector(num_targets):
    values = torch.full((num_targets,), torch.nan)

    def sink(targets, nll):
        values[targets] = nll

    return values, sink


def sliding(model, stream):
    nats, sink = collector(stream.num_targets)
    plan = windows(stream.num_targets, SEQ_LEN, STRIDE)
    return score(model, stream, plan, batch_seqs=1, world=RANK_0, sink=sink), nats


def adapted(model, stream, **change):
    """(score, nats of each target, the model that is left), one window at a time."""
    private, (nats, sink) = copy.deepcopy(model), collector(stream.num_targets)
    result = adapt_and_score(
        private,
        stream,
        scoring=RECIPE.scoring.model_copy(update={"batch_seqs": 1}),
        ttt=RECIPE.ttt.model_copy(update=change),
        world=RANK_0,
        sink=sink,
    )
    return result, nats, private


@either_optimizer
def test_the_first_chunk_is_scored_by_the_model_as_it_came(change, model, stream):
    _, before = sliding(model, stream)
    _, after, _ = adapted(model, stream, **change)
    assert torch.equal(before[:CHUNK], after[:CHUNK])
    assert not torch.equal(before[CHUNK:], after[CHUNK:])


@either_optimizer
def test_a_rate_of_zero_is_sliding_in_every_bit(change, model, stream):
    result, nats, left = adapted(model, stream, **(change | {"lr": 0.0}))
    reference, expected = sliding(model, stream)
    assert torch.equal(nats, expected)
    # Tolerance: float64 sums by chunk and as a whole.
    assert result.nll == pytest.approx(reference.nll, rel=NUM_TARGETS * 2.0**-53)
    for (name, p), q in zip(model.named_parameters(), left.parameters(), strict=True):
        assert torch.equal(p, q), name


@either_optimizer
def test_adapting_leaves_no_gradient_behind(change, model, stream):
    _, _, left = adapted(model, stream, freeze_layers=1, **change)
    assert all(p.grad is None for p in [*model.parameters(), *left.parameters()])


@pytest.mark.parametrize("change", [{"lr": 0.2}, MUON | {"lr": 0.02}], ids=["sgd", "muon"])
def test_text_that_repeats_itself_is_learned(change):
    """The same 64 tokens six times: adapting must help from the second chunk on."""
    base = random_stream(CHUNK)
    tokens = torch.cat([base.tokens[:CHUNK].repeat(6), base.tokens[:1]])
    stream = Stream(tokens, base.target_bytes.repeat(6))
    learned, _, _ = adapted(busy_model(), stream, epochs=4, **change)
    plain, _ = sliding(busy_model(), stream)
    assert learned.bpb < 0.9 * plain.bpb


# -- against the procedure written out

VECTOR, MATRIX = "vector", "matrix"
OF_EVERY_LAYER = {  # what one layer's slice of a stack is in the published model
    "qo_bank": MATRIX,
    "kv_bank": MATRIX,
    "up_bank": MATRIX,
    "down_bank": MATRIX,
    "resid_mix_L2D": MATRIX,
    "q_gain_LH": VECTOR,
    "attn_scale_LD": VECTOR,
    "mlp_scale_LD": VECTOR,
}
SHARED = {
    "embed": MATRIX,
    "skip_weights": MATRIX,
    "smear_gate": VECTOR,
    "bigram.embed": MATRIX,
    "bigram.proj": MATRIX,
    "bigram.scale": VECTOR,
    "value_embedding.embed": MATRIX,
    "value_embedding.proj": MATRIX,
    "value_embedding.scale": VECTOR,
    "value_embedding.layer_scales": VECTOR,
}


def pieces(model):
    """(kind, layer or None, is it of a bank, parameter, where in it) of every published tensor."""
    num_layers, found = model.config.num_layers, []
    for name, p in model.named_parameters():
        if name in OF_EVERY_LAYER:
            kind, bank = OF_EVERY_LAYER[name], name.endswith("_bank")
            found += [(kind, index % num_layers, bank, p, index) for index in range(len(p))]
        elif name.startswith("activations."):
            found.append((VECTOR, int(name.split(".")[1]), False, p, ...))
        else:
            found.append((SHARED[name], None, False, p, ...))
    return found


def moved_and_frozen(model, ttt):
    moved, frozen = [], []
    for piece in pieces(model):
        _, layer, bank, _, _ = piece
        early = layer is not None and layer < ttt.freeze_layers
        (frozen if early and (ttt.freeze_matrices or not bank) else moved).append(piece)
    return moved, frozen


def polar(matrix, steps):
    """Newton-Schulz of one matrix in float64."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).double()
    x = x / (x.square().sum().sqrt() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if tall else x).float()


def as_six_bits(matrix):
    """Straight-through: quantized in value, the identity in gradient."""
    rows = []
    for row in matrix.detach():
        scale = max(float(row.abs().max()) / 31, 1 / 31)
        rows.append(torch.clamp(torch.round(row / scale), -32, 31) * scale)
    return matrix + (torch.stack(rows) - matrix).detach()


class Whole(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens, targets):
        return self.model.nll(tokens, targets)


def training_loss(model, rows, late_qat):
    names = ["bigram.proj", "value_embedding.proj"] if late_qat else []
    instead = {f"model.{name}": as_six_bits(model.get_parameter(name)) for name in names}
    whole = Whole(model)
    return torch.func.functional_call(whole, instead, (rows[:, :-1], rows[:, 1:])).mean()


def step_by_hand(moved, ttt, lr, momenta):
    gradients = [p.grad[where].clone() for _, _, _, p, where in moved]
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    for key, ((kind, _, _, p, where), g) in enumerate(zip(moved, gradients, strict=True)):
        g = g * min(1.0, ttt.grad_clip / (norm + 1e-6))
        if ttt.optimizer == "sgd":
            g = momenta[key] = ttt.momentum * momenta.get(key, 0.0) + g
        elif kind == MATRIX:
            g = polar(g, 5)
        with torch.no_grad():
            p[where] -= lr * g


def by_hand(model, stream, ttt):
    """(nats, model) of score-first adaptation written out: one rank, one window at a time."""
    model, nats, momenta = copy.deepcopy(model), [], {}
    moved, _ = moved_and_frozen(model, ttt)
    num_chunks = math.ceil(stream.num_targets / CHUNK)
    for chunk in range(num_chunks):
        end = min((chunk + 1) * CHUNK, stream.num_targets)
        t = chunk * CHUNK
        while t < end:
            start = max(0, t + STRIDE - SEQ_LEN)
            stop = SEQ_LEN if t == 0 else t + STRIDE
            tokens = stream.tokens[start : stop + 1][None]
            with torch.no_grad():
                nats.append(model.nll(tokens[:, :-1], tokens[:, 1:])[0, t - start :])
            t = stop
        if chunk == num_chunks - 1:
            break
        lr = ttt.lr * (1 + math.cos(math.pi * chunk / (num_chunks - 1))) / 2
        starts = range(chunk * CHUNK, end, SEQ_LEN)
        for _ in range(ttt.epochs):
            for i in range(0, len(starts), ttt.batch_seqs):
                batch = starts[i : i + ttt.batch_seqs]
                rows = torch.stack([stream.tokens[s : s + SEQ_LEN + 1] for s in batch])
                model.zero_grad()
                training_loss(model, rows, ttt.late_qat).backward()
                step_by_hand(moved, ttt, lr, momenta)
    return torch.cat(nats), model


SOME_FROZEN = {"freeze_layers": 1, "freeze_matrices": False}
ALL_FROZEN = {"freeze_layers": 1, "freeze_matrices": True}


CHANGES = [
    {"epochs": 2, "batch_seqs": 1},
    {"grad_clip": 0.01},
    SOME_FROZEN | {"late_qat": True},
    ALL_FROZEN,
]


@pytest.mark.parametrize(
    "change", [{"momentum": 0.0}, *CHANGES, *[MUON | c for c in CHANGES]], ids=str
)
def test_adaptation_is_the_published_procedure(change, model, stream):
    """Tolerance: gradients that differ by a few roundings of their norm, in at most 12 steps (two
    epochs of three chunks, a window at a time). SGD passes them on as they are, at most 10 times,
    1 / (1 − momentum); Muon magnifies them. A weight moves the nats by at most 10 times as much.
    """
    ttt = RECIPE.ttt.model_copy(update=change)
    _, nats, left = adapted(model, stream, **change)
    expected, expected_left = by_hand(model, stream, ttt)
    factor = MAGNIFICATION if ttt.optimizer == "muon" else 10
    moved_by = 12 * ttt.lr * factor * 8 * EPS
    for (name, p), q in zip(left.named_parameters(), expected_left.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0.0, atol=moved_by, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(nats, expected, rtol=0.0, atol=ROUNDING + 10 * moved_by)


@pytest.mark.parametrize("change", [{}, MUON, MUON | ALL_FROZEN | {"late_qat": True}], ids=str)
def test_the_precision_of_the_published_models_changes_no_more_than_its_rounding(
    change, model, stream
):
    """Tolerance: 2⁻⁸ of nats of order 10, in each of 16 products one after the other, at random."""
    rounded = busy_model({"model.value_embedding.dim": 8}, dtype=torch.bfloat16)
    rounded.set_precision()
    _, nats, left = adapted(rounded, stream, **change)
    _, expected, _ = adapted(model, stream, **change)
    assert left.embed.dtype is torch.bfloat16
    torch.testing.assert_close(nats, expected, rtol=0.0, atol=16**0.5 * 2.0**-8 * 10)


# -- what is frozen


@pytest.mark.parametrize("freezing", [{}, SOME_FROZEN, {"freeze_layers": 2}], ids=str)
@either_optimizer
def test_frozen_tensors_keep_every_bit_and_all_others_move(change, freezing, model, stream):
    _, _, left = adapted(model, stream, **change, **freezing)
    ttt = RECIPE.ttt.model_copy(update=change | freezing)
    before = {id(p): q for p, q in zip(left.parameters(), model.parameters(), strict=True)}
    moved, frozen = moved_and_frozen(left, ttt)
    assert (len(frozen) > 0) == (ttt.freeze_layers > 0)
    for _, _, _, p, where in frozen:
        assert torch.equal(p[where], before[id(p)][where])
    for _, _, _, p, where in moved:
        assert not torch.equal(p[where], before[id(p)][where])


FULL_SIZE = {
    "model.vocab_size": 1024,
    "model.num_layers": 11,
    "model.width": 512,
    "model.num_heads": 8,
    "model.num_kv_heads": 4,
    "model.mlp_hidden": 1536,
    "model.rope_dims": 16,
    "model.bigram.vocab_size": 2816,
    "model.bigram.dim": 112,
    "model.value_embedding.layers": [9, 10],
    "model.value_embedding.dim": 128,
}


def counts(activation, freeze_matrices):
    """(adapted, frozen) elements of the published model with two layers frozen."""
    with torch.device("meta"):  # shapes only
        model = GPT(
            tiny_recipe(FULL_SIZE).model,
            activation=activation,
            activation_params=default_params(activation),
            num_positions=2048,
        )
    change = {"freeze_layers": 2, "freeze_matrices": freeze_matrices}
    num_moved = sum(
        m.parameter.numel() - sum(m.parameter[index].numel() for index in m.frozen)
        for m in adapted_parameters(model, RECIPE.ttt.model_copy(update=change))
    )
    return num_moved, sum(p.numel() for p in model.parameters()) - num_moved


def test_the_published_freezing_reaches_as_many_scalars_as_its_log_says():
    """Of q gains 8, of attention and MLP scales 512 each, of the mix 1024, in each of two layers;
    a learned activation adds its own, and sound freezing the six matrices of each layer.
    """
    small = 2 * (8 + 512 + 512 + 1024)
    matrices = 2 * (2 * 512 * 512 + 2 * 256 * 512 + 2 * 512 * 1536)
    assert counts("leaky_relu2", freeze_matrices=False) == (27_034_700, 4_112)
    assert small == 4_112
    assert counts("asqu", freeze_matrices=False)[1] == small + 2 * 1536
    assert counts("leaky_relu2", freeze_matrices=True)[1] == small + matrices
