"""Where scoring and adapting are compiled, rank 0 does it first, and the others find it on disk."""

import json
import os
from contextlib import nullcontext

import pytest
import torch
import torch._inductor.config
import torch.nn.functional as F

from tests.support.killed import PROCESSES, ended
from tests.support.tiny import busy_model, random_stream, random_tokens, tiny_recipe
from trainer.distributed.world import World, open_world
from trainer.evaluate.bpb import score
from trainer.evaluate.ttt import adapt_and_score
from trainer.evaluate.windows import windows
from trainer.model import GPT
from trainer.model.compilation import Compilation, compiled
from trainer.training.step import Training, compile_step

RECIPE = tiny_recipe({"ttt.chunk_tokens": 64})
SCORING, TTT = RECIPE.scoring, RECIPE.ttt


def adapted(model, world, compiling=nullcontext):
    stream, how = random_stream(512), {"world": world, "compiling": compiling}
    return adapt_and_score(model, stream, scoring=SCORING, ttt=TTT, **how)


@pytest.mark.parametrize(
    ("rank", "first"),
    [
        (0, ["scored", "met", "met", "trained", "met", "met"]),
        (1, ["met", "scored", "met", "met", "trained", "met"]),
    ],
)
def test_rank_0_meets_each_graph_first_and_the_score_does_not_tell(monkeypatch, rank, first):
    events = []

    class Meeting(World):
        def sum_(self, tensor):
            events.append("met")
            return tensor

        def sum_gradients(self, parameters, in_float32=None):
            pass

    def observed(model, length):
        def nll(*tokens):
            events.append("trained" if torch.is_grad_enabled() else "scored")
            return model.nll(*tokens)

        return nll

    def compiling():
        events.append("compiling")
        return nullcontext()

    world = Meeting(rank, 2, torch.device("cpu"))
    expected = adapted(busy_model(), world)
    assert events == ["met"]  # what is not compiled is not computed for it
    events.clear()
    monkeypatch.setattr(GPT, "compiled_nll", observed)
    assert adapted(busy_model(), world, compiling) == expected
    assert events[:8] == ["compiling", *first[:3], "compiling", *first[3:]]


def small_nll(model, length):
    """Something that is soon compiled: torch's own kernels, each as it is, found on disk again."""

    def nll(tokens_BT, targets_BT, tail=None):
        return F.embedding(tokens_BT, model.embed)[:, -(tail or length) :].square().sum(dim=-1)

    return compiled(nll, model.precision, options={"fallback_by_default": True})


def _rank(rank, folder):
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "RENDEZVOUS_FILE": str(folder / "meeting"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "kept"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no processes for it
    }
    GPT.compiled_nll = small_nll
    model, tokens, stream = busy_model(), random_tokens(2, 33), random_stream(512)
    plans = [windows(512, SCORING.seq_len, stride) for stride in (SCORING.seq_len, SCORING.stride)]
    with open_world("cpu", 1) as world:
        training = Training(model, RECIPE, 7, world)
        compilation, misses = Compilation(world.device), []
        for work in (
            lambda: compile_step(training, [(tokens[:, :-1], tokens[:, 1:])], 1.0),
            lambda: score(model, stream, plans[0], batch_seqs=4, world=world),
            lambda: score(model, stream, plans[1], batch_seqs=4, world=world),
            lambda: adapted(model, world),
        ):
            work()
            misses.append(compilation.misses())
    (folder / f"{rank}.json").write_text(json.dumps(misses))


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(torch._inductor.config, "fallback_by_default"), reason="needs a later torch"
)
def test_of_two_ranks_the_second_compiles_nothing(tmp_path):
    """Neither in training nor in any score, each of which has graphs of its own."""
    ranks = [PROCESSES.Process(target=_rank, args=(rank, tmp_path)) for rank in range(2)]
    assert ended(ranks) == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert 0 < first[0] < first[1] < first[2] < first[3]
    assert second == [0, 0, 0, 0]
