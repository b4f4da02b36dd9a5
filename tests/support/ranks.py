"""Several rank processes of the trainer, as torchrun would start them, without torchrun."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def ranks(num_ranks, *arguments):
    """The ranks alone, told who they are as torchrun would; each one's exit status and output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place["WORLD_SIZE"] = str(num_ranks)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "trainer", *arguments],
            cwd=ROOT,
            env=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        outputs = [process.communicate()[0] for process in started]
        return [process.returncode for process in started], outputs
    finally:
        for process in started:
            process.kill()
