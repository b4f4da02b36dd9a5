"""Fork a rank from a process that has imported everything: in hundredths of a second.

A server that has imported all that a rank needs (trainer/fork_server/server.py) forks a copy of
itself for every request that comes through a socket. A copy has the state of a fresh interpreter
behind its imports; nothing that a cell does comes back. It becomes the child not of the server but
of the agent that sent the request, which has to be a subreaper for that moment: so the agent sees
its end itself, the kernel kills it when the agent ends, and the end of the server is nothing to it.
Linux alone.

A request is a length, that many bytes of JSON (:class:`Request`), and two descriptors: of the log,
and of a channel to the rank. On it the rank writes its process id once it will end with the agent,
and waits for ``GO``; it ends where the channel does.
"""

import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from trainer.fork_server.process_title import set_title

GO = b"g"
LENGTH_BYTES = 4
PR_SET_PDEATHSIG = 1
ADOPTION_POLL_S = 0.0002

Run = Callable[[Sequence[str]], NoReturn]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A rank to begin: the command that would start it, where it runs, whose child it must be."""

    command: Sequence[str]
    cwd: str
    environment: Mapping[str, str]
    parent: int


def request_rank(control: socket.socket, request: Request, *, log: int, channel: int) -> None:
    """Send ``request`` to the server at the other end of ``control``."""
    body = json.dumps(asdict(request)).encode()
    socket.send_fds(control, [len(body).to_bytes(LENGTH_BYTES, "big")], [log, channel])
    control.sendall(body)


def serve(control: socket.socket, run: Run) -> None:
    """Fork a rank for every request, until the other end of ``control`` is closed.

    ``run`` is the whole life of a rank that is started by a command; it does not return.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    gc.collect()
    gc.freeze()  # a collection in a copy would write to every page that is shared
    while (received := _receive(control)) is not None:
        with received.channel:
            with contextlib.suppress(OSError):  # no room for a process: the channel closes unsaid
                _fork_twice(received, lambda rank: _become_rank(rank, control, libc, run))
            os.close(received.log)


@dataclass(frozen=True, slots=True)
class _Received:
    request: Request
    log: int
    channel: socket.socket


def _receive(control: socket.socket) -> _Received | None:
    """The next request; None if there will be none."""
    length, descriptors, _, _ = socket.recv_fds(control, LENGTH_BYTES, 2)
    if not length:
        return None
    log, channel = descriptors
    length += _exactly(control, LENGTH_BYTES - len(length))
    body = _exactly(control, int.from_bytes(length, "big"))
    return _Received(Request(**json.loads(body)), log, socket.socket(fileno=channel))


def _exactly(control: socket.socket, num_bytes: int) -> bytes:
    parts = []
    while num_bytes:
        part = control.recv(num_bytes)
        if not part:
            raise EOFError("the agent has gone in the middle of a request")
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def _fork_twice(received: _Received, run_rank: Callable[[_Received], NoReturn]) -> None:
    """A copy of this process that lives, once whoever reaps orphans has become its parent."""
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return
    try:
        middle = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == middle:
            time.sleep(ADOPTION_POLL_S)
        run_rank(received)
    except Exception:
        traceback.print_exc()
    finally:  # no copy of the server goes on as one
        os._exit(1)


def _become_rank(received: _Received, control: socket.socket, libc: Any, run: Run) -> NoReturn:
    """Become the rank of this request."""
    request = received.request
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != request.parent:
        os._exit(1)  # the agent has died, or is not the reaper
    try:
        os.chdir(request.cwd)
    except OSError as error:
        received.channel.sendall(f"{request.cwd}: {error.strerror}\n".encode())
        os._exit(1)
    os.setsid()  # last, for until then it ends with the server's group
    received.channel.sendall(b"%d\n" % os.getpid())
    if received.channel.recv(1) != GO:
        os._exit(1)
    os.dup2(received.log, 1)
    os.dup2(received.log, 2)
    os.close(received.log)
    received.channel.close()
    control.close()
    os.environ.clear()
    os.environ.update(request.environment)
    set_title(request.command)
    try:
        run(request.command)
    except KeyboardInterrupt:  # as an interpreter ends of it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(1)
