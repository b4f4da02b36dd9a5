"""Keep the progress of a driver in the store, so that whoever sees the results can look at it.

One file per driver, ``progress/<driver id>.json``, replaced every few seconds and removed at the
driver's end. A killed driver leaves its file; who is alive is told by ``drivers/`` alone.
"""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sweep.deadline import repeated
from sweep.driver.display import LeaseView, SweepView
from sweep.store.files import StoreError
from sweep.store.store import PROGRESS, Store


class ProgressFile:
    """The file of one driver; a thread of its own writes what was shown last."""

    def __init__(self, store: Store, driver_id: str) -> None:
        self._files, self._name = store.files, f"{PROGRESS}/{driver_id}.json"
        self._view: SweepView | None = None

    def show(self, view: SweepView) -> None:
        self._view = view

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, the file is there; a store that fails is asked again the next time."""
        try:
            with repeated(self._files.tell_every_s, self._write):
                yield
        finally:
            with contextlib.suppress(StoreError):
                self._files.remove(self._name)

    def _write(self) -> None:
        if self._view is not None:
            self._files.replace(self._name, json.dumps(progress_of(self._view)).encode())


def progress_of(view: SweepView) -> dict[str, Any]:
    """What the file holds. Times are in ISO format, UTC; what is not known is null."""
    now, left_s = datetime.now(UTC), view.remaining_s
    return {
        "at": now.isoformat(),
        "drain": view.stopping is not None,
        "node_hours": view.node_hours,
        "ends_at": _iso(now + timedelta(seconds=left_s) if left_s is not None else None),
        "running": [_running(lease) for lease in view.leases],
        "waiting": view.waiting,
        "quarantined": dict(view.quarantined),
        "paused": view.paused,
        "sharing": view.sharing,
    }


def _running(lease: LeaseView) -> dict[str, Any]:
    progress = {"phase": "starting", "step": None, **(lease.progress or {})}
    step, left = progress["step"], progress.get("remaining_steps")
    return {
        **progress,
        "total_steps": None if step is None or left is None else round(step + left),
        "cell_id": lease.cell_id,
        "attempt": lease.attempt,
        "node": lease.node,
        "lease": lease.name,
        "started_at": lease.started_at.isoformat(),
        "elapsed_s": lease.elapsed_s,
        "expected_end": _iso(lease.expected_end),
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
