"""The trainer as it is typed: two files in, four files out, and an exit status that means it."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny import answer, read_curve, read_report
from trainer.__main__ import main
from trainer.contract import (
    ARTIFACT_FILE,
    CURVE_FILE,
    LAYERS_FILE,
    OUTPUT_FILES,
    PROGRESS_FILE,
    REPORT_FILE,
    SPEC_FILE,
    read_spec,
)
from trainer.source import trainer_source

ROOT = Path(__file__).resolve().parents[2]
TRAINER = [sys.executable, "-m", "trainer"]


def flags(data_dir, out, **changes):
    """The arguments of a good run: ASQU, 4 steps; ``changes`` replace, None removes."""
    values = {
        "--recipe": "tiny",
        "--activation": "asqu",
        "--seed": "7",
        "--budget": "4steps",
        "--data": str(data_dir),
        "--out": str(out),
    } | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [word for pair in values.items() if pair[1] is not None for word in pair]


def typed(*arguments, **options):
    return subprocess.run(
        [*TRAINER, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("typed")


@pytest.fixture(scope="module")
def process(data_dir, out):
    """One good run in a process of its own, warnings being errors there too."""
    arguments = flags(data_dir, out, log_every="2")
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "trainer", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


# -- a good run


def test_a_run_exits_with_zero_and_leaves_its_files(process, out):
    assert (process.returncode, process.stderr) == (0, "")
    names = {SPEC_FILE, REPORT_FILE, CURVE_FILE, ARTIFACT_FILE, LAYERS_FILE, PROGRESS_FILE}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / PROGRESS_FILE).read_text())["phase"] == "done"


def test_the_log_shows_steps_and_the_summary_shows_the_report(process, out):
    report = read_report(out)
    lines = process.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["step:2", "step:4"]
    assert f"pre_quant_bpb:{report.pre_quant_bpb:.8f}" in lines[-1]
    assert f"artifact_bytes:{report.artifact_bytes}" in lines[-1]


def test_the_report_says_where_it_comes_from(process, out):
    report, spec, source = read_report(out), read_spec(out / SPEC_FILE), trainer_source()
    assert (report.trainer_hash, report.trainer_source_bytes) == (source.sha256, source.num_bytes)
    assert (report.corpus_sha256, report.device) == (spec.corpus_sha256, "cpu")
    assert report.peak_memory_bytes > 10**7
    assert report.setup_s > 0
    assert report.step_ms_p50 <= report.step_ms_p99


def test_the_written_specification_gives_the_same_answer_in_another_process(
    process, out, tmp_path, capsys
):
    """In this one, which is how the other tests of the trainer run."""
    spec, again = read_spec(out / SPEC_FILE), tmp_path / "deep" / "down"
    assert (spec.activation.name, spec.seed, spec.budget) == ("asqu", 7, "4steps")
    assert main(["--spec", str(out / SPEC_FILE), "--out", str(again)]) == 0
    assert answer(read_report(again)) == answer(read_report(out))
    for name in (SPEC_FILE, ARTIFACT_FILE):
        assert (again / name).read_bytes() == (out / name).read_bytes()
    assert "pre_quant_bpb" in capsys.readouterr().out


def test_a_slope_can_be_given_in_two_ways(capsys):
    for how in (("--slope", "0.3"), ("--activation-param", "slope=0.3")):
        assert main(["--recipe", "tiny", "--activation", "leaky_relu2", *how, "--describe"]) == 0
        assert json.loads(capsys.readouterr().out)["activation"]["params"] == {"slope": 0.3}


def test_a_checkpoint_is_kept_and_gone_on_from(data_dir, tmp_path, capsys):
    path = tmp_path / "deep" / "cell.checkpoint"
    arguments = flags(data_dir, tmp_path, checkpoint=str(path), checkpoint_every_s="60")
    reports = []
    for _ in range(2):
        assert main(arguments) == 0
        reports.append(read_report(tmp_path))
    assert [report.resumed_from_step for report in reports] == [None, 4]
    assert answer(reports[0]) == answer(reports[1])
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert "step:4 resumed from a checkpoint" in capsys.readouterr().out


def test_a_diverged_run_exits_with_zero_and_leaves_nothing_of_an_earlier_answer(
    data_dir, tmp_path, capsys
):
    """In a folder that is used twice, an old artifact would be taken for the new report's."""
    for name in OUTPUT_FILES:
        (tmp_path / name).write_text("of another run")
    rates = ["--set", "optim.matrix_lr=1e37", "--set", "optim.embed_lr=1e37"]
    assert main([*flags(data_dir, tmp_path), *rates]) == 0
    report = read_report(tmp_path)
    assert report.state == "diverged"
    assert report.pre_quant_bpb is report.artifact_bytes is None
    assert f"diverged: {report.reason}" in capsys.readouterr().out
    assert len(read_curve(tmp_path)["step"]) == report.steps
    assert not any((tmp_path / name).exists() for name in (ARTIFACT_FILE, LAYERS_FILE))


