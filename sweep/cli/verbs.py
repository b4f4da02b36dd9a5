"""The verbs of ``python -m sweep``; the first line of each is its help."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sweep.cli.doctor import show_checks
from sweep.cli.follow_log import FollowedLog, ending
from sweep.cli.invocation import Invocation
from sweep.cli.plan_text import show_plan
from sweep.cli.selection import Selection
from sweep.cli.session import EXIT_BAD, EXIT_DONE, EXIT_INCOMPLETE, run_plan
from sweep.cli.status_text import as_json, cell_lines, summary_lines
from sweep.cli.watch import keep_on_screen
from sweep.draft.draft import write_draft
from sweep.driver.requirements import requirements_for
from sweep.messages import CheckResult
from sweep.preflight import run_checks
from sweep.provenance import code_here
from sweep.schedule.plan import (
    Plan,
    Planner,
    match_cell,
    plan_failed,
    plan_one,
    plan_refresh,
    plan_unsettled,
)
from sweep.schedule.stopping import progress
from sweep.spec.grid import Cell
from sweep.status import SweepStatus, read_status
from sweep.store.collect import collect as collect_now
from sweep.store.history import History
from sweep.store.schema import TERMINAL_STATES
from sweep.store.store import CELLS_FILE
from trainer.config.config_errors import ConfigError
from trainer.source import trainer_source

MOST_LINES = 40


def run(invocation: Invocation) -> int:
    """Run whatever the store does not hold yet."""
    return run_plan(invocation, _stopping(invocation))


def rerun(invocation: Invocation) -> int:
    """Run one cell again, or every cell that was attempted and is not settled."""
    selector = invocation.cell
    if (selector is None) == (not invocation.failed):
        raise ConfigError("rerun: give CELL=name-or-id, or FAILED=1 for all that failed; not both.")
    if selector is None:
        return run_plan(invocation, _planner(invocation, plan_failed))
    one: Planner = lambda cells, history: plan_one(cells, selector, history)  # noqa: E731
    return run_plan(invocation, _planner(invocation, one))


def plan(invocation: Invocation) -> int:
    """Say what ``run`` would do, and why; start nothing."""
    show_plan(invocation, _stopping(invocation))
    return EXIT_DONE


def status(invocation: Invocation) -> int:
    """Say where the sweep stands; needs nothing but the results folder."""
    now = _selected(invocation.selection, read_status(invocation.store))
    if invocation.as_json:
        print(json.dumps(as_json(now), indent=1))
    else:
        for line in (*cell_lines(now, MOST_LINES), *summary_lines(now)):
            invocation.say(line)
    if now.standing is not None:
        return EXIT_DONE if now.standing.end is not None else EXIT_INCOMPLETE
    return EXIT_DONE if set(now.counts) <= set(TERMINAL_STATES) else EXIT_INCOMPLETE


def watch(invocation: Invocation) -> int:
    """Keep the status on the screen until Ctrl-C; needs nothing but the results folder."""
    store = invocation.store
    keep_on_screen(
        invocation.console,
        store.files.ask_every_s,
        lambda: _selected(invocation.selection, read_status(store)),
    )
    return EXIT_DONE


def collect(invocation: Invocation) -> int:
    """Make cells.parquet from what has ended so far, at any time; needs only the results."""
    store = invocation.store
    stored = collect_now(store)
    if stored is None:
        invocation.say(f"{store.place}: no attempt is kept here, so the tables stay as they are.")
        return EXIT_DONE
    for sentence in stored.unreadable:
        invocation.say(f"warning: {sentence}")
    num_cells = len(set(stored.table["cell_id"].to_pylist()))
    invocation.say(
        f"wrote {store.files.where(CELLS_FILE)}: {num_cells} cells, {stored.table.num_rows} "
        f"attempts so far."
    )
    return EXIT_DONE


def show(invocation: Invocation) -> int:
    """Print every attempt at one cell, column by column."""
    rows = _attempts_of(invocation)
    if invocation.as_json:
        print(json.dumps(rows, indent=1, default=str))
        return EXIT_DONE
    for row in rows:
        invocation.say(f"attempt {row['attempt']} at {row['cell']}")
        for name, value in row.items():
            if value is not None and name not in ("cell", "attempt", "config_json"):
                invocation.say(f"  {name:24} {value}")
    return EXIT_DONE


def logs(invocation: Invocation) -> int:
    """Print the log of the latest attempt at one cell; with --follow as it grows, to its end."""
    name, cell_id = _cell_of(invocation)
    store = invocation.store
    running = [(a, note) for a, note in store.running() if a.cell_id == cell_id]
    if running and invocation.follow:
        attempt, note = running[-1]
        row = FollowedLog(store, attempt, note.get("driver")).follow(invocation.show)
        invocation.say(ending(name, row))
        return EXIT_DONE
    rows = [row for row in store.read().rows if row["cell_id"] == cell_id]
    kept = [row for row in rows if row["log"] is not None]
    if not kept:
        now = "it is running: FOLLOW=1 shows its log" if running else "`make status` says what is"
        raise ConfigError(f"{name}: no attempt has left a log so far; {now}.")
    invocation.show(store.read_file(kept[-1]["log"]).decode(errors="replace"))
    if invocation.follow:
        invocation.say(ending(name, kept[-1]))
    elif running:
        invocation.say(f"That was attempt {kept[-1]['attempt']}; FOLLOW=1 shows the one that runs.")
    return EXIT_DONE


def doctor(invocation: Invocation) -> int:
    """Check this machine, or every node of the cluster, against what the sweep needs."""
    sweep = invocation.sweep
    try:
        cells = invocation.cells()
    except ConfigError as error:  # the rest can be looked at all the same
        invocation.say(f"error: {error}")
        cells = []
    requirements = requirements_for(sweep, cells, code_here())
    if invocation.environment.ray_address is None:
        found: Mapping[str, Sequence[CheckResult] | None] = {
            "this machine": run_checks(requirements)
        }
    else:
        found = invocation.pool.inspect(requirements)
    worst = show_checks(found, invocation.console, as_json=invocation.as_json)
    return worst if cells else EXIT_BAD


def draft(invocation: Invocation) -> int:
    """Look at a training script without running it, and write a recipe that asks what it must."""
    if invocation.script is None:
        raise ConfigError("draft: give SCRIPT=path/to/train_gpt.py.")
    written = write_draft(invocation.script, invocation.name, force=invocation.force)
    print(written.report)
    return EXIT_DONE


def which(invocation: Invocation) -> int:
    """Print the name or path of the sweep that is meant; the reason goes to stderr."""
    print(invocation.sweep_choice)
    return EXIT_DONE


def _unsettled(invocation: Invocation) -> Planner:
    """Whatever is neither settled nor given up under the sweep's own rules."""
    return partial(
        plan_unsettled, policy=invocation.sweep.retries, trainer_hash=trainer_source().sha256
    )


