"""Every environment variable that the sweep reads or sets."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.config.config_errors import ConfigError

DRIVER_MARK = "ACTIVATION_SWEEP_DRIVER"
FLIGHT_RECORDER_ENTRIES = "2000"  # collectives that torch remembers, for its dump when one hangs


@dataclass(frozen=True, slots=True)
class Environment:
    """``ray_address`` is None where no cluster is named; ``yes`` answers the cost question.

    ``job_end_at``: when Slurm ends the job, in seconds since 1970; None where no end is known.
    """

    ray_address: str | None
    yes: bool
    job_end_at: float | None = None


def read_environment(variables: Mapping[str, str] = os.environ) -> Environment:
    """
    >>> read_environment({"YES": "1", "SLURM_JOB_END_TIME": "1700000000"})
    Environment(ray_address=None, yes=True, job_end_at=1700000000.0)
    """
    end = variables.get("SLURM_JOB_END_TIME") or None
    if end is not None and not end.isdigit():
        raise ConfigError(
            f"SLURM_JOB_END_TIME={end}: seconds since 1970 are needed, as Slurm sets them; or "
            f"unset it."
        )
    return Environment(
        ray_address=variables.get("RAY_ADDRESS") or None,
        yes=variables.get("YES", "") not in ("", "0"),
        job_end_at=float(end) if end is not None else None,
    )


def visible_gpus(variables: Mapping[str, str] = os.environ) -> tuple[str, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, by number or UUID; None where it is not set.

    >>> visible_gpus({"CUDA_VISIBLE_DEVICES": "0,3"})
    ('0', '3')
    """
    named = variables.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return None
    entries = (entry.strip() for entry in named.split(","))
    return tuple(entry for entry in entries if entry not in ("", "-1", "NoDevFiles"))


def communication_settings(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What is set for communication between ranks, which inherit it.

    >>> communication_settings({"NCCL_DEBUG": "INFO", "HOME": "/root"})
    {'NCCL_DEBUG': 'INFO'}
    """
    prefixes = ("NCCL_", "GLOO_", "TORCH_NCCL_")
    return {key: variables[key] for key in sorted(variables) if key.startswith(prefixes)}


def local_gpus(devices: Path = Path("/dev")) -> int:
    """NVIDIA GPUs that this machine shows, counted by device file: no driver is woken."""
    return sum(path.name.removeprefix("nvidia").isdigit() for path in devices.glob("nvidia*"))


def local_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def rank_environment(
    project: Path,
    threads: int,
    variables: Mapping[str, str] = os.environ,
    compiled: Path | None = None,
) -> dict[str, str]:
    """What a rank process inherits: this process's environment, and where the project's code is.

    ``compiled`` is where the node keeps compiled kernels from one cell to the next. Whatever the
    user says to NCCL, gloo and torch goes through untouched.
    """
    path = [str(project), *filter(None, [variables.get("PYTHONPATH")])]
    defaults = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
    if compiled is not None:
        defaults["TORCHINDUCTOR_CACHE_DIR"] = str(compiled / "inductor")
        defaults["TRITON_CACHE_DIR"] = str(compiled / "triton")
    # torch 2.13 reads both names, and complains of the older one in every rank's log.
    if "TORCH_NCCL_TRACE_BUFFER_SIZE" not in variables:
        defaults["TORCH_FR_BUFFER_SIZE"] = FLIGHT_RECORDER_ENTRIES
    return {
        **defaults,
        **variables,
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
    }


# Of a Ray on this machine alone. It has no flag to listen on loopback alone; it does so where its
# own address is 127.0.0.1, which this variable, made for other systems, makes it on Linux too.
LOCAL_RAY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_memory_monitor_refresh_ms": "0",  # the kernel kills the rank that is large, not the agent
}


def prepare_ray(variables: dict[str, str] | None = None) -> None:
    """Settings that Ray reads when it is imported: report nothing home, keep every log line.

    Where no cluster is named, those of ``LOCAL_RAY`` too; what is set already stays.
    """
    target = os.environ if variables is None else variables
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        **({} if target.get("RAY_ADDRESS") else LOCAL_RAY),
    }
    for name, value in settings.items():
        target.setdefault(name, value)


def tracker_environment(folder: Path, variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the process of an experiment tracker inherits.

    What the user has set stays; otherwise all is kept in ``folder``, and nothing is sent anywhere.

    >>> tracker_environment(Path("/r"), {"WANDB_MODE": "online"})["WANDB_MODE"]
    'online'
    """
    return {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": "activation-sweep",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **variables,
    }


def mark_descendants() -> str:
    """A mark that every process which this one starts from now on carries in its environment."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    os.environ[DRIVER_MARK] = mark
    return mark
