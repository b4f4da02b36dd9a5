"""One round: inject a fault into a sweep at work, and see that it recovers.

A round waits until all leases are at work and then a random while, injects a fault, and waits until
nothing of the victim's is left, what was broken is replaced as its operator would, the attempts
that it was making are closed, and all leases are at work again.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.chaos import (
    DRIVER_SILENCE_S,
    GONE_S,
    SETTLE_S,
    SLOW_PHASE_S,
    STRIKES,
    Chaos,
    Working,
)
from tests.support.cluster import (
    HEAD,
    HEALTH_CHECKS_S,
    NOTICE_S,
    RECONNECT_S,
    Cluster,
    describe,
    is_driver,
    is_ray_start,
    ours,
    resume,
)
from tests.support.commands import alive
from tests.support.faults import BAD, FAULTS, Fault, Round, round_of
from tests.support.settled import attempt_row, closed_attempts, open_attempts

RECOVERY_S = 300.0  # all leases are at work again; generous, what it took is reported

# Who has to notice a fault has so long before those seconds begin. A stopped agent is none of
# these: it is continued when it has been replaced.
NOTICED_S = {
    ("rank", "stop"): SLOW_PHASE_S,  # it may not have said anything yet
    ("raylet", "stop"): HEALTH_CHECKS_S + DRIVER_SILENCE_S,
    ("node", "warn"): NOTICE_S,
    ("driver", "stop"): DRIVER_SILENCE_S,
    ("gcs", "kill"): RECONNECT_S + DRIVER_SILENCE_S,
    ("head", "kill"): DRIVER_SILENCE_S,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a round; ``gone_s`` and ``recovery_s`` count from the injection."""

    seed: int
    fault: str
    at_s: float
    happened: str
    gone_s: float
    recovery_s: float
    processes_left: int


@dataclass(frozen=True, slots=True)
class Injection:
    """``targets`` are killed or stopped, ``must_end`` must be gone, ``attempts`` must be closed."""

    targets: Sequence[psutil.Process]
    must_end: Sequence[psutil.Process]
    node: str
    attempts: frozenset[str]
    description: str


