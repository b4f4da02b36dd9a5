"""A node is refused for what would spoil its cells, and nothing unread counts as well.

Not claimed: that NVML or NCCL on a GPU answer as their doubles do; no GPU has been seen yet.
"""

import errno
import os
import sys
import time
from dataclasses import replace

import pytest
import torch

from sweep.preflight import CHECKS, refusal, run_checks, warnings
from sweep.preflight.all_reduce import all_reduce
from sweep.preflight.checks import markdown
from sweep.preflight.facts import NOT_HERE, logged_xids, read_facts, torch_cuda
from sweep.preflight.finding import Finding
from sweep.provenance import lockfile_hash, software, sweep_hash
from sweep.timing.nvml import Unreadable
from tests.support.commands import ROOT
from tests.support.gpus import GIB, NO_PERMISSION, NOT_SUPPORTED, h100s
from tests.support.nodes import DATASET, SOFTWARE, blind, node_facts, required_dataset, requirements
from tests.support.tiny import build_tiny_dataset
from trainer.source import trainer_source

NAMES = [check.name for check in CHECKS]


def statuses(here, **asked):
    """By check, where it is not a pass."""
    results = run_checks(requirements(**asked), facts=here)
    assert [result.name for result in results] == NAMES
    return {result.name: result.status for result in results if result.status != "pass"}


def one(place, **changes):
    """Eight H100s, one of which is spoiled."""
    every = h100s()
    every[place] = replace(every[place], **changes)
    return every


def test_a_healthy_node_passes_every_check():
    assert statuses(node_facts()) == {}


def test_the_document_has_the_table_of_the_code():
    text = (ROOT / "docs" / "preflight.md").read_text(encoding="utf-8")
    assert markdown() in text, "write it anew: python -m sweep.preflight"


def test_checks_have_names_of_their_own_and_a_row_of_the_table_each():
    assert len(set(NAMES)) == len(NAMES)
    assert {row.count("|") for row in markdown().splitlines()} == {7}


UNSEEN = dict.fromkeys(
    ["whole node", "MIG", "foreign load", "GPU memory errors", "throttling", "CUDA"], "unknown"
)
SPOILED = {
    "one GPU is missing": (
        node_facts(h100s(7)),
        {"GPUs": "refuse", "all-reduce": "unknown"},
    ),
    "no GPU at all": (node_facts([]), UNSEEN | {"GPUs": "refuse", "all-reduce": "unknown"}),
    "another model": (node_facts(h100s(name="NVIDIA A100-SXM4-80GB")), {"GPUs": "refuse"}),
    "mixed models": (
        node_facts(one(3, name="NVIDIA H100 NVL")),
        {"whole node": "refuse"},
    ),
    "MIG on": (node_facts(one(0, mig=1)), {"MIG": "refuse"}),
    "a foreign process": (
        node_facts(one(1, pids=(4711,))),
        {"foreign load": "refuse", "all-reduce": "unknown"},
    ),
    "memory held by nobody": (
        node_facts(one(1, used_bytes=2 * GIB)),
        {"foreign load": "refuse", "all-reduce": "unknown"},
    ),
    "an uncorrected error": (node_facts(one(2, uncorrected=1)), {"GPU memory errors": "refuse"}),
    "a failed remap": (node_facts(one(2, remap_failed=1)), {"GPU memory errors": "refuse"}),
    "a pending remap": (node_facts(one(2, remap_pending=1)), {"GPU memory errors": "warn"}),
    "a pending retirement": (
        node_facts(one(2, retirement_pending=1, remap_pending=NOT_SUPPORTED)),
        {"GPU memory errors": "warn"},
    ),
    "an Xid of the hardware": (node_facts(xids=(31, 79)), {"Xid": "warn"}),
    "slowed by heat": (node_facts(one(5, reasons=0x40)), {"throttling": "refuse"}),
    "an old driver": (node_facts(library={"cuda": 11080}), {"CUDA": "refuse"}),
    "a driver of last year": (node_facts(library={"cuda": 12040}), {"CUDA": "warn"}),
    "torch without CUDA": (node_facts(torch_cuda=None), {"CUDA": "refuse"}),
    "P2P switched off": (
        node_facts(settings={"NCCL_P2P_DISABLE": "1"}),
        {"NCCL settings": "warn"},
    ),
    "an interface of elsewhere": (
        node_facts(settings={"NCCL_SOCKET_IFNAME": "ib"}),
        {"NCCL settings": "warn"},
    ),
    "docker's shared memory": (node_facts(shm_bytes=64 * 2**20), {"/dev/shm": "warn"}),
    "few open files": (node_facts(open_files=1024), {"limits": "warn"}),
    "a full disk": (node_facts(free_bytes={"/tmp": 5}), {"disk": "refuse"}),
    "a disk that is nearly full": (node_facts(free_bytes={"/tmp": 5 * GIB}), {"disk": "warn"}),
    "a disk that is read-only": (
        node_facts(free_bytes={"/tmp": Unreadable("Read-only file system")}),
        {"disk": "refuse"},
    ),
    "no data": (node_facts(data={DATASET.data_dir: NOT_HERE}), {"data": "refuse"}),
    "other data": (node_facts(data={DATASET.data_dir: "corpus 12ab"}), {"data": "refuse"}),
    "other code": (node_facts(trainer_hash="0" * 64), {"trainer code": "refuse"}),
    "other code of the sweep": (node_facts(sweep_hash="0" * 64), {"sweep code": "refuse"}),
    "another lockfile": (node_facts(lockfile_hash="0" * 64), {"lockfile": "refuse"}),
    "no lockfile": (node_facts(lockfile_hash=None), {"lockfile": "refuse"}),
    "another torch": (
        node_facts(software=replace(SOFTWARE, torch="2.12")),
        {"versions": "warn"},
    ),
    "another Ray": (node_facts(software=replace(SOFTWARE, ray=None)), {"Ray": "refuse"}),
    "a clock that is wrong": (node_facts(now_at=900.0), {"clock": "warn"}),
    "ranks that do not meet": (
        node_facts(all_reduce=lambda ranks: Finding("refuse", "rank 3 ended")),
        {"all-reduce": "refuse"},
    ),
}


