"""How many leases fit on the nodes of a cluster, and on how many of these."""

from sweep.cluster.interface import Node, capacity
from sweep.spec.sweep_file import NodeShape


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
