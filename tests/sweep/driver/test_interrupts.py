"""How often somebody asks for the end decides how it comes. Not claimed: what Ray does then."""

import os
import signal

import pytest

from sweep.driver.interrupts import Interruption, handle_signals


def ask(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    "numbers", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]], ids=["Ctrl-C twice", "SIGTERM"]
)
def test_who_asks_again_for_the_end_waits_for_nothing(numbers):
    interruption = Interruption()
    with handle_signals(interruption):
        for number in numbers:
            ask(number)
        assert interruption.must_stop(grace_s=1000.0)
        with pytest.raises(KeyboardInterrupt):
            ask(numbers[0])
