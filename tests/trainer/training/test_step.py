"""A step's gradient does not depend on how many micro-batches go through the model together."""

import pytest
import torch

from tests.support.tiny import RANK_0, busy_model, random_tokens, tiny_recipe
from trainer.training import step
from trainer.training.step import Training, take_step


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
