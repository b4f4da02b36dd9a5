"""Run a patched script: its folder, its variables, its ranks, and how they ended.

``launch = "torchrun"`` gives each rank the environment that ``torchrun --standalone`` gives it. The
ranks are children of this process, in its group, and the kernel kills them when it dies.
"""

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final

from trainer.config.script import KEPT_BESIDE
from trainer.contract import ENDS_FILE, KEPT_FOLDER, ScriptSpec
from trainer.data.manifest import TOKENIZER_FILE
from trainer.files import write_atomically
from trainer.script.output import Output
from trainer.script.patching import Rendered, diff, render
from trainer.script.source.syntax import parse_script
from trainer.script.source.variables import variables_read
from trainer.system.parent_death import dying_with_this_process

RUN_FOLDER = "run"
OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
DIFF_FILE, PACKING_FILE = KEPT_BESIDE
POLL_S: Final = 0.1
SETTLE_S: Final = 0.3  # in which ranks that fail together are seen to have
DRAIN_S: Final = 1.0  # for what a rank printed last, where a child of its own holds the pipe
CHUNK_BYTES: Final = 1 << 16
OF_THE_MACHINE = re.compile(
    r"(?:CUDA|NVIDIA|NCCL|GLOO|TORCH|TORCHINDUCTOR|PYTORCH|TRITON|OMP|MKL|LD|PYTHON|LC|XDG)_\w+"
    r"|PATH|HOME|USER|LOGNAME|HOSTNAME|SHELL|LANG|TERM|TMPDIR|TZ|PYTHONPATH|VIRTUAL_ENV"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """The exit statuses of the ranks, None for one that still ran when another had failed."""

    codes: tuple[int | None, ...]
    lines: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        return all(code == 0 for code in self.codes)


def rendered_here(spec: ScriptSpec) -> Rendered:
    """What runs for ``spec`` on this machine."""
    data_dir = Path(spec.data_dir).resolve()
    return render(spec, str(data_dir), str(data_dir / TOKENIZER_FILE))


def run_script(spec: ScriptSpec, rendered: Rendered, out: Path) -> Ended:
    """Run it in ``out/run``; its files and what was patched stay in ``out/kept``."""
    folder, kept = out / RUN_FOLDER, out / KEPT_FOLDER
    for place in (folder, kept):
        place.mkdir(parents=True, exist_ok=True)
        for name, text in rendered.files.items():
            (place / name).write_text(text, encoding="utf-8")
    (kept / DIFF_FILE).write_text(diff(spec, rendered), encoding="utf-8")
    if spec.recipe.packed is not None:
        (kept / PACKING_FILE).write_text(spec.recipe.packed, encoding="utf-8")
    command = [sys.executable, rendered.main, *rendered.arguments]
    environments = _environments(spec, rendered)
    with contextlib.ExitStack() as opened:
        logs, ranks = [], []
        for rank, environment in enumerate(environments):
            logs.append(opened.enter_context((out / f"rank{rank}.log").open("ab")))
            log = logs[rank] if rank else None  # the first one's output is read, and then written
            ranks.append(opened.enter_context(_started(command, folder, environment, log)))
        before = signal.signal(signal.SIGUSR1, lambda *_: _show_stacks(ranks))
        opened.callback(signal.signal, signal.SIGUSR1, before)
        ended = _watch(ranks, Output(spec.recipe.script, out, logs[0]))
    if not ended.is_good:
        write_atomically(out / ENDS_FILE, json.dumps(ended.codes).encode())
    return ended


def clean_environment(
    rendered: Rendered, variables: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """``variables`` without those that the script reads and the recipe does not set.

    What belongs to the machine stays (PATH, CUDA_…, NCCL_…); a SEED of the user's shell does not.
    """
    read = {
        each.name
        for name, text in rendered.code.items()
        for each in variables_read(parse_script(text, name))
        if each.name is not None
    }
    kept = {k: v for k, v in variables.items() if k not in read or OF_THE_MACHINE.fullmatch(k)}
    return kept | dict(rendered.variables)


def _environments(spec: ScriptSpec, rendered: Rendered) -> list[dict[str, str]]:
    """That of each process: one, or as torchrun has it one for each rank."""
    ours = {name: value for name, value in os.environ.items() if name not in OF_RANKS}
    shared = clean_environment(rendered, ours)
    shared |= {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
    if spec.recipe.script.launch == "python":
        return [shared]
    size = str(spec.ranks)
    shared |= {
        **{"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "ROLE_WORLD_SIZE": size},
        **{"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "ROLE_NAME": "default"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())},
        **{"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"},
        "TORCHELASTIC_RUN_ID": "none",
    }
    ranks = map(str, range(spec.ranks))
    return [shared | {"RANK": i, "LOCAL_RANK": i, "ROLE_RANK": i} for i in ranks]


@contextlib.contextmanager
def _started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: BinaryIO | None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A rank that prints into ``log``, or without one into a pipe; killed at the end."""
    process = subprocess.Popen(
        dying_with_this_process(command),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log or subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _watch(ranks: Sequence["subprocess.Popen[bytes]"], output: Output) -> Ended:
    """Until every rank has ended well or one has not."""
    pipe = ranks[0].stdout
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        is_open = True
        while True:
            if is_open and selector.select(POLL_S):
                is_open = _read(pipe, output)
            codes = [rank.poll() for rank in ranks]
            if any(codes):
                time.sleep(SETTLE_S)
                codes = [rank.poll() for rank in ranks]
                break
            if all(code == 0 for code in codes):
                break
            if not is_open:
                time.sleep(POLL_S)
        drained_s = time.monotonic() + DRAIN_S
        while is_open and time.monotonic() < drained_s:
            if selector.select(POLL_S):
                is_open = _read(pipe, output)
    output.end()
    return Ended(tuple(codes), tuple(output.lines))


def _read(pipe: IO[bytes], output: Output) -> bool:
    """Take in what is there; False once there will be no more."""
    data = os.read(pipe.fileno(), CHUNK_BYTES)
    output.feed(data)
    return bool(data)


def _show_stacks(ranks: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Where every rank is goes to its log: faulthandler says so of what SIGABRT ends."""
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(signal.SIGABRT)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
