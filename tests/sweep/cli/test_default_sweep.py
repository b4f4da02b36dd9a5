"""Where no sweep is named, the machine decides, and says why."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
from rich.console import Console

from sweep.cli import invocation
from sweep.cli.invocation import choose_sweep
from sweep.cluster.interface import Node
from sweep.environment import LOCAL_RAY, Environment, local_gpus, prepare_ray, read_environment
from sweep.timing.nvml import model_of
from tests.support.gpus import h100s, scripted_nvml
from trainer.config.config_errors import ConfigError


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


@pytest.mark.parametrize(
    ("product", "leases"), [("NVIDIA H100 80GB HBM3", 1), ("NVIDIA A100-SXM4-80GB", 0)]
)
def test_a_machine_without_ray_is_leased_for_the_model_of_its_gpus(monkeypatch, product, leases):
    monkeypatch.setattr(invocation, "local_gpus", lambda: 8)
    monkeypatch.setattr(invocation, "local_cpus", lambda: 64)
    monkeypatch.setattr(invocation, "open_nvml", lambda _: scripted_nvml(h100s(name=product)))
    here = invocation.Invocation(
        environment=read_environment({}),
        sweep_name="slopes",
        results="",
        data=Path(),
        console=Console(),
        connect=lambda _: pytest.fail("Ray was started"),
    )
    assert here.usable_leases() == (leases, leases)
    with nullcontext() if leases else pytest.raises(ConfigError, match=r"8 GPUs \(A100\) and 64"):
        here.require_usable_lease()


PRODUCTS = (
    *("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H200", "NVIDIA GH200 480GB"),
    *("NVIDIA B200", "NVIDIA A100-SXM4-80GB", "NVIDIA A10G", "NVIDIA L40S", "Tesla T4"),
    *("Tesla V100-SXM2-16GB", "NVIDIA RTX PRO 6000 Blackwell", "NVIDIA GeForce RTX 5090"),
)


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_model_is_called_as_ray_calls_it(product):
    assert model_of(product) == NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(product)


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


def test_only_a_ray_of_this_machines_own_is_set_to_listen_on_it_alone():
    alone, elsewhere = dict[str, str](), {"RAY_ADDRESS": "head:6379"}
    prepare_ray(alone)
    prepare_ray(elsewhere)
    assert {name: alone[name] for name in LOCAL_RAY} == LOCAL_RAY
    assert not LOCAL_RAY.keys() & elsewhere.keys()
