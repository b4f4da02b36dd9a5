"""A clock of the time in which this process ran: by it the driver waits for others.

A process that was stopped (Ctrl-Z, a debugger, a machine that swaps) finds everybody silent when it
goes on, since it has not listened. By the monotonic clock it would give up all that it waits for.
"""

import threading
import time

TICK_S = 0.1
LONGEST_TICK_S = 1.0  # more than a busy machine takes to come round


class AwakeClock:
    """Counts seconds from 0, on a thread of its own; those in which nothing ran are left out."""

    def __init__(self) -> None:
        self.now_s = 0.0
        threading.Thread(target=self._count, name="awake", daemon=True).start()

    def _count(self) -> None:
        before_s = time.monotonic()
        while True:
            time.sleep(TICK_S)
            now_s = time.monotonic()
            self.now_s += min(now_s - before_s, LONGEST_TICK_S)
            before_s = now_s
