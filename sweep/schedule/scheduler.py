"""Choose the next cell for a lease: cells, retries and nodes of one run, as a state machine.

It has neither clock nor disk: the driver tells it what has happened, it answers what follows, and
the scheduler that is simulated on a thousand nodes (benchmarks/simulate.py) is the one that runs.

With ``pairing = "seed"`` every lease takes the next cell of the queue, those of long budgets first,
so that no node is left with a long one when the others have finished. With ``pairing = "node"`` a
block has a home (:mod:`sweep.schedule.blocks`) and takes its reference along where it moves
(:mod:`sweep.schedule.reference_reruns`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from sweep.schedule.blocks import Blocks
from sweep.schedule.plan import Task
from sweep.schedule.quarantine import Quarantine
from sweep.schedule.reference_reruns import ReferenceReruns
from sweep.schedule.retry import Verdict, verdict
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import Retries
from sweep.store.history import EndedAttempt, History, latest_generation, mark_void


class Scheduler:
    """The cells that are still to run, and where.

    ``settled``: the cells that need nothing; ``reference``: an activation's label; ``now_s``: the
    time. Strikes of before count unless tasks ignore failures: whoever runs those has mended
    something.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        history: History,
        *,
        retries: Retries,
        pairing: Literal["seed", "node"],
        reference: str,
        trainer_hash: str | None = None,
        settled: Iterable[Cell] = (),
        now_s: float = 0.0,
    ) -> None:
        self._retries, self._reference, self._trainer_hash = retries, reference, trainer_hash
        self._is_paired = pairing == "node"
        self.stopped, self.num_running = False, 0
        self._attempts = {task.cell.id: _counted(task, history) for task in tasks}
        self._to_retry = [task for task in tasks if self._attempts[task.cell.id]]
        new = [task for task in tasks if not self._attempts[task.cell.id]]
        self._blocks = Blocks(
            new if self._is_paired else _longest_first(new), paired=self._is_paired
        )
        self._reruns = ReferenceReruns(retries, trainer_hash)
        self._held: Counter[str] = Counter()
        self._busy: Counter[str] = Counter()
        cells = [*settled, *(task.cell for task in tasks)]
        answers = [(c, e) for c in cells for e in _answers(history.get(c.id, ()))]
        # An answer that is being refreshed counts for nothing, least of all as a reference.
        current = {task.cell.id: task.generation for task in tasks}
        answers = [(c, e) for c, e in answers if e.generation == current.get(c.id, e.generation)]
        any_success = any(
            trainer_hash is None or ended.code_hash in (None, cell.code_hash(trainer_hash))
            for cell, ended in answers
        )
        is_mended = any(task.ignores_failures for task in tasks)
        self._quarantine = Quarantine(
            retries, {} if is_mended else history, any_success=any_success, now_s=now_s
        )
        self._done: dict[str, Task] = {}
        self._void = self._quarantine.void
        if self._is_paired:
            self._learn_homes(answers)

    # -- what the driver says

    def add_lease(self, node: str) -> None:
        """A lease on ``node`` has been granted."""
        self._held[node] += 1
        self._quarantine.add_node(node)
        if self._held[node] == 1:
            self._blocks.add_node(node)
            self._reruns.add_node(node)

    def remove_lease(self, node: str) -> None:
        """A lease on ``node`` has been given back or lost."""
        self._held[node] -= 1
        if self._held[node] == 0:
            del self._held[node]
            self._blocks.remove_node(node)
            self._reruns.remove_node(node)

    def set_reachable(self, nodes: Iterable[str]) -> None:
        """These are the nodes of the cluster now on which a lease fits; none: it is not known."""
        self._quarantine.set_reachable(nodes)
        self._reopen()

    def lost_while_preparing(self, node: str, reason: str) -> None:
        """A lease on ``node`` was lost before it could be used."""
        self._quarantine.lost_while_preparing(node, reason)
        self._reopen()

    def quarantine(self, node: str, reason: str) -> None:
        """``node`` cannot run cells of this sweep."""
        self._quarantine.refuse(node, reason)

    def stop(self) -> None:
        """Hand out nothing more."""
        self.stopped = True

    def retry_anywhere(self) -> None:
        """No other node is to be had: forget strikes, and try again anywhere."""
        self._quarantine.forgive()
        self._to_retry = [replace(task, avoid=frozenset()) for task in self._to_retry]

    def skip(self, task: Task, node: str) -> None:
        """``task``, just handed out to ``node``, is being run by another driver."""
        self._free(node)

    def record_end(self, task: Task, node: str, ended: EndedAttempt) -> Verdict:
        """Take in how an attempt at ``task`` on ``node`` has ended; what follows for its cell."""
        self._free(node)
        self._quarantine.record_end(task.cell.id, ended, self.num_running)
        if task.is_reference_rerun:
            self._reruns.record_end(task, node, ended)
            self._reopen()
            return Verdict("settled", "a rerun of a reference")
        if ended.settles and self._is_paired:
            self._note_answer(task.cell, node, task.generation)
        self._attempts[task.cell.id].append(ended)
        follows = self._follow(task)
        self._reopen()
        return follows

    def is_to_confirm(self, task: Task, node: str) -> bool:
        """Whether a divergence of ``task`` on ``node`` is to be repeated elsewhere, once."""
        if task.is_reference_rerun:
            return False
        attempts = mark_void(task.cell.id, self._attempts[task.cell.id], self._quarantine.void)
        is_first = not any(ended.has_diverged and not ended.is_void for ended in attempts)
        return is_first and self._quarantine.has_other_node({node})

    # -- what it answers

    @property
    def paused(self) -> str | None:
        """Why nothing more is handed out until somebody has looked; None if it is."""
        return self._quarantine.paused

    @property
    def num_waiting(self) -> int:
        """Tasks that are not handed out."""
        return self._blocks.num_queued + len(self._to_retry) + self._reruns.num_pending

    @property
    def is_open(self) -> bool:
        """Whether anything is left to hand out."""
        return self.num_waiting > 0 and not self.stopped and self.paused is None

    @property
    def quarantined(self) -> Mapping[str, str]:
        """Nodes that get no cells, with the reason."""
        return self._quarantine.quarantined

    def useful_leases(self) -> int:
        """How many leases would all have something to do.

        Those at work; those held whose node has work of its own; and one for everything that any
        node could begin.
        """
        if not self.is_open:
            return self.num_running
        homes = [self._home(task) for task in self._to_retry]
        own = Counter(home for home in homes if home is not None)
        waiting_at_home = sum(
            min(num_held - self._busy[node], own[node] + self._num_own(node))
            for node, num_held in self._held.items()
            if node not in self.quarantined and num_held > self._busy[node]
        )
        return self.num_running + waiting_at_home + self._blocks.num_free + homes.count(None)

    def avoided_by_retry(self, node: str) -> frozenset[str] | None:
        """Nodes that a task which has to avoid ``node`` avoids; None if there is no such task.

        To be called where :meth:`assign` has nothing for a lease on ``node``.
        """
        return next(
            (self._avoided(task) for task in self._to_retry if self._must_avoid(task, node)), None
        )

    def assign(self, node: str, *, own_only: bool = False) -> Task | None:
        """What a free lease on ``node`` is to do now; None if there is nothing for it.

        ``own_only``: nothing but what is at home there, so that no block is torn for a lease that
        is to be given back.
        """
        if not self.is_open or node in self.quarantined:
            return None
        task = (
            self._reruns.take(node)
            or self._retry(node, late=False, own_only=own_only)
            or self._blocks.take(node, own_only=own_only)
            or self._retry(node, late=True, own_only=own_only)
        )
        if task is not None:
            self.num_running += 1
            self._busy[node] += 1
        return task

    # -- how

    def _retry(self, node: str, *, late: bool, own_only: bool) -> Task | None:
        """A task that has been tried; ``late``: on the node that it should avoid.

        Time is the only other thing that such a task can be given, so it comes last.
        """
        homes = (node,) if own_only else (None, node)
        for index, task in enumerate(self._to_retry):
            if (node in task.avoid) is not late:
                continue
            if not self._must_avoid(task, node) and self._home(task) in homes:
                if self._blocks.home(task.cell) is None:
                    self._blocks.set_home(task.cell.block, node)
                return self._to_retry.pop(index)
        return None

    def _follow(self, task: Task) -> Verdict:
        """What follows from the attempts at the cell of ``task``; it waits if that is another."""
        cell, void = task.cell, self._quarantine.void
        attempts = mark_void(cell.id, self._attempts[cell.id], void)
        follows = verdict(attempts, self._retries, cell.code_hash(self._trainer_hash))
        if follows.kind == "again":
            self._to_retry.append(replace(task, why=follows.why, avoid=follows.avoid))
        else:
            self._done[cell.id] = task
        return follows

    def _reopen(self) -> None:
        """Wait again for cells that were done by what is void now."""
        changed, self._void = self._void ^ self._quarantine.void, self._quarantine.void
        for cell_id in sorted({cell_id for cell_id, _ in changed} & self._done.keys()):
            self._follow(self._done.pop(cell_id))

    def _avoided(self, task: Task) -> frozenset[str]:
        """Nodes where ``task``, which has been tried, would prove nothing, while there are others.

        A node with strikes is one, unless the block is at home there.
        """
        home = self._blocks.home(task.cell) if self._is_paired else None
        avoid = task.avoid | (self._quarantine.suspects - {home})
        return avoid if self._quarantine.has_other_node(avoid) else task.avoid

    def _must_avoid(self, task: Task, node: str) -> bool:
        """``task`` would prove nothing on ``node``, and there is another node for it."""
        avoid = self._avoided(task)
        return node in avoid and self._quarantine.has_other_node(avoid)

    def _home(self, task: Task) -> str | None:
        """The node that a task which has been tried waits for; None if any will do."""
        home = self._blocks.home(task.cell) if self._is_paired else None
        if home is None or home in self.quarantined or self._must_avoid(task, home):
            return None
        return home

    def _num_own(self, node: str) -> int:
        return self._blocks.num_at_home(node) + self._reruns.num_pending_on(node)

    def _free(self, node: str) -> None:
        self.num_running -= 1
        self._busy[node] -= 1

    def _note_answer(self, cell: Cell, node: str, generation: int) -> None:
        is_reference = cell.spec.activation.label == self._reference
        self._reruns.settled(cell, node, generation=generation, is_reference=is_reference)

    def _learn_homes(self, answers: Iterable[tuple[Cell, EndedAttempt]]) -> None:
        """Learn from what has been answered before: homes of blocks, and which references ran."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for cell, ended in answers:
            if ended.node is not None:
                counts[cell.block][ended.node] += 1
                self._note_answer(cell, ended.node, ended.generation)
        for block, of_block in counts.items():
            self._blocks.set_home(block, max(of_block, key=lambda node: of_block[node]))


def _longest_first(tasks: Sequence[Task]) -> list[Task]:
    """By budget, in their order where those are alike; seconds and steps cannot be compared."""
    budgets = {task.cell.spec.budget: task.cell.spec.parsed_budget for task in tasks}
    kinds = list(dict.fromkeys(budget.kind for budget in budgets.values()))
    rank = {text: (kinds.index(b.kind), -b.value) for text, b in budgets.items()}
    return sorted(tasks, key=lambda task: rank[task.cell.spec.budget])


def _counted(task: Task, history: History) -> list[EndedAttempt]:
    """The earlier attempts that count: none where the task ignores failures."""
    if task.ignores_failures:
        return []
    return [e for e in history.get(task.cell.id, ()) if e.generation == task.generation]


def _answers(attempts: Sequence[EndedAttempt]) -> list[EndedAttempt]:
    """Untainted answers of the latest generation, from wherever they came."""
    latest = latest_generation(attempts)
    return [ended for ended in attempts if ended.settles and ended.generation == latest]
