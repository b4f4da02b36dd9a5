"""Facts about this node: everything that the preflight checks look at, read with deadlines.

A check is a function of these values and of what the sweep requires. A value that could not be read
says why.
"""

import contextlib
import os
import re
import resource
import runpy
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from sweep.deadline import call_with_deadline
from sweep.environment import communication_settings, local_gpus, visible_gpus
from sweep.messages import RequiredDataset, Requirements
from sweep.preflight.all_reduce import all_reduce
from sweep.preflight.finding import Finding
from sweep.provenance import PROJECT, Software, lockfile_hash, software, sweep_hash
from sweep.timing.nvml import Gpu, Nvml, Unreadable, open_nvml
from trainer.config.config_errors import ConfigError
from trainer.data.manifest import read_manifest
from trainer.source import trainer_source

T = TypeVar("T")

READ_DEADLINE_S = 20.0
SETTLE_S, SETTLE_POLL_S = 10.0, 0.5  # for what a killed cell held to be given back
XID = re.compile(rb"NVRM: Xid \([^)]*\): (\d+)")
DRIVER_LINE = b"NVRM:"
NOT_HERE = "not on this node"
KERNEL_LOG = Path("/dev/kmsg")
MAX_IDLE_BYTES = 2**30  # what a GPU may have in use though nobody runs; a CUDA context takes half


@dataclass(frozen=True, slots=True)
class Gpus:
    """What NVML says: the models of all GPUs of this machine, and those that may be used."""

    models: tuple[str, ...]
    used: tuple[Gpu, ...]
    driver: str | Unreadable
    cuda: tuple[int, int] | Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """``free_bytes`` is by folder, and so is ``data``: None for data that is as it must be."""

    gpus: Gpus | Unreadable
    gpu_files: int
    xids: tuple[int, ...] | Unreadable
    torch_cuda: str | Unreadable | None
    settings: Mapping[str, str]
    interfaces: frozenset[str]
    shm_bytes: int | Unreadable
    open_files: int
    locked_bytes: int | None
    free_bytes: Mapping[str, int | Unreadable]
    data: Mapping[str, str | None]
    trainer_hash: str
    sweep_hash: str
    lockfile_hash: str | None
    software: Software
    now_at: float
    all_reduce: Callable[[int], Finding]


def read_facts(requirements: Requirements) -> Facts:
    """Those of the node that this process runs on."""
    now_at = time.time()
    needs_gpus = requirements.shape.gpus > 0
    settle_s = 0.0 if requirements.gpus_are_leased else SETTLE_S
    not_needed = Unreadable("the sweep asks for no GPU")
    folders = {tempfile.gettempdir(), *filter(None, [requirements.checkpoint_folder])}
    nofile, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    memlock, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return Facts(
        gpus=_read(partial(_gpus, settle_s), settle_s + READ_DEADLINE_S)
        if needs_gpus
        else not_needed,
        gpu_files=local_gpus(),
        xids=_read(lambda: logged_xids(KERNEL_LOG)) if needs_gpus else not_needed,
        torch_cuda=_read(torch_cuda),
        settings=communication_settings(),
        interfaces=frozenset(name for _, name in socket.if_nameindex()),
        shm_bytes=_read(lambda: shutil.disk_usage("/dev/shm").total),
        open_files=nofile,
        locked_bytes=None if memlock == resource.RLIM_INFINITY else memlock,
        free_bytes={f: _read(partial(_free_bytes, Path(f))) for f in sorted(folders)},
        data={each.data_dir: _data_problem(each) for each in requirements.datasets},
        trainer_hash=trainer_source().sha256,
        sweep_hash=sweep_hash(),
        lockfile_hash=lockfile_hash(PROJECT),
        software=software(),
        now_at=now_at,
        all_reduce=all_reduce,
    )


def is_busy(gpu: Gpu) -> bool:
    """Whether somebody computes on it or holds its memory, as far as it tells."""
    running = not isinstance(gpu.pids, Unreadable) and bool(gpu.pids)
    return running or (
        not isinstance(gpu.used_bytes, Unreadable) and gpu.used_bytes > MAX_IDLE_BYTES
    )


def logged_xids(kernel_log: Path) -> tuple[int, ...] | Unreadable:
    """The NVIDIA driver's errors in the kernel's log, which begins with the boot.

    A log without a line of the driver, which greets when it is loaded, is another machine's, as
    a sandbox has one, or has lost its beginning.
    """
    log = os.open(kernel_log, os.O_RDONLY | os.O_NONBLOCK)
    greeted, found = False, set[int]()
    try:
        with contextlib.suppress(BlockingIOError):  # that was the last one
            while record := _record(log):
                greeted |= DRIVER_LINE in record
                found |= {int(number) for number in XID.findall(record)}
    finally:
        os.close(log)
    return tuple(sorted(found)) if greeted else Unreadable("no driver in the kernel's log")


def torch_cuda() -> str | None:
    """The CUDA that torch was built with, None if with none; read from its files, not imported."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise LookupError("torch is not installed")
    named: str | None = runpy.run_path(str(Path(spec.origin).with_name("version.py")))["cuda"]
    return named


def _gpus(settle_s: float) -> Gpus | Unreadable:
    nvml = open_nvml(visible_gpus())
    return nvml if isinstance(nvml, Unreadable) else gpus_of(nvml, settle_s)


def gpus_of(nvml: Nvml, settle_s: float) -> Gpus:
    """What ``nvml`` says, once nobody is on the GPUs or ``settle_s`` have passed."""
    deadline_at_s = time.monotonic() + settle_s
    while True:
        used = tuple(nvml.gpu(index) for index in nvml.used)
        if time.monotonic() >= deadline_at_s or not any(map(is_busy, used)):
            return Gpus(models=nvml.names, used=used, driver=nvml.driver, cuda=nvml.cuda)
        time.sleep(SETTLE_POLL_S)


def _record(log: int) -> bytes:
    while True:
        try:
            return os.read(log, 8192)
        except BrokenPipeError:  # it was overwritten before it was read: go on with the next
            continue


def _free_bytes(folder: Path) -> int:
    """Where ``folder`` lies or would lie; raises where nothing can be written."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    with tempfile.TemporaryFile(dir=existing):
        return shutil.disk_usage(existing).free


def _data_problem(required: RequiredDataset) -> str | None:
    """Why the data is not what is required, by its manifest; None if it is."""

    def look() -> str | None:
        folder = Path(required.data_dir)
        if not folder.is_dir():
            return NOT_HERE
        manifest = read_manifest(folder)
        found = manifest.corpus_sha256, manifest.tokenizer_sha256
        if found == (required.corpus_sha256, required.tokenizer_sha256):
            return None
        return f"corpus {found[0][:12]} and tokenizer {found[1][:12]}, not what the sweep asks for"

    try:
        return call_with_deadline(READ_DEADLINE_S, look)
    except (ConfigError, OSError) as error:
        return str(error)


def _read(
    question: Callable[[], T | Unreadable], deadline_s: float = READ_DEADLINE_S
) -> T | Unreadable:
    try:
        return call_with_deadline(deadline_s, question)
    except Exception as error:
        return Unreadable(str(error) or type(error).__name__)
