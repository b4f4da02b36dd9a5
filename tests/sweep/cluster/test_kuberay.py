"""KubeRay from zero: Ray's own autoscaler, fed with our RayJob, brings up nodes for our leases.

Not claimed: that Kubernetes has such nodes, or what KubeRay does with the file besides.
"""

import json

import pytest
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest

from sweep.__main__ import parser
from sweep.cluster.lease_requests import bundle
from sweep.spec.sweep_file import load_sweep
from tests.support.commands import ROOT

CLUSTERS = ROOT / "configs" / "clusters"


@pytest.fixture(scope="module")
def job():
    return next(yaml.safe_load_all((CLUSTERS / "rayjob.yaml").read_text(encoding="utf-8")))


@pytest.fixture
def sweep(job):
    """The sweep of the entrypoint, as its flags have it."""
    arguments = parser().parse_args(job["spec"]["entrypoint"].split()[3:])
    return load_sweep(arguments.sweep, autoscale=arguments.autoscale)


def autoscaler_of(job):
    cluster = {
        "metadata": {"name": "ours", "namespace": "default"},
        "spec": job["spec"]["rayClusterSpec"],
    }
    derived = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    return AutoscalingConfig(derived, skip_content_hash=True)


def answer(job, shape, num_leases):
    """(nodes to launch by group, leases that no node could ever carry)."""
    config = autoscaler_of(job)
    leases = [
        GangResourceRequest(requests=[ResourceRequestUtil.make(bundle(shape))])
        for _ in range(num_leases)
    ]
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            gang_resource_requests=leases,
        )
    )
    launched = {request.instance_type: request.count for request in reply.to_launch}
    return launched, len(reply.infeasible_gang_resource_requests)


def test_a_lease_brings_up_a_node_where_there_is_none(job, sweep):
    launched, infeasible = answer(job, sweep.node, 1)
    assert (launched["h100"], infeasible) == (1, 0)


def test_as_many_nodes_come_as_the_driver_asks_for_and_no_more(job, sweep):
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["maxReplicas"] == sweep.node.max_leases
    assert answer(job, sweep.node, sweep.node.max_leases)[0]["h100"] == group["maxReplicas"]


def test_a_model_that_the_file_does_not_name_brings_up_none(job, sweep):
    other = sweep.node.model_copy(update={"gpu_model": "A100"})
    assert answer(job, other, 1)[1] == 1


def test_nodes_that_come_and_go_leave_their_checkpoints_with_the_results(job, sweep):
    assert (sweep.node.autoscale, sweep.checkpoints.keep) == (True, "results")
    assert load_sweep("slopes").checkpoints.keep == "node"


def test_what_goes_into_the_environment_is_text_under_the_names_that_are_read(job):
    submitted = yaml.safe_load((CLUSTERS / "runtime-env.yaml").read_text(encoding="utf-8"))
    of_job = yaml.safe_load(job["spec"]["runtimeEnvYAML"])
    for variables in (submitted["env_vars"], of_job["env_vars"]):
        assert variables["YES"] == "1"
        assert all(isinstance(part, str) for pair in variables.items() for part in pair)
    groups = job["spec"]["rayClusterSpec"]
    for group in (groups["headGroupSpec"], *groups["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        for entry in container["env"]:
            assert isinstance(entry["name"], str)
            assert isinstance(entry.get("value", ""), str)


def test_what_is_declared_of_a_node_is_what_ray_calls_its_gpus(job):
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    quoted = group["rayStartParams"]["resources"]
    assert json.loads(json.loads(quoted)) == {"accelerator_type:H100": 1}
