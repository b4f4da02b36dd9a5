"""Scoring compiles but a few graphs, as on a GPU, and gives the number that it gives without."""

import copy
from types import MethodType

import pytest
import torch

from tests.support.graphs import Kept
from tests.support.tiny import RANK_0, busy_model, random_stream, tiny_recipe
from trainer.evaluate.bpb import score
from trainer.evaluate.ttt import adapt_and_score
from trainer.evaluate.windows import windows
from trainer.model.compilation import compiled

RECIPE = tiny_recipe({"scoring.stride": 16, "ttt.chunk_tokens": 128, "ttt.batch_seqs": 4})
STREAM = random_stream(640)
TOLERANCE = 1e-6  # bits per byte

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def compiling(model):
    """Counts the graphs of ``model``, which compiles from now on what it compiles on CUDA."""
    torch._dynamo.reset()
    kept = Kept()  # whose kernels are torch's own

    def compiled_nll(model, length):
        model._rope(length)
        return compiled(model.nll, model.precision, backend=kept)

    model.compiled_nll = MethodType(compiled_nll, model)
    return kept


@pytest.mark.parametrize("batch_seqs", [7, pytest.param(16, marks=pytest.mark.slow)])
def test_sliding_is_one_graph_and_a_last_batch_that_is_filled_up_counts_once(batch_seqs):
    """38 windows behind the first are no multiple of either."""
    model, plan = busy_model(), windows(STREAM.num_targets, 32, 16)
    expected = score(model, STREAM, plan, batch_seqs=batch_seqs, world=RANK_0)
    kept = compiling(model)
    found = score(model, STREAM, plan, batch_seqs=batch_seqs, world=RANK_0)
    assert kept.num_graphs == 1
    assert found.bpb == pytest.approx(expected.bpb, abs=TOLERANCE)
    assert found.num_tokens == STREAM.num_targets


@pytest.mark.slow
def test_adapting_compiles_nothing_anew_as_weights_change():
    """One graph scores five chunks with ever other weights, and another trains on them."""
    model, how = busy_model(), {"scoring": RECIPE.scoring, "ttt": RECIPE.ttt, "world": RANK_0}
    expected = adapt_and_score(copy.deepcopy(model), STREAM, **how)
    kept = compiling(model)
    found = adapt_and_score(model, STREAM, **how)
    assert kept.num_graphs == 2
    assert found.bpb == pytest.approx(expected.bpb, abs=TOLERANCE)
