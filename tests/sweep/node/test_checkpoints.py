"""A cell's checkpoint is written by one attempt at a time, outlives a node, and goes when done."""

import json
import os
import threading
import time
import uuid
from pathlib import Path

import fsspec
import pytest

from sweep.messages import CheckpointPlace
from sweep.node import agent, checkpoint_sync
from sweep.node.agent import Agent
from sweep.node.checkpoints import OLD_S, lock_checkpoint
from sweep.node.scratch import scratch_root
from sweep.processes.process_lock import lock_path
from tests.support.commands import wait_until
from tests.support.standin import CELL_ID, WELL, order, scratch_under, stand_in

OTHER = "fedcba9876543210"


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    scratch_under(monkeypatch, tmp_path)
    monkeypatch.setattr(checkpoint_sync, "LOOK_EVERY_S", 0.02)


@pytest.fixture(params=["folder", "object store"])
def copy_to(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "results" / "checkpoints")
    return f"memory://results-{uuid.uuid4().hex}/checkpoints"


def content(copy_to):
    files, folder = fsspec.url_to_fs(copy_to)
    try:
        return files.cat_file(f"{folder}/{CELL_ID}.ckpt")
    except FileNotFoundError:
        return None


class Attempt:
    """``lock_checkpoint`` with what it says."""

    def __init__(self, tmp_path, copy_to=None, cell_id=CELL_ID, folder="disk"):
        self.said, self.stop = [], threading.Event()
        asked = CheckpointPlace(folder=str(tmp_path / folder), every_s=240.0, copy_to=copy_to)
        self._context = lock_checkpoint(asked, cell_id, self.said.append, self.stop)

    def __enter__(self):
        self.checkpoint = self._context.__enter__()
        return self

    def __exit__(self, *error):
        return self._context.__exit__(*error)

    def write(self, data):
        temporary = self.checkpoint.path.with_suffix(".tmp")
        temporary.write_bytes(data)
        temporary.replace(self.checkpoint.path)


def test_the_default_place_is_this_users(tmp_path):
    asked = CheckpointPlace(folder=None, every_s=1.0, copy_to=None)
    with lock_checkpoint(asked, CELL_ID, print, threading.Event()) as checkpoint:
        assert checkpoint.path == scratch_root() / "checkpoints" / f"{CELL_ID}.ckpt"


def test_two_attempts_at_one_cell_never_write_one_file(tmp_path):
    with Attempt(tmp_path), Attempt(tmp_path) as second, Attempt(tmp_path, cell_id=OTHER) as other:
        assert second.checkpoint is None
        assert "held by another attempt" in second.said[0]
        assert other.checkpoint is not None
    with Attempt(tmp_path) as third:
        assert third.checkpoint is not None


def test_a_settled_cell_leaves_nothing_anywhere(tmp_path, copy_to):
    with Attempt(tmp_path, copy_to) as held:
        held.write(b"x")
        held.checkpoint.path.with_name(f".{held.checkpoint.path.name}.ab12").touch()
        wait_until(lambda: content(copy_to) == b"x")
        held.checkpoint.is_settled = True
    assert list((tmp_path / "disk").iterdir()) == []
    assert content(copy_to) is None
    assert held.said == []


def test_every_change_reaches_the_copy_and_another_node_goes_on_from_it(tmp_path, copy_to):
    with Attempt(tmp_path, copy_to) as held:
        for data in (b"1", b"22", b"33"):
            held.write(data)
            wait_until(lambda data=data: content(copy_to) == data)
        held.write(b"the last moment")
    assert content(copy_to) == b"the last moment"
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {
        f"{CELL_ID}.ckpt",
        f"{CELL_ID}.ckpt.lock",
    }
    with Attempt(tmp_path, copy_to, folder="disk of another node") as there:
        assert there.checkpoint.path.read_bytes() == b"the last moment"
        there.write(b"further on")
    with Attempt(tmp_path, copy_to) as back:
        assert back.checkpoint.path.read_bytes() == b"the last moment"  # its own comes first
    assert held.said == there.said == []


def test_a_place_that_fails_is_told_of_and_disturbs_nothing(tmp_path):
    (tmp_path / "file").touch()
    with Attempt(tmp_path, str(tmp_path / "file" / "folder")) as held:
        held.write(b"x")
    assert held.checkpoint.path.read_bytes() == b"x"
    assert "Not a directory" in held.said[-1]


def test_a_place_that_hangs_is_waited_for_no_longer_than_said(tmp_path, monkeypatch):
    let_go = threading.Event()

    def hang(place, **options):
        let_go.wait()
        raise FileNotFoundError

    monkeypatch.setattr(checkpoint_sync, "open_files", hang)
    monkeypatch.setattr(checkpoint_sync, "FETCH_S", 0.1)
    monkeypatch.setattr(checkpoint_sync, "CLOSE_S", 0.1)
    with Attempt(tmp_path, "memory://gone") as held:
        held.write(b"x")
    assert "did not come within 0.1 s" in held.said[0]
    assert "was not done with within 0.1 s" in held.said[1]
    let_go.set()


