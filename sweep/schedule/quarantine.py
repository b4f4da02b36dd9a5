"""Put failing nodes in quarantine, and pause the sweep where all cells fail alike.

Whatever ends on a node without an answer is a strike against it, unless the same cell fails alike
elsewhere. With some strikes by different cells and no success between them (more where other nodes
fail often too) the node gets no more cells, as long as there is another, and what failed on it is
void: not held against the cells. Strikes age, and quarantine ends with them. All of it is read from
rows, so that a new driver judges as the last one did.

The sweep pauses where infrastructure fails again and again on its last node, and where different
cells fail alike before any succeeds.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import median_low

from sweep.schedule.retry import NOBODYS, failure_class
from sweep.spec.sweep_file import Retries
from sweep.store.history import AttemptKey, EndedAttempt, History, by_time, void_divergences
from sweep.store.schema import TERMINAL_STATES

LAST_NODE_STRIKES = 3  # times the strikes of any other: without it nothing runs at all
COMMON = 0.1  # failures that are alike, to cells that run: fewer are no fault of the sweep
USUAL = 0.1  # of a node's attempts fail; where more do, more strikes are needed to be as improbable
EVERYWHERE = 3  # nodes on which a cell fails alike, after which it is the cell, whatever they are
# A node that crashes under load does so soon; one that is taken away is taken at any time. With a
# mean time between preemptions of 8 h one of 48 comes as early as this.
SHORT_LIFE_S = 600.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """An end without an answer, and what makes others like it; ``key`` is None without a cell."""

    key: AttemptKey | None
    kind: tuple[str, str | None]
    at_s: float
    reason: str | None

    @property
    def question(self) -> tuple[str | None, tuple[str, str | None]]:
        """What another node may answer alike: the cell, and how it failed."""
        return self.key and self.key[0], self.kind


class Quarantine:
    """Strikes against nodes, and failures that are alike.

    ``history``: what is known from before; ``now_s``: the time, if it is later than all of that.
    """

    def __init__(
        self, retries: Retries, history: History, *, any_success: bool = False, now_s: float = 0.0
    ) -> None:
        self._retries, self._any_success = retries, any_success
        self._ended: dict[str, list[EndedAttempt]] = defaultdict(list)
        self._failures: dict[str, list[_Failure]] = {}  # of a node, since its last success
        self._succeeded_at_s: dict[str, float] = {}
        self._num_ended: Counter[str] = Counter()
        self._num_failed: Counter[str] = Counter()
        self._nodes_of: dict[object, set[str]] = defaultdict(set)
        self._went: set[str] = set()
        self._alike: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._struck: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._reachable: frozenset[str] = frozenset()
        self._excused: set[AttemptKey] = set()
        self._void_divergences: frozenset[AttemptKey] = frozenset()
        self._now_s = 0.0
        self.suspects: set[str] = set()
        self.paused: str | None = None
        for cell_id, ended in by_time(history):
            self._take_in(cell_id, ended)
        self._now_s = max(self._now_s, now_s)
        self._find_void_divergences()

    # -- what is told

    def add_node(self, node: str) -> None:
        """``node`` is there, perhaps again."""
        self._went.discard(node)

    def set_reachable(self, nodes: Iterable[str]) -> None:
        """These are the nodes of the cluster now; none: it is not known."""
        found = frozenset(nodes)
        if found and found != self._reachable:
            self._reachable = found
            self._review(())

    def record_end(self, cell_id: str, ended: EndedAttempt, num_running: int) -> None:
        """Draw the conclusions from an attempt that has ended, while others run."""
        self._take_in(cell_id, ended)
        answers = {other.state for other in self._ended[cell_id] if other.is_answer}
        if (ended.is_answer and len(answers) > 1) or (
            ended.has_diverged and ended.node in self._struck
        ):
            self._find_void_divergences()
        if ended.state in TERMINAL_STATES:
            self._any_success = True
        elif ended.failure == "infrastructure" and ended.node is not None:
            self._pause_at_last_node(ended.node)
        if not self._any_success and ended.node is not None:
            self._compare(cell_id, ended.node, ended, num_running)

    def lost_while_preparing(self, node: str, reason: str) -> None:
        """A lease on ``node`` was lost before it could be used; all of them go at once."""
        if node not in self._went:
            self._went.add(node)
            self._add(node, _Failure(None, ("infrastructure", None), self._now_s, reason))
            self._pause_at_last_node(node)

    def refuse(self, node: str, reason: str) -> None:
        """``node`` cannot run cells of this sweep."""
        self._refused[node] = reason

    def forgive(self) -> None:
        """No other node is to be had: forget the strikes."""
        self._failures.clear()
        self._review(())

    # -- what it answers

    @property
    def quarantined(self) -> Mapping[str, str]:
        """Nodes that get no cells, with the reason."""
        return self._struck | self._refused

    @property
    def void(self) -> frozenset[AttemptKey]:
        """Attempts that count for nothing."""
        return self._void_divergences | self._excused

    def has_other_node(self, avoid: Collection[str]) -> bool:
        """Whether a node is there that is neither in quarantine nor in ``avoid``."""
        return any(
            node not in self._struck and node not in self._refused and node not in avoid
            for node in self._reachable
        )

    # -- how

    def _take_in(self, cell_id: str, ended: EndedAttempt) -> None:
        self._now_s = max(self._now_s, ended.ended_at_s)
        self._ended[cell_id].append(ended)
        node = ended.node
        if node is None or failure_class(ended) in NOBODYS:
            return
        failure = _Failure((cell_id, ended.attempt), _kind(ended), ended.ended_at_s, ended.reason)
        self._num_ended[node] += 1
        if ended.is_success:
            self._succeeded_at_s[node] = ended.ended_at_s
            before = self._failures.pop(node, [])
            self._review({node}.union(*(self._nodes_of[f.question] for f in before)))
        elif ended.has_diverged and not ended.to_confirm:  # it may confirm another's
            self._nodes_of[failure.question].add(node)
            self._review(self._nodes_of[failure.question])
        elif ended.state != "lost" or self._is_first_of_loss(node, ended):
            self._num_failed[node] += 1
            self._add(node, failure)

    def _is_first_of_loss(self, node: str, ended: EndedAttempt) -> bool:
        """All leases of a node go at once, which is one strike; after a long life it is none."""
        self._went.add(node)
        began_at_s = ended.ended_at_s - ended.wall_s
        of_node = (f for f in self._failures.get(node, ()) if f.kind[0] == "infrastructure")
        return ended.wall_s < SHORT_LIFE_S and all(f.at_s < began_at_s for f in of_node)

    def _add(self, node: str, failure: _Failure) -> None:
        self._failures.setdefault(node, []).append(failure)
        self._nodes_of[failure.question].add(node)
        self._review(self._nodes_of[failure.question])

    def _find_void_divergences(self) -> None:
        self._void_divergences = void_divergences(self._ended)
        self._review(self._failures)

    def _review(self, nodes: Collection[str]) -> None:
        """Who is in quarantine now, of ``nodes`` and of those with strikes."""
        for node in sorted({*nodes, *self.suspects}):
            failures = self._young(node)
            strikes = [f for f in failures if self._is_strike(node, f)]
            (self.suspects.add if strikes else self.suspects.discard)(node)
            excused = {f.key for f in failures if f.key is not None and f.kind[0] != "diverged"}
            is_bad = self._is_bad(node, strikes)
            if is_bad and (node in self._struck or self._has_company(node, strikes[0].at_s)):
                self._excused |= excused
                self._struck[node] = (
                    f"{len(strikes)} attempts in a row ended there without an answer, the last: "
                    f"{strikes[-1].reason}. Once it is mended, `make rerun FAILED=1` uses it again."
                )
            elif self._struck.pop(node, None) is not None:
                self._excused -= excused

    def _young(self, node: str) -> list[_Failure]:
        """The failures of ``node``, without those that are forgotten; in quarantine all at once."""
        failures = self._failures.pop(node, [])
        young = [f for f in failures if f.at_s > self._now_s - self._retries.strike_age_s]
        if young:
            self._failures[node] = failures if node in self._struck else young
        return self._failures.get(node, [])

    def _is_bad(self, node: str, strikes: Collection[_Failure]) -> bool:
        if any(f.key in self._void_divergences for f in strikes):
            return True
        in_preparing = sum(f.key is None for f in strikes)
        count = in_preparing + len({f.key[0] for f in strikes if f.key is not None})
        if count < self._retries.strikes:
            return False
        return max(USUAL, self._usual_rate(node)) ** count <= USUAL**self._retries.strikes

    def _usual_rate(self, node: str) -> float:
        """What part of the attempts fails on other nodes: the median, for some may be bad too."""
        others = (self._reachable or self._num_ended.keys()) - self.quarantined.keys() - {node}
        rates = [self._num_failed[other] / (self._num_ended[other] or 1) for other in others]
        return median_low(rates) if rates else 0.0

    def _is_strike(self, node: str, failure: _Failure) -> bool:
        """Whether it is the node's: no other node repeats it at the same cell.

        A fault of the infrastructure always is. A divergence is the cell's if any other node
        repeats it; other failures only if that node can be trusted, since two bad nodes hang alike.
        """
        others = self._nodes_of[failure.question] - {node}
        match failure.kind[0]:
            case "infrastructure":
                return True
            case "diverged":
                return not others
        is_everywhere = len(others) >= EVERYWHERE - 1
        return not is_everywhere and not any(self._can_be_trusted(o, failure) for o in others)

    def _can_be_trusted(self, node: str, failure: _Failure) -> bool:
        """``node`` succeeded right before it failed alike, or has succeeded since."""
        questions = [f.question for f in self._failures.get(node, ())]
        is_alone = failure.question not in questions or failure.question == questions[0]
        return node in self._succeeded_at_s and is_alone

    def _has_company(self, node: str, since_s: float) -> bool:
        """Another node is there; where that is not known: one has succeeded meanwhile."""
        if self._reachable:
            return self.has_other_node({node})
        return any(
            at_s >= since_s and other != node and other not in self._struck
            for other, at_s in self._succeeded_at_s.items()
        )

    def _pause_at_last_node(self, node: str) -> None:
        of_node = [f for f in self._failures.get(node, ()) if f.kind[0] == "infrastructure"]
        is_last = not self.has_other_node({node}) and node not in self._struck
        if is_last and len(of_node) >= LAST_NODE_STRIKES * self._retries.strikes:
            self.paused = (
                f"node {node} is the last one and has {len(of_node)} failures of class "
                f"infrastructure in a row; the last: {of_node[-1].reason}"
            )

    def _compare(self, cell_id: str, node: str, ended: EndedAttempt, num_running: int) -> None:
        alike = ended.signature or ended.reason
        # Nodes that go say nothing of the cells: a wave of preemptions may come before any success.
        if alike is None or ended.state == "lost" or ended.failure in NOBODYS:
            return
        failed = self._alike[alike]
        failed.add((cell_id, node))
        count, nodes = len({cell_id for cell_id, _ in failed}), {where for _, where in failed}
        # Of a thousand cells a few fail before the first succeeds; and on one or two nodes of
        # several it is the nodes that are broken, as far as is known.
        is_common = count >= max(self._retries.alike, num_running * COMMON)
        if is_common and (len(nodes) >= EVERYWHERE or not self.has_other_node(nodes)):
            self.paused = (
                f"{count} different cells have failed alike and none has succeeded: {alike}"
            )


def void_attempts(history: History, retries: Retries) -> frozenset[AttemptKey]:
    """The attempts of ``history`` that count for nothing, since it was their node that failed."""
    return Quarantine(retries, history).void


def _kind(ended: EndedAttempt) -> tuple[str, str | None]:
    if ended.tainted:
        return "tainted", None
    if ended.state in TERMINAL_STATES:
        return ended.state, None
    kind = failure_class(ended) or ended.state
    return kind, ended.signature if kind == "cell" else None