# -- bad input


BAD = {
    "unknown activation": ({"activation": "relu3"}, [], "'relu3' is not known"),
    "slope that is none": ({"slope": None, "activation_param": "slope=x"}, [], "name=number"),
    "unknown recipe": ({"recipe": "tinny"}, [], "Did you mean 'tiny'"),
    "no recipe": ({"recipe": None}, [], "--recipe NAME"),
    "unknown key": ({}, ["optim.matrix_rl=0.1"], "Did you mean 'matrix_lr'"),
    "budget without unit": ({"budget": "200"}, [], "a number and its unit"),
    "negative seed": ({"seed": "-1"}, [], "seed = -1"),
    "no data": ({"data": "nowhere"}, [], "there is no such folder"),
    "checkpoint of a timed run": ({"budget": "1s", "checkpoint": "c"}, [], "not resumed"),
    "checkpoint nowhere": ({"checkpoint": "/dev/null/a/c"}, [], "--checkpoint /dev/null/a/c: this"),
    "checkpoints in no time": (
        {"checkpoint": "c", "checkpoint_every_s": "-1"},
        [],
        "0 or more seconds",
    ),
    "no such specification": ({"spec": "nowhere.json"}, [], "nowhere.json: this cannot be read"),
}


def assert_refused(code, out_text, err_text, message, folder):
    assert code == 2
    assert out_text == ""
    assert err_text.startswith("error: ")
    assert err_text.count("\n") == 1
    assert message in err_text
    assert not any((folder / name).exists() for name in OUTPUT_FILES)


def test_bad_input_is_refused_in_one_line(data_dir, tmp_path, capsys):
    for changes, overrides, message in BAD.values():
        sets = [word for override in overrides for word in ("--set", override)]
        code = main([*flags(data_dir, tmp_path, **changes), *sets])
        assert_refused(code, *capsys.readouterr(), message, tmp_path)


def truncate(folder, split):
    path = next(folder.glob(f"*_{split}_*.bin"))
    path.write_bytes(path.read_bytes()[:-2])


def foreign(folder, split):
    path = next(folder.glob(f"*_{split}_*.bin"))
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize(
    ("damage", "split", "message"),
    [(truncate, "train", "it is truncated"), (foreign, "val", "magic number 0")],
)
def test_a_damaged_shard_is_refused_in_one_line(data_dir, tmp_path, capsys, damage, split, message):
    copy = Path(shutil.copytree(data_dir, tmp_path / "data"))
    damage(copy, split)
    code = main(flags(copy, tmp_path / "out"))
    assert_refused(code, *capsys.readouterr(), message, tmp_path / "out")


def test_a_folder_that_is_a_file_is_refused_in_one_line(data_dir, tmp_path, capsys):
    (tmp_path / "out").write_text("not a folder")
    code = main(flags(data_dir, tmp_path / "out"))
    assert_refused(code, *capsys.readouterr(), "--out", tmp_path)


def test_a_process_with_bad_input_shows_no_traceback(data_dir, tmp_path):
    found = typed(*flags(data_dir, tmp_path, activation="relu3"))
    assert_refused(found.returncode, found.stdout, found.stderr, "'relu3'", tmp_path)


# -- crashes


@pytest.mark.slow
def test_out_of_memory_has_a_status_of_its_own(data_dir, tmp_path):
    """A model of 256 GB where a process may address 16: refused by the allocator, not killed."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))

    too_large = ("--set", f"model.mlp_hidden={2**29}")
    found = typed(*flags(data_dir, tmp_path), *too_large, preexec_fn=limit)
    assert found.returncode == 12, found.stderr
    assert "out of memory: " in found.stderr
    assert not (tmp_path / REPORT_FILE).exists()


def test_what_allocators_say_is_taken_for_out_of_memory_and_nothing_else():
    import torch

    from trainer.__main__ import _is_out_of_memory

    cpu = "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError(cpu)):
        assert _is_out_of_memory(error)
    assert not _is_out_of_memory(RuntimeError("shape mismatch"))


def test_any_other_error_is_a_crash_with_its_traceback(monkeypatch, data_dir, tmp_path):
    def broken(*arguments):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr("trainer.cell.warm_up", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        main(flags(data_dir, tmp_path))
    assert not (tmp_path / REPORT_FILE).exists()
