"""Where is the run now? One small file that rank 0 replaces and others may read at any time."""

import json
import time
from pathlib import Path

from trainer.contract import PROGRESS_FILE
from trainer.files import write_atomically

INTERVAL_S = 0.5


class Progress:
    """Writes ``progress.json``: at every change of phase, else at most every INTERVAL_S seconds."""

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        self._path = folder / PROGRESS_FILE
        self._enabled = enabled
        self._phase: str | None = None
        self._written_s = 0.0

    def beat(self) -> None:
        """Say that the present phase still goes on."""
        if self._phase is not None:
            self.report(self._phase)

    def report(
        self,
        phase: str,
        *,
        step: int | None = None,
        remaining_steps: float | None = None,
        step_ms: float | None = None,
    ) -> None:
        """Say that ``phase`` is going on, and how far it is where that is known."""
        now = time.monotonic()
        if not self._enabled or (phase == self._phase and now - self._written_s < INTERVAL_S):
            return
        self._phase, self._written_s = phase, now
        value = {
            "phase": phase,
            "step": step,
            "remaining_steps": remaining_steps,
            "step_ms": step_ms,
        }
        write_atomically(self._path, json.dumps(value).encode(), durable=False)
