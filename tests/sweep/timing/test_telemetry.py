"""Telemetry tells what the GPUs told in training, and nothing where they told nothing."""

import threading

import pynvml
import pytest

from sweep.store.schema import TIMING
from sweep.timing import telemetry
from sweep.timing.nvml import Unreadable, open_nvml, sees_host_pids
from sweep.timing.telemetry import Sampler
from tests.support.commands import wait_until
from tests.support.gpus import (
    NO_PERMISSION,
    NOT_SUPPORTED,
    ScriptedLibrary,
    h100s,
    scripted_nvml,
)

OURS = {101, 102}


def sampler(gpus, *, phase="train", host_pids=True, **options):
    said = phase if callable(phase) else lambda: phase
    return Sampler(
        scripted_nvml(gpus), pids=lambda: OURS, phase=said, host_pids=host_pids, **options
    )


def busy(count=2, **changes):
    return h100s(count, **({"pids": (101, 102), "reasons": 0} | changes))


def test_the_summary_has_the_schemas_columns_and_their_types():
    node = sampler(busy())
    node.sample()
    types = {column.name: column.type for column in TIMING}
    probes = {name for name in types if name.startswith(("probe_", "allreduce_"))}
    assert set(node.summary()) == set(types) - probes
    for name, value in node.summary().items():
        assert isinstance(value, {"string": str, "int64": int, "double": float}[str(types[name])])


def test_without_nvml_every_column_is_missing():
    node = Sampler(Unreadable("no driver"), pids=set, phase=lambda: "train")
    assert node.start().stop() == {}


def test_what_cannot_be_read_is_missing_and_the_rest_is_kept():
    node = sampler(
        busy(
            sm_clock_mhz=NOT_SUPPORTED, reasons=NO_PERMISSION, pids=NO_PERMISSION, power_mw=500_000
        )
    )
    node.sample()
    summary = node.summary()
    missing = {"sm_clock_mhz_p50", "sm_clock_mhz_min", "throttled_fraction", "foreign_fraction"}
    assert {name for name, value in summary.items() if value is None} == missing
    assert summary["power_w_mean"] == 500.0


def test_readings_outside_training_count_for_nothing_but_their_number():
    phases = iter(["warmup", "train", "score"])
    gpus = busy(1)
    node = sampler(gpus, phase=lambda: next(phases))
    for clock, temperature, reasons in ((300, 90, 0x40), (1900, 50, 0), (200, 95, 0x40)):
        gpus[0].sm_clock_mhz, gpus[0].temperature_c, gpus[0].reasons = clock, temperature, reasons
        node.sample()
    summary = node.summary()
    assert summary["telemetry_samples"] == 3
    assert summary["sm_clock_mhz_p50"] == summary["sm_clock_mhz_min"] == 1900
    assert (summary["temperature_c_max"], summary["throttled_fraction"]) == (50, 0.0)


def test_clocks_are_the_median_and_the_lowest_over_readings_and_gpus():
    gpus = busy(2)
    node = sampler(gpus)
    for clocks in ((1980, 300), (1900, 1950), (1500, 1980)):
        gpus[0].sm_clock_mhz, gpus[1].sm_clock_mhz = clocks
        node.sample()
    assert node.summary()["sm_clock_mhz_p50"] == 1925.0
    assert node.summary()["sm_clock_mhz_min"] == 300.0


REASONS = {
    "GpuIdle": False,
    "ApplicationsClocksSetting": False,
    "SwPowerCap": False,
    "SyncBoost": False,
    "DisplayClockSetting": False,
    "HwSlowdown": True,
    "SwThermalSlowdown": True,
    "HwThermalSlowdown": True,
    "HwPowerBrakeSlowdown": True,
}


@pytest.mark.parametrize("known", [True, False])  # by its name since driver 535
def test_heat_and_the_hardware_slow_a_gpu_and_no_setting_or_power_cap_does(known):
    for reason, slows in REASONS.items():
        gpus = busy(2)
        gpus[1].reasons = getattr(pynvml, f"nvmlClocksEventReason{reason}")
        nvml = scripted_nvml(gpus, event_reasons_known=known)
        node = Sampler(nvml, pids=lambda: OURS, phase=lambda: "train", host_pids=True)
        node.sample()
        assert node.summary()["throttled_fraction"] == float(slows), reason


