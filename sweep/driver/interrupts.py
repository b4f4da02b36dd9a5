"""The user's requests to stop: handlers of Ctrl-C and SIGTERM, and what they have counted."""

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Interruption:
    """One request: finish what runs. Two: end it now."""

    requests: int = 0
    first_at_s: float | None = None

    def request(self) -> None:
        self.requests += 1
        if self.first_at_s is None:
            self.first_at_s = time.monotonic()

    def must_stop(self, grace_s: float) -> bool:
        """Running cells are to end now."""
        waited_s = time.monotonic() - self.first_at_s if self.first_at_s is not None else 0.0
        return self.requests > 1 or (self.requests == 1 and waited_s > grace_s)


@contextlib.contextmanager
def handle_signals(interruption: Interruption) -> Iterator[None]:
    """Count Ctrl-C once, SIGTERM twice. Ray's own handlers are replaced until the end of the block.

    After two requests a third does not wait for what may hold up the driver: KeyboardInterrupt.
    """

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if interruption.requests > 1:
            raise KeyboardInterrupt
        interruption.request()

    def on_terminate(number: int, frame: FrameType | None) -> None:
        on_interrupt(number, frame)
        interruption.request()

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, on_interrupt),
        signal.SIGTERM: signal.signal(signal.SIGTERM, on_terminate),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
