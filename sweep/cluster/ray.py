"""Leases from Ray: one placement group with one bundle per lease, one agent actor inside it.

Everything is owned by the driver's job, so Ray takes it down when the driver dies. Nothing is
restarted or retried by Ray: an attempt that is lost is a row, and the driver decides what follows.
A placement group whose node dies is silently re-placed by Ray; here a lost lease is removed and
never used again. The only file of the project that imports ray.
"""

import itertools
import logging
import os
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from sweep.cluster.address import knock, no_ray
from sweep.cluster.awake_clock import AwakeClock
from sweep.cluster.background import Errands
from sweep.cluster.interface import Lease, LeaseLost, Node, Pool
from sweep.cluster.lease_requests import Asked, Made, Wish
from sweep.cluster.nodes import GPU_MODEL, Census
from sweep.cluster.shortage import OpenRequest, why_waiting
from sweep.cluster.watchdog import Watchdog
from sweep.environment import local_cpus, prepare_ray
from sweep.messages import CheckResult, Delivery, Order, PrepareResult, Requirements
from sweep.node.agent import Agent
from sweep.node.scratch import left_behind
from sweep.preflight import run_checks
from sweep.spec.sweep_file import NodeShape
from sweep.timing.sampler import gpu_sampler
from trainer.config.config_errors import ConfigError

prepare_ray()

