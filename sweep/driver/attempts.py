"""Write attempts to the store: announced before they start, closed once, late answers kept.

The one writer of a driver, for any number of threads of which each has another cell. Where the
store does not answer or has no room it is tried again for a while, so that a cell of hours is not
lost to a hiccup; where another driver has closed the attempt meanwhile, what came too late is kept
under a number of its own.
"""

import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sweep.cluster.interface import Lease
from sweep.driver.attempt_row import (
    Outcome,
    Versions,
    attempt_row,
    delivery_columns,
    identity_columns,
)
from sweep.messages import Delivery
from sweep.schedule.plan import Task
from sweep.spec.sweep_file import SweepSpec
from sweep.store.files import StoreError
from sweep.store.store import AlreadyClosed, Attempt, Store
from sweep.store.table import Row
from sweep.timing.taint import MEASURE, PROBES, taint

RETRY_S = 5.0

T = TypeVar("T")


@dataclass
class Attempts:
    """What one driver writes. A store that fails is not tried again once ``must_stop`` says so."""

    sweep: SweepSpec
    store: Store
    versions: Versions
    say: Callable[[str], None]
    must_stop: Callable[[], bool] = lambda: False
    _numbers: dict[str, int] = field(default_factory=dict)
    _warned_s: float = -RETRY_S
    _timings: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def load(self, rows: Iterable[Row], numbers: Mapping[str, int]) -> None:
        """Start from what the store has: rows, and the highest number of each cell's attempts."""
        self._numbers = dict(numbers)
        for row in sorted(rows, key=lambda row: row["started_at"]):
            self._remember_timing(row)

    def announce(self, task: Task, lease: Lease) -> Attempt | None:
        """Begin the next attempt at a cell; None where another driver has begun it."""
        number = self._numbers.get(task.cell.id, 0) + 1
        note = {
            "driver": self.versions.driver,
            "who": f"process {os.getpid()} on {socket.gethostname()}",
            "node": lease.node,
            "generation": task.generation,
            "identity": identity_columns(self.sweep.name, task.cell),
        }
        attempt = self._retrying(lambda: self.store.announce(task.cell.id, number, note))
        self._numbers[task.cell.id] = number
        return attempt

    def close(
        self,
        attempt: Attempt,
        task: Task,
        lease: Lease,
        outcome: Outcome,
        delivery: Delivery | None,
    ) -> Row:
        """Keep what an attempt left, and its row; returns the row."""
        log = self._keep(attempt.stem, outcome, delivery) if delivery is not None else None
        row = attempt_row(
            self.sweep.name,
            task,
            attempt,
            outcome,
            lease=lease,
            versions=self.versions,
        )
        row |= delivery_columns(delivery, log)
        row |= self._taint(row)
        self._retrying(lambda: self._commit(attempt, row))
        self._remember_timing(row)
        return row

    def _keep(self, stem: str, outcome: Outcome, delivery: Delivery) -> str:
        kept = [("logs", f"{stem}.log", delivery.log.encode())]
        if outcome.report is not None and delivery.curve is not None:
            kept.append(("curves", f"{stem}.parquet", delivery.curve))
        if outcome.report is not None and delivery.layers is not None:
            kept.append(("layers", f"{stem}.parquet", delivery.layers))
        if outcome.report is not None and delivery.artifact and self.sweep.keep_artifacts:
            kept.append(("artifacts", f"{stem}.bin", delivery.artifact))
        kept += [("scripts", f"{stem}/{name}", data) for name, data in delivery.kept.items()]
        names = [self._retrying(partial(self.store.write_file, *file)) for file in kept]
        return str(names[0])

    def _taint(self, row: Row) -> Mapping[str, Any]:
        if row["state"] != "succeeded":
            return {}
        reason = taint(row, self._timings[row["node"]], self.sweep.timing)
        return {"tainted": reason is not None, "taint_reason": reason}

    def _commit(self, attempt: Attempt, row: Row) -> None:
        try:
            self.store.commit(attempt, row)
        except AlreadyClosed:
            late = self.store.commit_late(attempt, row)
            self._numbers[attempt.cell_id] = late.number
            self.say(
                f"attempt {attempt.number} at {row['cell']} was closed by another driver; what it "
                f"gave is kept as attempt {late.number}."
            )

    def _remember_timing(self, row: Row) -> None:
        was_measured = any(row.get(name) is not None for name in PROBES)
        if was_measured and row["node"] and row["state"] == "succeeded" and not row["tainted"]:
            self._timings[row["node"]].append({name: row.get(name) for name in MEASURE})

    def _retrying(self, write: Callable[[], T]) -> T:
        """``write()``, again and again while the store fails, for at most the grace time."""
        deadline_s = time.monotonic() + self.sweep.limits.grace_s
        while True:
            try:
                return write()
            except StoreError as error:
                if time.monotonic() > deadline_s or self.must_stop():
                    raise
                if time.monotonic() - self._warned_s >= RETRY_S:  # each thread says the same
                    self._warned_s = time.monotonic()
                    self.say(f"warning: {error} Trying again for a while.")
                time.sleep(RETRY_S)
