"""The attempts at a cell that have ended, and the choice of the one that counts. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sweep.store.schema import TERMINAL_STATES

CONTRADICTED = 2  # cells after which it is the node that diverges
PREEMPTED_OFTEN = 3  # times, after which it is said


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempt:
    """What planning needs to know of an attempt that has ended.

    ``code_hash`` is of the code that answered, the trainer's or the script's; None where the row
    does not say it. ``score``: of the stage that is tested. ``is_timed``: its budget is in seconds.
    ``to_confirm``: of a divergence, whether another node is to repeat it before it settles the
    cell. ``is_void``: it counts for nothing, since it is its node that failed.
    """

    attempt: int
    state: str
    tainted: bool
    reason: str | None
    wall_s: float
    ended_at_s: float
    failure: str | None = None
    signature: str | None = None
    node: str | None = None
    code_hash: str | None = None
    generation: int = 0
    score: float | None = None
    is_timed: bool = False
    to_confirm: bool | None = None
    is_void: bool = False

    @property
    def settles(self) -> bool:
        """The cell needs no other attempt."""
        return self.is_answer and not self.is_void and not self.to_confirm

    @property
    def is_answer(self) -> bool:
        """It ended in an answer that nothing has disturbed."""
        return self.state in TERMINAL_STATES and not self.tainted

    @property
    def is_success(self) -> bool:
        return self.is_answer and self.state == "succeeded"

    @property
    def has_diverged(self) -> bool:
        return self.is_answer and self.state == "diverged"


History = Mapping[str, Sequence[EndedAttempt]]
"""Ended attempts by cell id, lowest number first."""

AttemptKey = tuple[str, int]
"""Cell id and number of an attempt."""


def select_attempt(attempts: Sequence[EndedAttempt]) -> EndedAttempt:
    """The attempt that stands for its cell, see :func:`selection_key`."""
    return min(attempts, key=selection_key)


def selection_key(ended: EndedAttempt) -> tuple[int, int, bool, int]:
    """A key that is least for the attempt that stands for its cell.

    That is, of the latest generation with an answer, the first one, so that re-running cannot pick.
    Where there is none, it is the first tainted result, then the latest attempt. A divergence that
    an earlier version has written, which noted no ``to_confirm``, gives way to a success, as it did
    then.
    """
    if ended.state not in TERMINAL_STATES or ended.is_void:
        return 2, 0, False, -ended.attempt
    gives_way = ended.has_diverged and ended.to_confirm is None
    return int(ended.tainted), -ended.generation, gives_way, ended.attempt


def latest_generation(attempts: Sequence[EndedAttempt]) -> int:
    return max((ended.generation for ended in attempts), default=0)


def preemptions(attempts: Sequence[EndedAttempt]) -> str | None:
    """How often the cell was preempted and what that cost, if it was often."""
    lost = [ended.wall_s for ended in attempts if ended.failure == "preemption"]
    if len(lost) < PREEMPTED_OFTEN:
        return None
    return f"preempted {len(lost)} times, {sum(lost) / 3600:.1f} h without an answer"


def by_time(history: History) -> Iterator[tuple[str, EndedAttempt]]:
    """Every attempt with the id of its cell, in the order in which they ended."""
    everything = [(cell_id, ended) for cell_id, each in history.items() for ended in each]
    yield from sorted(everything, key=lambda pair: pair[1].ended_at_s)


def with_void(history: History, void: Collection[AttemptKey]) -> dict[str, list[EndedAttempt]]:
    """``history`` with those attempts marked as void."""
    return {cell_id: mark_void(cell_id, attempts, void) for cell_id, attempts in history.items()}


def mark_void(
    cell_id: str, attempts: Sequence[EndedAttempt], void: Collection[AttemptKey]
) -> list[EndedAttempt]:
    return [replace(e, is_void=True) if (cell_id, e.attempt) in void else e for e in attempts]


def void_divergences(history: History) -> frozenset[AttemptKey]:
    """The divergences of nodes that compute what is no number, whatever the cell.

    That is a node's where, without a success on it between, it diverged at two cells of fixed steps
    that succeeded on other nodes. Nothing that comes later changes that.
    """
    contradicted = {key for cell_id in history for key in _contradicted(cell_id, history[cell_id])}
    if len(contradicted) < CONTRADICTED:
        return frozenset()
    nodes = {e.node for cell_id, e in by_time(history) if (cell_id, e.attempt) in contradicted}
    runs: dict[str, list[set[AttemptKey]]] = defaultdict(lambda: [set()])
    for cell_id, ended in by_time(history):
        if ended.node is None or ended.node not in nodes:
            continue
        if ended.is_success:
            runs[ended.node].append(set())
        elif ended.has_diverged:
            runs[ended.node][-1].add((cell_id, ended.attempt))
    return frozenset(
        key
        for of_node in runs.values()
        for run in of_node
        if len({cell_id for cell_id, _ in run & contradicted}) >= CONTRADICTED
        for key in run
    )


def _contradicted(cell_id: str, attempts: Sequence[EndedAttempt]) -> Iterator[AttemptKey]:
    """Divergences at a cell of fixed steps that has succeeded on another node."""
    succeeded = {(ended.generation, ended.node) for ended in attempts if ended.is_success}
    for ended in attempts:
        others = {node for generation, node in succeeded if generation == ended.generation}
        if ended.has_diverged and not ended.is_timed and others - {ended.node, None}:
            yield cell_id, ended.attempt
