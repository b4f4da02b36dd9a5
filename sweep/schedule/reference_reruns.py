"""Which references are owed to which node? For cells that ran away from their block's reference.

Where a block has moved, its cells are compared with a reference that ran on their own node: it runs
once more there, as soon as it is known and a lease on that node is held.
"""

from collections import defaultdict

from sweep.schedule.plan import Task
from sweep.schedule.retry import verdict
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import Retries
from sweep.store.history import Ended


class Companions:
    """What is owed, what is under way, and what has been given up."""

    def __init__(self, retries: Retries, trainer_hash: str | None) -> None:
        self._retries, self._trainer_hash = retries, trainer_hash
        self._references: dict[str, Task] = {}
        self._ran: dict[str, dict[str, None]] = defaultdict(dict)
        self._served: set[tuple[str, str]] = set()
        self._owed: dict[str, dict[str, None]] = defaultdict(dict)
        self._attempts: dict[tuple[str, str], list[Ended]] = defaultdict(list)
        self._held: set[str] = set()
        self.num_owed = 0  # to nodes with a lease

    def hold(self, node: str) -> None:
        """The first lease on ``node`` is there."""
        self._held.add(node)
        self.num_owed += self.num_owed_to(node)

    def let_go(self, node: str) -> None:
        """The last lease on ``node`` is gone."""
        self._held.discard(node)
        self.num_owed -= self.num_owed_to(node)

    def num_owed_to(self, node: str) -> int:
        return len(self._owed.get(node, ()))

    def settled(self, cell: Cell, node: str, *, generation: int, is_reference: bool) -> None:
        """``cell`` has an untainted answer from ``node``."""
        block = cell.block
        self._ran[block][node] = None
        if is_reference:
            self._references[block] = Task(cell, "", generation, is_companion=True)
            self._served.add((block, node))
            self._cancel(block, node)
            for other in self._ran[block]:
                self._owe(block, other)
        self._owe(block, node)

    def take(self, node: str) -> Task | None:
        """A reference to run once more on ``node``."""
        block = next(iter(self._owed.get(node, ())), None)
        if block is None:
            return None
        self._cancel(block, node)
        self._served.add((block, node))
        reference, why = (
            self._references[block],
            f"the reference of block {block}, beside its cells",
        )
        return Task(reference.cell, why, reference.generation, is_companion=True)

    def ended(self, task: Task, node: str, ended: Ended) -> None:
        """Try again what has failed, within the budgets of any other cell."""
        block = task.cell.block
        attempts = self._attempts[block, node]
        attempts.append(ended)
        if verdict(attempts, self._retries, self._trainer_hash).kind == "again":
            self._served.discard((block, node))
            self._owe(block, node)

    def _owe(self, block: str, node: str) -> None:
        known = block in self._references and (block, node) not in self._served
        if known and block not in self._owed[node]:
            self._owed[node][block] = None
            self.num_owed += node in self._held

    def _cancel(self, block: str, node: str) -> None:
        if block in self._owed[node]:
            del self._owed[node][block]
            self.num_owed -= node in self._held
