"""A killed run that goes on from its checkpoint gives the answer of one that was left alone."""

import itertools
import pickle
import signal
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.killed import Death, statuses
from tests.support.tiny import RANK_0, answer, read_curve, read_report, run_cell, tiny_spec
from trainer.cell import run
from trainer.config.config_errors import ConfigError
from trainer.contract import ARTIFACT_FILE, EXIT_STOPPED, LAYERS_FILE, REPORT_FILE
from trainer.run_context import RunContext
from trainer.training.checkpoint import (
    CheckpointSettings,
    State,
    UnusableCheckpointError,
    decode,
    encode,
)
from trainer.training.step import take_step

NUM_STEPS = 6
STEP = "trainer.training.train._TrainingRun.advance"
WAYS = {
    "as it is": {},
    "no average": {"averaging": {"kind": "none"}},
    "coprime order": {"data.loader": "coprime", "data.virtual_world": 2},
    "clipped by shard": {"optim.clip": "per_shard"},
    "late QAT": {"train.late_qat_below": 0.8, "train.warmdown_steps": 4},
    "validated": {"scoring.every_steps": 2},
    "GPTQ": {"quantization.matrices": "gptq", "quantization.gptq.batches": 2},
}
ALL_AT_ONCE = {key: value for way in WAYS.values() for key, value in way.items()}
DEATHS = {
    "in a step": Death(STEP, 4),
    "in the first step": Death(STEP, 1),
    "its checkpoint half on the disk": Death("os.fsync", 5, torn=True),
    "before its checkpoint has its name": Death("os.fsync", 5),
    "after its checkpoint has its name": Death("os.fsync", 6),
}
IN_SCORING = Death("trainer.run_context.score", 2)


def asked(data_dir, activation="asqu", ways=(), **changes):
    changes = {"budget": f"{NUM_STEPS}steps", "log_every": 2} | changes
    return tiny_spec(data_dir, activation=activation, overrides=dict(ways), **changes)


def left(out):
    """All that a run leaves which does not speak of time or of its processes."""
    curve = {name: column for name, column in read_curve(out).items() if name != "train_s"}
    files = [(out / name).read_bytes() for name in (ARTIFACT_FILE, LAYERS_FILE)]
    return answer(read_report(out)), curve, files


