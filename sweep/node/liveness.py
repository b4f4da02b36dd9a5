"""Liveness: the time without progress of the ranks, and without a call of the driver.

Both count with the monotonic clock. Time in which this process did not run (it was stopped, or its
node stood still) says nothing about the ranks, which may have stood still with it, but it counts as
the driver's: it will have given up on an agent that did not answer.
"""

import threading
import time
from collections.abc import Callable

from trainer.progress import SLOW_PHASES
from trainer.script.output import QUIET

# No word yet; a process that goes home; what a script's recipe declares.
PATIENT_PHASES = SLOW_PHASES | {"start", "done", QUIET}
LONGEST_LOOK_S = 1.0


class HangWatch:
    """Adds up the time in which the sign of life has not changed; has no clock of its own.

    In phases that cannot speak for long (``start``: no word yet) it is more patient.
    """

    def __init__(self, *, no_progress_s: float, slow_phase_s: float, now_s: float) -> None:
        self._no_progress_s, self._slow_phase_s = no_progress_s, slow_phase_s
        self._sign: object = None
        self._looked_s = now_s
        self.stalled_s = 0.0

    def look(self, sign: object, phase: str, now_s: float) -> bool:
        """Whether the ranks have said nothing for too long."""
        gap_s, self._looked_s = now_s - self._looked_s, now_s
        if sign != self._sign:
            self._sign, self.stalled_s = sign, 0.0
            return False
        self.stalled_s += min(gap_s, LONGEST_LOOK_S)
        return self.stalled_s > (
            max(self._slow_phase_s, self._no_progress_s)
            if phase in PATIENT_PHASES
            else self._no_progress_s
        )


class DeadManSwitch:
    """Calls ``end``, from a thread of its own, when it was not reset for ``patience_s``."""

    def __init__(self, patience_s: float, end: Callable[[], None]) -> None:
        self._patience_s, self._end = patience_s, end
        self._reset_s = time.monotonic()
        threading.Thread(target=self._watch, name="dead man's switch", daemon=True).start()

    def reset(self) -> None:
        """Go on; a call that comes too late, after this process stood still, changes nothing."""
        if self._left_s() > 0:
            self._reset_s = time.monotonic()

    def _left_s(self) -> float:
        return self._reset_s + self._patience_s - time.monotonic()

    def _watch(self) -> None:
        while (left_s := self._left_s()) > 0:
            time.sleep(min(left_s, LONGEST_LOOK_S))
        self._end()
