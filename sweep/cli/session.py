"""One driver's run of a plan, from its lock on the store to the last row."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sweep.cli.invocation import Invocation
from sweep.cli.selection import values_of
from sweep.driver.attempt_row import Versions, lost_row
from sweep.driver.attempts import Attempts
from sweep.driver.control import Control, handle_signals, interrupt
from sweep.driver.display import Listener, LiveDisplay, PlainDisplay, duration
from sweep.driver.driver import Driver
from sweep.driver.listeners.listening import listening
from sweep.driver.requests import requests_heard
from sweep.provenance import PROJECT, Code, Revision, code_here, revision
from sweep.schedule.plan import Plan, Planner, plan_unsettled
from sweep.schedule.stopping import progress, sentences, told
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import SweepSpec
from sweep.store.collect import collected
from sweep.store.files import StoreError
from sweep.store.history import History
from sweep.store.store import SWEEP_FILE, AlreadyClosed, Store
from sweep.store.table import StoredAttempts
from trainer.config.config_errors import ConfigError
from trainer.contract import canonical_json

CONFIRM_NODE_HOURS = 1.0
LOOK_EVERY_S = 1.0
EXIT_DONE, EXIT_BAD, EXIT_INCOMPLETE, EXIT_TIME_IS_UP, EXIT_INTERRUPTED = 0, 2, 3, 4, 130


def run_plan(invocation: Invocation, planner: Planner) -> int:
    """Plan, ask what it may cost, drive, and derive the table; returns the exit status."""
    with handle_signals(interrupt):
        cells, store, code = invocation.cells(), invocation.store, code_here()
        ids, control = {cell.id for cell in cells}, _control(invocation)
        with (
            store.as_driver(join=invocation.join, say=invocation.say) as driver_id,
            requests_heard(store, driver_id, control),
            collected(store, ids),
            listening(invocation.sweep, invocation.results, driver_id, invocation.say) as listeners,
        ):
            _require_one_rule(invocation, cells)
            session = _Session(invocation, cells, code, driver_id, listeners)
            while (why := session.run(planner, control)) and not control.drains:
                invocation.say(f"Going on with {why}.")
            write_description(invocation.sweep, store, cells)
            stored = store.write_cells(ids)
        meant = invocation.selection.cells(cells)
        if invocation.selection.limit is not None:
            meant = [cell for cell in meant if cell.id in session.planned]
        unfinished = EXIT_INTERRUPTED if control.drains else session.unfinished
        if invocation.sweep.until is not None:
            return _report_stop(invocation, stored, cells, unfinished)
        return _report_outcome(invocation, stored, meant, unfinished)


def _control(invocation: Invocation) -> Control:
    """Nothing has been asked for yet; the job's end is known where Slurm has told it."""
    job_end_at = invocation.environment.job_end_at
    if job_end_at is not None and job_end_at < time.time():
        raise ConfigError(
            "SLURM_JOB_END_TIME has passed: this shell is of a job that has ended. `unset "
            "SLURM_JOB_END_TIME`, or run it in a job of its own."
        )
    return Control(grace_s=invocation.sweep.limits.grace_s, job_end_at=job_end_at)


