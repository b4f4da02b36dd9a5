"""Whoever watches a run sees in one file that it lives, and where it is."""

import json
import math
from collections import Counter

import pytest

from tests.support.tiny import RANK_0, run_cell, tiny_spec
from trainer.cell import run
from trainer.contract import PROGRESS_FILE
from trainer.files import write_atomically
from trainer.progress import SLOW_PHASES, Progress
from trainer.training.checkpoint import CheckpointSettings


@pytest.fixture
def said(monkeypatch):
    """What is written to progress.json, all of it: no interval, and no file is overwritten."""
    values = []

    def write(path, content, **options):
        if path.name == PROGRESS_FILE:
            values.append(json.loads(content, parse_constant=refuse_constant))
        write_atomically(path, content, **options)

    monkeypatch.setattr("trainer.progress.INTERVAL_S", 0.0)
    monkeypatch.setattr("trainer.progress.write_atomically", write)
    return values


def refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


def phases(said):
    """Each phase once, in the order in which they began."""
    names = [value["phase"] for value in said]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_no_phase_is_silent_for_longer_than_a_batch_or_a_matrix(said, data_dir, tmp_path):
    overrides = {
        "quantization.matrices": "gptq",
        "quantization.gptq.batches": 3,
        "quantization.passthrough_numel": 1,
        "quantization.prune_to_bytes": 89_459,
        "slot": {"mode": "causal", "lr": 0.01, "steps": 2, "batch_seqs": 8},
        "scoring.every_steps": 2,
    }
    spec = tiny_spec(data_dir, overrides=overrides)
    run_cell(spec, tmp_path)
    recipe = spec.recipe
    count = Counter(value["phase"] for value in said)
    passes, matrices, lessons = 1, 12, 4 - 1  # both micro-steps at once: 256 tokens
    batches = math.ceil(recipe.scoring.max_targets / recipe.scoring.stride / 32)
    assert count["warmup"] > passes * recipe.train.warmup_steps
    assert count["train"] >= 4 * (passes + 1)
    assert count["validate"] >= 3
    assert count["score"] > 2 * 1 + batches
    assert count["pack"] > matrices + recipe.quantization.gptq.batches + 2
    assert count["mechanism"] > matrices + 2 * 1 + 5
    assert count["ttt"] > lessons + lessons
    assert count["slot"] > batches


def test_the_phases_follow_each_other_and_the_slow_ones_are_known(said, data_dir, tmp_path):
    run_cell(tiny_spec(data_dir, budget="0.1s"), tmp_path)
    order = ["setup", "warmup", "probe", "warmup", "train", "score", "pack", "mechanism"]
    order += ["score", "ttt"]
    assert phases(said) == [*order, "probe", "ttt", "done"]
    assert set(order) >= SLOW_PHASES - {"checkpoint", "compile"}


def test_a_step_is_told_with_the_loss_that_was_last_checked(said, data_dir, tmp_path):
    spec = tiny_spec(data_dir, log_every=2, overrides={"train.warmup_steps": 0})
    run_cell(spec, tmp_path)
    after = [value for value in said if value["phase"] == "train" and value["step"]]
    loss_of = {value["step"]: value["train_loss"] for value in after}
    assert loss_of[1] is None
    assert 0 < loss_of[4] < loss_of[2] == loss_of[3] < 10
    assert after[-1]["remaining_steps"] == 0.0
    assert after[-1]["step_ms"] > 0
    assert after[-1]["resumed_from_step"] is None


def test_a_loss_that_is_no_number_is_told_as_unknown(said, data_dir, tmp_path):
    rates = {"optim.matrix_lr": 1e37, "optim.embed_lr": 1e37}
    run_cell(tiny_spec(data_dir, log_every=1, budget="6steps", overrides=rates), tmp_path)
    assert said[-1]["train_loss"] is None


def test_a_resumed_run_says_from_where(said, data_dir, tmp_path):
    checkpoint = CheckpointSettings(tmp_path / "cell.checkpoint", 0.0)
    run(tiny_spec(data_dir), tmp_path, RANK_0, checkpoint)
    assert phases(said)[2:5] == ["checkpoint", "warmup", "train"]
    assert phases(said).count("checkpoint") == 1 + 4
    said.clear()
    run(tiny_spec(data_dir), tmp_path, RANK_0, checkpoint)
    assert said[-1]["phase"] == "done"
    assert said[-1]["resumed_from_step"] == said[-1]["step"] == 4


def test_a_beat_repeats_what_is_known_and_a_detour_ends_where_it_began(said, tmp_path):
    progress = Progress(tmp_path, enabled=True)
    progress.beat()
    assert said == []
    progress.report("train", step=3)
    progress.beat()
    with progress.during("checkpoint"):
        pass
    assert [(value["phase"], value["step"]) for value in said] == [
        ("train", 3), ("train", 3), ("checkpoint", 3), ("train", 3),
    ]  # fmt: skip


def test_only_rank_0_writes(said, tmp_path):
    Progress(tmp_path, enabled=False).report("train", step=3)
    assert said == []
    assert not list(tmp_path.iterdir())
