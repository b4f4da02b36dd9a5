"""Call a function that may never return: with a deadline, or again and again, in a thread that is
left behind.

A GPU that falls off its bus, a file server that is gone or a head of Ray that stands still holds a
call for ever, and no signal ends it. The threads are daemons, so the process ends all the same,
which threads of a ``ThreadPoolExecutor`` would prevent.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

LEAVE_S = 2.0


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


@contextlib.contextmanager
def repeated(every_s: float, call: Callable[[], object]) -> Iterator[None]:
    """Inside, ``call()`` at once and every so often; what it raises is not heard.

    A call that goes on at the end of the block is waited for a moment only.
    """
    over = threading.Event()

    def run() -> None:
        while True:
            with contextlib.suppress(Exception):
                call()
            if over.wait(every_s):
                return

    thread = threading.Thread(target=run, name="repeated", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LEAVE_S)
