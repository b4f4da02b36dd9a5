"""Set the command line that ``ps`` shows of a process that was forked.

The kernel shows the memory in which the arguments of the program that was started lie. A copy
writes its own there; they have the room that the original left them.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

ROOM = "-" * 512
"""An argument for the program that will be copied: room for the copies' own."""

_ARG_START, _ARG_END = 45, 46  # of proc_pid_stat(5), counted from the state


def set_title(arguments: Sequence[str]) -> None:
    """Have this process shown as ``arguments``, as far as there is room for them."""
    stat = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    start, end = int(stat[_ARG_START]), int(stat[_ARG_END])
    text = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)[: end - start]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))
