"""What does a lease do next? Queue, blocks, retries and strikes of one run, as a state machine.

It has neither clock nor disk: the driver tells it what has happened, it answers what follows, and
the scheduler that is simulated on a thousand nodes (benchmarks/simulate.py) is the one that runs.

With ``pairing = "seed"`` every lease takes the next cell of the queue. With ``pairing = "node"`` a
block has a home: the node that took it first. Where its home is gone it moves, and takes its
reference cell along: cells are then compared with a reference that ran on their own node.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sweep.grid import Cell
from sweep.history import Ended, History
from sweep.plan import Task
from sweep.retry import Verdict, verdict
from sweep.schema import TERMINAL_STATES
from sweep.spec import Retries

LAST_NODE_STRIKES = 3  # times the strikes of any other: without it nothing runs at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What of a sweep file the scheduler goes by; ``reference`` is an activation's label."""

    retries: Retries
    pairing: Literal["seed", "node"]
    reference: str
    trainer_hash: str | None = None


@dataclass
class Scheduler:
    """The cells that are still to run, and where."""

    tasks: Sequence[Task]
    history: History
    rules: Rules
    paused: str | None = None
    stopped: bool = False
    num_running: int = 0
    _queues: dict[str, deque[Task]] = field(default_factory=dict)
    _unclaimed: deque[str] = field(default_factory=deque)
    _again: list[Task] = field(default_factory=list)
    _along: dict[str, deque[Task]] = field(default_factory=lambda: defaultdict(deque))
    _homes: dict[str, str] = field(default_factory=dict)
    _claimed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _attempts: dict[str, list[Ended]] = field(default_factory=dict)
    _num_queued: int = 0
    _held: Counter[str] = field(default_factory=Counter)
    _reachable: frozenset[str] = frozenset()
    _shunned: dict[str, str] = field(default_factory=dict)
    _strikes: Counter[str] = field(default_factory=Counter)
    _alike: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _any_success: bool = False
    _ran: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _references: dict[str, Cell] = field(default_factory=dict)
    _referenced: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for task in self.tasks:
            block = self._block(task.cell)
            if block not in self._queues:
                self._queues[block] = deque()
                self._unclaimed.append(block)
            self._queues[block].append(task)
        self._num_queued = len(self.tasks)

    def know(self, cells: Iterable[Cell]) -> None:
        """Learn from the cells that need nothing: homes of blocks, references, first successes."""
        for cell in cells:
            settled = [e for e in self.history.get(cell.id, ()) if e.state in TERMINAL_STATES]
            self._note_reference(cell, [e.node for e in settled if e.node is not None])
            for ended in settled:
                self._any_success |= self._same_code(ended)
                if self.rules.pairing == "node" and ended.node is not None:
                    self._claim(self._block(cell), ended.node)

    # -- what the driver says

    def hold(self, node: str) -> None:
        """A lease on ``node`` has been granted."""
        self._held[node] += 1

    def let_go(self, node: str) -> None:
        """A lease on ``node`` has been given back or lost."""
        self._held[node] -= 1
        if self._held[node] <= 0:
            del self._held[node]
            for task in self._along.pop(node, ()):
                self._referenced.discard((task.cell.block, node))

    def reach(self, nodes: Iterable[str]) -> None:
        """These are the nodes of the cluster now."""
        self._reachable = frozenset(nodes)

    def refuse(self, node: str, reason: str) -> None:
        """``node`` cannot run cells of this sweep."""
        self._shunned[node] = reason

    def stop(self) -> None:
        """Hand out nothing more."""
        self.stopped = True

    def set_aside(self, task: Task) -> None:
        """``task``, just handed out, is being run by another driver."""
        self.num_running -= 1

    def put_back(self, task: Task) -> None:
        """``task``, set aside before, is to run after all."""
        self._again.append(task)

    def ended(self, task: Task, node: str, ended: Ended) -> Verdict:
        """Take in how an attempt at ``task`` on ``node`` has ended; what follows for its cell."""
        self.num_running -= 1
        attempts = self._attempts.setdefault(task.cell.id, self._counted(task))
        attempts.append(ended)
        self._strike(node, ended)
        self._compare(task.cell, ended)
        if task.is_companion:
            return Verdict("settled", "taken along as a reference")
        if ended.state in TERMINAL_STATES:
            self._take_reference_along(task.cell, node)
        follows = verdict(attempts, self.rules.retries, self.rules.trainer_hash)
        if follows.kind == "again":
            self._again.append(replace(task, why=follows.why, avoid=follows.avoid))
        return follows

    # -- what it answers

    @property
    def num_waiting(self) -> int:
        """Tasks that are not handed out."""
        return self._num_queued + len(self._again) + sum(map(len, self._along.values()))

    @property
    def is_open(self) -> bool:
        """Whether anything is left to hand out."""
        return self.num_waiting > 0 and not self.stopped and self.paused is None

    @property
    def shunned(self) -> Mapping[str, str]:
        """Nodes that get no cells, with the reason."""
        return self._shunned

    def useful_leases(self) -> int:
        """How many leases would all have something to do."""
        if not self.is_open:
            return self.num_running
        if self.rules.pairing == "seed":
            return self.num_running + self.num_waiting
        adrift = sum(
            bool(self._queues[block])
            for node, blocks in self._claimed.items()
            if not self._held[node]
            for block in blocks
        )
        at_home = sum(
            any(self._queues[block] for block in self._claimed[node]) or bool(self._along[node])
            for node in list(self._held)
        )
        more = len(self._unclaimed) + adrift + len(self._again)
        return max(self.num_running + more, min(at_home + more, self.num_waiting))

    def elsewhere(self, node: str) -> frozenset[str] | None:
        """Nodes that a task which ``node`` may not run has to avoid; None if there is no such task.

        To be asked where :meth:`assign` has nothing for a lease on ``node``.
        """
        return next((t.avoid for t in self._again if not self._may_run(t, node)), None)

    def assign(self, node: str) -> Task | None:
        """What a free lease on ``node`` is to do now; None if there is nothing for it."""
        if not self.is_open or node in self._shunned:
            return None
        task = self._take_along(node) or self._retry(node) or self._next(node)
        if task is not None:
            self.num_running += 1
        return task

    # -- how

    def _take_along(self, node: str) -> Task | None:
        return self._along[node].popleft() if self._along.get(node) else None

    def _retry(self, node: str) -> Task | None:
        for index, task in enumerate(self._again):
            if self._may_run(task, node):
                return self._again.pop(index)
        return None

    def _next(self, node: str) -> Task | None:
        block = self._block_for(node)
        if block is None:
            return None
        self._num_queued -= 1
        task = self._queues[block].popleft()
        if not self._queues[block] and self._unclaimed and self._unclaimed[0] == block:
            self._unclaimed.popleft()
        return task

    def _block_for(self, node: str) -> str | None:
        if self.rules.pairing == "seed":
            return self._unclaimed[0] if self._unclaimed else None
        for block in self._claimed[node]:
            if self._queues.get(block):
                return block
        self._claimed[node] = []
        if self._unclaimed:
            return self._claim(self._unclaimed.popleft(), node)
        for other in [other for other in self._claimed if not self._held[other]]:
            for block in self._claimed[other]:
                if self._queues.get(block):
                    return self._claim(block, node)
        return None

    def _claim(self, block: str, node: str) -> str:
        previous = self._homes.get(block)
        if previous is not None and block in self._claimed[previous]:
            self._claimed[previous].remove(block)
        self._homes[block] = node
        if block not in self._claimed[node]:
            self._claimed[node].append(block)
        if block in self._unclaimed:
            self._unclaimed.remove(block)
        return block

    def _may_run(self, task: Task, node: str) -> bool:
        usable = (self._reachable or frozenset(self._held)) - set(self._shunned)
        if node in task.avoid:
            return not usable - task.avoid
        home = self._homes.get(self._block(task.cell))
        return home in (None, node) or not self._held[home] or home in task.avoid

    def _strike(self, node: str, ended: Ended) -> None:
        if ended.state in TERMINAL_STATES:
            del self._strikes[node]
        if ended.failure != "infrastructure":
            return
        self._strikes[node] += 1
        count, limit = self._strikes[node], self.rules.retries.strikes
        if count < limit:
            return
        reason = f"{count} failures of class infrastructure in a row; the last: {ended.reason}"
        if self._reachable - set(self._shunned) - {node}:
            self._shunned[node] = reason
        elif count >= LAST_NODE_STRIKES * limit:
            self.paused = f"node {node} is the last one and has {reason}"

    def _compare(self, cell: Cell, ended: Ended) -> None:
        """Pause where different cells fail alike and none has succeeded yet."""
        if ended.state in TERMINAL_STATES:
            self._any_success = True
        alike = ended.signature or ended.reason
        if self._any_success or alike is None or ended.failure in ("user", "driver"):
            return
        self._alike[alike].add(cell.id)
        if len(self._alike[alike]) >= self.rules.retries.alike:
            self.paused = (
                f"{len(self._alike[alike])} different cells have failed alike and none has "
                f"succeeded: {alike}"
            )

    def _take_reference_along(self, cell: Cell, node: str) -> None:
        """Where cells of a block have run away from its reference, run it once more beside them."""
        if self.rules.pairing == "seed":
            return
        block = cell.block
        self._ran[block].add(node)
        self._note_reference(cell, [node])
        reference = self._references.get(block)
        if reference is None:
            return
        for other in self._ran[block]:
            if (block, other) not in self._referenced and self._held[other]:
                self._referenced.add((block, other))
                why = f"the reference of block {block}, whose cells also ran on {other}"
                self._along[other].append(Task(reference, why, is_companion=True))

    def _note_reference(self, cell: Cell, nodes: Iterable[str]) -> None:
        if cell.spec.activation.label == self.rules.reference and self.rules.pairing == "node":
            for node in nodes:
                self._references[cell.block] = cell
                self._referenced.add((cell.block, node))

    def _block(self, cell: Cell) -> str:
        return cell.block if self.rules.pairing == "node" else ""

    def _counted(self, task: Task) -> list[Ended]:
        """The earlier attempts that count: none where the cell was asked for anew."""
        if task.afresh:
            return []
        return [e for e in self.history.get(task.cell.id, ()) if e.generation == task.generation]

    def _same_code(self, ended: Ended) -> bool:
        known = self.rules.trainer_hash
        return known is None or ended.trainer_hash in (None, known)
