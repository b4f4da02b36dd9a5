"""``prepare`` fetches as a process of its own: its settings, its signals, its terminal."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import numpy as np
import pytest

from tests.support.commands import ROOT, environment
from tests.support.export import (
    FIRST,
    FOLDER,
    MANIFEST,
    NAME,
    assert_nothing_looks_whole,
    contents,
    shard_bytes,
)
from tests.support.hub import FakeHub, Fault
from trainer.data.__main__ import main

LARGE_TOKENS = 12_000_000  # more than two of the pieces of 10 MiB in which the library hands on
PIECE_BYTES = 10 * 2**20
HELD_AFTER = 2 * PIECE_BYTES + 1


@pytest.fixture(scope="module")
def large(published, tmp_path_factory):
    """The export with one training shard, of 24 MB."""
    path = tmp_path_factory.mktemp("large") / FIRST
    kept = {each: content for each, content in published.items() if "_train_" not in each}
    tokens = np.frombuffer(published[f"{FOLDER}/{FIRST}"][1024:], np.uint16)
    manifest = json.loads(published[MANIFEST])
    del manifest["datasets"][1]["stats"]["files_train"]
    content = shard_bytes(path, np.resize(tokens, LARGE_TOKENS))
    return kept | {f"{FOLDER}/{FIRST}": content, MANIFEST: json.dumps(manifest).encode()}


@pytest.fixture
def large_server(large):
    with FakeHub(dict(large)).running() as hub:
        yield hub


def arguments(root, *more):
    command = ["prepare", "--recipe", "tiny", "--set", f"data.dataset={NAME}"]
    return [*command, "--root", str(root), *more]


def start(server, root, *more, stderr=subprocess.PIPE, **variables):
    """The command, started; what it asks goes to ``server``, as it would to a mirror."""
    variables = {"HF_ENDPOINT": server.endpoint, "HF_HOME": f"{root}-home"} | variables
    variables |= {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "NO_PROXY": "*", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.data", *arguments(root, *more)],
        cwd=ROOT,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def run(server, root, *more, **variables):
    with start(server, root, *more, **variables) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_the_server_is_the_one_that_the_environment_names(server, root, undisturbed):
    """Nothing but the answer is printed where there is no terminal."""
    code, output, errors = run(server, root)
    assert (code, errors) == (0, "")
    assert f"{root / NAME} was fetched" in output
    assert contents(root) == undisturbed
    server.requests.clear()
    code, output, _ = run(server, root, HF_HUB_OFFLINE="1")
    assert code == 0
    assert f"{root / NAME} is up to date" in output
    assert not server.requests


def test_the_environment_can_forbid_to_ask(server, root):
    code, output, errors = run(server, root, HF_HUB_OFFLINE="1")
    assert (code, output) == (2, "")
    assert "HF_HUB_OFFLINE forbids to ask" in errors
    assert not server.requests


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_was_ended_leaves_what_the_next_goes_on_with(large_server, root, ending):
    """Also where the server has gone silent, which must not hold Ctrl-C up."""
    large_server.faults[FIRST] = iter([Fault(hold_after=HELD_AFTER)])
    with start(large_server, root) as process:
        assert large_server.holding.wait(30)
        wait_for_bytes(root, 2 * PIECE_BYTES)
        ended_at = time.monotonic()
        process.send_signal(ending)
        _, errors = process.communicate(timeout=30)
    assert time.monotonic() - ended_at < 10
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert errors == "Interrupted. Run it again to go on.\n"
    assert_nothing_looks_whole(large_server.files, root)
    large_server.let_go.set()
    code, _, errors = run(large_server, root)
    assert (code, errors) == (0, "")
    assert [first for name, first in large_server.served() if name == FIRST] == [
        None,
        2 * PIECE_BYTES,
    ]
    assert contents(root)[FIRST] == large_server.files[f"{FOLDER}/{FIRST}"]
    assert not (root / NAME / ".fetch").exists()


def wait_for_bytes(root, num_bytes):
    deadline = time.monotonic() + 30
    partials = root / NAME / ".fetch"
    while sum(path.stat().st_size for path in partials.glob(f"{FIRST}.*")) < num_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_at_once_fetch_every_file_once(server, root, undisturbed):
    server.faults[FIRST] = iter([Fault(hold_after=600)])
    with start(server, root) as first:
        assert server.holding.wait(30)
        with start(server, root) as second:
            assert "waiting for another process" in second.stderr.readline()
            server.let_go.set()
            outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert "was fetched" in outputs[0]
    assert "is up to date" in outputs[1]
    names = [name for name, start in server.served() if start is None and name.endswith(".bin")]
    assert len(names) == len(set(names))
    assert contents(root) == undisturbed


def test_a_terminal_shows_how_far_it_is(server, root):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = bytearray()

    def read():
        try:
            while piece := os.read(ours, 1024):
                shown.extend(piece)
        except OSError:  # the other end was closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    with start(server, root, stderr=theirs) as process:
        os.close(theirs)
        assert process.wait(60) == 0
    reader.join()
    os.close(ours)
    assert NAME in shown.decode()
    assert "100%" in shown.decode()


# -- what is refused before anything is asked


def test_a_number_of_shards_is_for_the_export_only(root, capsys):
    command = ["prepare", "--recipe", "tiny", "--root", str(root), "--train-shards", "2"]
    assert main(command) == 2
    assert "--train-shards is for datasets of the FineWeb export" in capsys.readouterr().err


def test_a_dataset_of_the_export_is_never_rebuilt(root, capsys):
    assert main(arguments(root, "--rebuild")) == 2
    assert "cannot be built here" in capsys.readouterr().err


def test_offline_is_an_option(root, capsys):
    assert main(arguments(root, "--offline")) == 2
    assert "Without --offline it is fetched" in capsys.readouterr().err
    assert not root.exists()
