"""Client of the fork server: ranks that need not import anything are forked from a warm process.

The server (trainer/fork_server/server.py) is one process for each agent, which has the environment
of the ranks and one version of the code; where either differs from what is asked for, another takes
its place. What it cannot do is done without it: ranks are then started as programs, slower and as
well.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from sweep.provenance import PROJECT
from trainer.fork_server.fork import GO, Request, request_rank
from trainer.fork_server.process_title import ROOM
from trainer.system.parent_death import dying_with_this_process

START_S = 120.0  # of a file system that is slow to be read for the first time
FORK_S = 10.0
CLOSE_S = 5.0
LAST_WORDS_S = 1.0
POLL_S = 0.05
MAX_FAILURES = 2  # one after the other, after which an agent does without
MAX_WORD_BYTES = 4096
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37

Say = Callable[[str], None]

_REAPING = threading.Lock()


class NotForked(Exception):  # noqa: N818  (it says what is the case, in a line)
    """The server did not do it; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """What a server is: its program, the hash of the trainer's code, the environment of ranks."""

    program: Sequence[str]
    code: str
    environment: Mapping[str, str]


class ForkServer:
    """One server process, from when it is started until it is closed or dies."""

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec
        self._control, self._server_end = socket.socketpair()
        self._control.settimeout(FORK_S)  # a request may be longer than what is sent unread
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the server)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._started = threading.Event()
        # The kernel takes the end of the thread that began a process for its parent's death, so
        # this one waits for the server's end.
        self._monitor = threading.Thread(target=self._run, name="fork server", daemon=True)
        self._monitor.start()

    @property
    def has_ended(self) -> bool:
        return not self._monitor.is_alive()

    def wait(self, stop: threading.Event, timeout_s: float = START_S) -> None:
        """Until it has imported everything; NotForked where that fails, or ``stop`` is set."""
        deadline_s, said = time.monotonic() + timeout_s, b""
        while not self._is_ready:
            if stop.is_set():
                raise NotForked("the attempt was stopped")
            if time.monotonic() > deadline_s:
                raise NotForked(f"it was not ready within {timeout_s:g} s")
            if not select.select([self._control], [], [], POLL_S)[0]:
                continue
            word = self._control.recv(MAX_WORD_BYTES)
            if not word:
                raise NotForked(f"it ended: {self._last_words()}")
            said += word
            self._is_ready = said.endswith(b"\n")
        if said and (code := said.decode().strip()) != self.spec.code:
            self._is_ready = False
            raise NotForked(f"it has the trainer's code {code[:12]}, not {self.spec.code[:12]}")

    def fork(self, request: Request, log: IO[bytes], adopt: Callable[[int], None]) -> None:
        """Begin the rank ``request``; ``adopt`` is told its number before it does anything."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, _reaping():
                try:
                    request_rank(self._control, request, log=log.fileno(), channel=theirs.fileno())
                    theirs.close()
                    word = _line(ours, FORK_S)
                except OSError as error:
                    raise NotForked(f"{error.strerror or error}") from None
            if not word.isdigit():
                raise NotForked(word or f"it began no process: {self._last_words()}")
            adopt(int(word))
            with contextlib.suppress(OSError):  # it has died since, which will be seen
                ours.sendall(GO)

    def close(self) -> None:
        """End it. What it has begun goes on."""
        self._started.wait(CLOSE_S)
        self._control.close()
        if self._process is not None and self._monitor.is_alive():
            self._process.kill()
        self._monitor.join(CLOSE_S)
        self._said.close()

    def _run(self) -> None:
        try:
            with self._server_end as theirs:
                command = [*self.spec.program, str(theirs.fileno()), ROOM]
                self._process = subprocess.Popen(
                    dying_with_this_process(command),
                    env=dict(self.spec.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=self._said,
                    stderr=self._said,
                    pass_fds=[theirs.fileno()],
                    cwd=PROJECT,  # whose modules come first, and no other folder's
                    start_new_session=True,
                )
        except OSError as error:
            self._said.write(str(error).encode())
            return
        finally:
            self._started.set()
        _end_group(self._process)

    def _last_words(self) -> str:
        self._monitor.join(LAST_WORDS_S)
        lines = []
        with contextlib.suppress(OSError, ValueError):  # no room on the disk; closed meanwhile
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


class ForkServerManager:
    """The server of one agent, started anew when it has died or another is needed."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._failures = 0

    def start(self, spec: ServerSpec) -> None:
        """See that a server for it is on its way, without waiting."""
        with contextlib.suppress(NotForked):  # it is tried again when it is needed
            self._ensure(spec)

    def ready(self, spec: ServerSpec, stop: threading.Event, say: Say) -> ForkServer | None:
        """A server that can fork; None where there is none to be had."""
        try:
            self._ensure(spec)
            if self._server is not None:
                self._server.wait(stop)
        except NotForked as error:
            if stop.is_set():
                return None
            self.failed(error, say)
        return self._server

    def _ensure(self, spec: ServerSpec) -> None:
        if sys.platform != "linux" or self._failures >= MAX_FAILURES:
            return
        server = self._server
        if server is not None and server.spec == spec and not server.has_ended:
            return
        self.close()
        try:
            self._server = ForkServer(spec)
        except (OSError, RuntimeError) as error:  # no room for a thread is the latter
            raise NotForked(f"it cannot be started: {error}") from None

    def failed(self, error: NotForked, say: Say) -> None:
        """It is of no use: away with it, and say so."""
        self._failures += 1
        self.close()
        more = "" if self._failures < MAX_FAILURES else "; no other is started by this agent"
        say(f"the fork server did not serve, ranks are started without it: {error}{more}")

    def succeeded(self) -> None:
        self._failures = 0

    def close(self) -> None:
        """End the server, if there is one."""
        server, self._server = self._server, None
        if server is not None:
            server.close()


def _end_group(leader: "subprocess.Popen[bytes]") -> None:
    """Wait for the end of ``leader``; kill what it was about to make, which may be ours by then."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)  # the number stays taken
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-leader.pid, 0)


@contextlib.contextmanager
def _reaping() -> Iterator[None]:
    """Inside, orphans below this process become its children; afterwards whose they did before."""
    libc = ctypes.CDLL(None, use_errno=True)
    with _REAPING:
        before = ctypes.c_int()
        libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise NotForked(f"no reaper: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            libc.prctl(PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def _line(channel: socket.socket, timeout_s: float) -> str:
    """What is said up to the end of the line, or of the channel."""
    channel.settimeout(timeout_s)
    said = b""
    while not said.endswith(b"\n") and (word := channel.recv(MAX_WORD_BYTES)):
        said += word
    return said.decode(errors="replace").strip()
