"""Decide from the attempts at a cell whether it is settled, given up, or tried again.

Pure, and read from rows alone, so that a new driver goes on counting where the last one stopped.
Every class of failure has a budget of its own (:class:`sweep.spec.sweep_file.Retries`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sweep.spec.sweep_file import Retries
from sweep.store.history import EndedAttempt
from sweep.store.schema import TERMINAL_STATES

MOVING = ("cell", "hang")  # classes whose next attempt is made elsewhere
CLASS_OF_STATE = {"failed": "cell", "oom": "memory", "hung": "hang", "lost": "infrastructure"}


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

    Errors that a cell made itself under another ``code_hash`` are not held against it.
    """
    if not attempts:
        return Verdict("again", "new")
    if any(ended.settles for ended in attempts):
        return Verdict("settled", "it has an answer")
    last = attempts[-1]
    said = f"attempt {last.attempt} {last.state}: {last.reason or 'no reason'}"
    answers = [ended for ended in attempts if ended.state in TERMINAL_STATES]
    if len(answers) > policy.tainted:
        return Verdict("settled", f"it has an answer, tainted {len(answers)} times")
    own = [e for e in attempts if code_hash is None or e.code_hash in (None, code_hash)]
    final = _final(own, policy)
    if final is not None and answers:
        return Verdict("settled", f"it has an answer, tainted; then {final}")
    if final is not None:
        return Verdict("final", f"{final}; {said}")
    if last in answers:
        said = f"attempt {last.attempt} tainted: {last.reason or 'no reason'}"
    return Verdict("again", said, _nodes([*answers, *(e for e in own if _class(e) in MOVING)]))


def _final(attempts: Sequence[EndedAttempt], policy: Retries) -> str | None:
    """Why nothing is to be gained from another attempt; None if something is."""
    by_class = {
        name: [ended for ended in attempts if _class(ended) == name]
        for name in ("cell", "memory", "infrastructure", "hang")
    }
    if by_class["memory"]:
        return "out of memory, which would come again"
    alike = Counter(ended.signature for ended in by_class["cell"])
    signature, times = alike.most_common(1)[0] if alike else (None, 0)
    if times > policy.cell:
        where = ", ".join(sorted(_nodes(by_class["cell"]))) or "unknown nodes"
        return f"failed alike {times} times ({signature or 'no signature'}) on {where}"
    if len(by_class["cell"]) > 2 * policy.cell + 1:
        return f"failed {len(by_class['cell'])} times, each time in another way"
    for name, limit in (("infrastructure", policy.infrastructure), ("hang", policy.hang)):
        if len(by_class[name]) > limit:
            return f"{len(by_class[name])} failures of class {name}, allowed are {limit} retries"
    return None


def _class(ended: EndedAttempt) -> str | None:
    """The class of a failure; where the row does not tell it, as its state has it."""
    return ended.failure or CLASS_OF_STATE.get(ended.state)


def _nodes(attempts: Sequence[EndedAttempt]) -> frozenset[str]:
    return frozenset(ended.node for ended in attempts if ended.node is not None)
