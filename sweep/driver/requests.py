"""Requests to a running driver through the store: what ``make stop`` writes and the driver answers.

A request is a file of that driver alone, so none outlives it: ``requests/<driver id>.json``. The
answer, ``answers/<driver id>.json``, names the token of the request that it is for.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

from sweep.deadline import repeated
from sweep.driver.control import Control
from sweep.store.files import StoreError
from sweep.store.store import ANSWERS, REQUESTS, Store

POLL_S = 0.2
ANSWER_S = 5.0  # from the driver's look until its answer is there


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """``stop``: let running cells finish, or stop them; ``max_leases``: hold so many at most."""

    stop: Literal["drain", "now"] | None = None
    max_leases: int | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(8))


def ask(store: Store, driver_id: str, request: Request) -> str | None:
    """Tell a driver; its answer, None if none has come in the time in which it looks."""
    files, answer = store.files, f"{ANSWERS}/{driver_id}.json"
    files.replace(f"{REQUESTS}/{driver_id}.json", json.dumps(asdict(request)).encode())
    deadline_s = time.monotonic() + files.ask_every_s + ANSWER_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(FileNotFoundError):
            found = json.loads(files.read(answer))
            if found["token"] == request.token:
                return str(found["text"])
        time.sleep(max(POLL_S, files.ask_every_s / 10))
    return None


@contextlib.contextmanager
def requests_heard(store: Store, driver_id: str, control: Control) -> Iterator[None]:
    """Until the end of the block ``control`` is told what others ask of this driver."""
    files, names = store.files, [f"{folder}/{driver_id}.json" for folder in (REQUESTS, ANSWERS)]
    heard: set[str] = set()

    def look() -> None:
        request = Request(**json.loads(files.read(names[0])))
        if request.token not in heard:
            text = _obey(request, control)
            files.replace(names[1], json.dumps({"token": request.token, "text": text}).encode())
            heard.add(request.token)

    try:
        with repeated(files.ask_every_s, look):
            yield
    finally:
        for name in names:
            with contextlib.suppress(StoreError):
                files.remove(name)


def _obey(request: Request, control: Control) -> str:
    if request.max_leases is not None:
        control.max_leases = request.max_leases
    if request.stop == "drain":
        control.drain()
    elif request.stop == "now":
        control.stop("the user stopped it (make stop NOW=1)")
    most = request.max_leases
    leases = f"It holds at most {most} lease{'s' * (most > 1)}, as cells end." if most else None
    return " ".join(filter(None, (leases, control.sentence)))
