"""Count the user's requests to stop (Ctrl-C, SIGTERM)."""

import time
from dataclasses import dataclass


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
