"""Put failing nodes in quarantine, and pause the sweep where all cells fail alike.

A node gets no more cells after some infrastructure failures without a success between them. The
sweep pauses where that would be its last node, and where different cells fail alike before any
succeeds.
"""

from collections import Counter, defaultdict
from collections.abc import Collection

from sweep.spec.grid import Cell
from sweep.spec.sweep_file import Retries
from sweep.store.history import EndedAttempt
from sweep.store.schema import TERMINAL_STATES

LAST_NODE_STRIKES = 3  # times the strikes of any other: without it nothing runs at all
COMMON = 0.1  # failures that are alike, to cells that run: fewer are no fault of the sweep


class Quarantine:
    """Strikes against nodes, and failures that are alike. ``reachable``: the cluster's nodes."""

    def __init__(self, retries: Retries, *, any_success: bool) -> None:
        self._retries, self._any_success = retries, any_success
        self._strikes: Counter[str] = Counter()
        self._went: set[str] = set()
        self._alike: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.reachable: Collection[str] = frozenset()
        self.quarantined: dict[str, str] = {}
        self.paused: str | None = None

    def add_node(self, node: str) -> None:
        """``node`` is there, perhaps again."""
        self._went.discard(node)

    def record_end(self, cell: Cell, node: str, ended: EndedAttempt, num_running: int) -> None:
        """Draw the conclusions from an attempt that has ended on ``node``, while others run."""
        if ended.state in TERMINAL_STATES:
            del self._strikes[node]
            self._any_success = True
        elif ended.failure == "infrastructure":
            # all leases of a node go at once, which is one strike
            self.strike(node, ended.reason, went=ended.state == "lost")
        if not self._any_success:
            self._compare(cell, node, ended, num_running)

    def has_other_node(self, avoid: Collection[str]) -> bool:
        """Whether a node is there that is neither in quarantine nor in ``avoid``."""
        return any(node not in self.quarantined and node not in avoid for node in self.reachable)

    def strike(self, node: str, reason: str | None, *, went: bool) -> None:
        """Hold a failure of class infrastructure against ``node``, which ``went`` with it."""
        if went:
            if node in self._went:
                return
            self._went.add(node)
        self._strikes[node] += 1
        count, limit = self._strikes[node], self._retries.strikes
        if count < limit:
            return
        reason = f"{count} failures of class infrastructure in a row; the last: {reason}"
        if self.has_other_node({node}):
            self.quarantined[node] = reason
        elif count >= LAST_NODE_STRIKES * limit:
            self.paused = f"node {node} is the last one and has {reason}"

    def _compare(self, cell: Cell, node: str, ended: EndedAttempt, num_running: int) -> None:
        alike = ended.signature or ended.reason
        # Nodes that go say nothing of the cells: a wave of preemptions may come before any success.
        if alike is None or ended.state == "lost" or ended.failure in ("user", "driver"):
            return
        failed = self._alike[alike]
        failed.add((cell.id, node))
        count, nodes = len({cell_id for cell_id, _ in failed}), {where for _, where in failed}
        # Of a thousand cells a few fail before the first succeeds; and on one node of several it is
        # the node that is broken, as far as is known.
        is_common = count >= max(self._retries.alike, num_running * COMMON)
        if is_common and (len(nodes) > 1 or not self.has_other_node(nodes)):
            self.paused = (
                f"{count} different cells have failed alike and none has succeeded: {alike}"
            )
