"""Run a plan from the lock to the last row: what ``run`` and ``rerun`` share."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from sweep.driver import Driver, Interruption, close_lost
from sweep.grid import Cell
from sweep.invocation import Invocation
from sweep.plan import Estimate, History, Plan, plan
from sweep.progress import LiveDisplay, PlainDisplay
from sweep.provenance import revision
from sweep.rows import Versions
from sweep.store import Store
from sweep.where import values_of
from trainer.strict import ConfigError

PROJECT = Path(__file__).resolve().parents[1]
CONFIRM_NODE_HOURS = 1.0
EXIT_DONE, EXIT_BAD, EXIT_INCOMPLETE, EXIT_INTERRUPTED = 0, 2, 3, 130

Planner = Callable[[Sequence[Cell], History], Plan]


def run_plan(invocation: Invocation, planner: Planner) -> int:
    """Plan, ask what it may cost, drive, and derive the table; returns the exit status."""
    cells = invocation.cells()
    store = invocation.store
    with store.locked():
        contents = store.read()
        closed = close_lost(store, invocation.sweep.name, cells, revision(PROJECT))
        if closed:
            invocation.say(f"Closed as lost: {closed} attempts of a driver that is gone.")
            contents = store.read()
        for sentence in contents.torn:
            invocation.say(f"warning: {sentence}")
        todo = planner(cells, contents.history())
        cost = invocation.estimate(todo, contents.history())
        invocation.say(invocation.plan_sentence(todo, cost))
        interruption = Interruption()
        if todo.todo:
            num_leases = invocation.require_reach()
            _confirm(invocation, cost)
            _describe(invocation, store, cells)
            _drive(invocation, cells, todo, interruption, num_leases)
        _describe(invocation, store, cells)
        return _conclude(invocation, store, cells, interrupted=interruption.requests > 0)


def _drive(
    invocation: Invocation,
    cells: Sequence[Cell],
    todo: Plan,
    interruption: Interruption,
    num_leases: int,
) -> None:
    versions = Versions(revision(PROJECT), invocation.pool.version)
    with _signals(interruption), _display(invocation.console) as display:
        driver = Driver(
            sweep=invocation.sweep,
            store=invocation.store,
            pool=invocation.pool,
            versions=versions,
            display=display,
            interruption=interruption,
            num_leases=num_leases,
        )
        driver.run(todo)


def _conclude(
    invocation: Invocation, store: Store, cells: Sequence[Cell], *, interrupted: bool
) -> int:
    contents = store.write_cells({cell.id for cell in cells})
    remaining = plan(cells, contents.history()).todo
    for task in remaining if not interrupted else ():
        invocation.say(f"  {task.cell.name}: {task.why}")
    settled = len(cells) - len(remaining)
    invocation.say(f"sweep {invocation.sweep.name}: {settled} of {len(cells)} cells are settled.")
    if interrupted:
        invocation.say("Interrupted; `make sweep` goes on from here.")
        return EXIT_INTERRUPTED
    if remaining:
        invocation.say(
            "`make logs CELL=…` shows why one failed; `make rerun FAILED=1` tries again."
        )
        return EXIT_INCOMPLETE
    return EXIT_DONE


def _describe(invocation: Invocation, store: Store, cells: Sequence[Cell]) -> None:
    sweep = invocation.sweep
    description: Mapping[str, Any] = {
        "name": sweep.name,
        "recipe": sweep.recipe,
        "reference": sweep.reference,
        "activations": [activation.label for activation in sweep.expanded_activations()],
        "num_cells": len(cells),
        "cells": [
            {"cell": cell.name, "cell_id": cell.id, "values": values_of(cell)} for cell in cells
        ],
    }
    store.write_sweep(description)


def _confirm(invocation: Invocation, cost: Estimate) -> None:
    if cost.node_hours <= CONFIRM_NODE_HOURS or invocation.environment.yes:
        return
    question = f"This takes about {cost.node_hours:.1f} node-hours. "
    if not sys.stdin.isatty():
        raise ConfigError(f"{question}Confirm with YES=1, or run it from a terminal.")
    try:
        answer = input(f"{question}Run it? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError("Not confirmed; nothing was started.")


@contextlib.contextmanager
def _signals(interruption: Interruption) -> Iterator[None]:
    """Ctrl-C asks once; again, or SIGTERM, asks to end at once. Ray's own handlers are replaced."""

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        interruption.request()

    def on_terminate(number: int, frame: FrameType | None) -> None:
        interruption.request()
        interruption.request()

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, on_interrupt),
        signal.SIGTERM: signal.signal(signal.SIGTERM, on_terminate),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _display(console: Console) -> LiveDisplay | PlainDisplay:
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)
