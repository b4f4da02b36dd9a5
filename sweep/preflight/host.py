"""Is this machine set up as the sweep needs it: memory, limits, disks, data?"""

from collections.abc import Iterator

from sweep.messages import Requirements, Status, Supply
from sweep.preflight.facts import NOT_HERE, Surroundings
from sweep.preflight.finding import Finding, worst
from sweep.timing.nvml import Unreadable

GIB = 2**30
SHM_BYTES = GIB  # what NVIDIA's guides give a container; docker's own 64 MiB is too little for NCCL
OPEN_FILES = 4096  # ranks, their sockets to one another and shards; 1024 is the usual default
LITTLE_BYTES, FEW_BYTES = (
    GIB,
    10 * GIB,
)  # a checkpoint of the largest recipe is below a third of one
SLOW_SETTINGS = ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE")
INTERFACE_SETTINGS = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


def settings(here: Surroundings, asked: Requirements) -> Finding:
    if asked.shape.ranks == 1:
        return Finding("n/a", "one rank speaks to nobody")
    shown = " ".join(f"{key}={value}" for key, value in here.settings.items())
    return worst(_odd_settings(here), good=shown or "none is set")


def shared_memory(here: Surroundings, asked: Requirements) -> Finding:
    if asked.shape.ranks == 1:
        return Finding("n/a", "one rank shares with nobody")
    if isinstance(here.shm_bytes, Unreadable):
        return Finding("unknown", here.shm_bytes.reason)
    return Finding("warn" if here.shm_bytes < SHM_BYTES else "pass", _size(here.shm_bytes))


def limits(here: Surroundings, asked: Requirements) -> Finding:
    locked = "unlimited" if here.locked_bytes is None else _size(here.locked_bytes)
    seen = f"{here.open_files} open files, {locked} locked memory"
    return Finding("warn" if here.open_files < OPEN_FILES else "pass", seen)


def disk(here: Surroundings, asked: Requirements) -> Finding:
    room = [(folder, free) for folder, free in sorted(here.free_bytes.items())]
    shown = "; ".join(f"{folder}: {_room(free)}" for folder, free in room)
    return worst(
        (Finding(_enough(free), f"{folder}: {_room(free)}") for folder, free in room), shown
    )


def data(here: Surroundings, asked: Requirements) -> Finding:
    if not asked.supplies:
        return Finding("n/a", "the sweep names no data")
    found = (_supply(here.data[supply.data_dir], supply) for supply in asked.supplies)
    return worst(found, good=", ".join(sorted(supply.data_dir for supply in asked.supplies)))


def _odd_settings(here: Surroundings) -> Iterator[Finding]:
    """What is set so that ranks are slow to one another, or cannot find one another."""
    for key in SLOW_SETTINGS:
        if here.settings.get(key, "0") not in ("", "0"):
            yield Finding("warn", f"{key}={here.settings[key]} makes ranks slower")
    for key in INTERFACE_SETTINGS:
        named = here.settings.get(key, "")
        if named and not named.startswith("^") and not _any_interface(named, here.interfaces):
            known = ", ".join(sorted(here.interfaces))
            yield Finding("warn", f"{key}={named}: the interfaces here are {known}")


def _any_interface(named: str, interfaces: frozenset[str]) -> bool:
    """Whether an entry names an interface: the whole of it after "=", else its beginning."""
    if named.startswith("="):
        return not interfaces.isdisjoint(named[1:].split(","))
    return any(name.startswith(entry) for entry in named.split(",") for name in interfaces)


def _enough(free: int | Unreadable) -> Status:
    if isinstance(free, Unreadable) or free < LITTLE_BYTES:
        return "refuse"
    return "warn" if free < FEW_BYTES else "pass"


def _room(free: int | Unreadable) -> str:
    return free.reason if isinstance(free, Unreadable) else f"{_size(free)} free"


def _supply(wrong: str | None, supply: Supply) -> Finding:
    if wrong is None:
        return Finding("pass", supply.data_dir)
    if wrong == NOT_HERE and supply.missing == "fetch":
        return Finding("warn", f"{supply.data_dir}: {wrong}, so it is fetched")
    return Finding("refuse", f"{supply.data_dir}: {wrong}")


def _size(num_bytes: int) -> str:
    """
    >>> _size(64 * 2**20), _size(3 * 2**30)
    ('64 MiB', '3 GiB')
    """
    unit, name = (GIB, "GiB") if num_bytes >= GIB else (2**20, "MiB")
    return f"{num_bytes / unit:.4g} {name}"