def test_a_gpu_that_is_not_used_is_not_looked_at():
    gpus = busy(3)
    gpus[2].reasons, gpus[2].pids = 0x8, (999,)
    node = Sampler(
        scripted_nvml(gpus, visible=["1", gpus[0].uuid]),
        pids=lambda: OURS,
        phase=lambda: "train",
        host_pids=True,
    )
    node.sample()
    assert (node.summary()["throttled_fraction"], node.summary()["foreign_fraction"]) == (0, 0)
    assert node.summary()["gpu_uuids"] == f"{gpus[1].uuid},{gpus[0].uuid}"


FOREIGN = [
    ((101, 102), True, 0.0),
    ((101, 102, 7), True, 1.0),
    ((7, 8), True, None),  # our ranks train and are not in the list: other numbers than ours
    ((), True, None),
    ((101, 102, 7), False, None),  # a container: that 101 is in the list means nothing
    (NO_PERMISSION, True, None),
]


def test_a_process_is_foreign_only_where_numbers_mean_the_same():
    for pids, host_pids, expected in FOREIGN:
        node = sampler(busy(1, pids=pids), host_pids=host_pids)
        node.sample()
        assert node.summary()["foreign_fraction"] == expected, (pids, host_pids)


def test_one_gpu_that_does_not_tell_hides_no_other_that_does():
    gpus = busy(2)
    gpus[0].reasons = gpus[0].pids = NO_PERMISSION
    node = sampler(gpus)
    node.sample()
    assert node.summary()["throttled_fraction"] is None
    assert node.summary()["foreign_fraction"] is None
    gpus[1].reasons, gpus[1].pids = 0x8, (101, 7)
    node.sample()
    assert node.summary()["throttled_fraction"] == node.summary()["foreign_fraction"] == 1.0


def test_the_thread_reads_again_and_again_until_it_is_stopped():
    node = sampler(busy(), every_s=0.02)
    node.start()
    wait_until(lambda: node.summary()["telemetry_samples"] >= 5)
    node.stop()
    assert not any(thread.name == "telemetry" for thread in threading.enumerate())


def test_a_library_that_never_answers_does_not_hold_up_the_end_of_a_cell(monkeypatch):
    monkeypatch.setattr(telemetry, "DEADLINE_S", 0.1)
    nvml, asked, let_go = scripted_nvml(busy()), threading.Event(), threading.Event()
    monkeypatch.setattr(nvml, "readings", lambda: (asked.set(), let_go.wait(), [])[-1])
    node = Sampler(nvml, pids=lambda: OURS, phase=lambda: "train", host_pids=True)
    node.start()
    assert asked.wait(60)
    node.stop()  # comes back, though nobody lets go
    assert node.summary()["telemetry_samples"] == 0
    let_go.set()


def test_visible_devices_are_found_by_number_uuid_or_its_beginning():
    gpus = h100s(3)
    assert scripted_nvml(gpus).used == (0, 1, 2)
    assert scripted_nvml(gpus, visible=["2", "GPU-aa"]).used == (2, 0)
    assert scripted_nvml(gpus, visible=[]).used == ()
    for wrong in ("7", "GPU-", "MIG-1"):
        answer = open_nvml([wrong], ScriptedLibrary(gpus))
        assert isinstance(answer, Unreadable)
        assert repr(wrong) in answer.reason


def test_a_library_that_does_not_open_is_an_answer_with_its_reason():
    library = ScriptedLibrary(opens=pynvml.NVMLError_DriverNotLoaded())
    assert open_nvml(None, library) == Unreadable("Driver Not Loaded")


def test_the_double_has_what_pynvml_has():
    for name in dir(ScriptedLibrary):
        if name.startswith(("nvml", "NVML")):
            assert hasattr(pynvml, name), name


def test_a_namespace_of_another_kind_is_no_hosts(tmp_path):
    (tmp_path / "pid").touch()
    assert not sees_host_pids(tmp_path / "pid")
    assert not sees_host_pids(tmp_path / "absent")
