"""What has the user asked for with Ctrl-C?"""

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Interruption:
    """What the user has asked for: once to finish what runs, twice to end it now."""

    requests: int = 0
    first_at_s: float | None = None

    def request(self) -> None:
        self.requests += 1
        if self.first_at_s is None:
            self.first_at_s = time.monotonic()

    def is_over(self, grace_s: float) -> bool:
        """Running cells are to end now."""
        waited_s = time.monotonic() - self.first_at_s if self.first_at_s is not None else 0.0
        return self.requests > 1 or (self.requests == 1 and waited_s > grace_s)
