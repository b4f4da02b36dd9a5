"""Where no sweep is named, the machine decides, and says why."""

import pytest

from sweep.cli import invocation
from sweep.cli.invocation import choose_sweep
from sweep.cluster.interface import Node
from sweep.environment import Environment, local_gpus, prepare_ray, read_environment


def nobody():
    pytest.fail("the cluster was asked although none is named")


@pytest.mark.parametrize(
    ("gpus", "sweep"), [(0, "local"), (1, "local"), (7, "local"), (8, "slopes")]
)
def test_this_machine_is_judged_by_its_gpus_without_starting_ray(monkeypatch, gpus, sweep):
    monkeypatch.setattr(invocation, "local_gpus", lambda: gpus)
    chosen, why = choose_sweep(Environment(ray_address=None, yes=False), nobody)
    assert chosen == sweep
    assert f"{gpus}" in why


def test_a_cluster_is_judged_by_its_largest_node(monkeypatch):
    monkeypatch.setattr(invocation, "local_gpus", lambda: 8)
    environment = Environment(ray_address="10.0.0.1:6379", yes=False)
    four = [Node("a", cpus=64, gpus=4), Node("b", cpus=64, gpus=4)]
    assert choose_sweep(environment, lambda: four)[0] == "local"
    assert choose_sweep(environment, lambda: [*four, Node("c", 64, 8)])[0] == "slopes"
    assert choose_sweep(environment, list)[0] == "local"


def test_gpus_are_counted_by_their_device_files(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert local_gpus(tmp_path) == 3


def test_the_environment_is_read_in_one_place():
    assert read_environment({}) == Environment(ray_address=None, yes=False)
    assert read_environment({"RAY_ADDRESS": "", "YES": "0"}) == read_environment({})
    assert read_environment({"RAY_ADDRESS": "auto", "YES": "1"}).ray_address == "auto"


def test_settings_of_ray_that_the_user_made_are_kept():
    variables = {"RAY_USAGE_STATS_ENABLED": "1"}
    prepare_ray(variables)
    assert variables["RAY_USAGE_STATS_ENABLED"] == "1"
    assert variables["RAY_DEDUP_LOGS"] == "0"
