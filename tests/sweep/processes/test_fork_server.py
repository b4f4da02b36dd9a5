"""A cell is the same whether its ranks were forked or started, and no server costs a cell.

Where programs stand in for the trainer, test_ranks.py and test_agent.py hold forked ranks to
everything that started ones are held to. Here is what only a server can do wrong.
"""

import ctypes
import io
import os
import signal
import sys
import threading
from functools import cache

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch

from sweep.node import ranks
from sweep.node.agent import Agent
from sweep.processes import fork_server_client
from sweep.processes.fork_server_client import PR_GET_CHILD_SUBREAPER
from tests.support.commands import wait_until
from tests.support.standin import FORK_SERVER, WELL, order, scratch_under, stand_in
from tests.support.tiny import answer as answer_of
from tests.support.tiny import build_tiny_dataset, tiny_spec
from trainer.contract import parse_report
from trainer.fork_server import server
from trainer.fork_server.server import _reseed, import_everything
from trainer.source import Source

SAYS = WELL + "print({what}, flush=True)"
TRAINS = 'say(phase="train", step=7)\n'


@pytest.fixture
def agent(monkeypatch, tmp_path):
    """An agent whose ranks are forked; scratch folders go under ``tmp_path``."""
    scratch_under(monkeypatch, tmp_path)
    stand_in(monkeypatch, WELL, forked=True)
    made = Agent()
    yield made
    made.close()


def does(monkeypatch, code):
    stand_in(monkeypatch, code, forked=True)


def server_of(agent):
    process = agent._launcher._servers._server._process
    return psutil.Process(process.pid)


def run_well(agent, **changes):
    delivery = agent.run(order(**changes))
    assert delivery.state == "succeeded", delivery.reason
    return delivery.log


# -- what a copy is


def test_every_rank_is_a_process_of_its_own_copied_from_one_server(agent, monkeypatch):
    does(
        monkeypatch,
        SAYS.format(what="os.getpid(), os.getppid(), os.getsid(0), hasattr(json, 'seen')")
        + "\njson.seen = True",
    )
    said = [run_well(agent).split() for _ in range(3)]
    server = server_of(agent)
    assert len({pid for pid, *_ in said}) == 3
    for pid, parent, session, knows_the_last in said:
        assert (int(parent), session, knows_the_last) == (os.getpid(), pid, "False")
        assert int(pid) != server.pid


def test_a_rank_holds_nothing_of_the_servers_and_is_shown_as_what_it_does(agent, monkeypatch):
    does(
        monkeypatch,
        SAYS.format(
            what="sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1],"
            "pathlib.Path('/proc/self/cmdline').read_bytes().startswith("
            "sys.executable.encode() + b'\\0-c\\0'), os.readlink('/proc/self/fd/0')"
        ),
    )
    path = os.fsdecode(b"\xff")  # which is no text in any encoding
    monkeypatch.setattr(ranks, "TRAINER", (*ranks.TRAINER, path))
    assert run_well(agent) == "[0, 1, 2] True /dev/null\n"


def test_threads_and_environment_are_those_that_are_asked_for(agent, monkeypatch):
    does(monkeypatch, SAYS.format(what="os.environ['OMP_NUM_THREADS'], os.environ.get('SAID')"))
    first = run_well(agent), server_of(agent)
    again = run_well(agent), server_of(agent)
    assert first == again
    assert first[0] == "1 None\n"
    assert run_well(agent, threads=2) == "2 None\n"
    other = server_of(agent)
    assert other != first[1]  # what is read when a program is loaded is the rank's own
    assert not first[1].is_running()
    monkeypatch.setenv("SAID", "something")
    assert run_well(agent, threads=2) == "2 something\n"
    assert server_of(agent) != other


def test_the_agent_reaps_orphans_only_while_it_forks(agent, monkeypatch):
    before = set(psutil.Process().children())
    does(monkeypatch, "import subprocess; subprocess.Popen(['sleep', '1'])\n" + WELL)
    run_well(agent)
    is_reaper = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(is_reaper), 0, 0, 0)
    assert is_reaper.value == 0
    assert set(psutil.Process().children()) - before == {server_of(agent)}


def test_what_libraries_draw_when_they_are_imported_is_not_the_same_in_every_rank():
    before, of_numpy = torch.get_rng_state(), np.random.get_state()
    try:
        _reseed()
        assert not torch.equal(torch.get_rng_state(), before)
        assert (np.random.get_state()[1] != of_numpy[1]).any()
    finally:
        torch.set_rng_state(before)
        np.random.set_state(of_numpy)


# -- what becomes of servers


