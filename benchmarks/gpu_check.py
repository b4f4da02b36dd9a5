"""The first minutes on a GPU: checks one after the other, every number kept as soon as it is known.

``python -m benchmarks.gpu_check --out DIR --minutes 9`` runs the checks of benchmarks/gpu_checks.py
in their order, each in a process of its own with a time limit of its own. DIR holds results.json,
which is replaced as a whole whenever a check tells something, table.txt with a line for each check
that has ended, and log.txt with what they printed. A run that is cut off at any moment leaves what
it knew. ``--tiny`` rehearses all of it on a CPU, where nothing is compiled; its numbers mean
nothing.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.measured import ROOT, here
from trainer.files import write_atomically
from trainer.system.parent_death import dying_with_this_process

# Seconds that each may take. What teaches most comes first; what any CPU can tell comes last.
CHECKS = {
    "machine": 60.0,
    "kernel": 60.0,
    "dtypes": 40.0,
    "attention": 40.0,
    "compilation": 200.0,
    "steps": 300.0,
    "losses": 90.0,
    "profile": 60.0,
    "memory": 60.0,
    "cell": 330.0,
    "scoring": 300.0,
    "mlp": 120.0,
    "reading": 60.0,
    "quantizing": 120.0,
}
RESULTS, TABLE, LOG = "results.json", "table.txt", "log.txt"


class Record:
    """What is known of every check; each change is on disk when the method returns."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder = folder
        self._known: dict[str, Any] = {**about, "checks": {}}
        folder.mkdir(parents=True, exist_ok=True)
        for name in (TABLE, LOG):
            (folder / name).unlink(missing_ok=True)
        self._write()

    @property
    def log(self) -> Path:
        return self._folder / LOG

    def put(self, check: str, **values: Any) -> None:
        self._known["checks"].setdefault(check, {"state": "running", "found": {}}).update(values)
        self._write()

    def add(self, check: str, found: Mapping[str, Any]) -> None:
        """More of what ``check`` has found."""
        self.put(check, found={**self._known["checks"][check]["found"], **found})

    def end(self, check: str, state: str, seconds: float, error: str | None = None) -> None:
        """``check`` is over: a line of the table."""
        self.put(check, state=state, seconds=round(seconds, 1), error=error)
        said = error or self._known["checks"][check]["found"].get("says", "")
        line = f"{check:12} {state:14} {seconds:6.1f} s  {said}"
        with (self._folder / TABLE).open("a", encoding="utf-8") as table:
            table.write(line + "\n")
        print(line, flush=True)

    def _write(self) -> None:
        text = json.dumps(self._known, indent=1) + "\n"
        write_atomically(self._folder / RESULTS, text.encode())


def run(
    checks: Mapping[str, float],
    record: Record,
    command_of: Callable[[str], Sequence[str]],
    seconds: float,
) -> bool:
    """Whether all ``checks`` passed within ``seconds``.

    ``command_of`` gives a check's command, which is told the number of a pipe as well and writes a
    line of JSON into it whenever it has found something.
    """
    end_s = time.monotonic() + seconds
    passed = True
    for name, limit_s in checks.items():
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            record.end(name, "not begun", 0.0, "no time was left")
            passed = False
            continue
        record.put(name)
        start_s = time.monotonic()
        state, error = _run_one(command_of(name), record, name, min(limit_s, left_s))
        record.end(name, state, time.monotonic() - start_s, error)
        passed = passed and state == "passed"
    return passed


def _run_one(
    command: Sequence[str], record: Record, name: str, limit_s: float
) -> tuple[str, str | None]:
    reading, writing = os.pipe()
    with record.log.open("ab") as log:
        log.write(f"--- {name} ---\n".encode())
        log.flush()
        child = subprocess.Popen(
            dying_with_this_process([*command, str(writing)]),
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)

    def listen() -> None:
        with os.fdopen(reading, encoding="utf-8") as told:
            for line in told:
                record.add(name, json.loads(line))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        status = child.wait(limit_s)
    except subprocess.TimeoutExpired:
        status = None
        os.killpg(child.pid, signal.SIGKILL)  # and what it has started
        child.wait()
    listener.join(timeout=5)
    if status is None:
        return "over its limit", f"ended after {limit_s:.0f} s; {LOG} has what it printed"
    return ("passed", None) if status == 0 else ("failed", _last_line(record.log))


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next(line for line in reversed(lines) if line.strip())


def _answer(check: str, pipe: int, *, tiny: bool) -> None:
    """Do one check, in the process that was started for it."""
    checks = import_module("benchmarks.gpu_checks")
    size = checks.TINY if tiny else checks.FULL
    with os.fdopen(pipe, "w", encoding="utf-8") as tell:
        for found in checks.CHECKS[check](size):
            tell.write(json.dumps(found) + "\n")
            tell.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), metavar="DIR")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all (default: %(default)g)")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, help="some of them", metavar="NAME")
    parser.add_argument("--tiny", action="store_true", help="rehearse on a CPU")
    parser.add_argument("--answer", nargs=2, metavar=("NAME", "PIPE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.answer is not None:
        name, pipe = given.answer
        _answer(name, int(pipe), tiny=given.tiny)
        return 0
    command = [sys.executable, "-m", "benchmarks.gpu_check", *(["--tiny"] if given.tiny else [])]
    patience = 10 if given.tiny else 1  # a rehearsal may run beside other work
    checks = {n: patience * s for n, s in CHECKS.items() if n in (given.checks or CHECKS)}
    compiled = Path(tempfile.gettempdir()) / f"gpu-check-{os.getuid()}"
    if "compilation" in checks:  # which begins with nothing; other checks find what it left
        shutil.rmtree(compiled, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{compiled}/inductor"
    os.environ["TRITON_CACHE_DIR"] = f"{compiled}/triton"
    os.environ["TORCH_COMPILE_DISABLE"] = str(int(given.tiny))
    record = Record(given.out, here())
    passed = run(checks, record, lambda name: [*command, "--answer", name], 60 * given.minutes)
    print(f"{given.out / RESULTS} has every number, {given.out / LOG} what was printed.")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