import ray  # noqa: E402  (reads its settings from the environment when it is imported)
from ray.exceptions import ActorDiedError, RayError, RayTaskError  # noqa: E402
from ray.util.placement_group import (  # noqa: E402
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import (  # noqa: E402
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

ANSWER_DEADLINE_S = 10.0
LOG_DEADLINE_S = 8.0
INSPECT_DEADLINE_S = 300.0
MAX_FAILED_STARTS = 5
HOLDER = "activation-sweep, process"
TOKEN_NOTICE = "ray._private.authentication.authentication_token_setup"  # says it at every start
AGENT_CALLS = 4  # one runs the attempt, one asks for progress, one stops, one inspects


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
            knock(address)
            _keep_the_terminal()
            ray.init(**settings)
        except (OSError, ValueError, RuntimeError, RayError) as error:  # RuntimeError: versions
            raise ConfigError(no_ray(address, error)) from None
        self._asked: list[Asked] = []
        self._errands = Errands()
        self._table: Future[dict[str, Any]] = self._errands.do(placement_group_table)
        self._groups: dict[str, Any] = {}
        self._granted = self._failed_starts = 0
        self._clock = AwakeClock()
        self._requests = itertools.count(1)  # Ray wants the name of each to be its own
        self._census = Census(ray.nodes, self._clock)

    @property
    def version(self) -> str:
        return str(ray.__version__)

    @property
    def silent_s(self) -> float:
        return self._census.silent_s

    def nodes(self) -> list[Node]:
        """Nodes that are alive, largest first."""
        return sorted(self._census.nodes, key=lambda node: (-node.gpus, -node.cpus, node.name))

    def request(
        self,
        shape: NodeShape,
        count: int,
        *,
        driver_silence_s: float,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        wish = Wish(shape, driver_silence_s, avoid)
        self._asked += [self._ask(wish) for _ in range(count)]

    def ready(self) -> list["RayLease"]:
        """Agents that have answered: their bundle was granted and their process runs."""
        made_of = {made.node_id: asked for asked in self._asked if (made := asked.so_far)}
        done = ray.wait(list(made_of), num_returns=len(made_of), timeout=0)[0] if made_of else []
        answered = [asked for asked in self._asked if asked.has_failed]
        answered += [made_of[answer] for answer in done]
        self._asked = [asked for asked in self._asked if asked not in answered]
        leases = []
        for asked in answered:
            try:
                made = asked.made.result()
                node_id = ray.get(made.node_id, timeout=ANSWER_DEADLINE_S)
            except RayError as error:
                self._ask_again(asked, error)
                continue
            name = self._census.name_of(node_id)
            if name is None:  # it has just joined
                self._asked.append(asked)
                continue
            if name in asked.wish.avoid:  # it joined after the request was made
                self._take_back(asked)
                self._asked.append(self._ask(asked.wish))
                continue
            leases.append(RayLease(f"lease {self._granted}", name, node_id, made, self._clock))
            self._granted += 1
        return leases

    def withdraw(self, count: int) -> int:
        taken = self._asked[-count:] if count else []
        self._asked = self._asked[: len(self._asked) - len(taken)]
        for asked in taken:
            self._take_back(asked)
        return len(taken)

    def waiting(self) -> str | None:
        if not self._asked:
            return None
        if self._table.done():
            self._groups = self._groups if self._table.exception() else self._table.result()
            self._table = self._errands.do(placement_group_table)
        oldest = self._asked[0].wish
        mine = {made.group.id.hex() for asked in self._asked if (made := asked.so_far)}
        others = [entry for key, entry in self._groups.items() if key not in mine]
        return why_waiting(
            OpenRequest(oldest.shape, len(self._asked), oldest.avoid), self.nodes(), others
        )

    def release(self, lease: Lease) -> None:
        """Give the bundle back; the agent and its ranks end with it."""
        assert isinstance(lease, RayLease)
        group = lease.group
        self._errands.do(lambda: remove_placement_group(group))

    def fetch_log(self, lease: Lease, stem: str) -> "Future[str | None]":
        fetched: Future[str | None] = Future()
        threading.Thread(target=_fetch, args=(lease.node_id, stem, fetched), daemon=True).start()
        return fetched

    def inspect(self, requirements: Requirements) -> dict[str, list[CheckResult] | None]:
        asked = {}
        for node in self.nodes():
            where = NodeAffinitySchedulingStrategy(node.id, soft=False)
            look = _look.options(scheduling_strategy=where, num_cpus=0, max_retries=0)
            asked[node.name] = look.remote(requirements)
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=INSPECT_DEADLINE_S)
        return {name: _answer_or_none(results) for name, results in asked.items()}

    def close(self) -> bool:
        """Leave the cluster; a head that does not answer is not waited for."""
        self._census.close()
        ending = threading.Thread(target=ray.shutdown, daemon=True)
        ending.start()
        ending.join(ANSWER_DEADLINE_S)
        if self._watchdog is not None:
            self._watchdog.close()
        return not ending.is_alive()

    def _ask(self, wish: Wish) -> Asked:
        return Asked(wish, self._errands.do(lambda: self._make(wish)))

    def _take_back(self, asked: Asked) -> None:
        """After it was made, if it is just being made."""
        self._errands.do(lambda: remove_placement_group(asked.made.result().group))

    def _make(self, wish: Wish) -> Made:
        shape = wish.shape
        bundle: dict[str, float] = {"CPU": shape.cpus}
        if shape.gpus:
            bundle["GPU"] = shape.gpus
        if shape.gpu_model is not None:
            bundle[f"{GPU_MODEL}{shape.gpu_model}"] = 0.001
        ids = [node.id for node in self._census.nodes if node.name in wish.avoid]
        group = placement_group(
            [bundle],
            strategy="STRICT_PACK",
            name=f"{HOLDER} {os.getpid()} on {socket.gethostname()}, {next(self._requests)}",
            bundle_label_selector=[{"ray.io/node-id": f"!in({','.join(ids)})"}] if ids else None,
        )
        agent = _RemoteAgent.options(
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=AGENT_CALLS,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0
            ),
        ).remote(wish.driver_silence_s, gpu_sampler if shape.gpus else None)
        return Made(group, agent, agent.node_id.remote())

    def _ask_again(self, asked: Asked, error: RayError) -> None:
        """Its node went away while the agent started; give up where this goes on and on."""
        self._take_back(asked)
        self._failed_starts += 1
        if self._failed_starts > MAX_FAILED_STARTS * (1 + self._granted):
            raise ConfigError(
                f"agents could not be started, {self._failed_starts} times in all; the last time: "
                f"{_first_line(error)}. `ray status` shows the nodes."
            )
        self._asked.append(self._ask(asked.wish))


class RayLease:
    """A granted placement group with its agent."""

    def __init__(self, name: str, node: str, node_id: str, made: Made, clock: AwakeClock) -> None:
        self.name, self.node, self.node_id = name, node, node_id
        self.group, self._agent, self._clock = made.group, made.agent, clock
        self.is_gone = False
        self.last_progress: Mapping[str, Any] | None = None
        self._asked: Any = None
        self._asked_s: float | None = None

    @property
    def silent_s(self) -> float:
        asked_s = self._asked_s  # the heart is another thread
        return 0.0 if asked_s is None else self._clock.now_s - asked_s

    def prepare(self, requirements: Requirements) -> "Future[PrepareResult]":
        return _answer(self._agent.prepare.remote(requirements))

    def submit(self, order: Order) -> "Future[Delivery]":
        self.last_progress = None
        return _answer(self._agent.run.remote(order))

    def beat(self) -> None:
        try:
            if self._asked is not None:
                done, _ = ray.wait([self._asked], timeout=0)
                if not done:
                    return
                self.last_progress = ray.get(done[0], timeout=1)
                self._asked_s = None
        except ActorDiedError:
            self.is_gone = True
            return
        except RayError:  # perhaps for a moment only: it owes its answer since it was first asked
            pass
        self._asked = self._agent.progress.remote()
        self._asked_s = self._asked_s or self._clock.now_s

    def stop(self) -> None:
        self._agent.stop.remote()


def _keep_the_terminal() -> None:
    """Ray prints the state of a raylet that dies, 40 lines of it, into the picture of the sweep.

    There is no setting against it. What a node's death means is said by the driver, and Ray keeps
    the raylet's log in its session's folder.
    """
    worker: Any = ray._private.worker
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda data, ignore_prefix: None


class _AgentOnRay(Agent):
    """An agent that can say on which of Ray's nodes it is."""

    def node_id(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


_RemoteAgent: Any = ray.remote(_AgentOnRay)
_read_log: Any = ray.remote(left_behind)
_look: Any = ray.remote(run_checks)


def _answer_or_none(asked: Any) -> Any:
    try:
        return ray.get(asked, timeout=0)
    except RayError:
        return None


def _fetch(node_id: str, stem: str, fetched: "Future[str | None]") -> None:
    where = NodeAffinitySchedulingStrategy(node_id, soft=False)
    try:
        asked = _read_log.options(scheduling_strategy=where, num_cpus=0, max_retries=0).remote(stem)
        fetched.set_result(ray.get(asked, timeout=LOG_DEADLINE_S))
    except Exception:  # the node is gone, or Ray is: there is no log to be had
        fetched.set_result(None)


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
