"""Hand attempts that have ended to an experiment tracker, which runs in a process of its own.

The process gets one JSON object a line from a thread of its own here. Whatever becomes of it is
said once, and the sweep neither waits nor ends for it. The packages are large and hook into the
interpreter that they are imported in, so the driver imports neither.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from queue import Full, Queue

from sweep.driver.display import EndedView, SweepView
from sweep.driver.listeners.attempt_metrics import TrackedAttempt, tracked
from sweep.environment import tracker_environment
from sweep.spec.sweep_file import SweepSpec
from trainer.config.config_errors import ConfigError

MAX_WAITING = 1000
CLOSE_S = 30.0
NEEDS = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}


class Tracker:
    """The tracker ``kind``, which keeps what it keeps on this machine in ``folder``."""

    def __init__(
        self, kind: str, sweep: SweepSpec, folder: Path, warn: Callable[[str], None]
    ) -> None:
        missing = [name for name in NEEDS[kind] if not _is_installed(name)]
        if missing:
            raise ConfigError(
                f"{kind} = true needs what is not installed: {', '.join(missing)}. `.venv/bin/pip "
                f"install --editable '.[{kind}]'`, or take that line out of the sweep file."
            )
        self._kind, self._sweep, self._warn = kind, sweep, warn
        self._folder, self._log = folder.resolve(), folder / "log.txt"
        self._endings: Queue[EndedView | None] = Queue(MAX_WAITING)
        self._has_warned = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=kind, daemon=True)

    def show(self, view: SweepView) -> None:
        """Start the process with the sweep; a run is written when its attempt has ended."""
        if self._thread.ident is None:
            self._thread.start()

    def ended(self, ending: EndedView) -> None:
        try:
            self._endings.put_nowait(ending)
        except Full:
            self._warn_once(f"is behind by {MAX_WAITING} attempts, and later ones are dropped")

    def close(self) -> None:
        """Wait until all is written, for ``CLOSE_S`` at most."""
        if self._thread.ident is None:
            return
        with contextlib.suppress(Full):
            self._endings.put_nowait(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._warn_once(f"had not written all {CLOSE_S:g} s after the end and was killed")
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _run(self) -> None:
        try:
            status = self._write_all()
            if status != 0:
                self._warn_once(f"ended with status {status}")
        except Exception as error:  # whatever it is, it is not the sweep's
            self._warn_once(f"could not be told ({error})")

    def _write_all(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", f"sweep.driver.listeners.{self._kind}"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=tracker_environment(self._folder),
                start_new_session=True,  # Ctrl-C is the driver's
            )
        assert process.stdin is not None
        # A broken pipe: it has ended, and its status says how.
        with contextlib.suppress(BrokenPipeError), process.stdin as told:
            for ending in iter(self._endings.get, None):
                told.write(json.dumps(asdict(tracked(ending, self._sweep))).encode() + b"\n")
                told.flush()
        return process.wait()

    def _warn_once(self, what: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"warning: {self._kind} {what}; the sweep goes on without, and this is said once. "
                f"More is in {self._log}."
            )


def attempts_told() -> Iterator[TrackedAttempt]:
    """What the driver tells the process of a tracker, until the driver is done or gone."""
    for line in sys.stdin.buffer:
        yield TrackedAttempt(**json.loads(line))


def _is_installed(name: str) -> bool:
    """A folder of that name, such as wandb leaves where it ran, is no package: it has no origin."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None
