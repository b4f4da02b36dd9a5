"""Leases from Ray: one placement group with one bundle per lease, one agent actor inside it.

Everything is owned by the driver's job, so Ray takes it down when the driver dies. Nothing is
restarted or retried by Ray: an attempt that is lost is a row, and the driver decides what follows.
The only file of the project that imports ray.
"""

import logging
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sweep.agent import Agent
from sweep.environment import local_cpus, prepare_ray
from sweep.lease import Delivery, Lease, LeaseLost, Node, Order, Pool, Supply
from sweep.spec import NodeShape
from sweep.watchdog import Watchdog
from trainer.strict import ConfigError

prepare_ray()

import ray  # noqa: E402  (reads its settings from the environment when it is imported)
from ray.exceptions import RayError, RayTaskError  # noqa: E402
from ray.util.placement_group import (  # noqa: E402
    PlacementGroup,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy  # noqa: E402

ANSWER_DEADLINE_S = 10.0
GPU_MODEL = "accelerator_type:"
MAX_FAILED_STARTS = 5
TOKEN_NOTICE = "ray._private.authentication.authentication_token_setup"  # says it at every start
AGENT_CALLS = 3  # one runs the attempt, one asks for progress, one stops


class RayPool(Pool):
    """The cluster at ``address``, or one on this machine that lives as long as this process."""

    def __init__(self, address: str | None) -> None:
        self._watchdog: Watchdog | None = None
        settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if address is None:
            self._watchdog = Watchdog()
            settings |= {"address": "local", "num_cpus": local_cpus(), "include_dashboard": False}
        else:
            settings |= {"address": address}
        logging.getLogger(TOKEN_NOTICE).setLevel(logging.ERROR)
        try:
            _knock(address)
            ray.init(**settings)
        except (OSError, ValueError) as error:
            raise ConfigError(_no_ray(address, error)) from None
        self._asked: list[_Asked] = []
        self._granted = self._failed_starts = 0

    @property
    def version(self) -> str:
        return str(ray.__version__)

    def nodes(self) -> list[Node]:
        """Nodes that are alive, largest first."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        found = [
            Node(
                name=node["NodeManagerHostname"],
                cpus=int(node["Resources"].get("CPU", 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
                gpu_models=frozenset(
                    key.removeprefix(GPU_MODEL)
                    for key in node["Resources"]
                    if key.startswith(GPU_MODEL)
                ),
            )
            for node in alive
        ]
        return sorted(found, key=lambda node: (-node.gpus, -node.cpus, node.name))

    def request(self, shape: NodeShape, count: int) -> None:
        self._asked += [_ask(shape) for _ in range(count)]

    def ready(self) -> list["RayLease"]:
        """Agents that have answered: their bundle was granted and their process runs."""
        if not self._asked:
            return []
        done, _ = ray.wait(
            [asked.node for asked in self._asked], num_returns=len(self._asked), timeout=0
        )
        answered = [asked for asked in self._asked if asked.node in done]
        self._asked = [asked for asked in self._asked if asked.node not in done]
        leases = []
        for asked in answered:
            try:
                node = ray.get(asked.node, timeout=ANSWER_DEADLINE_S)
            except RayError as error:
                self._ask_again(asked, error)
                continue
            leases.append(RayLease(f"lease {self._granted}", node, asked))
            self._granted += 1
        return leases

    def _ask_again(self, asked: "_Asked", error: RayError) -> None:
        """Its node went away while the agent started; give up where this goes on and on."""
        remove_placement_group(asked.group)
        self._failed_starts += 1
        if self._failed_starts > MAX_FAILED_STARTS:
            raise ConfigError(
                f"agents could not be started, {self._failed_starts} times in all; the last time: "
                f"{_first_line(error)}. `ray status` shows the nodes."
            )
        self._asked.append(_ask(asked.shape))

    def release(self, lease: Lease) -> None:
        """Give the bundle back; the agent and its ranks end with it."""
        assert isinstance(lease, RayLease)
        remove_placement_group(lease.group)

    def close(self) -> None:
        ray.shutdown()
        if self._watchdog is not None:
            self._watchdog.close()


def _no_ray(address: str | None, error: Exception) -> str:
    if address is None:
        return f"Ray could not be started on this machine: {error}"
    return (
        f"RAY_ADDRESS={address}: no Ray cluster answers there ({error}). `ray status` on its head "
        f"shows whether it runs, RAY_AUTH_MODE=token is needed where the cluster asks for a token, "
        f"and without RAY_ADDRESS the sweep uses this machine."
    )


def _knock(address: str | None) -> None:
    """OSError at once where nothing listens: ray.init was seen to wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=ANSWER_DEADLINE_S).close()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A placement group that was asked for, its agent, and the agent's first answer: its node."""

    shape: NodeShape
    group: PlacementGroup
    agent: Any
    node: Any


def _ask(shape: NodeShape) -> _Asked:
    bundle: dict[str, float] = {"CPU": shape.cpus}
    if shape.gpus:
        bundle["GPU"] = shape.gpus
    if shape.gpu_model is not None:
        bundle[f"{GPU_MODEL}{shape.gpu_model}"] = 0.001
    group = placement_group([bundle], strategy="STRICT_PACK")
    agent = _RemoteAgent.options(
        num_cpus=shape.cpus,
        num_gpus=shape.gpus,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=AGENT_CALLS,
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
    ).remote()
    return _Asked(shape, group, agent, agent.node.remote())


class RayLease:
    """A granted placement group with its agent."""

    def __init__(self, name: str, node: str, asked: _Asked) -> None:
        self.name, self.node = name, node
        self.group, self._agent = asked.group, asked.agent
        self._asked: Any = None
        self._last: Mapping[str, Any] | None = None

    def prepare(self, supplies: Sequence[Supply]) -> "Future[str | None]":
        return _answer(self._agent.prepare.remote(supplies))

    def submit(self, order: Order) -> "Future[Delivery]":
        self._asked, self._last = None, None
        return _answer(self._agent.run.remote(order))

    def progress(self) -> Mapping[str, Any] | None:
        try:
            if self._asked is not None:
                done, _ = ray.wait([self._asked], timeout=0)
                if not done:
                    return self._last
                self._last = ray.get(done[0], timeout=1)
            self._asked = self._agent.progress.remote()
        except RayError:
            self._asked = None
        return self._last

    def stop(self) -> None:
        self._agent.stop.remote()


_RemoteAgent: Any = ray.remote(Agent)


def _answer(asked: Any) -> "Future[Any]":
    answer: Future[Any] = Future()
    answer.set_running_or_notify_cancel()
    asked.future().add_done_callback(lambda done: _hand_over(done, answer))
    return answer


def _hand_over(done: "Future[Any]", answer: "Future[Any]") -> None:
    """Pass on what Ray answered; whatever that is, ``answer`` is set."""
    try:
        answer.set_result(done.result())
    except RayTaskError as error:  # the agent itself raised
        answer.set_exception(error)
    except BaseException as error:
        answer.set_exception(LeaseLost(f"{type(error).__name__}: {_first_line(error)}"))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")