def survive(
    cluster: Cluster,
    folder: Path,
    data: Path,
    seeds: Sequence[int],
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """One sweep that meets the rounds ``seeds``, and is then seen to be as if undisturbed."""
    chaos = Chaos(cluster, folder, data, seed=seeds[0])
    outcomes = []
    try:
        for played, seed in enumerate(seeds):
            outcomes.append(play(chaos, round_of(seed), played // 3))
            report(outcomes[-1])
        chaos.finish()
    finally:
        chaos.stop()
    return outcomes


def play(chaos: Chaos, round_: Round, successes: int = 0) -> Outcome:
    """One round, begun when so many cells have succeeded: the sweep goes on between the faults.

    Unrecovered, with all that is known, if anything is not as it must be.
    """
    try:
        chaos.wait(
            lambda: chaos.at_work() and chaos.num_successes() >= successes,
            SETTLE_S,
            f"round {round_.seed} ({round_.fault}): all at work, {successes} cells have succeeded",
        )
        return _play(chaos, round_)
    except Exception as error:
        raise chaos.failure(f"seed {round_.seed}, {round_.fault}: {error}") from error


def _play(chaos: Chaos, round_: Round) -> Outcome:
    fault = FAULTS[round_.fault]
    time.sleep(round_.wait_s)  # the moment is what is random
    if fault.deed in BAD:
        return _spoil_node(chaos, round_, fault)
    injection = _inject(chaos, fault, round_.pick)
    at_s = chaos.now_s
    chaos.note(f"{round_.fault}: {injection.description} on {injection.node}")
    if fault.victim == "driver" and fault.deed == "kill":
        chaos.start_driver()  # at once: what the dead one has left must not be in its way
    if fault.victim == "agent" and fault.deed == "stop":
        _await_recovery(chaos, injection)
        _continue(injection.targets)
        gone_s = _await_gone(chaos, injection, GONE_S)
    else:
        gone_s = _await_gone(
            chaos, injection, NOTICED_S.get((fault.victim, fault.deed), 0.0) + GONE_S
        )
        _replace(chaos, fault, injection)
        _await_recovery(chaos, injection)
    recovery_s = chaos.now_s - at_s
    return Outcome(
        seed=round_.seed,
        fault=round_.fault,
        at_s=at_s,
        happened=_states_of(chaos, injection.attempts),
        gone_s=gone_s,
        recovery_s=recovery_s,
        processes_left=len(alive(list(injection.must_end))),
    )


def _spoil_node(chaos: Chaos, round_: Round, fault: Fault) -> Outcome:
    """A node is bad until it is left alone; one that is slow gives answers and is not."""
    chaos.wait(chaos.at_work, RECOVERY_S, "all work")
    names = sorted({working.node for working in chaos.working()})
    node, at_s = names[round_.pick % len(names)], chaos.now_s
    before = closed_attempts(chaos.store)
    chaos.cluster.spoil(node, fault.deed)
    chaos.note(f"{round_.fault}: {node}")

    def rows() -> list[dict[str, Any]]:
        closed = sorted(closed_attempts(chaos.store) - before)
        return [row for row in (attempt_row(chaos.store, s) for s in closed) if row["node"] == node]

    def lost() -> list[dict[str, Any]]:
        return [row for row in rows() if row["state"] != "succeeded"]

    def over() -> bool:
        is_left_alone = node not in {working.node for working in chaos.working()}
        enough = len(lost()) >= STRIKES and is_left_alone
        return chaos.at_work() and (len(rows()) > 1 if fault.deed == "slow" else enough)

    chaos.wait(over, RECOVERY_S, "it is left alone, all work again")
    gone_s, attempts = chaos.now_s - at_s, lost()
    chaos.cluster.mend(node)
    # Where much fails on other nodes too, as here, it takes more strikes.
    assert len(attempts) <= 2 * STRIKES, f"{len(attempts)} attempts were lost to {node}"
    chaos.wait(chaos.at_work, RECOVERY_S, "all work again")
    stems = [f"{row['cell_id']}-{row['attempt']}" for row in attempts]
    happened = _states_of(chaos, stems)
    return Outcome(round_.seed, round_.fault, at_s, happened, gone_s, chaos.now_s - at_s, 0)


def _inject(chaos: Chaos, fault: Fault, pick: int) -> Injection:
    """Do it to one of those at work, chosen by ``pick``."""
    while True:
        at_work = sorted(chaos.working(), key=lambda working: working.node)
        if at_work:
            injection = _choose_targets(chaos, fault, at_work, pick)
            if sum(_send_signal(fault, process) for process in injection.targets):
                return injection
        chaos.wait(chaos.at_work, RECOVERY_S, "the victim had just ended: all at work again")


def _choose_targets(chaos: Chaos, fault: Fault, at_work: Sequence[Working], pick: int) -> Injection:
    target = at_work[pick % len(at_work)]
    machines, driver, node = chaos.cluster.machines, chaos.driver.processes(), target.node
    targets: Sequence[psutil.Process]
    must_end: Sequence[psutil.Process]
    match fault.victim:
        case "rank":
            targets, must_end = [target.ranks[pick % len(target.ranks)]], target.ranks
        case "agent":
            targets, must_end = [target.agent], target.processes
        case "raylet":
            targets, must_end = [chaos.cluster.raylet(node)], ours(machines[node])
        case "node":
            targets = must_end = machines[node].processes()
            if fault.deed == "warn":
                targets = [process for process in must_end if is_ray_start(process)]
        case "driver":
            targets, node = [p for p in driver if is_driver(p)], HEAD
            must_end = [*chaos.ours(), *(driver if fault.deed == "kill" else [])]
        case "gcs":
            targets, must_end, node = [chaos.cluster.gcs()], [*driver, *chaos.ours()], HEAD
        case "head":
            targets, node = [*machines[HEAD].processes(), *driver], HEAD
            must_end = [*targets, *chaos.ours()]
    description = ", ".join(map(describe, targets[:3]))
    return Injection(targets, must_end, node, chaos.attempts_of(must_end), description)


def _send_signal(fault: Fault, process: psutil.Process) -> bool:
    """Whether it was still there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        match fault.deed:
            case "kill":
                process.kill()
            case "warn":
                process.terminate()
            case _:
                process.suspend()
        return True
    return False


def _replace(chaos: Chaos, fault: Fault, injection: Injection) -> None:
    """What an operator does, or what keeps the cluster at its size."""
    match fault.victim:
        case "raylet" | "node":
            chaos.cluster.replace(injection.node)
        case "gcs" | "head":
            chaos.driver.kill()
            chaos.cluster.restart()
            chaos.start_driver()
        case "driver" if fault.deed == "stop":
            _continue(injection.targets)


def _continue(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        resume(process)


def _await_gone(chaos: Chaos, injection: Injection, within_s: float) -> float:
    must_end = list(injection.must_end)
    try:
        return chaos.wait(lambda: not alive(must_end), within_s, "nothing of the victim is left")
    except AssertionError as error:
        left = ", ".join(map(describe, alive(must_end)))
        raise AssertionError(f"{error}; left: {left}") from None


def _await_recovery(chaos: Chaos, injection: Injection) -> None:
    def recovered() -> bool:
        return chaos.at_work() and not injection.attempts & open_attempts(chaos.store)

    chaos.wait(recovered, RECOVERY_S, "its attempts are closed, all work again")


def _states_of(chaos: Chaos, stems: Collection[str]) -> str:
    """What became of the attempts ``stems``: ``lost (infrastructure), succeeded``."""
    parts = []
    for stem in sorted(stems):
        row = attempt_row(chaos.store, stem)
        failure = f" ({row['failure']})" if row.get("failure") else ""
        parts.append(f"{row['state']}{failure}")
    return ", ".join(sorted(parts))