def test_each_fault_is_found_by_its_check_and_by_no_other():
    assert {what: statuses(facts) for what, (facts, _) in SPOILED.items()} == {
        what: expected for what, (_, expected) in SPOILED.items()
    }


def test_what_only_disturbs_time_is_a_warning_where_nothing_is_timed():
    for what in ("a foreign process", "memory held by nobody", "slowed by heat"):
        facts, expected = SPOILED[what]
        warned = {name: "warn" if s == "refuse" else s for name, s in expected.items()}
        assert statuses(facts, timed=False) == warned, what


UNREAD = {
    "mig": "MIG",
    "pids": "foreign load",
    "used_bytes": "foreign load",
    "uncorrected": "GPU memory errors",
    "remap_pending": "GPU memory errors",  # with the retirement, which an H100 does not have
    "reasons": "throttling",
}


def test_what_a_container_hides_is_unknown_and_not_a_pass():
    for field, check in UNREAD.items():
        for error in (NO_PERMISSION, NOT_SUPPORTED):
            assert statuses(node_facts(one(4, **{field: error}))) == {check: "unknown"}, field


def test_a_fault_that_is_seen_outweighs_what_is_hidden():
    every = one(0, uncorrected=NO_PERMISSION)
    every[1].uncorrected = 3
    assert statuses(node_facts(every)) == {"GPU memory errors": "refuse"}


def test_part_of_a_machine_is_warned_of_and_its_other_gpus_are_not_looked_at():
    every = one(7, uncorrected=9, pids=(1,), reasons=0x8)
    here = node_facts(every, visible=["0", "1"])
    assert statuses(here, gpus=2) == {"whole node": "warn"}


def test_without_nvml_a_node_is_refused_only_where_no_gpu_is_to_be_seen():
    hidden = UNSEEN | {"GPUs": "unknown"}
    assert statuses(blind()) == hidden
    none = hidden | {"GPUs": "refuse", "all-reduce": "unknown"}
    assert statuses(blind(gpu_files=0)) == none


def test_a_sweep_on_cpus_is_asked_nothing_about_gpus():
    found = statuses(blind(gpu_files=0, torch_cuda=None), gpus=0)
    assert set(found.values()) == {"n/a"}
    assert {"GPUs", "MIG", "CUDA", "all-reduce"} <= set(found)


def test_a_driver_that_says_nothing_of_itself_is_not_compared_with():
    found = statuses(node_facts(), driver_software=None, sent_at=None, lockfile_hash=None)
    assert found == dict.fromkeys(["lockfile", "versions", "Ray", "clock"], "n/a")


def test_data_that_is_fetched_is_no_reason_to_refuse_but_other_data_is():
    asked = {"datasets": (replace(DATASET, missing="fetch"),)}
    for wrong, expected in ((NOT_HERE, "warn"), ("corpus 12ab", "refuse")):
        assert statuses(node_facts(data={DATASET.data_dir: wrong}), **asked) == {"data": expected}


INTERFACES = {
    "eth": True,
    "=eth": False,
    "=eth0": True,
    "ib0,eth": True,
    "^docker": True,
    "ib": False,
}


def test_interfaces_are_named_as_nccl_reads_them():
    for named, known in INTERFACES.items():
        found = statuses(node_facts(settings={"NCCL_SOCKET_IFNAME": named}))
        assert (found == {}) is known, named


def test_the_refusal_names_every_refused_check_with_its_remedy():
    every = one(0, mig=1, uncorrected=2)
    results = run_checks(requirements(), facts=node_facts(every))
    sentence = refusal(results)
    assert sentence is not None
    for name in ("MIG", "GPU memory errors"):
        remedy = next(check.remedy for check in CHECKS if check.name == name)
        assert name in sentence
        assert remedy in sentence
    assert refusal(run_checks(requirements(), facts=node_facts())) is None


