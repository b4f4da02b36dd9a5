"""Checks of the GPUs: number, model, MIG, foreign load, errors, throttling, CUDA, all-reduce."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from sweep.messages import Requirements, Status
from sweep.preflight.facts import Facts, Gpus, is_busy
from sweep.preflight.finding import Finding, worst_finding
from sweep.timing.nvml import Gpu, Unreadable, slowdown_names

Look = Callable[[Facts, Requirements], Finding]
LookAtGpu = Callable[[Gpu, Requirements], Iterator[Finding]]

GIB = 2**30
NO_GPUS_ASKED = Finding("n/a", "the sweep asks for no GPU")
BUSY = Finding("unknown", "busy: not asked")

# Of the driver's catalogue those that speak of the hardware or of its firmware, not of a program:
# memory (48, 64, 92, 94, 95, 140), NVLink (74), the bus (79), its controllers (62, 119, 120).
HARDWARE_XIDS = frozenset({48, 62, 64, 74, 79, 92, 94, 95, 119, 120, 140})


def gpu_count(facts: Facts, required: Requirements) -> Finding:
    shape = required.shape
    if shape.gpus == 0:
        return NO_GPUS_ASKED
    if isinstance(facts.gpus, Unreadable):
        status: Status = "refuse" if facts.gpu_files < shape.gpus else "unknown"
        files = f"{facts.gpu_files} device files, {shape.gpus} GPUs asked for"
        return Finding(status, f"NVML: {facts.gpus.reason}; {files}")
    usable = facts.gpus.used
    seen = f"{len(usable)} of {shape.gpus} GPUs: {_models(usable)}"
    if len(usable) < shape.gpus:
        return Finding("refuse", seen)
    if shape.gpu_model and not all(_is_model(gpu.name, shape.gpu_model) for gpu in usable):
        return Finding("refuse", f"{seen}; {shape.gpu_model} is asked for")
    driver = facts.gpus.driver
    named = "unknown" if isinstance(driver, Unreadable) else driver
    return Finding("pass", f"{seen}; driver {named}")


def gpu_mix(facts: Facts, required: Requirements) -> Finding:
    gpus = _gpus(facts, required)
    if isinstance(gpus, Finding):
        return gpus
    if len({gpu.name for gpu in gpus.used}) > 1:
        return Finding("refuse", f"different models: {_models(gpus.used)}")
    machine = f"the machine has {len(gpus.models)}: {', '.join(sorted(set(gpus.models)))}"
    if len(set(gpus.models)) > 1:
        return Finding("warn", machine)
    if required.shape.gpus < len(gpus.models):
        return Finding("warn", f"{required.shape.gpus} of its GPUs are used, {machine}")
    return Finding("pass", f"all {len(gpus.models)} GPUs of the machine, one model")


def xid(facts: Facts, required: Requirements) -> Finding:
    if required.shape.gpus == 0:
        return NO_GPUS_ASKED
    if isinstance(facts.xids, Unreadable):
        return Finding("unknown", facts.xids.reason)
    hardware = [number for number in facts.xids if number in HARDWARE_XIDS]
    if hardware:
        return Finding("warn", f"Xid {', '.join(map(str, hardware))} since the boot")
    others = ", ".join(map(str, facts.xids))
    return Finding("pass", f"only of programs: Xid {others}" if others else "none since the boot")


def cuda(facts: Facts, required: Requirements) -> Finding:
    gpus = _gpus(facts, required)
    if isinstance(gpus, Finding):
        return gpus
    if isinstance(facts.torch_cuda, Unreadable):
        return Finding("unknown", f"torch: {facts.torch_cuda.reason}")
    if facts.torch_cuda is None:
        return Finding("refuse", "torch is built without CUDA")
    if isinstance(gpus.cuda, Unreadable):
        return Finding("unknown", f"driver: {gpus.cuda.reason}")
    needs = tuple(int(part) for part in facts.torch_cuda.split(".")[:2])
    seen = f"the driver serves CUDA {gpus.cuda[0]}.{gpus.cuda[1]}, torch has {facts.torch_cuda}"
    if gpus.cuda[0] < needs[0]:
        return Finding("refuse", seen)
    return Finding("warn" if gpus.cuda < needs else "pass", seen)


def all_reduce(facts: Facts, required: Requirements) -> Finding:
    ranks = required.shape.ranks
    if ranks == 1:
        return Finding("n/a", "one rank speaks to nobody")
    seen = () if isinstance(facts.gpus, Unreadable) else facts.gpus.used
    if required.gpus_are_leased or any(map(is_busy, seen)):
        return BUSY  # it would take time and memory from whoever works there
    gpus = facts.gpu_files if isinstance(facts.gpus, Unreadable) else len(seen)
    if gpus < ranks:
        return Finding("unknown", f"not tried: {gpus} GPUs for {ranks} ranks")
    return facts.all_reduce(ranks)


def _gpus(facts: Facts, required: Requirements) -> Gpus | Finding:
    """What NVML said, or what a check says where there is nothing to look at."""
    if required.shape.gpus == 0:
        return NO_GPUS_ASKED
    if isinstance(facts.gpus, Unreadable):
        return Finding("unknown", f"NVML: {facts.gpus.reason}")
    return facts.gpus if facts.gpus.used else Finding("unknown", "no GPU to look at")


def _worst_gpu(good: str) -> Callable[[LookAtGpu], Look]:
    """A check of the worst that is found on the GPUs that are used; ``good`` where nothing is."""

    def check_of(look_at: LookAtGpu) -> Look:
        def look(facts: Facts, required: Requirements) -> Finding:
            gpus = _gpus(facts, required)
            if isinstance(gpus, Finding):
                return gpus
            found = (found for gpu in gpus.used for found in look_at(gpu, required))
            return worst_finding(found, good)

        return look

    return check_of


@_worst_gpu(good="off")
def mig(gpu: Gpu, required: Requirements) -> Iterator[Finding]:
    if isinstance(gpu.mig, Unreadable):
        yield _unread(gpu, gpu.mig)
    elif gpu.mig:
        yield Finding("refuse", f"on, on GPU {gpu.index}")


@_worst_gpu(good="no process, no memory in use")
def foreign(gpu: Gpu, required: Requirements) -> Iterator[Finding]:
    if required.gpus_are_leased:
        yield BUSY
    elif is_busy(gpu):
        pids = [] if isinstance(gpu.pids, Unreadable) else sorted(gpu.pids)
        used = "" if isinstance(gpu.used_bytes, Unreadable) else f"{gpu.used_bytes / GIB:.1f} GiB"
        said = [f"processes {', '.join(map(str, pids))}"] * bool(pids) + [used] * bool(used)
        detail = f"GPU {gpu.index}: {', '.join(said)} in use"
        yield Finding("refuse" if required.timed else "warn", detail)
    for value in (gpu.pids, gpu.used_bytes):
        if isinstance(value, Unreadable):
            yield _unread(gpu, value)


@_worst_gpu(good="no uncorrected error, nothing waits for a reset")
def memory_errors(gpu: Gpu, required: Requirements) -> Iterator[Finding]:
    """A model has remapped rows or retired pages, so one of the two may be unreadable."""
    if isinstance(gpu.uncorrected_errors, Unreadable):
        yield _unread(gpu, gpu.uncorrected_errors)
    elif gpu.uncorrected_errors:
        errors = f"{gpu.uncorrected_errors} uncorrected errors since its reset"
        yield Finding("refuse", f"GPU {gpu.index}: {errors}")
    if gpu.remap_failed is True:
        yield Finding("refuse", f"GPU {gpu.index}: a row could not be remapped")
    if gpu.remap_pending is True or gpu.retirement_pending is True:
        yield Finding("warn", f"GPU {gpu.index}: memory waits for a reset to be replaced")
    if isinstance(gpu.remap_pending, Unreadable) and isinstance(gpu.retirement_pending, Unreadable):
        yield _unread(gpu, gpu.remap_pending)


@_worst_gpu(good="no GPU is slowed by heat or hardware")
def throttle(gpu: Gpu, required: Requirements) -> Iterator[Finding]:
    if isinstance(gpu.slowed, Unreadable):
        yield _unread(gpu, gpu.slowed)
    elif gpu.slowed:
        detail = f"GPU {gpu.index}: {slowdown_names(gpu.slowed)}"
        yield Finding("refuse" if required.timed else "warn", detail)


def _unread(gpu: Gpu, value: Unreadable) -> Finding:
    return Finding("unknown", f"GPU {gpu.index}: {value.reason}")


def _models(gpus: Sequence[Gpu]) -> str:
    counts = Counter(gpu.name for gpu in gpus)
    return ", ".join(f"{count} × {name}" for name, count in sorted(counts.items())) or "none"


def _is_model(name: str, model: str) -> bool:
    """Whether NVML's ``name`` is of ``model``, as Ray calls it: its words stand in it together.

    >>> _is_model("NVIDIA H100 80GB HBM3", "H100"), _is_model("NVIDIA H100 80GB HBM3", "H10")
    (True, False)
    >>> _is_model("NVIDIA GeForce RTX 4090", "GeForce-RTX-4090")
    True
    """
    words, wanted = re.split(r"[\s-]+", name.lower()), re.split(r"[\s-]+", model.lower())
    places = range(len(words) - len(wanted) + 1)
    return any(words[place : place + len(wanted)] == wanted for place in places)
