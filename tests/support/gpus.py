"""GPUs that say what a test wrote down for them, behind the functions of pynvml that are used.

A field that holds an exception raises it, as NVML does for what it cannot tell.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

from sweep.timing.nvml import Nvml, open_nvml

GIB = 2**30
NOT_SUPPORTED = pynvml.NVMLError_NotSupported()
NO_PERMISSION = pynvml.NVMLError_NoPermission()


@dataclass
class ScriptedGpu:
    """A healthy, idle H100 unless said otherwise."""

    uuid: str
    name: Any = "NVIDIA H100 80GB HBM3"
    used_bytes: Any = 0
    mig: Any = 0
    uncorrected: Any = 0
    remap_pending: Any = 0
    remap_failed: Any = 0
    retirement_pending: Any = field(default_factory=pynvml.NVMLError_NotSupported)  # it remaps rows
    reasons: Any = 0x1  # idle
    pids: Any = ()
    sm_clock_mhz: Any = 1980
    power_mw: Any = 700_000
    temperature_c: Any = 60


def h100s(count: int = 8, **changes: Any) -> list[ScriptedGpu]:
    return [ScriptedGpu(uuid=f"GPU-{letter * 8}", **changes) for letter in "abcdefgh"[:count]]


@dataclass
class ScriptedLibrary:
    """In place of the module ``pynvml``."""

    gpus: list[ScriptedGpu] = field(default_factory=h100s)
    driver: Any = "570.86.15"
    cuda: Any = 12080
    opens: Any = None
    event_reasons_known: bool = True

    NVML_CLOCK_SM: int = pynvml.NVML_CLOCK_SM
    NVML_TEMPERATURE_GPU: int = pynvml.NVML_TEMPERATURE_GPU
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED: int = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    NVML_VOLATILE_ECC: int = pynvml.NVML_VOLATILE_ECC

    def nvmlInit(self):
        return _told(self.opens)

    def nvmlSystemGetDriverVersion(self):
        return _told(self.driver)

    def nvmlSystemGetCudaDriverVersion_v2(self):
        return _told(self.cuda)

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle):
        return _told(handle.uuid)

    def nvmlDeviceGetName(self, handle):
        return _told(handle.name)

    def nvmlDeviceGetMemoryInfo(self, handle, version=None):
        return SimpleNamespace(used=_told(handle.used_bytes))

    def nvmlDeviceGetMigMode(self, handle):
        return [_told(handle.mig), 0]

    def nvmlDeviceGetTotalEccErrors(self, handle, error, counter):
        assert (error, counter) == (self.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, self.NVML_VOLATILE_ECC)
        return _told(handle.uncorrected)

    def nvmlDeviceGetRemappedRows(self, handle):
        return 0, 0, _told(handle.remap_pending), _told(handle.remap_failed)

    def nvmlDeviceGetRetiredPagesPendingStatus(self, device):
        return _told(device.retirement_pending)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        if not self.event_reasons_known:
            raise pynvml.NVMLError_FunctionNotFound()
        return _told(handle.reasons)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return _told(handle.reasons)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid, usedGpuMemory=GIB) for pid in _told(handle.pids)]

    def nvmlDeviceGetClockInfo(self, handle, kind):
        assert kind == self.NVML_CLOCK_SM
        return _told(handle.sm_clock_mhz)

    def nvmlDeviceGetPowerUsage(self, handle):
        return _told(handle.power_mw)

    def nvmlDeviceGetTemperature(self, handle, sensor):
        assert sensor == self.NVML_TEMPERATURE_GPU
        return _told(handle.temperature_c)


def scripted_nvml(gpus=None, visible=None, **changes) -> Nvml:
    nvml = open_nvml(visible, ScriptedLibrary(gpus=h100s() if gpus is None else gpus, **changes))
    assert isinstance(nvml, Nvml), nvml
    return nvml


def _told(value):
    if isinstance(value, Exception):
        raise value
    return value
