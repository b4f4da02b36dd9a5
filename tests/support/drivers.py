"""Drivers in processes of their own, to race and to be killed."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from typing import Any

from sweep.store.drivers import HeartbeatIntervals
from sweep.store.store import AlreadyClosed, Attempt, Store
from tests.support.forked import forked_from

PATIENCE_S = 240.0  # against hanging alone
PROCESSES = forked_from(__name__, "s3fs")  # what the first look into a bucket imports


def row_of(attempt: Attempt, state: str = "succeeded", **changes: Any) -> dict[str, Any]:
    """A row that closes ``attempt``."""
    row = {
        "cell": "asqu__seed1",
        "cell_id": attempt.cell_id,
        "attempt": attempt.number,
        "order_position": 0,
        "state": state,
        "tainted": False,
        "started_at": attempt.started_at,
        "ended_at": datetime.now(UTC),
    }
    return row | changes


def race(place: str, rounds: int, barrier: Any, answers: Any, who: str) -> None:
    """Announce and close the same attempts as the others do, in step with them."""
    store, announced, closed = Store(place), [], []
    for number in range(rounds):
        cell = f"{number:016x}"
        barrier.wait(PATIENCE_S)
        announced.append(store.announce(cell, 1, {"driver": who}) is not None)
        barrier.wait(PATIENCE_S)
        attempt = Attempt(cell, 1, datetime.now(UTC))
        try:
            store.commit(attempt, row_of(attempt, node=who))
        except AlreadyClosed:
            closed.append(False)
        else:
            closed.append(True)
    answers.put((who, announced, closed))


def _drive(
    environment: Mapping[str, str], place: str, intervals: HeartbeatIntervals, cell: str, pipe: Any
) -> None:
    os.environ.update(environment)  # the server has that of its own start
    store = Store(place, intervals=intervals)
    with store.as_driver(join=True) as driver_id:
        store.announce(cell, 1, {"driver": driver_id})
        pipe.send(driver_id)
        pipe.recv()


@contextlib.contextmanager
def driver_elsewhere(
    place: str, intervals: HeartbeatIntervals, cell: str
) -> Iterator[tuple[BaseProcess, str, Callable[[], None]]]:
    """A driver in another process that has announced an attempt: it, its id, and how it ends."""
    ours, theirs = PROCESSES.Pipe()
    arguments = (dict(os.environ), place, intervals, cell, theirs)
    process = PROCESSES.Process(target=_drive, args=arguments, daemon=True)
    process.start()
    try:
        assert ours.poll(PATIENCE_S), "the driver did not begin"
        yield process, ours.recv(), lambda: ours.send("end")
    finally:
        process.kill()
        process.join(PATIENCE_S)
        process.close()
        ours.close()
        theirs.close()
