"""What remains to be done, and why? The grid minus what the store holds. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from sweep.grid import Cell
from sweep.schema import TERMINAL_STATES
from trainer.contract import recipe_hash
from trainer.strict import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What planning needs to know of an attempt that has ended."""

    attempt: int
    state: str
    tainted: bool
    reason: str | None
    wall_s: float
    failure: str | None = None
    signature: str | None = None
    node: str | None = None
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
    """A cell to run, and the reason why.

    ``avoid`` are nodes where it would prove nothing. ``afresh``: earlier failures do not count.
    ``is_companion``: a settled reference that runs once more, on the node of what it serves.
    """

    cell: Cell
    why: str
    generation: int = 0
    avoid: frozenset[str] = frozenset()
    afresh: bool = False
    is_companion: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Cells to run in order, and cells that need nothing."""

    todo: tuple[Task, ...]
    settled: tuple[Cell, ...]


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
            todo.append(Task(cell, f"attempt {last.attempt} {what}: {last.reason or 'no reason'}"))
        else:
            todo.append(Task(cell, "new"))
    return Plan(tuple(todo), tuple(settled))


def plan_failed(cells: Sequence[Cell], history: History) -> Plan:
    """Only the cells that have been attempted and are not settled."""
    everything = plan(cells, history)
    todo = tuple(task for task in everything.todo if history.get(task.cell.id))
    return Plan(todo, everything.settled)


def plan_one(cells: Sequence[Cell], selector: str) -> Plan:
    """Exactly the cell that ``selector`` names, whatever became of it before."""
    cell = find_cell(cells, selector)
    return Plan((Task(cell, "asked for by name"),), ())


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

    A cell takes as long as the settled cells of its budget and recipe did on average, and
    ``guess_cell_s`` where there are none.
    """
    walls: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell in plan.settled:
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
