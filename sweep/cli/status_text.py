"""What ``make status`` and ``make watch`` say, line by line, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sweep.driver.display import duration
from sweep.schedule.stopping import sentences
from sweep.status import ANSWERED, OPEN, CellStatus, SweepStatus
from sweep.store.progress import RunningAttempt
from sweep.store.schema import FAILED_STATES

FAILURES = {
    "cell": "failed by themselves",
    "memory": "out of memory",
    "infrastructure": "lost to node or network",
    "hang": "hung",
    "preemption": "preempted",
    "driver": "lost with the driver",
    "user": "stopped by hand",
}
SILENT_S = 30.0
MOST_WARNINGS = 5


def cell_lines(status: SweepStatus, most: int) -> list[str]:
    """What runs, then what has no answer; at most so many lines of each."""
    running = [cell for cell in status.cells if cell.state == "running"]
    unanswered = [
        cell for cell in status.cells if cell.state not in (*ANSWERED, "running", "waiting")
    ]
    unanswered += [cell for cell in status.cells if cell.state == "diverged"]
    return [
        *_capped([f"  {_running_line(cell, status.at)}" for cell in running], most, "running"),
        *_capped([f"  {_line(cell)}" for cell in unanswered], most, "without a score"),
    ]


def summary_lines(status: SweepStatus) -> list[str]:
    """Who is at work, time and cost, what failed, and how many cells are in which state."""
    counts = ", ".join(f"{count} {state}" for state, count in status.counts.items())
    return [
        *_capped([f"warning: {text}" for text in status.warnings], MOST_WARNINGS, "warnings"),
        *(sentences(status.standing) if status.standing else ()),
        *_failure_lines(status),
        *_driver_lines(status),
        _cost_line(status),
        f"sweep {status.name}: {len(status.cells)} cells: {counts}.",
    ]


def as_json(status: SweepStatus) -> dict[str, Any]:
    """The same as plain values; times in ISO format."""
    return {
        "sweep": status.name,
        "counts": status.counts,
        "node_hours": status.node_hours,
        "node_hours_left": status.node_hours_left,
        "ends_at": status.ends_at.isoformat() if status.ends_at else None,
        "failures": [
            {"failure": failure, "node": node, "attempts": count}
            for (failure, node), count in status.failures.items()
        ],
        "quarantined": status.quarantined,
        "cells": [
            asdict(cell) | {"running": cell.running and cell.running.model_dump(mode="json")}
            for cell in status.cells
        ],
        "warnings": status.warnings,
    }


def _line(cell: CellStatus) -> str:
    tries = f" (attempt {cell.num_attempts})" if cell.num_attempts > 1 else ""
    return f"{cell.cell}  {cell.state}{tries}" + (f": {cell.reason}" if cell.reason else "")


def _running_line(cell: CellStatus, now: datetime) -> str:
    said = cell.running
    where = f"{cell.cell}  {cell.state} {cell.reason}"
    return where if said is None else f"{where}: {_progress(said, now)}"


def _progress(said: RunningAttempt, now: datetime) -> str:
    """``train, step 120 of 200, for 1.2 min, about 40 s left``."""
    step = None if said.step is None else f"step {said.step}"
    if step is not None and said.total_steps is not None:
        step += f" of {said.total_steps}"
    left_s = (said.expected_end - now).total_seconds() if said.expected_end else 0.0
    left = f"about {duration(left_s)} left" if left_s > 0 else "longer than expected"
    return ", ".join(filter(None, (said.phase, step, f"for {duration(said.elapsed_s)}", left)))


def _failure_lines(status: SweepStatus) -> list[str]:
    """By class, and by node of those that are left alone."""

    def told(node: str | None) -> str:
        found: dict[str, int] = {}
        for (failure, where), count in status.failures.items():
            if node in (None, where):
                found[failure] = found.get(failure, 0) + count
        return ", ".join(f"{n} {FAILURES.get(name, name)}" for name, n in sorted(found.items()))

    lines = [f"Attempts without an answer: {told(None)}."] if status.failures else []
    for node, reason in status.quarantined.items():
        lines.append(f"Node {node} gets no more cells ({told(node) or 'none failed'}): {reason}")
    return lines


def _driver_lines(status: SweepStatus) -> list[str]:
    """Who drives, and what of it is not as usual."""
    lines = []
    for driver in status.drivers:
        said = status.progress.get(driver.id)
        notes = [f"Driver: {driver.note}"]
        if said is not None:
            silent_s = (status.at - said.at).total_seconds()
            notes += [f"silent for {duration(silent_s)}"] if silent_s > SILENT_S else []
            notes += ["it starts no new cell: it was asked to stop"] if said.drain else []
            notes += [f"paused: {said.paused}"] if said.paused else []
            notes += [f"beside other sweeps it {said.sharing}"] if said.sharing else []
        lines.append(", ".join(notes) + ".")
    states = {cell.state for cell in status.cells}
    if not status.drivers and states & set(OPEN):
        lines.append("No driver is at work; `make sweep` goes on.")
    elif not status.drivers and states & set(FAILED_STATES):
        lines.append(
            "No driver is at work. `make logs CELL=…` shows why a cell failed; `make rerun "
            "FAILED=1` tries again."
        )
    return lines


def _cost_line(status: SweepStatus) -> str:
    spent = f"{_hours(status.node_hours)} node-hours spent"
    if not any(cell.state in OPEN for cell in status.cells):
        return f"{spent}."
    if status.node_hours_left is None:
        to_come = "what is to come is known once a cell has succeeded"
    else:
        to_come = f"about {_hours(status.node_hours_left)} to come"
    end = status.ends_at
    left_s = (end - status.at).total_seconds() if end else 0.0
    time_left = f"; about {duration(left_s)} left, until {end:%F %H:%M} UTC" if left_s > 0 else ""
    return f"{spent}, {to_come}{time_left}."


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _capped(lines: Sequence[str], most: int, what: str) -> list[str]:
    if len(lines) <= most:
        return list(lines)
    rest = f"  … and {len(lines) - most} more {what}; `--json` has all, WHERE= selects cells"
    return [*lines[:most], rest]
