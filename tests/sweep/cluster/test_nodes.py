"""Nodes are those that live, by a name that outlives Ray; a lease that is not granted says why.

The entries are as Ray 2.60 gives them. Not claimed: that Ray goes on giving them so.
"""

from sweep.cluster.awake_clock import AwakeClock
from sweep.cluster.interface import Node, capacity
from sweep.cluster.lease_requests import LeaseRequest, pending_reason
from sweep.cluster.nodes import NodeWatch
from sweep.spec.sweep_file import NodeShape


def entry(number, *, alive=True, labels=None, **resources):
    return {
        "NodeID": f"id{number}",
        "Alive": alive,
        "NodeManagerHostname": f"host{number}",
        "Labels": labels or {},
        "Resources": resources,
    }


def watch(*entries, leaving=()):
    found = NodeWatch(lambda: entries, lambda: leaving, AwakeClock())
    found.close()
    return found


def test_only_nodes_that_live_are_nodes_and_a_label_outlives_a_host_name():
    gpus = {"CPU": 16.0, "GPU": 8.0, "accelerator_type:H100": 1.0}
    found = watch(
        entry(1, labels={"activation-sweep-node": "rack-7"}, **gpus), entry(2, alive=False)
    )
    assert found.nodes == [
        Node("rack-7", cpus=16, gpus=8, gpu_models=frozenset({"H100"}), id="id1")
    ]
    assert (found.name_of("id2"), found.name_of("id3")) == ("host2", None)


def test_a_node_that_is_warned_is_none_to_be_had():
    found = watch(entry(1, CPU=2.0), entry(2, CPU=2.0), leaving=["id1"])
    assert [node.name for node in found.nodes] == ["host2"]
    assert (found.name_of("id1"), found.is_leaving("id1"), found.is_leaving("id2")) == (
        "host1",
        True,
        False,
    )


NODES = [Node("a", cpus=16, gpus=8, id="1"), Node("b", cpus=16, gpus=8, id="2")]


def why(shape, avoid=(), nodes=NODES, groups=()):
    return pending_reason(LeaseRequest(shape, 60.0, frozenset(avoid)), 3, nodes, groups)


def test_a_lease_that_no_node_could_ever_carry_is_told_from_one_that_waits():
    eight = NodeShape(gpus=8, cpus=16)
    assert why(eight).startswith("busy: 3 × 8 GPUs and 16 CPUs wanted; held on no node")
    assert why(eight, avoid=["a"]).startswith("busy")
    impossible = why(eight, avoid=["a", "b"])
    assert impossible.startswith("impossible for now: no node has 8 GPUs and 16 CPUs")
    assert "(a, b left out)" in impossible
    assert why(NodeShape(cpus=32)).endswith("there are a: 8 GPUs, 16 CPUs, b: 8 GPUs, 16 CPUs")
    assert why(eight, nodes=[]).endswith("there are no node")


def test_who_holds_the_gpus_is_named_once_for_each_node():
    held = {"state": "CREATED", "name": "another sweep", "bundles": {0: {"GPU": 4.0}}}
    groups = [
        held | {"bundles_to_node_id": {0: "1"}},
        held | {"bundles_to_node_id": {0: "1"}},
        held | {"bundles_to_node_id": {0: "2"}, "state": "REMOVED"},
        held | {"bundles_to_node_id": {0: "2"}, "name": "", "bundles": {0: {"CPU": 1.0}}},
    ]
    said = why(NodeShape(gpus=8, cpus=16), groups=groups)
    assert "a: 2 × 4 GPUs by another sweep" in said
    assert "b: 1 CPUs by a placement group without a name" in said


def test_the_capacity_is_what_fits_on_each_node():
    for nodes, shape, expected in (
        ([(2, 0)], NodeShape(cpus=1), (2, 1)),
        ([(64, 8), (64, 8), (8, 0)], NodeShape(cpus=64, gpus=8), (2, 2)),
        ([(64, 8)], NodeShape(cpus=8, gpus=1), (8, 1)),
        ([(4, 8)], NodeShape(cpus=8, gpus=1), (0, 0)),
        ([], NodeShape(), (0, 0)),
        ([(64, 8)], NodeShape(cpus=8, gpus=8, gpu_model="H100"), (0, 0)),
    ):
        there = [Node(str(i), cpus=cpus, gpus=gpus) for i, (cpus, gpus) in enumerate(nodes)]
        assert capacity(there, shape) == expected


def test_a_node_of_the_right_model_counts():
    node = Node("a", cpus=64, gpus=8, gpu_models=frozenset({"H100"}))
    assert capacity([node], NodeShape(cpus=8, gpus=8, gpu_model="H100")) == (1, 1)
