"""Read GPUs by NVML, NVIDIA's management library (``pynvml``): state, clocks, power, processes.

NVML needs no CUDA context and makes none. Any field may be unreadable (a container without the
right, a model without the feature): that is an answer, :class:`Unreadable`, never a zero.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SLOWDOWN_NAMES = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
# What slows a disturbed GPU, and that alone. The software power cap (0x4) is how a GPU at its rated
# power runs, and the power depends on the numbers that are multiplied, so on the activation; idle
# (0x1), application clocks (0x2), sync boost (0x10) and display clocks (0x100) are settings.
SLOWED = sum(SLOWDOWN_NAMES)

MEMORY_V2 = 0x02000028  # nvmlMemory_v2: what the driver keeps for itself is not counted as used
INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of Linux


@dataclass(frozen=True, slots=True)
class Unreadable:
    """There is no answer, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU before its first cell. ``slowed`` are the bits of SLOWED that are set now."""

    index: int
    uuid: str
    name: str
    used_bytes: int | Unreadable
    mig: bool | Unreadable
    uncorrected_errors: int | Unreadable
    remap_pending: bool | Unreadable
    remap_failed: bool | Unreadable
    retirement_pending: bool | Unreadable
    slowed: int | Unreadable
    pids: frozenset[int] | Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One GPU at one moment of a cell."""

    sm_clock_mhz: int | Unreadable
    power_w: float | Unreadable
    temperature_c: int | Unreadable
    slowed: int | Unreadable
    pids: frozenset[int] | Unreadable


class Nvml:
    """The library, opened, and the GPUs that this process may use."""

    def __init__(self, library: Any, visible: Sequence[str] | None) -> None:
        self._nvml = library
        library.nvmlInit()
        every = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
        uuids = [library.nvmlDeviceGetUUID(handle) for handle in every]
        self._handles, self._uuids = every, uuids
        self.names = tuple(library.nvmlDeviceGetName(handle) for handle in every)
        self.used = tuple(
            range(len(every)) if visible is None else (_index(entry, uuids) for entry in visible)
        )

    @property
    def driver(self) -> str | Unreadable:
        return _read(self._nvml.nvmlSystemGetDriverVersion)

    @property
    def cuda(self) -> tuple[int, int] | Unreadable:
        """The newest CUDA that the driver serves."""
        number = _read(self._nvml.nvmlSystemGetCudaDriverVersion_v2)
        if isinstance(number, Unreadable):
            return number
        return number // 1000, number % 1000 // 10

    @property
    def uuids(self) -> tuple[str, ...]:
        """Of the GPUs that are used."""
        return tuple(self._uuids[index] for index in self.used)

    @property
    def models(self) -> frozenset[str]:
        """Of the GPUs that are used, as Ray names them."""
        return frozenset(model_of(self.names[index]) for index in self.used)

    def gpu(self, index: int) -> Gpu:
        """The state of one GPU of this machine, by its place in ``names``."""
        nvml, handle = self._nvml, self._handles[index]
        remapped = _read(lambda: nvml.nvmlDeviceGetRemappedRows(handle))
        return Gpu(
            index=index,
            uuid=self._uuids[index],
            name=self.names[index],
            used_bytes=self._used_bytes(handle),
            mig=_read(lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0])),
            uncorrected_errors=_read(
                lambda: nvml.nvmlDeviceGetTotalEccErrors(
                    handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
                )
            ),
            remap_pending=remapped if isinstance(remapped, Unreadable) else bool(remapped[2]),
            remap_failed=remapped if isinstance(remapped, Unreadable) else bool(remapped[3]),
            retirement_pending=_read(
                lambda: bool(nvml.nvmlDeviceGetRetiredPagesPendingStatus(handle))
            ),
            slowed=self._slowed(handle),
            pids=self._pids(handle),
        )

    def readings(self) -> list[Reading]:
        """The GPUs that are used, now."""
        return [self._reading(self._handles[index]) for index in self.used]

    def _reading(self, handle: Any) -> Reading:
        nvml = self._nvml
        return Reading(
            sm_clock_mhz=_read(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            power_w=_read(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            temperature_c=_read(
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            slowed=self._slowed(handle),
            pids=self._pids(handle),
        )

    def _used_bytes(self, handle: Any) -> int | Unreadable:
        used = _read(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(handle, MEMORY_V2).used))
        if isinstance(used, Unreadable):  # a driver from before version 2 of the question
            used = _read(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used))
        return used

    def _slowed(self, handle: Any) -> int | Unreadable:
        reasons = _read(lambda: self._nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        if isinstance(reasons, Unreadable):  # its name before driver 535
            reasons = _read(lambda: self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        return reasons if isinstance(reasons, Unreadable) else reasons & SLOWED

    def _pids(self, handle: Any) -> frozenset[int] | Unreadable:
        running = _read(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(handle))
        if isinstance(running, Unreadable):
            return running
        return frozenset(int(process.pid) for process in running)


def open_nvml(visible: Sequence[str] | None, library: Any = None) -> Nvml | Unreadable:
    """NVML for the GPUs that CUDA_VISIBLE_DEVICES names, for all of them where it is None.

    ``library`` stands in for ``pynvml``.
    """
    if library is None:
        try:
            import pynvml
        except ImportError:
            return Unreadable("the package nvidia-ml-py is not installed")
        library = pynvml
    chosen = library
    return _read(lambda: Nvml(chosen, visible))


def model_of(product: str) -> str:
    """The model of a product by Ray's rule: what follows the maker, up to the first number.

    >>> model_of("NVIDIA H100 80GB HBM3"), model_of("Tesla V100-SXM2-16GB")
    ('H100', 'V100')
    """
    words = re.split("[ -]", product)[1:]
    numbered = [n for n, word in enumerate(words, start=1) if re.search(r"\d", word)]
    return "-".join(words[: min(numbered, default=len(words))])


def slowdown_names(slowed: int) -> str:
    """
    >>> slowdown_names(0x48)
    'hardware slowdown, hardware thermal slowdown'
    """
    return ", ".join(name for bit, name in SLOWDOWN_NAMES.items() if slowed & bit)


def sees_host_pids(namespace: Path = Path("/proc/self/ns/pid")) -> bool:
    """Whether process numbers here are those of the host, which are the ones that NVML tells."""
    try:
        return namespace.stat().st_ino == INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _index(entry: str, uuids: Sequence[str]) -> int:
    """The place of one entry of CUDA_VISIBLE_DEVICES: a number, or the beginning of a UUID."""
    places = [i for i, uuid in enumerate(uuids) if entry in (str(i), uuid)]
    places = places or [i for i, uuid in enumerate(uuids) if uuid.startswith(entry)]
    if len(places) != 1:
        raise LookupError(
            f"CUDA_VISIBLE_DEVICES names {entry!r}; NVML shows {len(uuids)} GPUs "
            f"({', '.join(uuids) or 'none'})"
        )
    return places[0]


def _read(question: Callable[[], T]) -> T | Unreadable:
    """Its answer. Any exception is one, so that a strange driver never ends a cell."""
    try:
        return question()
    except Exception as error:
        return Unreadable(str(error) or type(error).__name__)