def _stopping(invocation: Invocation) -> Planner:
    """Whatever is unsettled, or of that what is needed now in a sweep that stops when it knows."""
    unsettled, sweep = _unsettled(invocation), invocation.sweep
    if sweep.until is None:
        return _planner(invocation, unsettled)
    if invocation.refresh:
        raise ConfigError(
            "REFRESH=1 with [until]: scores of two versions of the code would decide together. "
            "`make rerun CELL=…` runs one cell again; or start anew with RESULTS=."
        )

    def planned(cells: Sequence[Cell], history: History) -> Plan:
        whole = progress(unsettled(cells, history), cells, history, sweep).plan
        meant = {cell.id for cell in invocation.selection.cells(cells)}
        todo = tuple(task for task in whole.todo if task.cell.id in meant)
        return replace(whole, todo=todo[: invocation.selection.limit])

    return planned


def _planner(invocation: Invocation, of: Planner) -> Planner:
    """``of`` on the selected cells, and with ``--refresh`` the stale ones."""

    def planned(cells: Sequence[Cell], history: History) -> Plan:
        selected = invocation.selection.cells(cells)
        if invocation.refresh:
            todo = plan_refresh(selected, history, trainer_source().sha256, of)
        else:
            todo = of(selected, history)
        return replace(todo, todo=todo.todo[: invocation.selection.limit])

    return planned


def _selected(selection: Selection, status: SweepStatus) -> SweepStatus:
    """``status`` with those of its cells that are selected."""
    if selection.where is not None and any(cell.values is None for cell in status.cells):
        raise ConfigError(
            "--where: what is kept of this sweep's cells is of an older version. `make sweep` "
            "writes it anew, and runs nothing that is settled."
        )
    positions = selection.positions([cell.values or {} for cell in status.cells])
    return replace(status, cells=tuple(status.cells[i] for i in positions[: selection.limit]))


def _cell_of(invocation: Invocation) -> tuple[str, str]:
    """Name and id of the cell that is meant."""
    if invocation.cell is None:
        raise ConfigError(
            "which cell? Give its name or id or a prefix that only it has: CELL=asqu__seed42."
        )
    names = [(cell["cell"], cell["cell_id"]) for cell in invocation.store.read_sweep()["cells"]]
    cell_id = match_cell(names, invocation.cell)
    return next(pair for pair in names if pair[1] == cell_id)


def _attempts_of(invocation: Invocation) -> list[dict[str, Any]]:
    name, cell_id = _cell_of(invocation)
    rows = [dict(row) for row in invocation.store.read().rows if row["cell_id"] == cell_id]
    if not rows:
        raise ConfigError(f"cell {name!r} has not been attempted yet; `make sweep` runs it.")
    return rows
