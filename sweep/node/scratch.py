"""Scratch folders and logs of attempts on a node, and what a killed agent leaves of them.

``<temporary folder>/activation-sweep-<user>/<stem>``: a name that can be told from elsewhere, so
that the log of a lost attempt can be fetched. A lock beside the folder says that its agent lives,
and goes with the agent however that ends. Where another sweep of the same user runs a cell of the
same name here, the second folder is ``<stem>.1``.
"""

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep.processes.process_lock import age_s, lock_path, try_lock
from trainer.contract import PROGRESS_FILE

STEM = re.compile(r"[0-9a-f]{16}-\d+")
AGENT_LOG = "agent.log"
LOG_TAIL_BYTES = 256 * 1024
LIVE_BYTES = 2000  # of a thousand cells, every few seconds
SCRIPT_LOG_BYTES = 16 * 1024 * 1024
OLD_S = 24 * 3600.0

_FOLDER = re.compile(rf"(?P<stem>{STEM.pattern})(?:\.\d+)?")
_RANK_LOG = re.compile(r"rank(\d+)\.log")


def scratch_root() -> Path:
    """This user's folder on this node."""
    root = Path(tempfile.gettempdir()) / f"activation-sweep-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{root} belongs to somebody else; remove it, or set TMPDIR to another folder."
        )
    return root


@contextlib.contextmanager
def scratch(stem: str) -> Iterator[Path]:
    """An empty folder for the attempt ``stem``, while it is made."""
    root = scratch_root()
    _remove_old(root)
    for number in itertools.count():
        folder = root / (f"{stem}.{number}" if number else stem)
        with try_lock(folder) as is_ours:
            if not is_ours:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            try:
                yield folder
            finally:
                _remove(folder)
            return


def read_abandoned_log(stem: str) -> str | None:
    """The log of the attempt ``stem`` whose agent was killed on this node; None if there is none.

    What was read is removed, unless its agent still runs after all.
    """
    found = []
    for folder in sorted(scratch_root().glob(f"{stem}*")):
        match = _FOLDER.fullmatch(folder.name)
        if match is None or match["stem"] != stem or not folder.is_dir():
            continue
        with try_lock(folder) as is_left:
            mark = "has died" if is_left else "was given up and still runs"
            found.append(f"[the agent of this attempt {mark}; {_last_progress(folder)}]")
            found.append(read_logs(folder))
            if is_left:
                _remove(folder)
    return "\n".join(found) or None


def live_log(stem: str, skip: int = 0) -> bytes | None:
    """The lines that rank 0 of the attempt ``stem`` has printed after ``skip`` bytes.

    None where that is not on this machine.
    """
    with contextlib.suppress(OSError):
        for folder in sorted(scratch_root().glob(f"{stem}*")):
            match = _FOLDER.fullmatch(folder.name)
            if match is not None and match["stem"] == stem and folder.is_dir():
                with rank_log(folder, 0).open("rb") as file:
                    file.seek(skip)
                    return _whole_lines(file.read())
    return None


def log_end(folder: Path) -> dict[str, Any]:
    """The last lines that rank 0 has printed, and after how many bytes in all they end."""
    with contextlib.suppress(OSError), rank_log(folder, 0).open("rb") as file:
        begin = max(0, file.seek(0, os.SEEK_END) - LIVE_BYTES)
        file.seek(begin)
        end = _whole_lines(file.read(LIVE_BYTES))
        return {"log_end": end.decode(errors="replace"), "log_bytes": begin + len(end)}
    return {}


def append_agent_log(folder: Path, text: str) -> None:
    """Add a line to what the agent itself says of the attempt."""
    with contextlib.suppress(OSError), (folder / AGENT_LOG).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def rank_log(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.log"


def read_logs(folder: Path, *, whole: bool = False) -> str:
    """The ends of the logs of all ranks, and what the agent said.

    Of a script the logs are ``whole``: what they say is what is submitted.
    """
    limit = SCRIPT_LOG_BYTES if whole else LOG_TAIL_BYTES
    ranks = sorted(
        int(match[1]) for path in folder.glob("*.log") if (match := _RANK_LOG.fullmatch(path.name))
    )
    parts = {f"rank {rank}": tail(rank_log(folder, rank), limit) for rank in ranks}
    if said := tail(folder / AGENT_LOG):
        parts["agent"] = said
    if list(parts) == ["rank 0"]:
        return parts["rank 0"]
    return "\n".join(f"--- {name} ---\n{text}" for name, text in parts.items())


def tail(path: Path, limit: int = LOG_TAIL_BYTES) -> str:
    """The end of a log, which says how much was left out; empty where there is none."""
    try:
        with path.open("rb") as file:
            skipped = max(0, file.seek(0, os.SEEK_END) - limit)
            file.seek(skipped)
            text = file.read(limit).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return f"[the first {skipped} bytes are left out]\n{text}" if skipped else text


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _remove(folder: Path) -> None:
    """Remove a folder whose lock is held, and the lock."""
    shutil.rmtree(folder, ignore_errors=True)
    lock_path(folder).unlink(missing_ok=True)


def _remove_old(root: Path) -> None:
    """Remove what agents that were killed left here more than a day ago."""
    for folder in root.iterdir():
        if not _FOLDER.fullmatch(folder.name) or age_s(folder) < OLD_S:
            continue
        with try_lock(folder) as is_left:
            if is_left:
                _remove(folder)


def _last_progress(folder: Path) -> str:
    text = tail(folder / PROGRESS_FILE)
    return f"its last progress was {text}" if text else "it had made no progress"
