"""Decide from the attempts at a cell whether it is settled, given up, or tried again.

Pure, and read from rows alone, so that a new driver goes on counting where the last one stopped.
Every class of failure has a budget of its own (:class:`sweep.spec.sweep_file.Retries`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sweep.spec.sweep_file import Retries
from sweep.store.history import EndedAttempt, preemptions
from sweep.store.schema import TERMINAL_STATES

NOBODYS = ("user", "driver", "preemption")  # classes that are no fault of cell or node
MOVING = ("cell", "memory", "hang")  # classes whose next attempt is made elsewhere
CLASS_OF_STATE = {
    "failed": "cell",
    "oom": "memory",
    "hung": "hang",
    "lost": "infrastructure",
    "interrupted": "user",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``kind`` and the reason; ``avoid`` are nodes where a further attempt would prove nothing.

    A cell is *settled* by an answer and *final* without one.
    """

    kind: Literal["settled", "final", "again"]
    why: str
    avoid: frozenset[str] = frozenset()


def verdict(attempts: Sequence[EndedAttempt], policy: Retries, code_hash: str | None) -> Verdict:
    """What follows from ``attempts``, lowest number first, of one generation.

    Void ones, and errors that a cell made itself under another ``code_hash``, are not held against
    it. A divergence that is to be confirmed is repeated once.
    """
    if not attempts:
        return Verdict("again", "new")
    counted = [ended for ended in attempts if not ended.is_void]
    if any(ended.settles for ended in counted):
        return Verdict("settled", "it has an answer")
    answers = [ended for ended in counted if ended.state in TERMINAL_STATES]
    tainted = [ended for ended in answers if ended.tainted]
    if len(tainted) > policy.tainted:
        return Verdict("settled", f"it has an answer, tainted {len(tainted)} times")
    own = [e for e in counted if code_hash is None or e.code_hash in (None, code_hash)]
    final, said = _final(own, policy), _said(attempts)
    if final is not None and answers:
        what = "tainted" if tainted else "not confirmed"
        return Verdict("settled", f"it has an answer, {what}; then {final}")
    if final is not None:
        return Verdict("final", f"{final}; {said}")
    moving = (ended for ended in own if failure_class(ended) in MOVING)
    return Verdict("again", said, _nodes([*answers, *moving]) | _failing(own))


def _said(attempts: Sequence[EndedAttempt]) -> str:
    """What became of the last attempt, and how often the cell was preempted if that was often."""
    last = attempts[-1]
    state = "tainted" if last.tainted else last.state
    said = f"attempt {last.attempt} {state}: {last.reason or 'no reason'}"
    if last.is_void:
        said += ", which counts against its node"
    elif last.to_confirm:
        said += "; to be confirmed on another node"
    often = preemptions(attempts)
    return f"{said}; {often}" if often else said


def _final(attempts: Sequence[EndedAttempt], policy: Retries) -> str | None:
    """Why nothing is to be gained from another attempt; None if something is."""
    limits = {
        "memory": policy.memory,
        "infrastructure": policy.infrastructure,
        "hang": policy.hang,
    }
    by_class = {
        name: [ended for ended in attempts if failure_class(ended) == name]
        for name in ("cell", *limits)
    }
    alike = Counter(ended.signature for ended in by_class["cell"])
    signature, times = alike.most_common(1)[0] if alike else (None, 0)
    if times > policy.cell:
        where = ", ".join(sorted(_nodes(by_class["cell"]))) or "unknown nodes"
        return f"failed alike {times} times ({signature or 'no signature'}) on {where}"
    if len(by_class["cell"]) > 2 * policy.cell + 1:
        return f"failed {len(by_class['cell'])} times, each time in another way"
    for name, limit in limits.items():
        if (count := len(by_class[name])) > limit:
            said = f"out of memory {count} times" if name == "memory" else None
            said = said or f"{count} failures of class {name}"
            return f"{said}, allowed are {limit} retries"
    return None


def failure_class(ended: EndedAttempt) -> str | None:
    """The class of a failure; where the row does not tell it, as its state has it."""
    return ended.failure or CLASS_OF_STATE.get(ended.state)


def _failing(attempts: Sequence[EndedAttempt]) -> frozenset[str]:
    """Nodes whose infrastructure has failed the cell twice."""
    faults = Counter(e.node for e in attempts if failure_class(e) == "infrastructure")
    return frozenset(node for node, times in faults.items() if node is not None and times > 1)


def _nodes(attempts: Sequence[EndedAttempt]) -> frozenset[str]:
    return frozenset(ended.node for ended in attempts if ended.node is not None)
