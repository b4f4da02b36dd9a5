"""Progress of a run: one small file that rank 0 replaces and others may read at any time.

Whoever watches takes a file that stays as it is for a run that hangs. In most phases something is
said every few seconds; in SLOW_PHASES there may be nothing to say for minutes.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from trainer.contract import PROGRESS_FILE
from trainer.files import write_atomically

INTERVAL_S = 0.5
SLOW_PHASES: Final = frozenset(
    {"setup", "warmup", "compile", "checkpoint", "probe", "pack", "mechanism"}
)
"""Reading data, compiling, writing hundreds of megabytes, the first all-reduce, compressing."""


class Progress:
    """Writes ``progress.json``: at every change of phase, else at most every INTERVAL_S seconds."""

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        self._path = folder / PROGRESS_FILE
        self._enabled = enabled
        self._state: dict[str, Any] = {
            "phase": None,
            "step": None,
            "remaining_steps": None,
            "step_ms": None,
            "train_loss": None,
            "resumed_from_step": None,
        }
        self._written_s = 0.0

    def beat(self) -> None:
        """Say that the present phase still goes on."""
        if self._state["phase"] is not None:
            self.report(self._state["phase"])

    def report(self, phase: str, **known: float | None) -> None:
        """Say that ``phase`` is going on, and what is known anew; the rest stays as it was."""
        now = time.monotonic()
        is_new = phase != self._state["phase"]
        self._state |= {"phase": phase, **known}
        if self._enabled and (is_new or now - self._written_s >= INTERVAL_S):
            self._written_s = now
            write_atomically(self._path, json.dumps(self._state).encode(), durable=False)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """``phase`` inside, and then again what was before."""
        before = self._state["phase"]
        self.report(phase)
        yield
        if before is not None:
            self.report(before)
