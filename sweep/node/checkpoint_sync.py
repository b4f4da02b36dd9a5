"""How does a checkpoint get to a place that outlives the node, and back, without disturbing a run?

The place is a folder or a URI that fsspec knows. Everything that touches it is done by a thread of
its own, for which nobody waits longer than a deadline; what fails is told and tried again.
"""

import contextlib
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

FETCH_S = 120.0
CLOSE_S = 15.0
LOOK_EVERY_S = 1.0
TRY_AGAIN_S = 30.0


class Copy:
    """The copy of the local file ``path`` in the folder ``place``, under the same name."""

    def __init__(self, path: Path, place: str, say: Callable[[str], None]) -> None:
        self._path, self._place, self._say = path, place, say
        self._closing = threading.Event()
        self._remove = False
        self._copied: tuple[int, int, int] | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoint copy", daemon=True)

    def fetch(self, stop: threading.Event) -> None:
        """Bring the copy here, if there is one and it comes in time."""
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        came = threading.Event()
        thread = threading.Thread(target=self._download, args=(temporary, came), daemon=True)
        thread.start()
        deadline_s = time.monotonic() + FETCH_S
        while thread.is_alive() and time.monotonic() < deadline_s and not stop.is_set():
            thread.join(0.1)
        if came.is_set():
            temporary.replace(self._path)  # here, so that one that comes too late changes nothing
            self._copied = _version(self._path)
        elif thread.is_alive() and not stop.is_set():
            self._say(f"the checkpoint in {self._place} did not come within {FETCH_S:g} s.")

    def start(self) -> None:
        """Bring every change from now on to the place."""
        self._thread.start()

    def close(self, *, remove: bool) -> None:
        """Bring the last change, or remove the copy; does not wait for long."""
        self._remove = remove
        self._closing.set()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._say(f"the checkpoint in {self._place} was not done with within {CLOSE_S:g} s.")

    def _run(self) -> None:
        pause_s = LOOK_EVERY_S
        while not self._closing.wait(pause_s):
            pause_s = LOOK_EVERY_S if self._try(self._bring) else TRY_AGAIN_S
        self._try(self._take_away if self._remove else self._bring)

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # whatever a file system may raise, the run goes on
            self._say(f"the checkpoint in {self._place}: {type(error).__name__}: {error}")
            return False
        return True

    def _download(self, temporary: Path, came: threading.Event) -> None:
        try:
            files, target = self._target()
            with contextlib.suppress(FileNotFoundError):
                files.get_file(target, str(temporary))
                came.set()
        except Exception as error:  # the cell starts from zero then
            self._say(f"the checkpoint in {self._place}: {type(error).__name__}: {error}")
        finally:
            if not came.is_set():
                temporary.unlink(missing_ok=True)

    def _bring(self) -> None:
        version = _version(self._path)
        if version is None or version == self._copied:
            return
        # A second name for this very version, which the ranks may replace at any time.
        snapshot = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            os.link(self._path, snapshot)
            files, target = self._target()
            if isinstance(files, LocalFileSystem):
                _copy_whole(snapshot, Path(target))
            else:
                files.put_file(str(snapshot), target)
        finally:
            snapshot.unlink(missing_ok=True)
        self._copied = version

    def _take_away(self) -> None:
        files, target = self._target()
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(target)
        if isinstance(files, LocalFileSystem):
            _remove_parts(Path(target))

    def _target(self) -> "tuple[fsspec.AbstractFileSystem, str]":
        files, folder = fsspec.url_to_fs(self._place)
        return files, f"{folder.rstrip('/')}/{self._path.name}"


def _copy_whole(source: Path, target: Path) -> None:
    """Replace ``target``, of which no reader ever sees a part."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{socket.gethostname()}-{os.getpid()}")
    try:
        shutil.copyfile(source, part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _remove_parts(target: Path) -> None:
    """What an agent that was killed while it copied has left."""
    for part in target.parent.glob(f".{target.name}.*"):
        part.unlink(missing_ok=True)


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
