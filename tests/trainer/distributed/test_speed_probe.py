"""The probe tells what the node is worth and leaves no trace in what the cell answers."""

from dataclasses import dataclass, field

import pytest
import torch

from tests.support.killed import statuses
from tests.support.metered import MeteredWorld
from tests.support.tiny import (
    RANK_0,
    answer,
    read_curve,
    read_report,
    run_cell,
    tiny_spec,
)
from trainer.budget import Steps
from trainer.cell import run
from trainer.contract import ARTIFACT_FILE
from trainer.distributed.speed_probe import NUM_TIMED, NUM_WARM, Probe, probe
from trainer.distributed.world import World

COLUMNS = ("probe_before_ms", "probe_after_ms", "allreduce_before_ms", "allreduce_after_ms")


def columns(report):
    return [getattr(report, name) for name in COLUMNS]


def test_a_timed_run_is_probed_before_and_after(data_dir, tmp_path):
    before, after, *allreduce = columns(run_cell(tiny_spec(data_dir, budget="0.1s"), tmp_path))
    assert before > 0
    assert after > 0
    assert allreduce == [None, None]


def test_several_ranks_are_probed_together_too(data_dir, tmp_path):
    assert statuses(tiny_spec(data_dir, budget="0.1s"), tmp_path, None, num_ranks=2) == [0, 0]
    assert all(value > 0 for value in columns(read_report(tmp_path)))


def test_a_run_of_steps_is_not_probed(data_dir, tmp_path):
    assert columns(run_cell(tiny_spec(data_dir), tmp_path)) == [None] * 4


def test_the_answer_is_that_of_a_run_without_it(monkeypatch, data_dir, tmp_path):
    spec = tiny_spec(data_dir, activation="rrelu2", overrides={"scoring.every_steps": 2})
    without = run_cell(spec, tmp_path / "without")
    monkeypatch.setattr("trainer.run_context.Seconds", Steps)
    probed = run_cell(spec, tmp_path / "with")
    assert None not in columns(probed)[:2]
    assert answer(probed) == answer(without)
    losses = [read_curve(tmp_path / name)["train_loss"] for name in ("with", "without")]
    assert losses[0] == losses[1]
    artifacts = [(tmp_path / name / ARTIFACT_FILE).read_bytes() for name in ("with", "without")]
    assert artifacts[0] == artifacts[1]


def test_the_generator_of_torch_is_left_alone():
    before = torch.get_rng_state()
    probe(RANK_0)
    assert torch.equal(torch.get_rng_state(), before)


@dataclass(frozen=True)
class OtherRank(World):
    """A world whose other rank takes ``others_ms`` for everything."""

    others_ms: float = 0.0
    sums: list[int] = field(default_factory=list)

    def sum_(self, tensor):
        self.sums.append(tensor.numel())
        return tensor

    def largest(self, tensor):
        return tensor.clamp(min=self.others_ms)


@pytest.mark.parametrize("others_ms", [0.0, 1e6])
def test_the_slowest_rank_decides(others_ms):
    world = OtherRank(0, 2, torch.device("cpu"), others_ms)
    found = probe(world)
    assert len(world.sums) == NUM_WARM + NUM_TIMED
    assert (found == Probe(1e6, 1e6)) == (others_ms == 1e6)


def test_its_memory_does_not_count(monkeypatch, data_dir, tmp_path):
    """Neither does it hide what was used before it."""

    def greedy(world):
        world.peak.append(10**9)
        return Probe(1.0, None)

    monkeypatch.setattr("trainer.run_context.probe", greedy)
    world = MeteredWorld(0, 1, torch.device("cpu"))
    report = run(tiny_spec(data_dir, budget="0.1s"), tmp_path, world)
    assert world.peak.count(10**9) == 2
    assert report.peak_memory_bytes == 1000
