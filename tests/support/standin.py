"""Small programs that stand in for the trainer, run by the real agent as real processes."""

import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

from sweep.messages import Order
from sweep.node import ranks
from trainer.contract import (
    ARTIFACT_FILE,
    CURVE_FILE,
    LAYERS_FILE,
    PROGRESS_FILE,
    REPORT_FILE,
    SPEC_FILE,
)
from trainer.source import trainer_source

CELL_ID = "0123456789abcdef"
STEM = f"{CELL_ID}-1"

PREAMBLE = f"""
import faulthandler, json, os, pathlib, signal, sys, time
faulthandler.register(signal.SIGUSR1)
rank = int(os.environ["RANK"])

def say(**progress):  # as the trainer does: rank 0 alone, and the file is whole at any moment
    if rank == 0:
        path = pathlib.Path("{PROGRESS_FILE}")
        path.with_suffix(".new").write_text(json.dumps(progress))
        path.with_suffix(".new").replace(path)
"""

WELL = f"""
spec = json.loads(pathlib.Path("{SPEC_FILE}").read_text())
pathlib.Path("{REPORT_FILE}").write_text(json.dumps(spec))
pathlib.Path("{CURVE_FILE}").write_bytes(b"c")
pathlib.Path("{ARTIFACT_FILE}").write_bytes(b"a")
pathlib.Path("{LAYERS_FILE}").write_bytes(b"l")
"""


# A fork server whose copies do what `python -c CODE` does, which ends as an interpreter does.
FORK_SERVER = """
import atexit, faulthandler, json, os, pathlib, signal, socket, sys, time, traceback
from trainer.fork_server.fork import serve
from trainer.source import trainer_source

def run(command):
    status = 0
    try:
        exec(command[2], {"__name__": "__main__"})
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)

with socket.socket(fileno=int(sys.argv[1])) as control:
    control.sendall(trainer_source().sha256.encode() + b"\\n")
    serve(control, run)
"""


def program(code: str) -> tuple[str, ...]:
    """The command that runs ``code`` behind the preamble, in place of the trainer's."""
    return (sys.executable, "-c", PREAMBLE + textwrap.dedent(code))


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str, *, forked: bool = False) -> None:
    """Ranks run ``code``, each a program that is started, or forked by a server."""
    server = (sys.executable, "-c", FORK_SERVER) if forked else None
    monkeypatch.setattr(ranks, "TRAINER", program(code))
    monkeypatch.setattr(ranks, "FORK_SERVER", server)


def scratch_under(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def order(**changes: Any) -> Order:
    values: dict[str, Any] = {
        "stem": STEM,
        "cell_id": CELL_ID,
        "spec_json": '{"a": 1}',
        "ranks": 1,
        "threads": 1,
        "no_progress_s": 30.0,
        "slow_phase_s": 30.0,
        "trainer_hash": trainer_source().sha256,
    }
    return Order(**(values | changes))
