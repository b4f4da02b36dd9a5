"""The table of checks of a node before its first cell; docs/preflight.md is made from it."""

from collections.abc import Callable
from dataclasses import dataclass

from sweep.messages import Requirements
from sweep.preflight import all_reduce, code_checks, gpu_checks, host_checks
from sweep.preflight.facts import Facts
from sweep.preflight.finding import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the table. ``warns`` and ``refuses`` are None where it never does."""

    name: str
    why: str
    passes: str
    warns: str | None = None
    refuses: str | None = None
    remedy: str
    look: Callable[[Facts, Requirements], Finding]
    deadline_s: float = 10.0


_SAME_CODE = (
    "bring the driver's checkout to the node (image, shared file system or working_dir) and run "
    "`make setup` there"
)

CHECKS = (
    Check(
        name="trainer code",
        why="two versions of the trainer answer two questions, and their rows would be compared",
        passes="the hash of the trainer's source is the driver's",
        refuses="any other",
        remedy=_SAME_CODE,
        look=code_checks.trainer,
    ),
    Check(
        name="sweep code",
        why="agent and driver send one another values that both have to understand alike",
        passes="the hash of the sweep's source is the driver's",
        refuses="any other",
        remedy=_SAME_CODE,
        look=code_checks.sweep,
    ),
    Check(
        name="lockfile",
        why="other packages round otherwise and take other times",
        passes="constraints.txt is the driver's",
        refuses="it differs or is absent",
        remedy=_SAME_CODE,
        look=code_checks.lockfile,
    ),
    Check(
        name="versions",
        why="what is installed may differ from the lockfile, as with TORCH=system",
        passes="Python and torch are the driver's",
        warns="one of them differs",
        remedy="run `make setup` on the node, or use one image for all",
        look=code_checks.versions,
    ),
    Check(
        name="Ray",
        why="Ray speaks to its own version only",
        passes="it is the driver's",
        refuses="it differs",
        remedy="install the driver's version on the node and start Ray anew",
        look=code_checks.ray,
    ),
    Check(
        name="clock",
        why="logs and heartbeats of several machines are read together",
        passes="within 5 s of the driver's, the way of the request included",
        warns="further off",
        remedy="set the clock (chrony or systemd-timesyncd)",
        look=code_checks.clock,
    ),
    Check(
        name="GPUs",
        why="a lease is so many GPUs of one model; a GPU that has fallen off the bus is not listed",
        passes="as many as the sweep asks for, of the model that it names",
        refuses="fewer, another model, or no driver",
        remedy="correct [node] in the sweep file; else see `nvidia-smi` on the node, and reboot it",
        look=gpu_checks.gpu_count,
    ),
    Check(
        name="whole node",
        why="a slower GPU sets the pace of all; neighbours share power, processor and bus",
        passes="one model, and all GPUs of the machine are used",
        warns="the machine has more GPUs than are used, or other models beside them",
        refuses="the GPUs that would be used are of different models",
        remedy="lease whole nodes of one model (node.gpus, node.gpu_model)",
        look=gpu_checks.gpu_mix,
    ),
    Check(
        name="MIG",
        why="a slice is no GPU: slices have other speeds and do not reach one another by NCCL",
        passes="off on every GPU",
        refuses="on",
        remedy="`nvidia-smi -mig 0` as root, with nobody on the GPU",
        look=gpu_checks.mig,
    ),
    Check(
        name="foreign load",
        why="somebody else's process takes time and memory from the cell",
        passes="no compute process and at most 1 GiB in use, within 10 s of the first look",
        warns="there is, and no cell is timed",
        refuses="there is, and cells are timed",
        remedy="find it with `nvidia-smi` (on the host) and end it, or leave the node out",
        look=gpu_checks.foreign,
    ),
    Check(
        name="GPU memory errors",
        why="what an uncorrected error has changed is not a number any more",
        passes="no uncorrected ECC error since the reset, and no row or page waits to be replaced",
        warns="a row remap or page retirement waits for a reset",
        refuses="uncorrected errors, or a row that could not be remapped",
        remedy="reset the GPU (`nvidia-smi -r`) or reboot; have it replaced if it comes again",
        look=gpu_checks.memory_errors,
    ),
    Check(
        name="Xid",
        why="the driver logs what the hardware has done wrong since the boot",
        passes="the driver is in the kernel's log, with no Xid of the hardware",
        warns="one of 48, 62, 64, 74, 79, 92, 94, 95, 119, 120, 140",
        remedy="look it up in NVIDIA's Xid catalogue; reboot, and watch whether it comes again",
        look=gpu_checks.xid,
    ),
    Check(
        name="throttling",
        why="an idle GPU that is slowed will be slower still at work",
        passes="no hardware slowdown, power brake or thermal slowdown is on now",
        warns="one is, and no cell is timed",
        refuses="one is, and cells are timed",
        remedy="see to cooling and power supply (`nvidia-smi -q -d PERFORMANCE,TEMPERATURE`)",
        look=gpu_checks.throttle,
    ),
    Check(
        name="CUDA",
        why="a driver runs no newer CUDA than its own major version",
        passes="the driver serves the CUDA that torch was built with",
        warns="it serves an earlier minor version: kernels run, but compiled PTX may not",
        refuses="an earlier major version, or torch is built without CUDA",
        remedy="update the driver, or keep the image's torch with `make setup TORCH=system`",
        look=gpu_checks.cuda,
    ),
    Check(
        name="NCCL settings",
        why="ranks inherit NCCL_* and GLOO_*; one made for another machine slows or stops them",
        passes="none is odd; those that are set are shown",
        warns="a path is switched off, or an interface is named that is not there",
        remedy="unset it, or name an interface that `ip link` shows",
        look=host_checks.settings,
    ),
    Check(
        name="/dev/shm",
        why="ranks of one node share buffers there, and containers get 64 MiB by default",
        passes="at least 1 GiB",
        warns="less",
        remedy="`docker run --shm-size=8g`, or a memory-backed emptyDir at /dev/shm in Kubernetes",
        look=host_checks.shared_memory,
    ),
    Check(
        name="limits",
        why="ranks open files, sockets and shards; memory is locked by RDMA alone, so it is shown",
        passes="at least 4,096 open files",
        warns="fewer",
        remedy="`ulimit -n 65536` where Ray is started",
        look=host_checks.limits,
    ),
    Check(
        name="disk",
        why="scratch, logs, artifacts and compiled kernels are written to the temporary folder, "
        "checkpoints to theirs",
        passes="at least 10 GiB are free in each",
        warns="less than 10 GiB",
        refuses="less than 1 GiB, or it cannot be written to",
        remedy="make room, set TMPDIR where Ray is started, or name another checkpoints.folder",
        look=host_checks.disk,
    ),
    Check(
        name="data",
        why="an answer on other data is an answer to another question",
        passes="the manifest in the data's folder has the corpus and the tokenizer asked for",
        warns='it is not here and data.missing = "fetch" brings it',
        refuses="it is not here, or is other data",
        remedy="copy the data to this path, or set data.cache and data.missing in the sweep file",
        look=host_checks.data,
        deadline_s=30.0,
    ),
    Check(
        name="all-reduce",
        why="only ranks that have spoken to one another are known to be able to",
        passes="all ranks have the right sum; the bandwidth is shown",
        refuses="a rank fails, or has no answer after 3 minutes",
        remedy="run it with NCCL_DEBUG=INFO; see /dev/shm, NCCL settings and "
        "`nvidia-smi topo -m`, and the fabric manager's state on nodes with NVSwitch",
        look=gpu_checks.all_reduce,
        deadline_s=all_reduce.DEADLINE_S + 30,
    ),
)


def markdown() -> str:
    """The table of ``docs/preflight.md``."""
    lines = ["| check | why | pass | warn | refuse | remedy |", "|---|---|---|---|---|---|"]
    for check in CHECKS:
        cells = (check.passes, check.warns or "–", check.refuses or "–", check.remedy)
        lines.append(f"| **{check.name}** | {check.why} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