def every_step(folder):
    return CheckpointSettings(folder / "cell.checkpoint", 0.0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Where a run is left alone, without a checkpoint: once for every question and number of ranks,
    with which it is called."""
    folders = {}

    def folder(spec, num_ranks=1):
        question = spec.model_dump_json(), num_ranks
        if question not in folders:
            out = folders[question] = tmp_path_factory.mktemp("alone")
            if num_ranks == 1:
                run_cell(spec, out)
            else:
                assert statuses(spec, out, None, num_ranks=num_ranks) == [0] * num_ranks
        return folders[question]

    return folder


@pytest.fixture
def killed_and_continued(alone, tmp_path):
    """The report of a run that is killed by each of ``deaths`` in turn and then left alone.

    It is that of the run that was left alone from the start.
    """

    def report(spec, deaths, num_ranks=1):
        checkpoint = every_step(tmp_path)
        for death in deaths:
            ends = statuses(spec, tmp_path, checkpoint, num_ranks=num_ranks, death=death)
            assert ends[death.rank] == -9
            assert not (tmp_path / REPORT_FILE).exists()
        assert statuses(spec, tmp_path, checkpoint, num_ranks=num_ranks) == [0] * num_ranks
        assert left(tmp_path) == left(alone(spec, num_ranks))
        assert not list(tmp_path.glob(".*"))
        return read_report(tmp_path)

    return report


# -- the same answer


def test_every_way_to_train_goes_on_in_every_bit(data_dir, killed_and_continued):
    """All of them in one run, under the random activation; others in a slow test below. Training
    leaves the generator of torch alone: no checkpoint holds it."""
    death, spec = Death(STEP, 5), asked(data_dir, "rrelu2", ALL_AT_ONCE)
    before = torch.get_rng_state()
    report = killed_and_continued(spec, [death])
    assert report.resumed_from_step == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_in_bfloat16_goes_on_in_every_bit(data_dir, killed_and_continued):
    """Embeddings, their moments and the momentum of the matrices are bfloat16 there."""
    ways = {"optim.muon_momentum_dtype": "compute"}
    spec = asked(data_dir, ways=ways, dtype="bfloat16")
    killed_and_continued(spec, [Death(STEP, 3)])


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
def test_it_does_not_matter_where_it_is_killed(data_dir, killed_and_continued, death):
    killed_and_continued(asked(data_dir, "rrelu2"), [death])


def test_it_does_not_matter_how_often_it_is_killed(data_dir, killed_and_continued):
    """As it writes its first checkpoint, in its third step, writing that of step 4, and so on."""
    deaths = [
        Death("os.fsync", 1, torn=True),
        Death(STEP, 3),
        Death("os.fsync", 3, torn=True),
        Death("os.fsync", 2),
        Death("trainer.run_context.score", 1),
    ]
    report = killed_and_continued(asked(data_dir), deaths)
    assert report.resumed_from_step == NUM_STEPS


def test_two_ranks_go_on_in_every_bit(data_dir, killed_and_continued):
    """The momentum of the three layers' banks is shared unevenly."""
    ways = ALL_AT_ONCE | {"model.num_layers": 3}
    death = Death(STEP, 4, rank=1)
    report = killed_and_continued(asked(data_dir, "asqu", ways), [death], 2)
    assert report.world_size == 2
    assert report.resumed_from_step in (2, 3)  # the other rank may have been behind


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_run_that_is_asked_to_stop_goes_on_in_every_bit_from_the_step_it_was_at(
    data_dir, tmp_path, alone, num_ranks
):
    """Whichever rank is asked, all stop after that step, whenever a checkpoint would be due."""
    spec, checkpoint = asked(data_dir), CheckpointSettings(tmp_path / "cell.checkpoint", 1e9)
    asks = Death(STEP, 4, rank=num_ranks - 1, number=signal.SIGTERM)
    ends = statuses(spec, tmp_path, checkpoint, num_ranks=num_ranks, death=asks)
    assert ends == [EXIT_STOPPED] * num_ranks
    assert not (tmp_path / REPORT_FILE).exists()
    assert statuses(spec, tmp_path, checkpoint, num_ranks=num_ranks) == [0] * num_ranks
    assert read_report(tmp_path).resumed_from_step == 4
    assert left(tmp_path) == left(alone(spec, num_ranks))


def test_a_run_that_is_asked_to_stop_once_it_has_trained_ends_at_once(data_dir, tmp_path):
    """In its last validation: the checkpoint of the last step is there."""
    spec, checkpoint = asked(data_dir, ways=WAYS["validated"]), every_step(tmp_path)
    asks = Death("trainer.run_context.score", 4, number=signal.SIGTERM)
    assert statuses(spec, tmp_path, checkpoint, death=asks) == [-signal.SIGTERM]
    assert statuses(spec, tmp_path, checkpoint) == [0]
    assert read_report(tmp_path).resumed_from_step == NUM_STEPS


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "num_ranks"), [("prelu2", 1), ("relu2", 2)])
def test_what_a_layer_or_nothing_learns_goes_on_in_every_bit(
    data_dir, killed_and_continued, activation, num_ranks
):
    deaths = [
        Death(STEP, 3, rank=num_ranks - 1),
        Death("os.fsync", 3, torn=True),
    ]
    spec = asked(data_dir, activation, ALL_AT_ONCE)
    killed_and_continued(spec, deaths, num_ranks)


def test_a_death_in_scoring_repeats_no_step(monkeypatch, data_dir, tmp_path):
    spec, checkpoint = asked(data_dir), CheckpointSettings(tmp_path / "cell.checkpoint", 1e9)
    assert statuses(spec, tmp_path, checkpoint, death=IN_SCORING) == [-9]

    def refused(*arguments):
        raise AssertionError("a step was repeated")

    monkeypatch.setattr(STEP, refused)
    report = run(asked(data_dir), tmp_path, RANK_0, checkpoint)
    assert report.resumed_from_step == report.steps == NUM_STEPS


def test_a_diverged_run_stays_diverged(monkeypatch, data_dir, tmp_path):
    """Its last checkpoint is that of the step whose loss was seen, and no step follows."""
    step = itertools.count()

    def poisoned(*arguments):
        return take_step(*arguments) * (float("nan") if next(step) == 3 else 1.0)

    monkeypatch.setattr("trainer.training.train.take_step", poisoned)
    spec = asked(data_dir, ways={"train.warmup_steps": 0}, log_every=4)
    first, again = (run(spec, tmp_path, RANK_0, every_step(tmp_path)) for _ in range(2))
    assert (first.state, first.steps) == ("diverged", 4)
    assert again.resumed_from_step == 4
    assert answer(again) == answer(first)


