"""Plan what remains to run, with a reason per cell: the grid minus what the store holds. Pure.

A cell that was settled by other trainer code stays settled: it is said to be stale, and runs again
only with ``--refresh``, as a new generation of attempts.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from sweep.schedule.quarantine import void_attempts
from sweep.schedule.retry import verdict
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import Retries
from sweep.store.history import (
    EndedAttempt,
    History,
    latest_generation,
    select_attempt,
    with_void,
)
from trainer.config.config_errors import ConfigError
from trainer.contract import recipe_hash


@dataclass(frozen=True, slots=True)
class Task:
    """A cell to run, and the reason why.

    ``avoid`` are nodes where it would prove nothing. ``ignores_failures``: earlier ones do not
    count. ``is_reference_rerun``: a settled reference that runs once more, on the node of the cells
    that are compared with it.
    """

    cell: Cell
    why: str
    generation: int = 0
    avoid: frozenset[str] = frozenset()
    ignores_failures: bool = False
    is_reference_rerun: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Cells to run in order, cells that need nothing, and cells that are given up.

    Of a sweep that stops when it knows: what may have to run ``later``, and what is ``unneeded``.
    """

    todo: tuple[Task, ...]
    settled: tuple[Cell, ...]
    final: tuple[Task, ...] = ()
    later: tuple[Task, ...] = ()
    unneeded: tuple[Cell, ...] = ()


Planner = Callable[[Sequence[Cell], History], Plan]


def plan_unsettled(
    cells: Sequence[Cell],
    history: History,
    policy: Retries = Retries(),  # noqa: B008  (it is frozen)
    trainer_hash: str | None = None,
) -> Plan:
    """Every cell that no attempt has settled, with the reason; see :mod:`sweep.schedule.retry`."""
    todo: list[Task] = []
    settled: list[Cell] = []
    final: list[Task] = []
    history = with_void(history, void_attempts(history, policy))
    for cell in cells:
        attempts = history.get(cell.id, ())
        if any(ended.settles for ended in attempts):
            settled.append(cell)
            continue
        generation = latest_generation(attempts)
        latest = [ended for ended in attempts if ended.generation == generation]
        follows = verdict(latest, policy, cell.code_hash(trainer_hash))
        match follows.kind:
            case "settled":
                settled.append(cell)
            case "final":
                final.append(Task(cell, follows.why, generation))
            case _:
                todo.append(Task(cell, follows.why, generation, follows.avoid))
    return Plan(tuple(todo), tuple(settled), tuple(final))


def plan_failed(cells: Sequence[Cell], history: History) -> Plan:
    """Only the cells that have been attempted and are not settled, as if nothing had failed yet."""
    everything = plan_unsettled(cells, history)
    failed = {
        task.cell.id: replace(task, ignores_failures=True)
        for task in (*everything.todo, *everything.final)
        if history.get(task.cell.id)
    }
    todo = tuple(failed[cell.id] for cell in cells if cell.id in failed)
    return Plan(todo, everything.settled)


def plan_one(cells: Sequence[Cell], selector: str, history: History) -> Plan:
    """Exactly the cell that ``selector`` names, whatever became of it before."""
    cell_id = match_cell([(cell.name, cell.id) for cell in cells], selector)
    cell = next(cell for cell in cells if cell.id == cell_id)
    generation = latest_generation(history.get(cell.id, ()))
    task = Task(cell, "asked for by name", generation, ignores_failures=True)
    settled = tuple(
        other for other in plan_unsettled(cells, history).settled if other.id != cell.id
    )
    return Plan((task,), settled)


def plan_refresh(
    cells: Sequence[Cell], history: History, trainer_hash: str, of: Planner = plan_unsettled
) -> Plan:
    """What ``of`` plans, and the stale cells, all in the generation of the trainer of today."""
    planned = of(cells, history)
    tasks = {task.cell.id: task for task in planned.todo}
    outdated = {cell.id: cell for cell in stale_cells(planned.settled, history, trainer_hash)}
    for cell in outdated.values():
        tasks[cell.id] = Task(cell, why_stale(cell, history[cell.id], trainer_hash))
    todo = [
        replace(
            tasks[cell.id],
            generation=_generation_of_today(history.get(cell.id, ()), cell.code_hash(trainer_hash)),
        )
        for cell in cells
        if cell.id in tasks
    ]
    settled = tuple(c for c in planned.settled if c.id not in outdated)
    return replace(planned, todo=tuple(todo), settled=settled)


def stale_cells(cells: Sequence[Cell], history: History, trainer_hash: str) -> list[Cell]:
    """The settled cells whose row is known to be of other code."""
    return [
        cell
        for cell in cells
        if (attempts := history.get(cell.id, ()))
        and (chosen := select_attempt(attempts)).settles
        and chosen.code_hash not in (None, cell.code_hash(trainer_hash))
    ]


def why_stale(cell: Cell, attempts: Sequence[EndedAttempt], trainer_hash: str) -> str:
    """``trainer code has changed since (0123abcd, now 89ef4567)``."""
    then, now = select_attempt(attempts).code_hash or "unknown", cell.code_hash(trainer_hash)
    what = "the script" if cell.script_sha256 else "trainer code"
    return f"{what} has changed since ({then[:8]}, now {str(now)[:8]})"


def _generation_of_today(attempts: Sequence[EndedAttempt], code_hash: str | None) -> int:
    """One generation is of one code: an earlier refresh with the same one is gone on with."""
    last = latest_generation(attempts)
    codes = {ended.code_hash for ended in attempts if ended.generation == last}
    return last if codes <= {code_hash} else last + 1


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
    """How long a plan takes. ``node_hours`` counts a node as used while any lease of it is.

    Where no lease fits, ``wall_s`` is None and ``node_hours`` are those of nodes that run one cell
    at a time.
    """

    cell_s: float
    measured: bool
    wall_s: float | None
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
    if each_s and not leases:
        return Estimate(cell_s, measured, None, sum(each_s) / 3600)
    wall_s = -(-len(each_s) // max(leases, 1)) * cell_s
    return Estimate(cell_s, measured, wall_s, wall_s * nodes / 3600)


def _cost_class(cell: Cell) -> tuple[str, str]:
    return cell.spec.budget, recipe_hash(cell.spec.recipe)
