"""Copy a checkpoint to a place that outlives the node, and back, without disturbing the run.

The place is a folder or a bucket, as for results (``sweep/store/files``): a reader never sees a
part of a copy. Everything that touches it is done by a thread of its own, for which nobody waits
longer than a deadline; what fails is told and tried again.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import IO

from sweep.deadline import run_in_background
from sweep.store.files import Files, open_files
from trainer.files import write_atomically

FETCH_S = 120.0
CLOSE_S = 10.0
POLL_S = 0.1
LOOK_EVERY_S = 1.0
TRY_AGAIN_S = 30.0


class CheckpointSync:
    """Keeps a copy of the local file ``path`` in ``place``, under the same name."""

    def __init__(self, path: Path, place: str, say: Callable[[str], None]) -> None:
        self._path, self._place, self._say = path, place, say
        self._closing = threading.Event()
        self._remove = False
        self._copied: tuple[int, int, int] | None = None
        self._running: Future[None] | None = None

    def fetch(self, stop: threading.Event) -> None:
        """Bring the copy here, if there is one and it comes in time."""
        copy = run_in_background(lambda: self._files().read(self._path.name))
        deadline_s = time.monotonic() + FETCH_S
        while not (copy.done() or stop.is_set() or time.monotonic() > deadline_s):
            wait([copy], POLL_S)
        if copy.done():
            self._try(lambda: self._keep(copy))
        elif not stop.is_set():
            self._say(f"the checkpoint in {self._place} did not come within {FETCH_S:g} s.")

    def start(self) -> None:
        """Bring every change from now on to the place."""
        self._running = run_in_background(self._run)

    def close(self, *, remove: bool) -> None:
        """Bring the last change, or remove the copy; does not wait for long."""
        self._remove = remove
        self._closing.set()
        if self._running is not None and not wait([self._running], CLOSE_S).done:
            self._say(f"the checkpoint in {self._place} was not done with within {CLOSE_S:g} s.")

    def _run(self) -> None:
        pause_s = LOOK_EVERY_S
        while not self._closing.wait(pause_s):
            pause_s = LOOK_EVERY_S if self._try(self._upload) else TRY_AGAIN_S
        self._try((lambda: self._files().remove(self._path.name)) if self._remove else self._upload)

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # whatever the place may raise, the run goes on
            self._say(f"the checkpoint in {self._place}: {type(error).__name__}: {error}")
            return False
        return True

    def _keep(self, copy: "Future[bytes]") -> None:
        try:
            write_atomically(self._path, copy.result(), durable=False)
        except FileNotFoundError:  # there is no copy: the cell starts from zero
            return
        with self._path.open("rb") as file:
            self._copied = _version(file)

    def _upload(self) -> None:
        try:
            file = self._path.open("rb")  # one version, whatever the ranks put in its place
        except FileNotFoundError:
            return
        with file:
            version = _version(file)
            if version != self._copied:
                self._files().replace(self._path.name, file.read())
                self._copied = version

    def _files(self) -> Files:
        return open_files(self._place, deadline_s=FETCH_S)


def _version(file: IO[bytes]) -> tuple[int, int, int]:
    stat = os.fstat(file.fileno())
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