class _Session:
    """What stays the same while one driver plans and runs, once or (beside others) again."""

    def __init__(
        self,
        invocation: Invocation,
        cells: Sequence[Cell],
        code: Code,
        driver_id: str,
        listeners: Sequence[Listener],
    ) -> None:
        self._invocation, self._cells, self._code = invocation, cells, code
        self._driver_id, self._listeners = driver_id, listeners
        self._revision = revision(PROJECT)
        self._is_confirmed = False
        self.unfinished = EXIT_INCOMPLETE
        self.planned: set[str] = set()
        self._attempted: set[str] = set()

    def run(self, planner: Planner, control: Control) -> str | None:
        """Run what ``planner`` finds to do; with what to go on after it, None if nothing is."""
        invocation, store = self._invocation, self._invocation.store
        closed = close_orphans(store, invocation.sweep.name, self._cells, self._revision)
        if closed:
            invocation.say(f"Closed as lost: {closed} attempts of a driver that is gone.")
        # In this order: what another driver begins meanwhile has a number that is taken, and what
        # it ends meanwhile is either still running in our eyes or settled, never new.
        numbers = store.numbers()
        elsewhere = {attempt.cell_id for attempt, _ in store.running()}
        stored = store.read()
        for sentence in (*stored.unreadable, *store.strange):
            invocation.say(f"warning: {sentence}")
        history = stored.history()
        todo, taken = planner(self._cells, history), elsewhere | self._attempted
        todo = replace(todo, todo=tuple(t for t in todo.todo if t.cell.id not in taken))
        self.planned |= {task.cell.id for task in todo.todo}
        cost = invocation.estimate(todo, history)
        invocation.say(invocation.plan_sentence(todo, cost))
        if not todo.todo:
            return self._wait(todo, elsewhere, control)
        invocation.require_usable_lease()
        self._confirm(todo, history)
        write_description(invocation.sweep, store, self._cells)
        pool = invocation.pool  # connected now: Ray sets a handler for SIGTERM of its own
        display_of = LiveDisplay if invocation.console.is_terminal else PlainDisplay
        with handle_signals(control.hear), display_of(invocation.console) as display:
            attempts = self._attempts(display.say, control)
            attempts.load(stored.rows, numbers)
            driver = Driver(
                sweep=invocation.sweep,
                pool=pool,
                attempts=attempts,
                display=display,
                control=control,
                lease_limit=invocation.lease_limit,
                code=self._code,
                listeners=self._listeners,
            )
            paused = driver.run(todo, history)
            skipped = {task.cell.id for task in driver.skipped}
            self._attempted |= self.planned - skipped - set(driver.too_long)
        if driver.too_long:
            self._say_too_long(driver)
            return None
        if paused is not None:
            invocation.say(f"Paused: {paused}. When that is mended, `make rerun FAILED=1` goes on.")
            return None
        if store.orphans():
            return "what another driver left behind"
        goes_on = todo.later and invocation.selection.limit is None
        return "the next seed, if it is needed" if goes_on else None

    def _wait(self, plan: Plan, elsewhere: Collection[str], control: Control) -> str | None:
        """Wait for what other drivers run, if a later seed may be needed after it."""
        unsettled = {cell.id for cell in self._cells} - {cell.id for cell in plan.settled}
        running = unsettled.intersection(elsewhere)
        if not running or not plan.later or self._invocation.selection.limit is not None:
            return None
        self._invocation.say(
            f"Waiting for {len(running)} cells that another driver runs: they decide what is next."
        )
        with handle_signals(control.hear):
            while running and not control.drains:
                time.sleep(LOOK_EVERY_S)
                with contextlib.suppress(StoreError):  # the next look will do
                    running &= {attempt.cell_id for attempt, _ in self._invocation.store.running()}
        return "what another driver has ended"

    def _say_too_long(self, driver: Driver) -> None:
        """That the job ends before more cells can; another job that does as much is of use."""
        shortest = duration(min(driver.too_long.values()))
        left = f"{len(driver.too_long)} cells are not begun, for this job ends too soon: the"
        left += f" shortest may take {shortest}."
        if driver.has_begun or self._attempted:
            self.unfinished = EXIT_TIME_IS_UP
            self._invocation.say(f"{left} The next job goes on with them.")
        else:
            self._invocation.say(
                f"{left} So would the next one. Give it more time (sbatch --time=), or let cells "
                f'of fixed steps be resumed (checkpoints.keep = "results"). Until a cell has been '
                f"measured estimate_cell_s in the sweep file counts."
            )

    def _attempts(self, say: Callable[[str], None], control: Control) -> Attempts:
        invocation, sweep = self._invocation, self._invocation.sweep
        return Attempts(
            sweep=sweep,
            store=invocation.store,
            versions=Versions(
                self._driver_id, self._revision, invocation.pool.version, self._code.trainer_hash
            ),
            say=say,
            must_stop=lambda: control.is_hurried,
        )

    def _confirm(self, plan: Plan, history: History) -> None:
        everything = replace(plan, todo=(*plan.todo, *plan.later))
        node_hours = self._invocation.estimate(everything, history).node_hours
        until = self._invocation.sweep.until
        if until is not None and until.node_hours is not None:
            node_hours = min(node_hours, until.node_hours)
        if node_hours <= CONFIRM_NODE_HOURS or self._is_confirmed:
            return
        self._is_confirmed = True
        if self._invocation.environment.yes:
            return
        about = "at most about" if plan.later else "about"
        question = f"This takes {about} {node_hours:.1f} node-hours. "
        if not sys.stdin.isatty():
            raise ConfigError(f"{question}Confirm with YES=1, or run it from a terminal.")
        try:
            answer = input(f"{question}Run it? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise ConfigError("Not confirmed; nothing was started.")


def _require_one_rule(invocation: Invocation, cells: Sequence[Cell]) -> None:
    """Drivers that are at work together must stop the sweep alike."""
    sweep, store = invocation.sweep, invocation.store
    if not store.drivers() or not store.files.exists(SWEEP_FILE):
        return
    theirs = store.read_sweep().get("until")
    ours = json.loads(json.dumps(told(cells, sweep))) if sweep.until is not None else None
    if ours != theirs:
        raise ConfigError(
            f"sweep {sweep.name}: {_rule_text(theirs)} for the driver that is at work, "
            f"{_rule_text(ours)} for this one. Give JOIN=1 with the same sweep file and UNTIL= as "
            f"the other has (rule, ceilings, seeds and activations count), or wait for its end."
        )


def _rule_text(until: Mapping[str, Any] | None) -> str:
    if until is None:
        return "no [until]"
    return "[until] zone = {zone:g}, confidence = {confidence:g}".format(**until["rule"])


def close_orphans(store: Store, sweep: str, cells: Sequence[Cell], code: Revision) -> int:
    """Close what drivers that are gone had announced and could not finish; returns how many."""
    by_id, closed = {cell.id: cell for cell in cells}, 0
    for attempt, note in store.orphans():
        row = lost_row(sweep, by_id, attempt, note, datetime.now(UTC), code)
        with contextlib.suppress(AlreadyClosed):  # by another driver that has come at this moment
            store.commit(attempt, row)
            closed += 1
    return closed


def _report_stop(
    invocation: Invocation, stored: StoredAttempts, cells: Sequence[Cell], unfinished: int
) -> int:
    """Say where a sweep stands that stops when it knows, and the exit status."""
    history, name = stored.history(), invocation.sweep.name
    plan = plan_unsettled(cells, history, invocation.sweep.retries, code_here().trainer_hash)
    now = progress(plan, cells, history, invocation.sweep)
    for line in sentences(now.standing):
        invocation.say(line)
    for task in plan.final:
        invocation.say(f"  {task.cell.name}: {task.why}")
    running = {attempt.cell_id for attempt, _ in invocation.store.running()}
    running &= {task.cell.id for task in plan.todo}
    if running:
        invocation.say(f"{len(running)} cells are being run by another driver.")
    counts = f"{len(plan.settled)} of {len(cells)} cells are settled"
    if now.standing.end is not None and not running:
        invocation.say(f"sweep {name}: ended; {counts}, {len(now.plan.unneeded)} were not needed.")
        return EXIT_DONE
    invocation.say(f"sweep {name}: {counts}. `make sweep` goes on from here.")
    return unfinished


def _report_outcome(
    invocation: Invocation, stored: StoredAttempts, cells: Sequence[Cell], unfinished: int
) -> int:
    """Say what became of ``cells``, and the exit status: ``unfinished`` where cells are left."""
    unsettled = plan_unsettled(
        cells, stored.history(), invocation.sweep.retries, code_here().trainer_hash
    )
    running = {attempt.cell_id for attempt, _ in invocation.store.running()}
    for task in (*unsettled.todo, *unsettled.final) if unfinished == EXIT_INCOMPLETE else ():
        if task.cell.id not in running:
            invocation.say(f"  {task.cell.name}: {task.why}")
    if running:
        invocation.say(f"{len(running)} cells are being run by another driver.")
    num_settled, name = len(unsettled.settled), invocation.sweep.name
    invocation.say(f"sweep {name}: {num_settled} of {len(cells)} cells are settled.")
    if num_settled == len(cells):
        return EXIT_DONE
    if unfinished == EXIT_INCOMPLETE:
        invocation.say(
            "`make logs CELL=…` shows why one failed; `make rerun FAILED=1` tries again."
        )
    else:
        invocation.say("It was stopped before its end; `make sweep` goes on from here.")
    return unfinished


def write_description(sweep: SweepSpec, store: Store, cells: Sequence[Cell]) -> None:
    """Keep in the store what ``sweep`` asks for (``sweep.json``)."""
    description: Mapping[str, Any] = {
        "name": sweep.name,
        "recipe": sweep.recipe,
        "reference": sweep.reference,
        "screened_in": sweep.screened_in,
        "activations": [activation.label for activation in sweep.expanded_activations()],
        "order_seed": sweep.order_seed,
        "pairing": sweep.pairing,
        "record_rule": sweep.record_rule.model_dump(),
        "num_cells": len(cells),
        "until": told(cells, sweep) if sweep.until is not None else None,
        "cells": [
            {
                "cell": cell.name,
                "cell_id": cell.id,
                "params_json": canonical_json(cell.spec.activation.params),
                "set_json": canonical_json(cell.overrides),
                "values": values_of(cell),
            }
            for cell in cells
        ],
    }
    store.write_sweep(description)
