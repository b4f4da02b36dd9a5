"""How often somebody asks for the end decides how it comes. Not claimed: what Ray does then."""

import os
import signal
import tempfile
from types import SimpleNamespace

import pytest

from sweep.__main__ import main
from sweep.cli import session
from sweep.cli.invocation import Invocation
from sweep.cli.session import _signals
from sweep.driver.interrupts import Interruption
from sweep.schedule.plan import Plan
from sweep.store.store import Store


def ask(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    "numbers", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]], ids=["Ctrl-C twice", "SIGTERM"]
)
def test_who_asks_again_for_the_end_waits_for_nothing(numbers):
    interruption = Interruption()
    with _signals(interruption):
        for number in numbers:
            ask(number)
        assert interruption.must_stop(grace_s=1000.0)
        with pytest.raises(KeyboardInterrupt):
            ask(numbers[0])


def test_ctrl_c_while_the_cluster_is_left_is_one_word(monkeypatch, capsys):
    def interrupted(invocation):
        raise KeyboardInterrupt

    monkeypatch.setattr(Invocation, "close", interrupted)
    assert main(["which", "--sweep", "local"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_rows_are_read_last_so_that_nothing_another_driver_ends_meanwhile_looks_new(monkeypatch):
    """A cell that begins after the numbers were listed collides with its number; one that ends
    after the running ones were listed is among the rows."""
    planned = []

    class Watched(Store):
        def numbers(self):
            planned.append("numbers")
            return super().numbers()

        def running(self):
            planned.append("running")
            return super().running()

        def read(self):
            planned.append("rows")
            return super().read()

    class Nothing(SimpleNamespace):
        sweep = SimpleNamespace(name="tiny", retries=None)

        def estimate(self, todo, history):
            return None

        def plan_sentence(self, todo, cost):
            return "nothing"

        def say(self, text):
            assert text == "nothing"

    monkeypatch.setattr(session, "close_orphans", lambda *_: 0)
    with tempfile.TemporaryDirectory() as folder:
        invocation = Nothing(store=Watched(folder))
        run = session._Session(invocation, [], None, "a driver")
        assert not run.run(lambda cells, history: Plan((), ()), Interruption())
    assert planned[-3:] == ["numbers", "running", "rows"]
