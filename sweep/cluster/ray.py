"""Leases from Ray: one placement group with one bundle per lease, one agent actor inside it.

Everything is owned by the driver's job, so Ray takes it down when the driver dies. Nothing is
restarted or retried by Ray: an attempt that is lost is a row, and the driver decides what follows.
A placement group whose node dies is silently re-placed by Ray; here a lost lease is removed and
never used again. The only file of the project that imports ray.
"""

import itertools
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from sweep.cluster.awake_clock import AwakeClock
from sweep.cluster.board import Board, BoardReader, Record
from sweep.cluster.interface import Lease, LeaseLost, Node, Pool
from sweep.cluster.lease_requests import (
    LeaseRequest,
    PendingLease,
    StartingAgent,
    bundle,
    pending_reason,
)
from sweep.cluster.nodes import NodeWatch
from sweep.cluster.ray_settings import no_ray, ray_settings, require_listener
from sweep.cluster.sharing import Claim
from sweep.cluster.watchdog import Watchdog
from sweep.deadline import call_with_deadline, run_in_background
from sweep.environment import prepare_ray
from sweep.messages import CheckResult, Delivery, Order, PrepareResult, Requirements
from sweep.node.agent import Agent
from sweep.node.scratch import read_abandoned_log
from sweep.preflight import check_sweep, refusal, run_checks
from sweep.provenance import sweep_hash
from sweep.spec.sweep_file import NodeShape
from sweep.timing.telemetry import gpu_sampler
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
ENDED_IN_ORDER = "terminated expectedly"  # what Ray says of a node that was sent SIGTERM
TOO_SLOW = "timed out during startup"  # says Ray after 30 s, which cannot be set
BOARD = {"name": "board", "namespace": "activation-sweep"}
BOARD_DEADLINE_S = 3.0  # two of them at the end are shorter than ANSWER_DEADLINE_S
AGENT_CALLS = 4  # one runs the attempt, one asks for progress, one stops, one inspects


