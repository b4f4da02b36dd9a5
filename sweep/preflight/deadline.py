"""How is a question asked that may never be answered? In a thread that is left behind.

A GPU that falls off its bus or a file server that is gone holds a call for ever, and no signal ends
it. The thread is a daemon, so the process ends all the same.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(deadline_s: float, call: Callable[[], T]) -> T:
    """What ``call`` returns or raises; TimeoutError where it does neither in time."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(deadline_s)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {deadline_s:g} s")
    return answers[0]
