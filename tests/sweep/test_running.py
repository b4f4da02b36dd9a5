"""How often somebody asks for the end decides how it comes. Not claimed: what Ray does then."""

import os
import signal

import pytest

from sweep.__main__ import main
from sweep.interruption import Interruption
from sweep.invocation import Invocation
from sweep.running import _signals


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
        assert interruption.is_over(grace_s=1000.0)
        with pytest.raises(KeyboardInterrupt):
            ask(numbers[0])


def test_ctrl_c_while_the_cluster_is_left_is_one_word(monkeypatch, capsys):
    def interrupted(invocation):
        raise KeyboardInterrupt

    monkeypatch.setattr(Invocation, "close", interrupted)
    assert main(["which", "--sweep", "local"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
