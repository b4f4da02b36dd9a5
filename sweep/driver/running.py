"""An attempt of this driver from its announcement to its row, and how long it may take yet."""

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sweep.cluster.interface import Lease
from sweep.driver.attempt_row import Outcome
from sweep.driver.control import Control
from sweep.driver.display import LeaseView, duration
from sweep.driver.durations import Kind
from sweep.schedule.plan import Task
from sweep.store.store import Attempt

LEAST_ATTEMPT_S, MOST_EXPECTED = 3600.0, 10.0  # an attempt may take ten times as long as expected


@dataclass(slots=True, eq=False)
class Running:
    """A lease and what it does. ``attempt`` is None until the store has its announcement, of which
    ``announced`` is the promise.

    Once ``lost_because`` is set its answer is no longer waited for. ``is_closing``: what it left is
    being written. ``stopped_as``: what it is if it ends because it was told to.
    """

    lease: Lease
    task: Task
    kind: Kind
    announced: "Future[Attempt | None] | None" = None
    attempt: Attempt | None = None
    since_s: float = field(default_factory=time.monotonic)
    is_closing: bool = False
    lost_because: str | None = None
    lost_as: str | None = None
    lost_at_s: float = 0.0
    stopped_as: Outcome | None = None
    stopped_at_s: float = 0.0

    @property
    def is_at_work(self) -> bool:
        return self.attempt is not None and not self.is_closing

    def left_s(self, expected_s: float) -> float:
        """How long it may still take, at least as long as its training; not positive: overdue."""
        by_kind_s = self.since_s + expected_s - time.monotonic()
        progress = self.lease.last_progress or {}
        steps, step_ms = progress.get("remaining_steps"), progress.get("step_ms")
        if steps is None or step_ms is None:
            return by_kind_s
        return max(by_kind_s, float(steps * step_ms) / 1000)

    def must_stop_as(
        self, control: Control, expected_s: float, attempt_s: float | None
    ) -> Outcome | None:
        """What it is if it is to be stopped now; None if it may go on."""
        if control.must_stop(self.left_s(expected_s)):
            reason = f"stopped before it ended: {control.reason}"
            return Outcome("interrupted", reason, None, "user")
        most_s = attempt_s or max(LEAST_ATTEMPT_S, MOST_EXPECTED * expected_s)
        if time.monotonic() - self.since_s <= most_s:
            return None
        reason = f"it has not ended within {duration(most_s)} (limits.attempt_s); stopped"
        return Outcome("hung", reason, None, "hang", "not ended within limits.attempt_s")

    def view(self, attempt: Attempt, expected_s: float) -> LeaseView:
        left_s = self.left_s(expected_s)
        return LeaseView(
            name=self.lease.name,
            node=self.lease.node,
            cell=self.task.cell.name,
            cell_id=self.task.cell.id,
            attempt=attempt.number,
            started_at=attempt.started_at,
            elapsed_s=time.monotonic() - self.since_s,
            expected_end=datetime.now(UTC) + timedelta(seconds=left_s) if left_s > 0 else None,
            progress=self.lease.last_progress,
        )