class RayPool(Pool):
    """The cluster at ``address``, or one on this machine that lives as long as this process."""

    version = str(ray.__version__)

    def __init__(self, address: str | None) -> None:
        self._watchdog = Watchdog() if address is None else None
        try:
            require_listener(address)
            _keep_the_terminal()
            _enter(address)
        except Exception as error:  # of every kind: a start that takes too long is a bare Exception
            raise ConfigError(no_ray(address, error)) from None
        self._pending: list[PendingLease] = []
        # Making, removing and listing placement groups are calls to the head that know no deadline:
        # while it stood still (SIGSTOP) they were seen to block for minutes. The driver has a
        # deadline of its own, so they are made in their order by another thread.
        self._head_calls = ThreadPoolExecutor(1, thread_name_prefix="head")
        self._table = self._head_calls.submit(placement_group_table)
        self._groups: dict[str, Any] = {}
        self._granted = self._failed_starts = 0
        self._group_numbers = itertools.count(1)  # Ray wants the name of each to be its own
        list_leaving = ray._private.state.state.get_draining_nodes  # no public call tells it
        self._watch = NodeWatch(ray.nodes, list_leaving, AwakeClock())
        self._board: Any = None
        self._board_calls = ThreadPoolExecutor(1, thread_name_prefix="board")
        self._reader = BoardReader(lambda *put: self._board_calls.submit(self._put_on_board, *put))
        self._is_shared = address is not None

    @property
    def unresponsive_s(self) -> float:
        return self._watch.unresponsive_s

    def nodes(self) -> list[Node]:
        """Nodes that are alive, largest first."""
        return sorted(self._watch.nodes, key=lambda node: (-node.gpus, -node.cpus, node.name))

    def request(
        self,
        shape: NodeShape,
        count: int,
        *,
        driver_silence_s: float,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        for _ in range(count):
            self._submit(LeaseRequest(shape, driver_silence_s, avoid))

    def ready(self) -> list["RayLease"]:
        """Agents that have answered: their bundle was granted and their process runs."""
        by_answer = {
            s.introduction: pending for pending in self._pending if (s := pending.starting)
        }
        answers = list(by_answer)
        done = ray.wait(answers, num_returns=len(answers), timeout=0)[0] if answers else []
        answered = [pending for pending in self._pending if pending.has_failed]
        answered += [by_answer[answer] for answer in done]
        self._pending = [pending for pending in self._pending if pending not in answered]
        leases = []
        for pending in answered:
            try:
                starting = pending.agent.result()
                introduction = ray.get(starting.introduction, timeout=ANSWER_DEADLINE_S)
            except RayError as error:
                self._retry(pending, error)
                continue
            name = self._watch.name_of(introduction["node_id"])
            if name is None:  # it has just joined
                self._pending.append(pending)
                continue
            if name in pending.request.avoid:  # it joined after the request was made
                self._remove(pending)
                self._submit(pending.request)
                continue
            number = f"lease {self._granted}"
            leases.append(RayLease(number, name, introduction, starting, self._watch))
            self._granted += 1
        return leases

    def withdraw(self, count: int) -> int:
        withdrawn = self._pending[-count:] if count else []
        self._pending = self._pending[: len(self._pending) - len(withdrawn)]
        for pending in withdrawn:
            self._remove(pending)
        return len(withdrawn)

    def pending_reason(self) -> str | None:
        if not self._pending:
            return None
        if self._table.done():
            self._groups = self._groups if self._table.exception() else self._table.result()
            self._table = self._head_calls.submit(placement_group_table)
        mine = {starting.group.id.hex() for each in self._pending if (starting := each.starting)}
        others = [entry for key, entry in self._groups.items() if key not in mine]
        return pending_reason(self._pending[0].request, len(self._pending), self.nodes(), others)

    def release(self, lease: Lease) -> None:
        """Give the bundle back; the agent and its ranks end with it."""
        assert isinstance(lease, RayLease)
        self._head_calls.submit(remove_placement_group, lease.group)

    def fetch_log(self, lease: Lease, stem: str) -> "Future[str | None]":
        return run_in_background(lambda: _fetch_log(lease.node_id, stem))

    def inspect(self, requirements: Requirements) -> dict[str, list[CheckResult] | None]:
        nodes = self.nodes()
        code = _answers({node.name: _on(node.id, _sweep_hash).remote() for node in nodes})
        state: Any = ray._private.state  # no public call tells what is free on each node
        free = state.available_resources_per_node()
        asked = {}
        for node in nodes:
            if code[node.name] == sweep_hash():
                leased = free.get(node.id, {}).get("GPU", 0) < node.gpus
                wanted = replace(requirements, gpus_are_leased=leased)
                asked[node.name] = _on(node.id, _run_checks).remote(wanted)
        found = _answers(asked)
        for name, theirs in code.items():
            if theirs not in (None, sweep_hash()):  # it may not understand what is asked
                found[name] = [check_sweep(theirs, sweep_hash())]
        return {node.name: found.get(node.name) for node in nodes}

    def exchange(self, driver: str, claim: Claim | None) -> Sequence[Claim]:
        return self._reader.exchange(driver, claim) if self._is_shared else ()

    def close(self) -> bool:
        """Leave the cluster; a head that does not answer is not waited for."""
        self._watch.close()
        try:
            call_with_deadline(ANSWER_DEADLINE_S, self._shut_down)
        except TimeoutError:
            return False
        finally:
            if self._watchdog is not None:
                self._watchdog.close()
        return True

    def _shut_down(self) -> None:
        self._head_calls.shutdown(cancel_futures=True)
        self._board_calls.shutdown()  # the claim is taken away first
        ray.shutdown()

    def _put_on_board(self, driver: str, claim: Record | None) -> Any:
        """Have the board that is there, or one beside this driver, take and give claims.

        A board ends with its maker's handle. So that is kept while the board is slow: on a busy
        machine it took longer to start than to wait for, and was started again and again.
        """
        try:
            if self._board is None:
                here = ray.get_runtime_context().get_node_id()
                where = NodeAffinitySchedulingStrategy(here, soft=False)
                self._board = _RemoteBoard.options(
                    **BOARD, get_if_exists=True, num_cpus=0, scheduling_strategy=where
                ).remote()
            return ray.get(self._board.put.remote(driver, claim), timeout=BOARD_DEADLINE_S)
        except ActorDiedError:  # with its maker; the next call looks anew
            self._board = None
            raise

    def _submit(self, request: LeaseRequest) -> None:
        agent = self._head_calls.submit(self._start_agent, request)
        self._pending.append(PendingLease(request, agent))

    def _remove(self, pending: PendingLease) -> None:
        """After it was made, if it is just being made."""
        self._head_calls.submit(lambda: remove_placement_group(pending.agent.result().group))

    def _start_agent(self, request: LeaseRequest) -> StartingAgent:
        shape = request.shape
        avoided = [node.id for node in self._watch.nodes if node.name in request.avoid]
        selector = {"ray.io/node-id": f"!in({','.join(avoided)})"}
        group = placement_group(
            [bundle(shape)],
            strategy="STRICT_PACK",
            name=f"{HOLDER} {os.getpid()} on {socket.gethostname()}, {next(self._group_numbers)}",
            bundle_label_selector=[selector] if avoided else None,
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
        ).remote(request.driver_silence_s, gpu_sampler if shape.gpus else None)
        return StartingAgent(group, agent, agent.introduce.remote())

    def _retry(self, pending: PendingLease, error: RayError) -> None:
        """Its node went away while the agent started; give up where this goes on and on."""
        self._remove(pending)
        self._failed_starts += 1
        if self._failed_starts > MAX_FAILED_STARTS * (1 + self._granted):
            raise ConfigError(
                f"agents could not be started, {self._failed_starts} times in all; the last time: "
                f"{_first_line(error)}. `ray status` shows the nodes."
            )
        self._submit(pending.request)


class RayLease:
    """A granted placement group with its agent."""

    def __init__(
        self,
        name: str,
        node: str,
        introduction: Mapping[str, str],
        starting: StartingAgent,
        watch: NodeWatch,
    ) -> None:
        self.name, self.node, self.node_id = name, node, introduction["node_id"]
        self._code = check_sweep(introduction["sweep_hash"], sweep_hash())
        self.group, self._agent, self._watch = starting.group, starting.agent, watch
        self.is_gone = self.is_preempted = False
        self.last_progress: Mapping[str, Any] | None = None
        self._answer: Any = None  # that the agent owes
        self._owed_since_s: float | None = None

    @property
    def unresponsive_s(self) -> float:
        since_s = self._owed_since_s  # heartbeats are another thread's
        return 0.0 if since_s is None else self._watch.clock.now_s - since_s

    def prepare(self, requirements: Requirements) -> "Future[PrepareResult]":
        if (differs := refusal([self._code])) is not None:  # it may not understand what is sent
            refused: Future[PrepareResult] = Future()
            refused.set_result(PrepareResult(refusal=differs))
            return refused
        return _future(self._agent.prepare.remote(requirements), self._look_at)

    def submit(self, order: Order) -> "Future[Delivery]":
        self.last_progress = None
        return _future(self._agent.run.remote(order), self._look_at)

    def beat(self) -> None:
        if self._watch.is_leaving(self.node_id):
            self.is_preempted = True
            self._agent.stop.remote(preempted=True)
        try:
            if self._answer is not None:
                done, _ = ray.wait([self._answer], timeout=0)
                if not done:
                    return
                self.last_progress = ray.get(done[0], timeout=1)
                self._owed_since_s = None
        except ActorDiedError as error:
            self._look_at(error)
            self.is_gone = True
            return
        except RayError:  # perhaps for a moment only: it owes its answer since it was first asked
            pass
        self._answer = self._agent.progress.remote()
        self._owed_since_s = self._owed_since_s or self._watch.clock.now_s

    def stop(self) -> None:
        self._agent.stop.remote()

    def _look_at(self, error: BaseException) -> None:
        """See from the error of a call whether the node was taken away."""
        if isinstance(error, ActorDiedError):
            self.is_preempted |= error.preempted or ENDED_IN_ORDER in str(error)


def _enter(address: str | None) -> None:
    """Enter the cluster, or start a Ray here: once more where a busy machine was slow to do so."""
    try:
        ray.init(**ray_settings(address))
    except Exception as error:
        if address is not None or TOO_SLOW not in str(error):
            raise
        ray.shutdown()
        ray.init(**ray_settings(address))


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

    def introduce(self) -> dict[str, str]:
        """What a driver of any version understands."""
        node_id = str(ray.get_runtime_context().get_node_id())
        return {"node_id": node_id, "sweep_hash": sweep_hash()}


_RemoteAgent: Any = ray.remote(_AgentOnRay)
_RemoteBoard: Any = ray.remote(Board)
_read_log: Any = ray.remote(read_abandoned_log)
_run_checks: Any = ray.remote(run_checks)
_sweep_hash: Any = ray.remote(sweep_hash)


def _on(node_id: str, task: Any) -> Any:
    """``task`` on that node and no other, whoever holds what of it."""
    where = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return task.options(scheduling_strategy=where, num_cpus=0, max_retries=0)


def _answers(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What came of tasks, by name; None where nothing did in time."""
    if asked:
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=INSPECT_DEADLINE_S)
    return {name: _result_or_none(answer) for name, answer in asked.items()}


def _result_or_none(answer: Any) -> Any:
    try:
        return ray.get(answer, timeout=0)
    except RayError:
        return None


def _fetch_log(node_id: str, stem: str) -> str | None:
    try:
        log: str | None = ray.get(_on(node_id, _read_log).remote(stem), timeout=LOG_DEADLINE_S)
    except Exception:  # the node is gone, or Ray is: there is no log to be had
        return None
    return log


def _future(answer: Any, look_at: Callable[[BaseException], None]) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    answer.future().add_done_callback(lambda done: _hand_over(done, future, look_at))
    return future


def _hand_over(
    done: "Future[Any]", future: "Future[Any]", look_at: Callable[[BaseException], None]
) -> None:
    """Pass on what Ray answered; whatever that is, ``future`` is set, an error after its look."""
    try:
        future.set_result(done.result())
    except RayTaskError as error:  # the agent itself raised
        future.set_exception(error)
    except BaseException as error:
        look_at(error)
        future.set_exception(LeaseLost(f"{type(error).__name__}: {_first_line(error)}"))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")
