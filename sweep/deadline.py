"""Call a function that may never return: with a deadline, in a thread that is left behind.

A GPU that falls off its bus, a file server that is gone or a head of Ray that stands still holds a
call for ever, and no signal ends it. The threads are daemons, so the process ends all the same,
which threads of a ``ThreadPoolExecutor`` would prevent.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def run_in_background(call: Callable[[], T]) -> "Future[T]":
    """What ``call`` returns or raises, in time."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return future


def call_with_deadline(deadline_s: float, call: Callable[[], T]) -> T:
    """What ``call`` returns or raises; TimeoutError where it does neither in time."""
    future = run_in_background(call)
    if not wait([future], deadline_s).done:
        raise TimeoutError(f"no answer within {deadline_s:g} s")
    return future.result()
