"""The fork server: a process with all imports done and nothing else, forked for every rank.

``python -m trainer.fork_server.server FD``: it touches no device and runs no thread, says on the
socket FD which code it has, and then does what trainer/fork_server/fork.py says until the socket is
closed.
"""

import contextlib
import importlib
import os
import pkgutil
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from trainer.fork_server.fork import serve

# Some come late: the compiler's front end with the first optimizer (2 s).
MODULES = (
    "torch",
    "torch._dynamo",
    "trainer.__main__",
    "trainer.training.checkpoint",
    "trainer.cell",
)
COMPILER = ("torch._inductor.compile_fx",)
DEVICES = Path("/dev")


def import_everything() -> str:
    """Import what ranks import at one time or another; the hash of the code that was imported."""
    source = importlib.import_module("trainer.source").trainer_source
    before: str = source().sha256
    num_gpus = len(list(DEVICES.glob("nvidia[0-9]*")))
    with _gpus_counted(num_gpus):
        for name in (*MODULES, *(COMPILER if num_gpus else ())):
            importlib.import_module(name)
    activations = importlib.import_module("trainer.activations")
    for module in pkgutil.iter_modules(activations.__path__, "trainer.activations."):
        importlib.import_module(module.name)
    importlib.import_module("pyarrow").array([0.0])  # which has Arrow look for pandas: 1 s
    source.cache_clear()
    if source().sha256 != before:
        raise ImportError("the trainer's code has changed while it was imported")
    return before


@contextlib.contextmanager
def _gpus_counted(num_gpus: int) -> Iterator[None]:
    """Inside, torch is told how many GPUs there are and does not look for them.

    torch 2.9 to 2.11 ask when the compiler is imported. NVML, which would tell them, keeps
    /dev/nvidiactl open ever after.
    """
    cuda = importlib.import_module("torch.cuda")
    looks = cuda.device_count
    vars(cuda)["device_count"] = lambda: num_gpus
    try:
        yield
    finally:
        vars(cuda)["device_count"] = looks


def fork_hazard() -> str | None:
    """Why this process may not be copied: what it runs or holds; None if it may.

    OpenBLAS ends its threads before every fork and begins them again when it computes; the copy
    that is made here has it do so.
    """
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    import torch

    if torch.cuda.is_initialized():
        return "it has woken CUDA"
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        return f"it runs {threads} threads"
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if (device := str(descriptor.readlink())).startswith("/dev/nvidia"):
                return f"it has opened {device}"
    return None


def _rank(command: Sequence[str]) -> NoReturn:
    """What ``python -m trainer …`` does."""
    from trainer.__main__ import run_rank

    _reseed()
    sys.argv = [str(sys.modules["trainer.__main__"].__file__), *command[3:]]
    run_rank()


def _reseed() -> None:
    """The seeds that libraries draw when they are imported; Python's own is drawn at every fork."""
    import numpy as np
    import torch

    torch.default_generator.seed()
    np.random.seed()


def main() -> int:
    control = socket.socket(fileno=int(sys.argv[1]))
    # Of Arrow's allocator, which would run one; read when it is imported, and not by ranks.
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    # Of torch, which otherwise wakes the driver to count GPUs, after which no copy can use it.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    code = import_everything()
    if (found := fork_hazard()) is not None:
        print(f"the fork server may not be copied: {found}", file=sys.stderr)
        return 1
    control.sendall(f"{code}\n".encode())
    serve(control, _rank)
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except (EOFError, ConnectionError):
        status = 0
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)
