"""Threads that write to the store, so that the driver's own thread never waits for it.

An object store takes 60 ms for a file and as much for sixteen at once. The threads are daemons: one
that waits for a server that is gone does not keep the process. Calls begin in their order, and end
in any: who needs one to have ended before another begins asks for the other then.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Writers:
    """``num_threads`` threads that make calls."""

    def __init__(self, num_threads: int) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"writer {i}", daemon=True)
            for i in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """What ``call`` returns or raises, in time."""
        future: Future[T] = Future()
        self._calls.put(lambda: _settle(future, call))
        return future

    def close(self, deadline_s: float) -> None:
        """Make the calls that were submitted, and end; no longer than ``deadline_s`` is waited."""
        for _ in self._threads:
            self._calls.put(None)
        until_s = time.monotonic() + deadline_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _settle(future: "Future[Any]", call: Callable[[], Any]) -> None:
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
