"""Run reference cells again on nodes where cells of their block ran without them.

Where a block has moved, its cells are compared with a reference that ran on their own node: it runs
once more there, as soon as it is known and a lease on that node is held.
"""

from collections import defaultdict

from sweep.schedule.plan import Task
from sweep.schedule.retry import verdict
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import Retries
from sweep.store.history import EndedAttempt


class ReferenceReruns:
    """Reruns that are pending, by node, and those that were handed out."""

    def __init__(self, retries: Retries, trainer_hash: str | None) -> None:
        self._retries, self._trainer_hash = retries, trainer_hash
        self._references: dict[str, Task] = {}
        self._ran: dict[str, dict[str, None]] = defaultdict(dict)
        self._taken: set[tuple[str, str]] = set()
        self._pending: dict[str, dict[str, None]] = defaultdict(dict)
        self._attempts: dict[tuple[str, str], list[EndedAttempt]] = defaultdict(list)
        self._held: set[str] = set()
        self.num_pending = 0  # to nodes with a lease

    def add_node(self, node: str) -> None:
        """The first lease on ``node`` is there."""
        self._held.add(node)
        self.num_pending += self.num_pending_on(node)

    def remove_node(self, node: str) -> None:
        """The last lease on ``node`` is gone."""
        self._held.discard(node)
        self.num_pending -= self.num_pending_on(node)

    def num_pending_on(self, node: str) -> int:
        return len(self._pending.get(node, ()))

    def settled(self, cell: Cell, node: str, *, generation: int, is_reference: bool) -> None:
        """``cell`` has an untainted answer from ``node``."""
        block = cell.block
        self._ran[block][node] = None
        if is_reference:
            self._references[block] = Task(cell, "", generation, is_reference_rerun=True)
            self._taken.add((block, node))
            self._cancel(block, node)
            for other in self._ran[block]:
                self._add_pending(block, other)
        self._add_pending(block, node)

    def take(self, node: str) -> Task | None:
        """A reference to run once more on ``node``."""
        block = next(iter(self._pending.get(node, ())), None)
        if block is None:
            return None
        self._cancel(block, node)
        self._taken.add((block, node))
        reference, why = (
            self._references[block],
            f"the reference of block {block}, on the node of its cells",
        )
        return Task(reference.cell, why, reference.generation, is_reference_rerun=True)

    def record_end(self, task: Task, node: str, ended: EndedAttempt) -> None:
        """Try again what has failed, within the budgets of any other cell."""
        block = task.cell.block
        attempts = self._attempts[block, node]
        attempts.append(ended)
        code = task.cell.code_hash(self._trainer_hash)
        if verdict(attempts, self._retries, code).kind == "again":
            self._taken.discard((block, node))
            self._add_pending(block, node)

    def _add_pending(self, block: str, node: str) -> None:
        known = block in self._references and (block, node) not in self._taken
        if known and block not in self._pending[node]:
            self._pending[node][block] = None
            self.num_pending += node in self._held

    def _cancel(self, block: str, node: str) -> None:
        if block in self._pending[node]:
            del self._pending[node][block]
            self.num_pending -= node in self._held
