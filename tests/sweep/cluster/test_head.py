"""A head that stands still is noticed in time, whatever the driver was just asking it.

Not claimed here: a head that is killed (test_chaos.py).
"""

import signal

import pytest

from tests.support.chaos import AGENT_SILENCE_S, Chaos
from tests.support.cluster import Cluster
from tests.support.tiny import build_tiny_dataset

LEAVING_S = 15.0  # Ray is given ten seconds to shut down


@pytest.fixture
def sweep(tmp_path):
    """A sweep on two nodes, at work."""
    data = tmp_path / "data"
    build_tiny_dataset(data)
    with Cluster(names=("node-a", "node-b")) as cluster:
        chaos = Chaos(cluster, tmp_path, data, seed=1)
        try:
            chaos.wait(chaos.at_work, 90, "all at work")
            yield chaos
        finally:
            chaos.stop()


@pytest.mark.slow
def test_a_head_that_stands_still_while_a_lease_is_given_back_ends_the_driver_in_time(sweep):
    head = sweep.cluster.gcs()
    head.send_signal(signal.SIGSTOP)
    try:
        sweep.working()[0].agent.kill()  # its lease is given back, which the head has to be told
        ended_s = AGENT_SILENCE_S + LEAVING_S
        sweep.wait(lambda: not sweep.driver.is_up, ended_s, "the driver has ended")
    finally:
        head.send_signal(signal.SIGCONT)
    assert sweep.driver.init.returncode == 2
    assert "Ray's head has not answered for" in sweep.driver.text()
