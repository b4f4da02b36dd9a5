"""What remains to be done, and why? The grid minus what the store holds. Pure.

A cell that was settled by other trainer code stays settled: it is said to be stale, and runs again
only where that is asked for, as a new generation of attempts.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from sweep.grid import Cell
from sweep.schema import TERMINAL_STATES
from trainer.contract import recipe_hash
from trainer.strict import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What planning needs to know of an attempt that has ended.

    ``trainer_hash`` is None where the row does not say it.
    """

    attempt: int
    state: str
    tainted: bool
    reason: str | None
    wall_s: float
    trainer_hash: str | None = None
    generation: int = 0

    @property
    def settles(self) -> bool:
        """The cell needs no other attempt."""
        return self.state in TERMINAL_STATES and not self.tainted


History = Mapping[str, Sequence[Ended]]
"""Ended attempts by cell id, lowest number first."""


@dataclass(frozen=True, slots=True)
class Task:
    """A cell to run, the reason why, and the generation of the attempts to come."""

    cell: Cell
    why: str
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Cells to run in order, and cells that need nothing."""

    todo: tuple[Task, ...]
    settled: tuple[Cell, ...]


Planner = Callable[[Sequence[Cell], History], Plan]


def plan(cells: Sequence[Cell], history: History) -> Plan:
    """Every cell that no attempt has settled, with the reason."""
    todo, settled = [], []
    for cell in cells:
        attempts = history.get(cell.id, ())
        if any(ended.settles for ended in attempts):
            settled.append(cell)
        elif attempts:
            last = attempts[-1]
            what = "tainted" if last.state in TERMINAL_STATES else last.state
            why = f"attempt {last.attempt} {what}: {last.reason or 'no reason'}"
            todo.append(Task(cell, why, _latest_generation(attempts)))
        else:
            todo.append(Task(cell, "new"))
    return Plan(tuple(todo), tuple(settled))


def plan_failed(cells: Sequence[Cell], history: History) -> Plan:
    """Only the cells that have been attempted and are not settled."""
    everything = plan(cells, history)
    todo = tuple(task for task in everything.todo if history.get(task.cell.id))
    return Plan(todo, everything.settled)


def plan_one(cells: Sequence[Cell], selector: str, history: History) -> Plan:
    """Exactly the cell that ``selector`` names, whatever became of it before."""
    cell = find_cell(cells, selector)
    generation = _latest_generation(history.get(cell.id, ()))
    return Plan((Task(cell, "asked for by name", generation),), ())


def plan_refresh(
    cells: Sequence[Cell], history: History, trainer_hash: str, of: Planner = plan
) -> Plan:
    """What ``of`` plans, and the stale cells, all in the generation of the trainer of today."""
    planned = of(cells, history)
    tasks = {task.cell.id: task for task in planned.todo}
    outdated = {cell.id: cell for cell in stale(planned.settled, history, trainer_hash)}
    for cell in outdated.values():
        tasks[cell.id] = Task(cell, why_stale(history[cell.id], trainer_hash))
    todo = [
        replace(
            tasks[cell.id],
            generation=_generation_of_today(history.get(cell.id, ()), trainer_hash),
        )
        for cell in cells
        if cell.id in tasks
    ]
    return Plan(tuple(todo), tuple(c for c in planned.settled if c.id not in outdated))


def first(plan: Plan, limit: int | None) -> Plan:
    """The first ``limit`` tasks of ``plan``; all of them where it is None."""
    return replace(plan, todo=plan.todo[:limit])


def believed(attempts: Sequence[Ended]) -> Ended:
    """The attempt that stands for its cell, see :func:`precedence`."""
    return min(
        attempts,
        key=lambda ended: precedence(
            ended.state, tainted=ended.tainted, generation=ended.generation, attempt=ended.attempt
        ),
    )


def precedence(
    state: str, *, tainted: bool, generation: int, attempt: int
) -> tuple[int, int, bool, int]:
    """What is least for the attempt that is believed of a cell.

    That is, of the latest generation that has settled the cell, the first untainted success, so
    that re-running cannot pick, else the first attempt that settled it (diverged). Where none has,
    it is the first tainted result, then the latest attempt.
    """
    if state not in TERMINAL_STATES:
        return 2, 0, False, -attempt
    return int(tainted), -generation, state != "succeeded" and not tainted, attempt


def stale(cells: Sequence[Cell], history: History, trainer_hash: str) -> list[Cell]:
    """The settled cells whose believed row is known to be of another trainer."""
    return [
        cell
        for cell in cells
        if (attempts := history.get(cell.id, ()))
        and (chosen := believed(attempts)).settles
        and chosen.trainer_hash not in (None, trainer_hash)
    ]


def why_stale(attempts: Sequence[Ended], trainer_hash: str) -> str:
    """``trainer code has changed since (0123abcd, now 89ef4567)``."""
    then = believed(attempts).trainer_hash or "unknown"
    return f"trainer code has changed since ({then[:8]}, now {trainer_hash[:8]})"


def _latest_generation(attempts: Sequence[Ended]) -> int:
    return max((ended.generation for ended in attempts), default=0)


def _generation_of_today(attempts: Sequence[Ended], trainer_hash: str) -> int:
    """One generation is of one trainer: an earlier refresh with the same one is gone on with."""
    last = _latest_generation(attempts)
    trainers = {ended.trainer_hash for ended in attempts if ended.generation == last}
    return last if trainers <= {trainer_hash} else last + 1


def find_cell(cells: Sequence[Cell], selector: str) -> Cell:
    """The one cell whose name or id is or begins with ``selector``."""
    names = [(cell.name, cell.id) for cell in cells]
    wanted = match_cell(names, selector)
    return next(cell for cell in cells if cell.id == wanted)


def match_cell(names: Sequence[tuple[str, str]], selector: str) -> str:
    """The id of the one (name, id) that is or begins with ``selector``; else a ConfigError."""
    exact = [cell_id for name, cell_id in names if selector in (name, cell_id)]
    if exact:
        return exact[0]
    hits = [pair for pair in names if pair[0].startswith(selector) or pair[1].startswith(selector)]
    if len(hits) == 1:
        return hits[0][1]
    if hits:
        shown = ", ".join(name for name, _ in hits[:6]) + (", …" if len(hits) > 6 else "")
        raise ConfigError(
            f"cell {selector!r} is a prefix of {len(hits)} cells: {shown} Type more of the name."
        )
    example = names[0][0] if names else "none"
    raise ConfigError(
        f"cell {selector!r}: no cell of this sweep has a name or id that begins so. "
        f"`make status` lists them; one is {example}."
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a plan takes. ``node_hours`` counts a node as used while any lease of it is."""

    cell_s: float
    measured: bool
    wall_s: float
    node_hours: float


def estimate(
    plan: Plan, history: History, *, guess_cell_s: float, leases: int, nodes: int
) -> Estimate:
    """The cells' wall times, spread over the leases.

    A cell takes as long as those of its budget and recipe did that have succeeded, on average, and
    ``guess_cell_s`` where there are none.
    """
    walls: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell in (*plan.settled, *(task.cell for task in plan.todo)):
        walls[_cost_class(cell)] += [
            ended.wall_s for ended in history.get(cell.id, ()) if ended.state == "succeeded"
        ]
    each_s = [
        fmean(walls[key]) if walls[key] else guess_cell_s
        for key in (_cost_class(task.cell) for task in plan.todo)
    ]
    measured = all(walls[_cost_class(task.cell)] for task in plan.todo)
    cell_s = fmean(each_s) if each_s else 0.0
    wall_s = -(-len(each_s) // leases) * cell_s if leases else 0.0
    return Estimate(cell_s, measured, wall_s, wall_s * nodes / 3600)


def _cost_class(cell: Cell) -> tuple[str, str]:
    return cell.spec.budget, recipe_hash(cell.spec.recipe)
