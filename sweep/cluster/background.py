"""Who waits for Ray's head, so that the driver does not? A thread, one errand after the other.

Making, removing and listing placement groups are calls to the head that know no deadline: while it
stood still (SIGSTOP) they were seen to block for minutes. The driver has a deadline of its own.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Errands:
    """Runs what it is given in that order. The thread does not keep the process from ending."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="errands", daemon=True).start()

    def do(self, errand: Callable[[], T]) -> "Future[T]":
        """What ``errand`` gives or raises, in time."""
        result: Future[T] = Future()
        self._queue.put((errand, result))
        return result

    def _run(self) -> None:
        while True:
            errand, result = self._queue.get()
            try:
                result.set_result(errand())
            except Exception as error:
                result.set_exception(error)
