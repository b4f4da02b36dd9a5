"""What people and schedulers have asked of a running driver: drain, stop, hold other leases.

To *drain* is to begin no cell and to let those finish that run. Ctrl-C drains, twice it stops at
once. A signal of a scheduler (SIGTERM, SIGUSR1) says that this job will be killed: what cannot end
in the grace time is stopped at once, and the rest in time for its rows to be written.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
STOP_S = 30.0  # from telling an attempt to stop to having written its row


@dataclass(slots=True)
class Control:
    """What was asked so far. ``max_leases``: instead of the sweep file's.

    ``grace_s``: what a scheduler leaves between its signal and the kill. ``job_end_at``: when this
    job ends, in seconds since 1970; None if it is not known to end. ``reason``: why running cells
    are stopped; None while they may all finish. ``is_hurried``: nothing is to be waited for.
    """

    grace_s: float = 120.0
    job_end_at: float | None = None
    max_leases: int | None = None
    drains: bool = False
    reason: str | None = None
    is_hurried: bool = False
    _last_call_s: float | None = None

    def drain(self) -> None:
        self.drains = True

    def stop(self, reason: str, within_s: float = 0.0) -> None:
        """Drain, and have everything ended ``within_s`` from now. The earliest request counts."""
        self.is_hurried |= within_s == 0
        last_call_s = time.monotonic() + within_s - min(STOP_S, within_s / 2)
        if self._last_call_s is None or last_call_s < self._last_call_s:
            self.reason, self._last_call_s = reason, last_call_s
        self.drains = True

    @property
    def is_over(self) -> bool:
        """Whatever runs is to be stopped now."""
        return self._last_call_s is not None and time.monotonic() >= self._last_call_s

    def must_stop(self, left_s: float) -> bool:
        """An attempt that may take ``left_s`` yet is to be stopped now."""
        if self._last_call_s is None:
            return False
        return self.is_over or time.monotonic() + left_s > self._last_call_s

    @property
    def time_left_s(self) -> float:
        """For how long a cell that is begun now may run, by the end of the job."""
        if self.job_end_at is None:
            return math.inf
        return self.job_end_at - time.time() - self.grace_s - min(STOP_S, self.grace_s / 2)

    @property
    def sentence(self) -> str | None:
        """What has been asked for; None if nothing was."""
        if self._last_call_s is None:
            return DRAINING if self.drains else None
        if self.is_over:
            return f"Stopping now: {self.reason}."
        return f"Stopping: {self.reason}. Cells that end in time may finish, no other is begun."

    def hear(self, number: int) -> None:
        """A signal. After a request to stop now, one more is a KeyboardInterrupt."""
        name = signal.Signals(number).name
        if self.is_hurried:
            raise KeyboardInterrupt
        if name == "SIGINT":
            if self.drains:
                self.stop("the user stopped it (Ctrl-C twice)")
            self.drain()
        else:
            self.stop(f"the scheduler ended the job ({name})", self._notice_s(name))

    def _notice_s(self, name: str) -> float:
        """Until the kill that a scheduler's signal announces; the second one is the last.

        SIGUSR1 is what our job script asks for some time before the job's end, which is known.
        """
        if self.reason is not None:
            return 0.0
        if name == "SIGUSR1" and self.job_end_at is not None:
            return max(self.grace_s, self.job_end_at - time.time() - self.grace_s)
        return self.grace_s


DRAINING = (
    "Draining: no new cells; those that run may finish. Ctrl-C again, or `make stop NOW=1` stops "
    "them now."
)


@contextlib.contextmanager
def handle_signals(hear: Callable[[int], None]) -> Iterator[None]:
    """Until the end of the block ``hear`` is told of them; Ray's own handlers are replaced."""

    def handler(number: int, frame: FrameType | None) -> None:
        hear(number)

    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def interrupt(number: int) -> None:
    """What a signal means while nothing runs yet."""
    raise KeyboardInterrupt
