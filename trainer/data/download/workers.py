"""How are many files handled at once, so that one mistake or one Ctrl-C ends it all?"""

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

PATIENCE_S = 1.0  # for threads that were told to stop; one may sit in a read that takes longer


def map_in_threads(
    work: Callable[[T], R], items: Sequence[T], *, num_threads: int, stop: threading.Event
) -> list[R]:
    """``work`` of every item, in their order.

    The first exception, in a thread or here, sets ``stop``, which ``work`` should heed, and is
    raised. The threads do not outlive the process, so one that is stuck in a read of a dead
    connection holds nobody up: that is why this is no ThreadPoolExecutor, whose threads do.
    """
    todo: SimpleQueue[tuple[int, T]] = SimpleQueue()
    for numbered in enumerate(items):
        todo.put(numbered)
    done: SimpleQueue[tuple[int, R] | BaseException] = SimpleQueue()

    def loop() -> None:
        while not stop.is_set():
            try:
                index, item = todo.get_nowait()
            except Empty:
                return
            try:
                done.put((index, work(item)))
            except BaseException as error:  # handed on, not handled
                done.put(error)
                return

    threads = [threading.Thread(target=loop, daemon=True) for _ in range(num_threads)]
    results: dict[int, R] = {}
    try:
        for thread in threads:
            thread.start()
        while len(results) < len(items):
            answer = done.get()
            if isinstance(answer, BaseException):
                raise answer
            results[answer[0]] = answer[1]
    finally:
        stop.set()
        _join(threads)
    return [results[index] for index in range(len(items))]


def _join(threads: Sequence[threading.Thread]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