def test_checkpoints_of_other_cells_go_after_a_week_unless_they_are_held(tmp_path):
    folder, held_id = tmp_path / "disk", "aaaaaaaaaaaaaaaa"
    folder.mkdir()
    week_ago = time.time() - OLD_S - 60
    old, fresh = folder / f"{OTHER}.ckpt", folder / f"{'b' * 16}.ckpt"
    foreign = {folder / name for name in ("x", f"{OTHER}.ckpt2", OTHER, f"a{OTHER}.ckpt")}
    half = folder / f".{'c' * 16}.ckpt.12ab"
    with Attempt(tmp_path, cell_id=held_id) as held:
        held.write(b"x")
        for path in (old, fresh, *foreign, half, lock_path(old)):
            path.touch()
        for path in (old, *foreign, half, lock_path(old), held.checkpoint.path):
            os.utime(path, (week_ago, week_ago))
        with Attempt(tmp_path):
            pass
        assert held.checkpoint.path.exists()
    names = {path.name for path in folder.iterdir()}
    assert not names & {old.name, half.name, lock_path(old).name}
    assert {path.name for path in (fresh, *foreign)} <= names


# -- through the agent


RESUMES = (
    """
path = pathlib.Path(sys.argv[sys.argv.index("--checkpoint") + 1])
assert sys.argv[sys.argv.index("--checkpoint-every-s") + 1] == "5"
step = int(path.read_text()) if path.exists() else 0
temporary = path.with_name(f".{path.name}.tmp")
temporary.write_text(str(step + 1))
temporary.replace(path)
if step < 2:
    sys.exit(3)
print("resumed from", step)
"""
    + WELL
)


def test_an_attempt_goes_on_from_where_the_last_one_was(tmp_path, monkeypatch, copy_to):
    stand_in(monkeypatch, RESUMES)
    nodes = [str(tmp_path / "node a"), str(tmp_path / "node b"), str(tmp_path / "node b")]
    ends = []
    for number, folder in enumerate(nodes, start=1):
        asked = CheckpointPlace(folder=folder, every_s=5.0, copy_to=copy_to)
        ends.append(Agent().run(order(stem=f"{CELL_ID}-{number}", checkpoint=asked)))
    assert [end.state for end in ends] == ["failed", "failed", "succeeded"]
    assert "resumed from 2" in ends[-1].log
    assert json.loads(ends[-1].report) == {"a": 1}
    assert list(Path(nodes[-1]).iterdir()) == []
    assert content(copy_to) is None


SAVES_WHEN_ASKED = """
path = pathlib.Path(sys.argv[sys.argv.index("--checkpoint") + 1])
def save(*_):
    time.sleep(0.1 * (rank == 0))
    if rank == 0:
        path.write_text("the step it was at")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
say(phase="train")
time.sleep(60)
"""
DEAF = SAVES_WHEN_ASKED.replace("SIGTERM, save", "SIGTERM, signal.SIG_IGN")


def stopped_midway(asked, **how):
    stopping = Agent()

    def stop():
        wait_until(stopping.progress)
        stopping.stop(**how)

    threading.Thread(target=stop, daemon=True).start()
    return stopping.run(order(ranks=2, checkpoint=asked))


@pytest.mark.parametrize(("preempted", "failure"), [(False, "user"), (True, "preemption")])
def test_a_stopped_attempt_leaves_a_checkpoint_of_that_moment(
    tmp_path, monkeypatch, copy_to, preempted, failure
):
    stand_in(monkeypatch, SAVES_WHEN_ASKED)
    asked = CheckpointPlace(folder=str(tmp_path / "disk"), every_s=1e9, copy_to=copy_to)
    delivery = stopped_midway(asked, preempted=preempted)
    assert (delivery.state, delivery.failure) == ("interrupted", failure)
    assert content(copy_to) == b"the step it was at"


def test_a_stopped_attempt_is_not_waited_for_for_long(tmp_path, monkeypatch):
    stand_in(monkeypatch, DEAF)
    monkeypatch.setattr(agent, "SAVE_S", 0.1)
    asked = CheckpointPlace(folder=str(tmp_path / "disk"), every_s=1e9, copy_to=None)
    assert stopped_midway(asked).state == "interrupted"


def test_ranks_that_others_have_warned_were_preempted(tmp_path, monkeypatch):
    warned = "os.kill(os.getpid(), signal.SIGTERM)"
    stand_in(monkeypatch, SAVES_WHEN_ASKED.replace("time.sleep(60)", warned))
    asked = CheckpointPlace(folder=str(tmp_path / "disk"), every_s=1e9, copy_to=None)
    delivery = Agent().run(order(checkpoint=asked))
    assert (delivery.state, delivery.failure) == ("interrupted", "preemption")


def test_an_attempt_that_may_not_write_the_checkpoint_says_so_and_runs(tmp_path, monkeypatch):
    stand_in(monkeypatch, "assert '--checkpoint' not in sys.argv\n" + WELL)
    asked = CheckpointPlace(folder=str(tmp_path / "disk"), every_s=5.0, copy_to=None)
    with Attempt(tmp_path):
        delivery = Agent().run(order(checkpoint=asked))
    assert delivery.state == "succeeded"
    assert "is held by another attempt" in delivery.log
