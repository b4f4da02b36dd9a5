"""The artifact's file is made beside scoring where a GPU scores, and the answer does not tell."""

import os
import threading
import time

import pytest

from tests.support.killed import PROCESSES, Death, ended
from tests.support.tiny import (
    RANK_0,
    answer,
    busy_model,
    read_report,
    run_cell,
    tiny_recipe,
    tiny_spec,
)
from trainer.cell import run
from trainer.compress import artifact_file
from trainer.compress.artifact import artifact_of, contained_weights, pack, unpack
from trainer.compress.artifact_file import write_artifact
from trainer.contract import ARTIFACT_FILE, LAYERS_FILE, REPORT_FILE
from trainer.distributed.world import World, open_world
from trainer.progress import Progress
from trainer.run_context import RunContext

CONFIG = tiny_recipe().quantization


@pytest.fixture
def spare_cores(monkeypatch):
    monkeypatch.setattr(World, "has_spare_cores", True)


def packed_of(config):
    return pack(dict(busy_model().named_parameters()), config, "0123456789abcdef")


def answered(out):
    """All of a cell that the moment has no part in."""
    files = [(out / name).read_bytes() for name in (ARTIFACT_FILE, LAYERS_FILE)]
    return answer(read_report(out)), files


# -- what is written


@pytest.mark.parametrize("changes", [{}, {"container": "w_m"}, {"prune_to_bytes": 9_000}])
def test_the_file_is_the_artifact_and_holds_the_weights_that_are_scored(tmp_path, changes):
    config, path = CONFIG.model_copy(update=changes), tmp_path / ARTIFACT_FILE
    packed = packed_of(config)
    written = write_artifact(packed, config, path)
    data = path.read_bytes()
    assert data == artifact_of(packed, config)
    assert written.num_bytes == len(data)
    scored, found = contained_weights(packed.plain, config), unpack(data, config)
    assert found.keys() == scored.keys()
    assert all(w.equal(scored[name]) for name, w in found.items())


@pytest.mark.parametrize("where", ["in the compressor", "on the disk"])
def test_a_file_that_differs_from_what_is_scored_is_refused_and_removed(
    monkeypatch, tmp_path, where
):
    packed, path = packed_of(CONFIG), tmp_path / ARTIFACT_FILE
    if where == "in the compressor":
        other = busy_model(activation="relu2")
        data = artifact_of(pack(dict(other.named_parameters()), CONFIG, "0" * 16), CONFIG)
        monkeypatch.setattr(artifact_file, "artifact_of", lambda *_: data)
    else:
        monkeypatch.setattr(type(path), "read_bytes", lambda self: b"torn")
    with pytest.raises(RuntimeError, match="what was written is not what is scored"):
        write_artifact(packed, CONFIG, path)
    assert list(tmp_path.iterdir()) == []


# -- beside scoring


@pytest.mark.parametrize(
    "overrides", [{}, {"quantization.prune_to_bytes": 20_000, "artifact.code_bytes": 0}]
)
def test_beside_scoring_or_before_it_the_answer_is_the_same_in_every_bit(
    monkeypatch, data_dir, tmp_path, overrides
):
    """Beside, nothing is compressed before everything is scored; as on a CPU, all of it is."""
    spec = tiny_spec(data_dir, budget="1steps", overrides=overrides)
    before = run_cell(spec, tmp_path / "before")
    assert before.pack_s > 0
    assert (before.overlap_s, before.idle_s) == (None, None)

    scored, report, phases = threading.Event(), Progress.report, []

    def reported(self, phase, **known):
        report(self, phase, **known)
        if phase == "pack" and "ttt" in phases:  # the last score
            scored.set()
        phases.append(phase)

    def held(packed, config):
        assert scored.wait(120)
        return artifact_of(packed, config)

    monkeypatch.setattr(Progress, "report", reported)
    monkeypatch.setattr(artifact_file, "artifact_of", held)
    monkeypatch.setattr(World, "has_spare_cores", True)
    beside = run_cell(spec, tmp_path / "beside")
    assert answered(tmp_path / "beside") == answered(tmp_path / "before")
    assert beside.overlap_s > 0
    assert beside.idle_s > 0
    assert beside.idle_s < beside.pack_s
    assert beside.overlap_s < beside.pack_s + beside.mechanism_s
    assert beside.eval_s < beside.ttt_s + beside.score_s + beside.pack_s


def test_nothing_waits_for_what_has_ended_before(spare_cores, data_dir, tmp_path):
    class Earlier(World):
        def begin_on_rank_0(self, make):
            now = time.perf_counter() // 1  # differences are exact
            return lambda: ("made", now - 3.0, now - 1.0)

    context = RunContext(tiny_spec(data_dir), tmp_path, Earlier(0, 1, RANK_0.device))
    assert context.begin("pack", lambda: "made")() == "made"
    assert context.durations_s == {"pack": 2.0, "overlap": 2.0, "idle": 0.0}


def _rank(rank, spec, out, beside):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "RENDEZVOUS_FILE": str(out / "meeting")}
    World.has_spare_cores = beside
    with open_world("cpu", 1) as world:
        run(spec, out, world)


def test_two_ranks_score_beside_what_rank_0_packs(data_dir, tmp_path):
    few = {"scoring.max_targets": 64, "ttt.chunk_tokens": 32}
    spec, processes = tiny_spec(data_dir, budget="1steps", overrides=few), []
    for beside in (False, True):
        out = tmp_path / str(beside)
        out.mkdir()
        processes += [PROCESSES.Process(target=_rank, args=(r, spec, out, beside)) for r in (0, 1)]
    assert ended(processes) == [0] * 4
    assert answered(tmp_path / "True") == answered(tmp_path / "False")
    assert read_report(tmp_path / "True").overlap_s is not None


@pytest.mark.parametrize("error", [MemoryError("no memory"), OSError(28, "No space left")])
def test_an_error_of_packing_is_the_error_of_the_cell(
    monkeypatch, spare_cores, data_dir, tmp_path, error
):
    def fails(*_):
        raise error

    monkeypatch.setattr(artifact_file, "artifact_of", fails)
    with pytest.raises(type(error)) as found:
        run_cell(tiny_spec(data_dir, budget="1steps"), tmp_path)
    assert found.value is error
    assert not any((tmp_path / name).exists() for name in (ARTIFACT_FILE, REPORT_FILE))


def _killed(spec, out):
    World.has_spare_cores = True
    Death("trainer.compress.artifact_file.decompress", 1).install()
    run_cell(spec, out)


def test_killed_before_the_file_is_compared_it_leaves_none_by_that_name(data_dir, tmp_path):
    spec = tiny_spec(data_dir, budget="1steps")
    assert ended([PROCESSES.Process(target=_killed, args=(spec, tmp_path))]) == [-9]
    assert not any((tmp_path / name).exists() for name in (ARTIFACT_FILE, REPORT_FILE))
