"""Checks of the machine: NCCL settings, shared memory, limits, disks, data."""

from collections.abc import Iterator

from sweep.messages import RequiredDataset, Requirements, Status
from sweep.preflight.facts import NOT_HERE, Facts
from sweep.preflight.finding import Finding, worst_finding
from sweep.timing.nvml import Unreadable

GIB = 2**30
SHM_BYTES = GIB  # what NVIDIA's guides give a container; docker's own 64 MiB is too little for NCCL
OPEN_FILES = 4096  # ranks, their sockets to one another and shards; 1024 is the usual default
# A checkpoint of the largest recipe is below a third of a GiB.
REFUSED_FREE_BYTES, WARNED_FREE_BYTES = GIB, 10 * GIB
SLOW_SETTINGS = ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE")
INTERFACE_SETTINGS = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


def settings(facts: Facts, required: Requirements) -> Finding:
    if required.shape.ranks == 1:
        return Finding("n/a", "one rank speaks to nobody")
    shown = " ".join(f"{key}={value}" for key, value in facts.settings.items())
    return worst_finding(_odd_settings(facts), good=shown or "none is set")


def shared_memory(facts: Facts, required: Requirements) -> Finding:
    if required.shape.ranks == 1:
        return Finding("n/a", "one rank shares with nobody")
    if isinstance(facts.shm_bytes, Unreadable):
        return Finding("unknown", facts.shm_bytes.reason)
    return Finding("warn" if facts.shm_bytes < SHM_BYTES else "pass", _size(facts.shm_bytes))


def limits(facts: Facts, required: Requirements) -> Finding:
    locked = "unlimited" if facts.locked_bytes is None else _size(facts.locked_bytes)
    seen = f"{facts.open_files} open files, {locked} locked memory"
    return Finding("warn" if facts.open_files < OPEN_FILES else "pass", seen)


def disk(facts: Facts, required: Requirements) -> Finding:
    free = sorted(facts.free_bytes.items())
    shown = "; ".join(f"{folder}: {_free(space)}" for folder, space in free)
    findings = (Finding(_enough(space), f"{folder}: {_free(space)}") for folder, space in free)
    return worst_finding(findings, good=shown)


def data(facts: Facts, required: Requirements) -> Finding:
    if not required.datasets:
        return Finding("n/a", "the sweep names no data")
    findings = (_dataset(facts.data[each.data_dir], each) for each in required.datasets)
    good = ", ".join(sorted(each.data_dir for each in required.datasets))
    return worst_finding(findings, good)


def _odd_settings(facts: Facts) -> Iterator[Finding]:
    """What is set so that ranks are slow to one another, or cannot find one another."""
    for key in SLOW_SETTINGS:
        if facts.settings.get(key, "0") not in ("", "0"):
            yield Finding("warn", f"{key}={facts.settings[key]} makes ranks slower")
    for key in INTERFACE_SETTINGS:
        named = facts.settings.get(key, "")
        if named and not named.startswith("^") and not _names_interface(named, facts.interfaces):
            known = ", ".join(sorted(facts.interfaces))
            yield Finding("warn", f"{key}={named}: the interfaces here are {known}")


def _names_interface(named: str, interfaces: frozenset[str]) -> bool:
    """Whether an entry names an interface: the whole of it after "=", else its beginning."""
    if named.startswith("="):
        return not interfaces.isdisjoint(named[1:].split(","))
    return any(name.startswith(entry) for entry in named.split(",") for name in interfaces)


def _enough(free: int | Unreadable) -> Status:
    if isinstance(free, Unreadable) or free < REFUSED_FREE_BYTES:
        return "refuse"
    return "warn" if free < WARNED_FREE_BYTES else "pass"


def _free(free: int | Unreadable) -> str:
    return free.reason if isinstance(free, Unreadable) else f"{_size(free)} free"


def _dataset(wrong: str | None, required: RequiredDataset) -> Finding:
    if wrong is None:
        return Finding("pass", required.data_dir)
    if wrong == NOT_HERE and required.missing == "fetch":
        return Finding("warn", f"{required.data_dir}: {wrong}, so it is fetched")
    return Finding("refuse", f"{required.data_dir}: {wrong}")


def _size(num_bytes: int) -> str:
    """
    >>> _size(64 * 2**20), _size(3 * 2**30)
    ('64 MiB', '3 GiB')
    """
    unit, name = (GIB, "GiB") if num_bytes >= GIB else (2**20, "MiB")
    return f"{num_bytes / unit:.4g} {name}"
