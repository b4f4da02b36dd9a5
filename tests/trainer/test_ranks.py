"""Several ranks under torchrun are one rank, up to the order of a float32 sum."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.killed import statuses
from tests.support.tiny import answer, read_curve, read_report, run_cell, tiny_spec
from trainer.contract import SPEC_FILE, read_spec

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 6
# Gradients are summed in another order: 2⁻²⁴ each, magnified by at most 485 in orthogonalize (its
# quintic has slope 3.4445 at zero, five times), times NUM_STEPS steps that move a loss of 6 nats by
# less than 1: 6 · 485 · 2⁻²⁴ = 1.7e-4. Adam divides by its own noise only where |g| is below 1e-8.
TOLERANCE = NUM_STEPS * 485 * 2.0**-24


@pytest.fixture(scope="module")
def spec(data_dir):
    return tiny_spec(data_dir, activation="asqu", budget=f"{NUM_STEPS}steps")


@pytest.fixture(scope="module")
def one(spec, tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    run_cell(spec, out)
    return out


@pytest.fixture(scope="module")
def two(spec, tmp_path_factory):
    """The same question to two ranks, each a process with one thread."""
    out = tmp_path_factory.mktemp("two")
    assert statuses(spec, out, None, num_ranks=2) == [0, 0]
    return out


def torchrun(num_ranks, *arguments):
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(num_ranks)]
    return subprocess.run(
        [sys.executable, "-m", *launch, "-m", "trainer", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_ranks_have_the_losses_of_one_at_every_step(one, two):
    curve, expected = read_curve(two), read_curve(one)
    assert curve["step"] == expected["step"] == list(range(1, NUM_STEPS + 1))
    assert curve["tokens"] == expected["tokens"]
    assert curve["lr_mult"] == expected["lr_mult"]
    assert curve["train_loss"] == pytest.approx(expected["train_loss"], abs=TOLERANCE)
    # Before the first update there is nothing but the sum of two halves to differ in.
    assert curve["train_loss"][0] == pytest.approx(expected["train_loss"][0], rel=2.0**-22)


def test_two_ranks_have_the_scores_of_one(one, two):
    """Post-quantization: a code may round the other way where a weight lies near a tie. One code in
    48,000 changes a loss by far less than the step of all of them, 0.01 nats here."""
    report, expected = read_report(two), read_report(one)
    assert (report.world_size, expected.world_size) == (2, 1)
    assert report.pre_quant_loss == pytest.approx(expected.pre_quant_loss, abs=TOLERANCE)
    for name in ("post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb"):
        assert getattr(report, name) == pytest.approx(getattr(expected, name), abs=2 * TOLERANCE)
    assert report.beta_mean == pytest.approx(expected.beta_mean, abs=TOLERANCE)


def test_two_ranks_count_what_one_counts(one, two):
    report, expected = read_report(two), read_report(one)
    for name in ("val_tokens", "val_bytes", "steps", "tokens", "num_params", "recipe_hash"):
        assert getattr(report, name) == getattr(expected, name)


def test_two_ranks_pack_an_artifact_of_the_same_size(one, two):
    """Up to a hundredth: a few codes and float16 values differ in their last bit."""
    report, expected = read_report(two), read_report(one)
    assert report.model_bytes == pytest.approx(expected.model_bytes, rel=0.01)


@pytest.mark.slow
def test_torchrun_gives_what_its_ranks_alone_give(spec, two, tmp_path):
    """The same two sums of the same numbers: every bit."""
    (tmp_path / SPEC_FILE).write_text(spec.model_dump_json())
    found = torchrun(2, "--spec", str(tmp_path / SPEC_FILE), "--out", str(tmp_path))
    assert found.returncode == 0, found.stderr
    assert answer(read_report(tmp_path)) == answer(read_report(two))
    assert read_curve(tmp_path)["train_loss"] == read_curve(two)["train_loss"]


@pytest.mark.slow
def test_flags_under_torchrun_write_one_specification(data_dir, tmp_path):
    """And a budget in seconds stops every rank at the same step, or the ranks would hang."""
    found = torchrun(
        2, "--recipe", "tiny", "--activation", "relu2", "--budget", "1s",
        "--data", str(data_dir), "--out", str(tmp_path),
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert read_spec(tmp_path / SPEC_FILE).budget == "1s"
    report = read_report(tmp_path)
    assert report.train_s >= 1
    assert len(read_curve(tmp_path)["step"]) == report.steps
