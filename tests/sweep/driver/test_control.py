"""What a signal means depends on what was asked for before. Not claimed: what Ray does then."""

import os
import signal
import time

import pytest

from sweep.driver.control import Control, handle_signals

INT, TERM, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
LONG_S = 1e9


def hearing(control, *numbers):
    with handle_signals(control.hear):
        for number in numbers:
            os.kill(os.getpid(), number)


def test_the_first_ctrl_c_stops_no_cell_however_long_it_takes():
    control = Control()
    hearing(control, INT)
    assert control.drains
    assert not control.must_stop(LONG_S)
    assert "Draining" in control.sentence
    assert Control().sentence is None


@pytest.mark.parametrize("numbers", [(INT, INT), (TERM, INT), (TERM, TERM), (USR1, TERM)])
def test_the_second_request_stops_all_and_the_third_waits_for_nothing(numbers):
    control = Control()
    hearing(control, *numbers)
    assert control.is_over
    assert control.must_stop(0.0)
    with pytest.raises(KeyboardInterrupt):
        hearing(control, numbers[-1])


@pytest.mark.parametrize("earlier", [(), (INT,)])
@pytest.mark.parametrize("number", [TERM, USR1])
def test_a_scheduler_s_signal_stops_what_cannot_end_in_the_grace_time(earlier, number):
    control = Control(grace_s=1000.0)
    hearing(control, *earlier, number)
    assert control.drains
    assert not control.is_over
    assert control.reason == f"the scheduler ended the job ({number.name})"
    assert control.must_stop(1000.0)
    assert not control.must_stop(900.0)
    assert not control.must_stop(-5.0)  # it is overdue, and may end at any moment


def test_usr1_leaves_the_time_until_the_known_end_of_the_job():
    control = Control(grace_s=100.0, job_end_at=time.time() + 1000.0)
    hearing(control, USR1)
    assert not control.must_stop(850.0)
    assert control.must_stop(900.0)


def test_the_time_left_is_that_of_the_job_without_its_way_out():
    assert Control().time_left_s > LONG_S
    left_s = Control(grace_s=100.0, job_end_at=time.time() + 1000.0).time_left_s
    assert 860.0 < left_s < 870.1


def test_the_handlers_before_are_those_after():
    before = [signal.getsignal(number) for number in (INT, TERM, USR1)]
    hearing(Control())
    assert [signal.getsignal(number) for number in (INT, TERM, USR1)] == before
