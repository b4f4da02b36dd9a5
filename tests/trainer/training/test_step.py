"""A step's gradient does not depend on how many micro-batches go through the model together, nor on
how many ranks share them."""

import os

import pytest
import torch

from tests.support.killed import PROCESSES, ended
from tests.support.tiny import RANK_0, busy_model, random_tokens, tiny_recipe
from trainer.distributed.world import World, open_world
from trainer.training import step
from trainer.training.step import Training, compile_step, take_step


def test_micro_batches_one_by_one_as_on_a_gpu_make_the_step_of_all_together(monkeypatch):
    """Tolerance: sums in another order, 2⁻²⁴ each, which Newton–Schulz magnifies by up to 485."""
    recipe = tiny_recipe({"train.batch_tokens": 512, "train.micro_steps": 4})
    batch = [(tokens[:, :-1], tokens[:, 1:]) for tokens in random_tokens(4, 4, 33)]
    found = []
    for tokens_at_once in (1, 256, 1024):
        monkeypatch.setattr(step, "_TOKENS_AT_ONCE", tokens_at_once)
        model = busy_model()
        training = Training(model, recipe, 7, RANK_0)
        loss = take_step(training, training.optimizers(), batch, 0, 1.0)
        found.append((float(loss), [p.detach() for p in model.parameters()]))
    (loss, weights), *others = found
    for other_loss, other_weights in others:
        assert other_loss == pytest.approx(loss, rel=2.0**-20)
        for one, other in zip(weights, other_weights, strict=True):
            torch.testing.assert_close(other, one, rtol=0.0, atol=485 * 2.0**-24)


@pytest.mark.parametrize(("rank", "order"), [(0, ["compiled", "met"]), (1, ["met", "compiled"])])
def test_rank_0_compiles_a_step_forward_and_backward_before_the_others_do(rank, order):
    events = []

    class Meeting(World):
        def sum_(self, tensor):
            events.append("met")
            return tensor

    class Compiled(Training):
        @property
        def nll(self):
            def nll(*tokens):
                found = self.model.nll(*tokens)
                found.register_hook(lambda _: events.append("compiled"))
                return found

            return nll

    model, world = busy_model(), Meeting(rank=rank, size=2, device=RANK_0.device)
    tokens = random_tokens(4, 33)
    batch = [(tokens[:, :-1], tokens[:, 1:])]
    compile_step(Compiled(model, tiny_recipe(), 7, world), batch, 1.0)
    assert events == [*order, "met"]
    assert all(p.grad is None for p in model.parameters())


def test_what_is_not_compiled_is_not_computed_for_it():
    model, world = busy_model(), World(rank=0, size=2, device=RANK_0.device)
    compile_step(Training(model, tiny_recipe(), 7, world), [], 1.0)


# Fractions of tiny's gradients in bfloat16, added up in float32, are exact sums; Adam's first
# momentum is a tenth of the gradient, and no clipping mixes what is added up in another order.
SHARED = {"train.batch_tokens": 512, "train.micro_steps": 4}


def momenta(world, clip):
    """Of the embeddings, which are bfloat16, after one step that the ranks of ``world`` share."""
    recipe = tiny_recipe(SHARED | clip)
    every = [(tokens[:, :-1], tokens[:, 1:]) for tokens in random_tokens(4, 4, 33)]
    model = busy_model(dtype=torch.bfloat16)
    model.set_precision()
    training = Training(model, recipe, 7, world)
    optimizers = training.optimizers()
    step._TOKENS_AT_ONCE = 1  # as on a GPU
    take_step(training, optimizers, every[world.rank :: world.size], 0, 1.0)
    state = optimizers.state()
    return {name: state[f"{name}.exp_avg"] for name in ("embed", "bigram.embed")}


CLIPS = [{"optim.grad_clip": None}, {"optim.clip": "per_shard"}]


def _rank(rank, folder):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "RENDEZVOUS_FILE": str(folder / "meeting")}
    with open_world("cpu", 1) as world:
        found = [momenta(world, clip) for clip in CLIPS]
    torch.save(found, folder / f"{rank}.pt")


def test_bfloat16_gradients_are_the_same_in_every_bit_on_one_rank_and_on_two(monkeypatch, tmp_path):
    monkeypatch.setattr(step, "_TOKENS_AT_ONCE", 1)
    ranks = [PROCESSES.Process(target=_rank, args=(rank, tmp_path)) for rank in range(2)]
    assert ended(ranks) == [0, 0]
    on_two = torch.load(tmp_path / "0.pt")
    for clip, shared in zip(CLIPS, on_two, strict=True):
        alone = momenta(RANK_0, clip)
        for name, momentum in alone.items():
            assert momentum.dtype is torch.bfloat16
            assert momentum.abs().sum() > 0
            assert torch.equal(momentum, shared[name]), name
