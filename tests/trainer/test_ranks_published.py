"""1, 2 and 4 ranks answer alike for the published recipes, at one virtual world.

Muon's parts among them: 10 and 5 matrices of a bank do not divide by 4.
"""

import pytest

from tests.support.killed import statuses
from tests.support.reduced import REDUCED
from tests.support.tiny import read_curve, read_report, run_cell, tiny_spec
from trainer.config import load_recipe

NUM_STEPS = 4
# See test_ranks.py: gradients are summed in another order, 2⁻²⁴ each, magnified by at most 485, in
# every step of training. Scores after quantization: twice that, for codes near a tie.
TOLERANCE = NUM_STEPS * 485 * 2.0**-24
GENERATED = {
    "quantization.matrices": "gptq",
    "quantization.gptq.calibration": "generated",
    "slot.mode": "causal",
}
CASES = {
    "pr549": {},
    "pr549-clean": {},
    "pr1176 on its own text": GENERATED,
}


def question(case, data_dir):
    name = case.split()[0]
    spec = tiny_spec(data_dir, activation="asqu", budget=f"{NUM_STEPS}steps", seed=1337)
    return spec.model_copy(update={"recipe": load_recipe(name, REDUCED[name] | CASES[case])})


ABSENT = {
    "pr549": ("slot_bpb",),
    "pr549-clean": ("slot_bpb",),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "num_ranks"), [("pr549", 4), ("pr549-clean", 2), ("pr1176 on its own text", 2)]
)
def test_any_number_of_ranks_answers_as_one_does(case, num_ranks, data_dir, tmp_path):
    spec = question(case, data_dir)
    expected = run_cell(spec, tmp_path / "alone")
    expected_curve = read_curve(tmp_path / "alone")
    assert statuses(spec, tmp_path, None, num_ranks=num_ranks) == [0] * num_ranks
    report, curve = read_report(tmp_path), read_curve(tmp_path)
    assert report.world_size == num_ranks
    assert curve["train_loss"] == pytest.approx(expected_curve["train_loss"], abs=TOLERANCE)
    assert report.pre_quant_loss == pytest.approx(expected.pre_quant_loss, abs=TOLERANCE)
    for name in ("post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb", "slot_bpb"):
        value = getattr(expected, name)
        assert (value is None) == (name in ABSENT.get(case, ()))
        assert getattr(report, name) == pytest.approx(value, abs=2 * TOLERANCE), name
    for name in ("val_tokens", "val_bytes", "steps", "tokens", "num_params", "slot_legal"):
        assert getattr(report, name) == getattr(expected, name)
