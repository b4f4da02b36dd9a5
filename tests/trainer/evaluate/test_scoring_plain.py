"""Scoring gives the number that one gets by computing everything, and compiles but a few graphs.

The reference is benchmarks.plain_scoring, which shares nothing with trainer.evaluate, on the logits
of all positions of the same model.
"""

import copy
from types import MethodType

import pytest
import torch

from benchmarks.plain_scoring import Lessons, Plan, Text, plain_sliding, plain_ttt
from tests.support.graphs import Kept
from tests.support.reduced import REDUCED
from tests.support.tiny import RANK_0, random_stream
from trainer.config import load_recipe
from trainer.evaluate.bpb import Stream, score
from trainer.evaluate.ttt import adapt_and_score
from trainer.evaluate.windows import windows
from trainer.model import GPT
from trainer.model.compilation import compiled
from trainer.model.init import initialize

SEQ_LEN, NUM_TARGETS, TOLERANCE = 32, 640, 1e-6  # bits per byte
SOUND = {"ttt.freeze_layers": 0, "ttt.late_qat": False, "ttt.lr": 0.05}
STRIDES = {"scoring.stride": 16, "scoring.seq_len": SEQ_LEN, "train.seq_len": SEQ_LEN}
RECIPES = {
    "pr549": REDUCED["pr549"] | SOUND,
    "pr549-clean": REDUCED["pr549-clean"] | SOUND,
    "local": STRIDES | {"ttt.chunk_tokens": 128},
    "tiny": STRIDES | {"ttt.chunk_tokens": 128, "ttt.batch_seqs": 4},
}
every_recipe = pytest.mark.parametrize("recipe", RECIPES)


@pytest.fixture(scope="module")
def stream():
    """The same 128 tokens again and again: there is something to adapt to."""
    base, times = random_stream(128), NUM_TARGETS // 128
    tokens = torch.cat([base.tokens[:-1].repeat(times), base.tokens[:1]])
    return Stream(tokens, base.target_bytes.repeat(times))


def model_of(recipe):
    """Of a reduced recipe, with weights that let everything through, as if trained a little."""
    model = GPT(
        recipe.model,
        activation="leaky_relu2",
        activation_params={"slope": 0.5},
        num_positions=SEQ_LEN,
    )
    initialize(model, 7)
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return model


class Logits(torch.nn.Module):
    """Of all positions."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model.head(self.model.body(tokens))


def sliding(recipe, model, stream):
    scoring = recipe.scoring
    plan = windows(stream.num_targets, scoring.seq_len, scoring.stride)
    return score(model, stream, plan, batch_seqs=scoring.batch_seqs, world=RANK_0)


def adapted(recipe, model, stream):
    scoring, ttt = recipe.scoring.model_copy(update={"tail": "once"}), recipe.ttt
    private = copy.deepcopy(model)
    return adapt_and_score(private, stream, scoring=scoring, ttt=ttt, world=RANK_0)


def plain_of(recipe, model, stream):
    """(sliding, ttt)"""
    text = Text(stream.tokens, stream.target_bytes)
    plan = Plan(recipe.scoring.seq_len, recipe.scoring.stride)
    names = ("lr", "momentum", "epochs", "chunk_tokens", "batch_seqs", "grad_clip")
    lessons = Lessons(**{name: getattr(recipe.ttt, name) for name in names})
    ttt = plain_ttt(Logits(copy.deepcopy(model)), text, plan, lessons)
    return plain_sliding(Logits(model), text, plan), ttt


@every_recipe
def test_sliding_and_adapting_score_what_the_plain_way_scores(recipe, stream):
    recipe = load_recipe(recipe, RECIPES[recipe])
    model = model_of(recipe)
    expected_sliding, expected_adapted = plain_of(recipe, model, stream)
    for found, expected in (
        (sliding(recipe, model, stream), expected_sliding),
        (adapted(recipe, model, stream), expected_adapted),
    ):
        assert found.bpb == pytest.approx(expected.bpb, abs=TOLERANCE)
        assert found.num_tokens == expected.num_tokens == NUM_TARGETS
        assert found.num_bytes == expected.num_bytes
    assert abs(expected_sliding.bpb - expected_adapted.bpb) > 100 * TOLERANCE


# -- compiled, as on a GPU; the kernels are torch's own here


class Compiled:
    """Makes a model compile what it compiles on CUDA, and counts the graphs."""

    def __init__(self):
        torch._dynamo.reset()
        self.kept = Kept()

    def in_(self, model):
        def compiled_nll(model, length):
            model._rope(length)
            return compiled(model.nll, model.precision, backend=self.kept)

        model.compiled_nll = MethodType(compiled_nll, model)
        return model

    @property
    def num_graphs(self):
        return self.kept.num_graphs


torchs_own_warning = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)


@torchs_own_warning
@pytest.mark.parametrize("batch_seqs", [7, pytest.param(16, marks=pytest.mark.slow)])
def test_sliding_is_one_graph_and_a_last_batch_that_is_filled_up_counts_once(batch_seqs, stream):
    """38 windows behind the first are no multiple of either."""
    recipe = load_recipe("tiny", RECIPES["tiny"] | {"scoring.batch_seqs": batch_seqs})
    model = model_of(recipe)
    expected = sliding(recipe, model, stream)
    compiled = Compiled()
    found = sliding(recipe, compiled.in_(model), stream)
    assert compiled.num_graphs == 1
    assert found.bpb == pytest.approx(expected.bpb, abs=TOLERANCE)
    assert found.num_tokens == NUM_TARGETS


@pytest.mark.slow
@torchs_own_warning
def test_adapting_compiles_nothing_anew_as_weights_change(stream):
    """One graph scores five chunks with ever other weights, and another trains on them."""
    recipe = load_recipe("tiny", RECIPES["tiny"])
    model = model_of(recipe)
    expected, compiled = adapted(recipe, model, stream), Compiled()
    private = compiled.in_(copy.deepcopy(model))
    scoring = recipe.scoring.model_copy(update={"tail": "once"})
    found = adapt_and_score(private, stream, scoring=scoring, ttt=recipe.ttt, world=RANK_0)
    assert compiled.num_graphs == 2
    assert found.bpb == pytest.approx(expected.bpb, abs=TOLERANCE)
