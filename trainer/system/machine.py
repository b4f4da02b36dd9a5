"""The model of the processor or GPU, and versions of packages, told without torch."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def processor_name() -> str:
    """The model of the processor, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def installed_version(package: str) -> str | None:
    """The version of a package; None where it is not installed. Imports nothing of it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def gpu_name() -> str | None:
    """The model of the first GPU; None where the driver tells none."""
    import pynvml  # a machine that only trains may lack it

    try:
        pynvml.nvmlInit()
        try:
            name: str = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return name