# -- the clock


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands but for the 30 s of a step and the 1000 s of a save."""
    now_s, saves = [0.0], []

    def step(*arguments):
        now_s[0] += 30.0
        return take_step(*arguments)

    def save(*arguments):
        now_s[0] += 1000.0
        saves.append(len(arguments[0].tensors["course.times_S3"]))
        return encode(*arguments)

    monkeypatch.setattr("time.perf_counter", lambda: now_s[0])
    monkeypatch.setattr("trainer.training.train.take_step", step)
    monkeypatch.setattr("trainer.training.checkpoint.encode", save)
    return saves


def test_it_is_saved_so_often_and_at_the_end_and_off_the_clock(clock, data_dir, tmp_path):
    checkpoint = CheckpointSettings(tmp_path / "cell.checkpoint", 80.0)
    report = run(asked(data_dir, budget="10steps"), tmp_path, RANK_0, checkpoint)
    assert clock == [3, 6, 9, 10]
    assert report.train_s == 10 * 30.0
    assert report.step_ms_p50 == report.step_ms_p99 == 30_000.0


def test_the_time_of_a_resumed_run_is_that_of_its_parts(clock, monkeypatch, data_dir, tmp_path):
    spec, checkpoint = asked(data_dir), every_step(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr("trainer.run_context.RunContext.on_step", interrupt_at(4))
        with pytest.raises(KeyboardInterrupt):
            run(spec, tmp_path, RANK_0, checkpoint)
    report = run(spec, tmp_path, RANK_0, checkpoint)
    assert (report.resumed_from_step, report.train_s) == (3, NUM_STEPS * 30.0)


def interrupt_at(step):
    def on_step(cell, log, loss):
        if log.step == step:
            raise KeyboardInterrupt

    return on_step


def test_a_budget_of_seconds_has_no_checkpoint(data_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"--checkpoint with budget 1s: .* budget of steps"):
        run(asked(data_dir, budget="1s"), tmp_path, RANK_0, every_step(tmp_path))
    assert not list(tmp_path.iterdir())


# -- what is no checkpoint of this run


IDENTITY = {"spec_hash": "a", "trainer_hash": "b", "torch": "2", "world_size": 1, "device": "cpu"}
STATE = State(
    {"x": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}, {"position": 4, "v": [[1, [0.1]]]}
)
WRITTEN = b"".join(encode(STATE, IDENTITY))


def test_a_checkpoint_read_back_is_what_was_written():
    found = decode(WRITTEN, IDENTITY)
    assert found.facts == STATE.facts
    assert all(torch.equal(found.tensors[name], value) for name, value in STATE.tensors.items())


@given(st.integers(0, len(WRITTEN) - 1), st.integers(1, 255))
def test_a_changed_byte_is_seen(where, difference):
    changed = bytearray(WRITTEN)
    changed[where] ^= difference
    with pytest.raises(UnusableCheckpointError):
        decode(bytes(changed), IDENTITY)


@given(st.integers(0, len(WRITTEN) - 1))
@settings(max_examples=30)
def test_a_cut_file_is_seen(length):
    with pytest.raises(UnusableCheckpointError):
        decode(WRITTEN[:length], IDENTITY)


def test_a_checkpoint_of_another_run_is_refused_by_name():
    for name, value in IDENTITY.items():
        message = f"its {name} is {value}, this run's is other"
        with pytest.raises(UnusableCheckpointError, match=message):
            decode(WRITTEN, IDENTITY | {name: "other"})


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_what_cannot_be_used_is_named_and_the_run_starts_from_zero(
    data_dir, tmp_path, alone, capsys
):
    spec, checkpoint = asked(data_dir), CheckpointSettings(tmp_path / "cell.checkpoint", 1e9)
    for content in (b"", b"no checkpoint", pickle.dumps(Bomb()), WRITTEN[:100], WRITTEN):
        checkpoint.path.write_bytes(content)
        assert RunContext(spec, tmp_path, RANK_0).checkpointer(checkpoint).load() is None
        said = capsys.readouterr().out
        assert f"checkpoint {checkpoint.path}: not used, the run starts from zero: its " in said
        assert len(said.splitlines()) == 1
    report = run(spec, tmp_path, RANK_0, checkpoint)
    assert report.resumed_from_step is None
    assert answer(report) == answer(read_report(alone(spec)))
    assert run(spec, tmp_path, RANK_0, checkpoint).resumed_from_step == NUM_STEPS


def test_a_checkpoint_that_cannot_be_written_costs_nothing_but_itself(
    monkeypatch, data_dir, tmp_path, capsys
):
    def full(path, *parts):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("trainer.training.checkpoint.write_atomically", full)
    report = run(asked(data_dir), tmp_path, RANK_0, every_step(tmp_path))
    assert report.state == "succeeded"
    said = capsys.readouterr().out
    assert said.count("not written: [Errno 28] No space left on device") == NUM_STEPS


def test_a_negative_interval_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="0 or more seconds"):
        replace(every_step(tmp_path), every_s=-1.0)