def test_the_death_of_the_server_is_nothing_to_a_cell_nor_to_the_next(agent, monkeypatch):
    does(monkeypatch, TRAINS + "time.sleep(0.6)\n" + WELL)
    run_well(agent)
    first = server_of(agent)

    def kill():
        wait_until(lambda: len(agent._ranks.pids) == 2 and agent.progress())
        first.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    assert run_well(agent, ranks=2) == "--- rank 0 ---\n\n--- rank 1 ---\n"
    killer.join()
    assert run_well(agent) == ""
    assert server_of(agent) != first


def test_a_server_that_does_not_answer_is_done_without(agent, monkeypatch):
    monkeypatch.setattr(fork_server_client, "FORK_S", 0.3)
    for number in range(6):  # a request longer than what a socket takes unread
        monkeypatch.setenv(f"LONG_{number}", "x" * 100_000)
    run_well(agent)
    stopped = server_of(agent)
    stopped.suspend()
    log = run_well(agent, ranks=2)
    assert log.count("the fork server did not serve") == 1
    assert "timed out" in log
    assert not stopped.is_running()
    assert run_well(agent) == ""  # by another one


BROKEN = {
    "raise ImportError('no module named torch')": "ImportError: no module named torch",
    "import os; os.kill(os.getpid(), 9)": "it said nothing",
    "import os; os.write(int(__import__('sys').argv[1]), b'f' * 64 + b'\\n')": "code ffffffffffff",
}


@pytest.mark.parametrize("program", BROKEN)
def test_without_a_server_ranks_are_started_and_it_is_said_no_more_than_twice(
    agent, monkeypatch, program
):
    monkeypatch.setattr(ranks, "FORK_SERVER", (sys.executable, "-c", program))
    logs = [run_well(agent) for _ in range(3)]
    assert [log.count("the fork server did not serve") for log in logs] == [1, 1, 0]
    assert BROKEN[program] in logs[0]
    assert "no other is started" in logs[1]


DIES_OR_HANGS = {
    "dies before it forks": "os.fork = lambda: os.kill(os.getpid(), 9)",
    "dies while it forks": """
server = os.getpid()
def fork(once=os.fork):
    if os.getpid() != server:
        os.kill(server, 9)
    return once()
os.fork = fork
""",
    "stops while it forks": """
server = os.getpid()
def fork(once=os.fork):
    if os.getpid() != server:
        os.kill(os.getpid(), signal.SIGSTOP)
    return once()
os.fork = fork
""",
    "has a copy that hangs": "os.setsid = lambda: time.sleep(60)",
}


def spoil(monkeypatch, code):
    """Have servers do ``code`` before they serve."""
    spoilt = FORK_SERVER.replace(
        "\nwith ", f"\nfrom trainer.fork_server import fork as forking\n{code}\nwith "
    )
    monkeypatch.setattr(ranks, "FORK_SERVER", (sys.executable, "-c", spoilt))


@pytest.mark.parametrize("how", DIES_OR_HANGS)
def test_a_server_that_fails_while_it_forks_leaves_no_process(agent, monkeypatch, tmp_path, how):
    monkeypatch.setattr(fork_server_client, "FORK_S", 0.3)
    before = set(psutil.Process().children())
    spoil(monkeypatch, f"{DIES_OR_HANGS[how]}\n# {tmp_path}")
    said = run_well(agent).count("the fork server did not serve")
    # A copy that is out of the server's group before that is killed serves all the same.
    assert said <= 1 if how == "dies while it forks" else said == 1
    wait_until(lambda: set(psutil.Process().children()) <= before)  # dead ones are among them
    wait_until(lambda: not any(says(process, str(tmp_path)) for process in psutil.process_iter()))


