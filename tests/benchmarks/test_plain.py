"""The plain step computes what the trainer computes, so that their times may be compared."""

import pytest
import torch

from benchmarks.contenders import Ours, build, random_batch
from benchmarks.plain import PlainStep
from benchmarks.step_on_cpu import over_plain
from benchmarks.turns import Quartiles, in_turn, slower
from tests.support.tiny import RANK_0, tiny_recipe
from trainer.config import load_recipe
from trainer.contract import ActivationSpec

STEPS = 5
# Two orders of float32 sums of some 64 terms: 64 · 2⁻²⁴ = 4e-6 of a loss of 7 nats at each step is
# rare; measured are 1.2e-6 after five steps.
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("recipe", "activation", "params"),
    [("tiny", "relu2", {}), ("tiny", "leaky_relu2", {"slope": 0.5}), ("local", "asqu", {})],
)
def test_from_the_same_weights_the_losses_of_five_steps_are_the_same(recipe, activation, params):
    recipe = load_recipe(recipe)
    model = build(recipe, ActivationSpec(name=activation, params=params))
    batch = random_batch(recipe)
    plain, ours = PlainStep(model, recipe), Ours(model, recipe, RANK_0)
    losses = [(plain.take(batch, i, 1.0), ours.take(batch, i, 1.0)) for i in range(STEPS)]
    for by_plain, by_ours in losses:
        assert by_ours == pytest.approx(by_plain, abs=TOLERANCE)
    assert losses[-1][0] < losses[0][0] - 0.01  # the steps did something


def test_the_averages_are_the_same():
    recipe = tiny_recipe()
    model, batch = build(recipe, ActivationSpec(name="relu2")), random_batch(recipe)
    plain, ours = PlainStep(model, recipe), Ours(model, recipe, RANK_0)
    for step in range(STEPS):
        plain.take(batch, step, 1.0), ours.take(batch, step, 1.0)
    by_plain = torch.stack([plain.average[f"layers.{i}.up.weight"] for i in range(2)])
    # Newton–Schulz magnifies a difference by up to 485, in steps of 0.025.
    torch.testing.assert_close(
        by_plain, ours.average()["up_bank"], rtol=0.0, atol=STEPS * 0.025 * 485 * 2.0**-22
    )


def test_what_the_plain_step_cannot_do_is_refused():
    recipe = tiny_recipe({"optim.clip": "per_shard"})
    with pytest.raises(ValueError, match="does not know clip per shard"):
        PlainStep(build(recipe, ActivationSpec(name="relu2")), recipe)


def test_work_is_done_in_turn_and_the_first_rounds_are_not_counted():
    done, ticks = [], iter(range(1000))
    work = {"a": lambda: done.append("a"), "b": lambda: done.append("b")}
    times = in_turn(work, rounds=3, warmup=2, clock=lambda: next(ticks))
    assert done == ["a", "b"] * 5
    assert times == {"a": [1, 1, 1], "b": [1, 1, 1]}


def test_a_ratio_is_of_one_activation_in_one_round():
    times = {"plain x": [1.0, 2.0, 4.0], "ours x": [0.5, 1.0, 2.0]}
    assert over_plain(times) == {"x": Quartiles(0.5, 0.5, 0.5)}


def test_only_a_ratio_that_left_the_kept_quartiles_behind_has_grown():
    kept = {"a": [0.5, 0.6, 0.7], "b": [0.5, 0.6, 0.7]}
    assert slower({"a": Quartiles(0.6, 0.8, 0.9), "b": Quartiles(0.1, 0.2, 0.3)}, kept) == []
    grown = slower({"a": Quartiles(0.71, 0.8, 0.9), "b": Quartiles(0.5, 0.6, 0.7)}, kept)
    assert [line.split(":")[0] for line in grown] == ["a"]
    assert slower({"a": Quartiles(0.5, 0.6, 0.7)}, kept) == ["b: not measured"]
