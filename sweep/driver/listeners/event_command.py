"""Tell a command of the user's what happens: one JSON object for each event, on standard input.

A thread of its own runs the command for one event after the other. It may hang, fail or be missing:
that is said once, and the sweep neither waits nor ends for it.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from queue import Full, Queue
from typing import Any

from sweep.driver.display import EndedView, SweepView, ending_line
from sweep.driver.listeners.attempt_metrics import SCORES
from sweep.spec.sweep_file import EventHook

MAX_WAITING = 1000
TOLD = ("cell_id", "attempt", "node", *SCORES)


class EventCommand:
    """``hook.command``, told of the sweep ``sweep`` by the driver ``driver_id``."""

    def __init__(
        self, hook: EventHook, sweep: str, driver_id: str, warn: Callable[[str], None]
    ) -> None:
        self._hook, self._warn, self._of = hook, warn, {"sweep": sweep, "driver": driver_id}
        self._events: Queue[bytes | None] = Queue(MAX_WAITING)
        self._said: dict[str, str | None] = {}
        self._ended: Counter[str] = Counter()
        self._has_started = self._has_warned = self._is_over = False
        self._running: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="event command", daemon=True)
        self._thread.start()

    def show(self, view: SweepView) -> None:
        """Tell what has begun since the last look: the sweep itself, draining, a pause."""
        if not self._has_started:
            self._has_started = True
            self._tell("started", f"{view.total} cells to run", cells=view.total)
        for event, why in (("draining", view.stopping), ("paused", view.paused)):
            if why not in (None, self._said.get(event)):  # a drain may become a stop
                self._said[event] = why
                self._tell(event, str(why), reason=why, running=len(view.leases))

    def ended(self, ending: EndedView) -> None:
        """Tell how an attempt has ended. ``done`` is null where its cell is tried again."""
        self._ended[ending.state] += 1
        facts = {name: ending.row.get(name) for name in TOLD}
        facts |= {"cell": ending.cell, "state": ending.state, "reason": ending.reason}
        facts |= {"wall_s": ending.wall_s, "done": ending.done, "total": ending.total}
        self._tell("attempt ended", ending_line(ending), **facts)

    def close(self) -> None:
        """Tell the end, and wait for the command for one timeout at most."""
        attempts = ", ".join(f"{count} {state}" for state, count in sorted(self._ended.items()))
        self._tell("finished", f"attempts: {attempts or 'none'}", attempts=dict(self._ended))
        until_s = time.monotonic() + self._hook.timeout_s
        with contextlib.suppress(Full):
            self._events.put(None, timeout=self._hook.timeout_s)
        self._thread.join(max(0.0, until_s - time.monotonic()))
        if self._thread.is_alive():
            self._is_over = True
            self._warn_once("did not take every event in time")
            self._kill()

    def _tell(self, event: str, text: str, **facts: Any) -> None:
        body = {"event": event, "at": datetime.now(UTC).isoformat(), **self._of, **facts}
        body["text"] = f"sweep {self._of['sweep']}, {event}: {text}"
        try:
            self._events.put_nowait(json.dumps(body).encode() + b"\n")
        except Full:
            self._warn_once(f"is behind by {MAX_WAITING} events, and later ones are dropped")

    def _run(self) -> None:
        while (body := self._events.get()) is not None and not self._is_over:
            try:
                self._call(body)
            except Exception as error:  # whatever it is, it is not the sweep's
                self._warn_once(f"could not be run ({error})")

    def _call(self, body: bytes) -> None:
        process = self._running = subprocess.Popen(
            self._hook.command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the driver's
        )
        try:
            process.communicate(body, self._hook.timeout_s)
        except subprocess.TimeoutExpired:
            self._kill()
            process.wait()
            self._warn_once(f"had not ended after {self._hook.timeout_s:g} s and was killed")
        else:
            if process.returncode != 0:
                self._warn_once(f"ended with status {process.returncode}")

    def _kill(self) -> None:
        """The command and what it has started."""
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)

    def _warn_once(self, what: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"warning: the command of [events] {what}; the sweep goes on without, and this is "
                f"said once. `echo '{{}}' | COMMAND` tries it by hand."
            )