def says(process, text):
    try:
        return any(text in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def test_a_rank_that_cannot_begin_says_why(agent, monkeypatch):
    spoil(monkeypatch, "forking.set_title = None")
    delivery = agent.run(order())
    assert "TypeError: 'NoneType' object is not callable" in (delivery.reason or "")


def test_a_server_imports_nothing_from_where_the_agent_happens_to_be(agent, monkeypatch, tmp_path):
    (tmp_path / "traceback.py").write_text("raise ImportError('of somebody else')")
    monkeypatch.chdir(tmp_path)
    assert run_well(agent) == ""
    assert server_of(agent).is_running()


def test_code_that_changes_while_it_is_imported_is_not_served(monkeypatch):
    monkeypatch.setattr("trainer.fork_server.server.MODULES", ())
    monkeypatch.setattr("trainer.fork_server.server.COMPILER", ())
    sources = iter([Source("a" * 64, 1), Source("b" * 64, 1)])
    monkeypatch.setattr("trainer.source.trainer_source", cache(lambda: next(sources)))
    with pytest.raises(ImportError, match="has changed"):
        import_everything()


def test_a_compiler_that_asks_for_gpus_when_it_is_imported_is_told_and_opens_none(
    monkeypatch, tmp_path
):
    """As torch 2.9 to 2.11 do. NVML, asked by torch, would keep /dev/nvidiactl open."""

    def nvml():
        raise AssertionError("NVML was asked")

    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidia1").touch()
    (tmp_path / "asks.py").write_text("import torch; num = torch.cuda.device_count()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(server, "DEVICES", tmp_path)
    monkeypatch.setattr(server, "MODULES", ())
    monkeypatch.setattr(server, "COMPILER", ("asks",))
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", nvml)
    looks = torch.cuda.device_count
    import_everything()
    assert sys.modules["asks"].num == 2
    assert torch.cuda.device_count is looks
    with pytest.raises(AssertionError):
        torch.cuda.device_count()


def test_a_stop_is_not_kept_waiting_by_a_server_that_is_not_ready(agent, monkeypatch):
    monkeypatch.setattr(ranks, "FORK_SERVER", (sys.executable, "-c", "import time; time.sleep(60)"))
    threading.Timer(0.3, agent.stop).start()
    delivery = agent.run(order())
    assert delivery.state in ("interrupted", "succeeded")  # the rank may have been faster


# -- the real one


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory):
    return build_tiny_dataset(tmp_path_factory.mktemp("data"))


def everything_but_time(delivery):
    """All bytes of the answer that are not a duration."""
    curve = pq.read_table(io.BytesIO(delivery.curve)).to_pydict()
    curve.pop("train_s")
    assert delivery.artifact is not None
    return answer_of(parse_report(delivery.report)), curve, delivery.artifact, delivery.layers


def held(agent):
    """What a server and its agent hold, which must not grow from cell to cell."""
    server, here = server_of(agent), psutil.Process()
    return server.num_threads(), server.num_fds(), here.num_fds(), len(here.children())


@pytest.mark.slow
def test_a_cell_is_the_same_in_a_fresh_interpreter_and_first_and_last_of_many_on_a_lease(
    tiny_data, monkeypatch, tmp_path
):
    scratch_under(monkeypatch, tmp_path)
    spec = tiny_spec(tiny_data, activation="asqu", params={}, budget="2steps")

    def asked(**changes):
        text = spec.model_copy(update=changes).model_dump_json()
        return order(spec_json=text, ranks=2)

    agent = Agent()
    try:
        first = agent.run(asked())
        server, at_first = server_of(agent), held(agent)
        resident_bytes = server.memory_info().rss
        between = [
            agent.run(asked(seed=number) if number % 2 else asked(corpus_sha256="c" * 64))
            for number in range(2)
        ]
        last = agent.run(asked())
        assert server_of(agent) == server
        assert server.num_threads() == 1
        assert all(now <= then for now, then in zip(held(agent), at_first, strict=True))
        assert server.memory_info().rss < 1.05 * resident_bytes
    finally:
        agent.close()
    monkeypatch.setattr(ranks, "FORK_SERVER", None)
    fresh = Agent().run(asked())
    assert [delivery.state for delivery in between] == ["failed", "succeeded"]
    assert "refused its input" in between[0].reason
    assert fresh.state == "succeeded"
    assert everything_but_time(first) == everything_but_time(fresh)
    assert everything_but_time(last) == everything_but_time(fresh)
    assert everything_but_time(between[-1]) != everything_but_time(fresh)
    setup_s = [parse_report(delivery.report).setup_s for delivery in (last, fresh)]
    assert 0 < setup_s[0] < 0.5 * setup_s[1]  # of this process, and not of the server


@pytest.mark.slow
def test_a_forked_rank_is_killed_where_it_hangs_and_shows_its_stack(
    tiny_data, monkeypatch, tmp_path
):
    scratch_under(monkeypatch, tmp_path)
    spec = tiny_spec(tiny_data, budget="100000steps")
    agent = Agent()

    shown = []

    def stop_the_rank():
        wait_until(lambda: (agent.progress() or {}).get("phase") == "train", 60)
        [rank] = agent._ranks.pids
        shown.append(psutil.Process(rank).cmdline()[1:4])
        os.kill(rank, signal.SIGSTOP)

    stopper = threading.Thread(target=stop_the_rank)
    stopper.start()
    try:
        delivery = agent.run(order(spec_json=spec.model_dump_json(), no_progress_s=2.0))
    finally:
        stopper.join()
        agent.close()
    assert (delivery.state, delivery.failure) == ("hung", "hang")
    assert shown == [["-m", "trainer", "--spec"]]
    assert "trainer/training/train.py" in delivery.log
