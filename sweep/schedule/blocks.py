"""Queues of untried cells by block, and the home node of each block.

With ``paired`` a block has a home: the node that took it first. Where no lease is held on its home
it has none, and whichever node takes it next is its new home. Otherwise all cells are one queue.
"""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable

from sweep.schedule.plan import Task
from sweep.spec.grid import Cell


class Blocks:
    """Queues of tasks. Every operation takes as long however many cells and nodes there are."""

    def __init__(self, tasks: Iterable[Task], *, paired: bool) -> None:
        self._paired = paired
        self._queues: dict[str, deque[Task]] = {}
        self._homes: dict[str, str] = {}
        self._at_home: dict[str, dict[str, None]] = defaultdict(dict)
        self._held: set[str] = set()
        for task in tasks:
            self._queues.setdefault(self._key(task.cell), deque()).append(task)
        self._unclaimed = OrderedDict.fromkeys(self._queues)
        self._homeless: OrderedDict[str, None] = OrderedDict()
        self.num_queued = sum(map(len, self._queues.values()))

    @property
    def num_free(self) -> int:
        """How many nodes could begin something here: blocks without a home, or single cells."""
        return len(self._unclaimed) + len(self._homeless) if self._paired else self.num_queued

    def num_at_home(self, node: str) -> int:
        """Cells of the blocks that are at home on ``node``."""
        return sum(len(self._queues[block]) for block in self._at_home.get(node, ()))

    def home(self, cell: Cell) -> str | None:
        """The node where a lease is held and the block of ``cell`` is at home; None without one."""
        home = self._homes.get(cell.block)
        return home if home in self._held else None

    def add_node(self, node: str) -> None:
        """The first lease on ``node`` is there."""
        self._held.add(node)
        for block in self._at_home.get(node, ()):
            del self._homeless[block]

    def remove_node(self, node: str) -> None:
        """The last lease on ``node`` is gone."""
        self._held.discard(node)
        self._homeless.update(self._at_home.get(node, {}))

    def take(self, node: str, *, own_only: bool = False) -> Task | None:
        """The next cell for ``node``: of a block at home there, of a new one, of a homeless one."""
        block = next(iter(self._at_home.get(node, ())), None)
        if block is None and not own_only:
            block = next(iter(self._unclaimed or self._homeless), None)
        if block is None:
            return None
        self.set_home(block, node)
        queue = self._queues[block]
        task = queue.popleft()
        self.num_queued -= 1
        if not queue:
            self._forget(block)
        return task

    def set_home(self, block: str, node: str) -> None:
        """From now on ``block`` is at home on ``node``."""
        previous = self._homes.get(block)
        if not self._paired or previous == node:
            return
        self._homes[block] = node
        if block not in self._queues:
            return
        self._unclaimed.pop(block, None)
        self._homeless.pop(block, None)
        if previous is not None:
            del self._at_home[previous][block]
        self._at_home[node][block] = None
        if node not in self._held:
            self._homeless[block] = None

    def _forget(self, block: str) -> None:
        del self._queues[block]
        self._unclaimed.pop(block, None)
        self._homeless.pop(block, None)
        if self._paired:
            del self._at_home[self._homes[block]][block]

    def _key(self, cell: Cell) -> str:
        return cell.block if self._paired else ""
