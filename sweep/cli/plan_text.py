"""What a plan says, as text or as JSON: the cells and why, the cost, and which data is absent."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from sweep.cli.invocation import Invocation
from sweep.cli.script_patches import patch_lines
from sweep.driver.display import duration
from sweep.driver.requirements import is_run_from_zero
from sweep.schedule.plan import Planner, Task, stale_cells, why_stale
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import SweepSpec
from trainer.source import trainer_source

MOST_NAMED = 3  # of cells that are stale for one reason


def show_plan(invocation: Invocation, planner: Planner) -> None:
    """Say what ``planner`` would run, with or without the data; a cell without has no id."""
    grid = invocation.cells(needs_data=invocation.needs_data)
    cells = invocation.selection.cells(grid)
    history = invocation.store.read().history()
    plan = planner(grid, history)
    absent = {
        cell.spec.recipe.data.dataset: invocation.data_command(cell.overrides)
        for cell in cells
        if not cell.id_is_final
    }
    # What is kept of no cell that is known by its id may be of one that is not.
    unsure = bool(absent) and not history.keys() <= {cell.id for cell in grid}
    if unsure:
        todo, later = (tuple(map(_without_history, tasks)) for tasks in (plan.todo, plan.later))
        plan = replace(plan, todo=todo, later=later)
    trainer = trainer_source().sha256
    stale = [
        Task(cell, why_stale(cell, history[cell.id], trainer))
        for cell in stale_cells(cells, history, trainer)
    ]
    cost = invocation.estimate(plan, history)
    if invocation.as_json:
        body = {
            "todo": [_entry(task.cell, why=task.why) for task in plan.todo],
            "later": [_entry(task.cell, why=task.why) for task in plan.later],
            "settled": [_entry(cell) for cell in plan.settled],
            "unneeded": [_entry(cell) for cell in plan.unneeded],
            "final": [_entry(task.cell, why=task.why) for task in plan.final],
            "stale": [_entry(task.cell, why=task.why) for task in stale],
            "absent_data": absent,
            **asdict(cost),
        }
        print(json.dumps(body, indent=1))
        return
    for line in (
        *(f"  {_named(task.cell)}: {task.why}" for task in plan.todo),
        *patch_lines(cells),
        *(f"  {_named(task.cell)}: given up: {task.why}" for task in plan.final),
        *(() if invocation.refresh else _stale_lines(stale)),
        invocation.plan_sentence(plan, cost, unsure=unsure),
        *_preemption_lines(invocation.sweep, cells),
    ):
        invocation.say(line)
    for dataset, command in absent.items():
        invocation.say(
            f"No cell that reads {dataset} has an id yet: ids depend on the data, which is not in "
            f"{invocation.data}/ (`{command}` gets it)."
        )
    if unsure:
        invocation.say(
            f"So none of them is recognised in {invocation.store.place}: what is settled there "
            f"already is counted here all the same."
        )


def _without_history(task: Task) -> Task:
    return task if task.cell.id_is_final else replace(task, why="new, or settled already")


def _entry(cell: Cell, **why: str) -> dict[str, str | None]:
    return {"cell": cell.name, "cell_id": cell.id if cell.id_is_final else None, **why}


def _stale_lines(stale: Sequence[Task]) -> Iterator[str]:
    """A line a cell, and one for all that are stale for one reason where those are many."""
    for why in dict.fromkeys(task.why for task in stale):
        names = [_named(task.cell) for task in stale if task.why == why]
        for who in names if len(names) <= MOST_NAMED else [f"{len(names)} settled cells"]:
            yield f"  {who}: stale: {why}; REFRESH=1 runs what is stale again"


def _preemption_lines(sweep: SweepSpec, cells: Sequence[Cell]) -> Iterator[str]:
    """What a node that is taken away costs, where nodes come and go."""
    if not sweep.node.autoscale:
        return
    keep, every = sweep.checkpoints.keep, duration(sweep.checkpoints.every_s)
    if all(is_run_from_zero(cell) for cell in cells):
        yield "A node that is taken away costs its cell all that it has run: it starts from zero."
    elif keep == "results":
        yield (
            f"A node that is taken away without a warning costs its cell at most {every} of "
            f"training (checkpoints.every_s); after a warning it goes on where it was."
        )
    else:
        yield (
            f'warning: checkpoints.keep = "{keep}": a node that is taken away takes checkpoints '
            f'along, and its cell starts from zero. keep = "results" lets it go on.'
        )


def _named(cell: Cell) -> str:
    return f"{cell.name}  ({cell.id})" if cell.id_is_final else cell.name
