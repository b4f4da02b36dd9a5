"""What a pool says of real nodes of Ray: who is busy, who has other code, and who was taken away.

Not claimed: what NVML says; the GPUs are declared and nowhere to be seen.
"""

import signal

import pytest

from sweep.messages import PrepareResult
from sweep.spec.sweep_file import NodeShape
from tests.support.cluster import Cluster
from tests.support.commands import wait_until
from tests.support.nodes import requirements

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def cluster():
    with Cluster(names=("node-a", "node-b"), cpus=2, gpus=2) as cluster:
        yield cluster


@pytest.fixture
def pool(cluster, monkeypatch):
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    from sweep.cluster.ray import RayPool

    pool = RayPool(cluster.address)
    yield pool
    pool.close()


def granted(pool):
    """A lease of one GPU."""
    found = []
    pool.request(NodeShape(cpus=1, gpus=1), 1, driver_silence_s=PATIENCE_S)
    wait_until(lambda: found.extend(pool.ready()) or found, PATIENCE_S)
    return found[0]


@pytest.mark.slow
def test_a_doctor_asks_nothing_of_the_gpus_of_a_node_that_is_leased(pool):
    lease = granted(pool)
    found = pool.inspect(requirements(gpus=2, gpu_model=None))
    asked = {
        name: {r.name: r.detail for r in results} for name, results in found.items() if results
    }
    for name in ("node-a", "node-b"):
        was_busy = asked[name]["all-reduce"] == "busy: not asked"
        assert was_busy == (name == lease.node)


@pytest.mark.slow
def test_a_node_of_other_code_is_refused_by_name_before_anything_is_sent(pool, monkeypatch):
    monkeypatch.setattr("sweep.cluster.ray.sweep_hash", lambda: "0" * 64)
    refused = granted(pool).prepare(requirements())
    assert isinstance(refused.result(0), PrepareResult)
    assert "sweep code: sweep " in refused.result(0).refusal
    assert "the driver has 000000000000; bring the driver's checkout" in refused.result(0).refusal
    found = pool.inspect(requirements(gpus=2))
    for name in ("node-a", "node-b"):
        assert [result.name for result in found[name]] == ["sweep code"]


@pytest.mark.slow
def test_a_node_whose_ray_is_ended_in_order_was_taken_away_and_one_that_is_killed_was_not(
    cluster, pool
):
    """The last test of this file, which costs it its nodes."""
    for number, taken_away in ((signal.SIGTERM, True), (signal.SIGKILL, False)):
        lease = granted(pool)
        cluster.raylet(lease.node).send_signal(number)
        wait_until(lambda lease=lease: lease.beat() or lease.is_gone, PATIENCE_S)
        assert lease.is_preempted == taken_away