def test_warnings_tell_what_is_unknown_too():
    here = node_facts(one(0, reasons=NO_PERMISSION), shm_bytes=2**26)
    shm, unknown = warnings(run_checks(requirements(), facts=here))
    assert shm.startswith("/dev/shm: 64 MiB")
    assert "throttling" in unknown
    assert "Insufficient Permissions" in unknown
    assert warnings(run_checks(requirements(), facts=node_facts())) == ()


def test_nothing_is_asked_of_gpus_that_somebody_trains_on():
    def disturbing(ranks):
        raise AssertionError("it was asked")

    training = h100s(pids=(4711,), used_bytes=60 * GIB)
    here = node_facts(training, all_reduce=disturbing)
    found = {r.name: r for r in run_checks(requirements(gpus_are_leased=True), facts=here)}
    busy = {name: result.detail for name, result in found.items() if result.status != "pass"}
    assert busy == {"foreign load": "busy: not asked", "all-reduce": "busy: not asked"}


def broken(here, asked):
    raise ZeroDivisionError("by a strange driver")


def stuck(here, asked):
    time.sleep(60)


@pytest.mark.parametrize(("look", "words"), [(broken, "strange driver"), (stuck, "no answer")])
def test_a_check_that_breaks_or_hangs_is_unknown_and_the_others_go_on(monkeypatch, look, words):
    spoiled = replace(CHECKS[0], look=look, deadline_s=0.1)
    monkeypatch.setattr("sweep.preflight.CHECKS", (spoiled, *CHECKS[1:]))
    first, *others = run_checks(requirements(), facts=node_facts())
    assert first.status == "unknown"
    assert words in first.detail
    assert {result.status for result in others} == {"pass"}


def test_this_machine_is_looked_at_and_nothing_is_refused_of_a_sweep_on_its_cpus(tmp_path):
    asked = requirements(
        gpus=0,
        datasets=(required_dataset(build_tiny_dataset(tmp_path / "data")),),
        trainer_hash=trainer_source().sha256,
        lockfile_hash=lockfile_hash(ROOT),
        checkpoint_folder=str(tmp_path / "not" / "there" / "yet"),
        driver_software=software(),
        sweep_hash=sweep_hash(),
        sent_at=time.time(),
    )
    results = {result.name: result for result in run_checks(asked)}
    assert not [r for r in results.values() if r.status in ("refuse", "unknown")]
    for name in ("trainer code", "lockfile", "versions", "Ray", "clock", "data"):
        assert results[name].status == "pass", results[name]


def test_what_is_wrong_with_data_is_said(tmp_path):
    data = build_tiny_dataset(tmp_path / "data")
    asked = requirements(gpus=0, datasets=(replace(DATASET, data_dir=str(data)),))
    assert "not what the sweep asks for" in (read_facts(asked).data[str(data)] or "")
    (data / "manifest.json").write_text("{")
    assert "manifest.json" in (read_facts(asked).data[str(data)] or "")


def test_a_folder_that_cannot_be_written_is_said_to_be_so(tmp_path):
    file = tmp_path / "file"
    file.touch()
    free = read_facts(requirements(gpus=0, checkpoint_folder=str(file))).free_bytes[str(file)]
    assert isinstance(free, Unreadable)
    assert os.strerror(errno.ENOTDIR) in free.reason


def test_the_cuda_of_torch_is_read():
    assert torch_cuda() == torch.version.cuda


def test_xids_are_found_in_the_kernels_log_and_silence_is_not_health(tmp_path):
    log = tmp_path / "kmsg"
    log.write_bytes(
        b"6,1,1,-;usb 1-1: new device\n"
        b"4,2,9,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.\n"
        b"4,3,9,-;NVRM: Xid (PCI:0000:3b:00): 31, pid=1234, name=python\n"
    )
    assert logged_xids(log) == (31, 79)
    log.write_bytes(b"4,1,1,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.86.15\n")
    assert logged_xids(log) == ()
    for silent in (b"", b"6,1,1,-;usb 1-1: new device\n"):
        log.write_bytes(silent)
        assert isinstance(logged_xids(log), Unreadable)


STAND_INS = {
    "import sys; sys.exit('no such interface')": (60.0, "ended with status 1: no such interface"),
    "import time; time.sleep(60)": (0.2, "no answer after 0.2 s"),
    "import sys, time; time.sleep(60 * ('1' in sys.argv)); sys.exit(3)": (60.0, "rank 0 ended"),
}


@pytest.mark.parametrize("program", STAND_INS)
def test_ranks_that_fail_or_hang_are_ended_and_said(program):
    deadline_s, words = STAND_INS[program]
    found = all_reduce(2, deadline_s=deadline_s, command=[sys.executable, "-c", program])
    assert found.status == "refuse"
    assert words in found.detail


def test_real_ranks_sum_a_tensor_and_measure_it():
    found = all_reduce(2, "cpu")
    assert found.status == "pass", found.detail
    assert found.detail.startswith("2 ranks, gloo, ")
    assert found.detail.endswith(" GB/s")
