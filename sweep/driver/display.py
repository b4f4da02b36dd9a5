"""Show the progress of a sweep: a live table on a terminal, plain lines anywhere else."""

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.schedule.retry import Verdict
from trainer.system.printable import printable

LINE_EVERY_S = 30.0
MAX_LINES, MAX_NAMED = 30, 4
COLOURS = {"succeeded": "green", "diverged": "yellow", "interrupted": "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """One lease at work; ``progress`` is the trainer's own word, None before its first.

    ``expected_end``: None where it is overdue.
    """

    name: str
    node: str
    cell: str
    cell_id: str
    attempt: int
    started_at: datetime
    elapsed_s: float
    expected_end: datetime | None
    progress: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepView:
    """All that a display needs to know; it decides nothing. ``node_hours``: spent so far.

    ``stopping``: what the driver was asked for, None if it just goes on; ``sharing``: what it waits
    for, or gives back, because other sweeps are on the cluster.
    """

    name: str
    total: int
    settled_before: int
    ended: Mapping[str, int]
    waiting: int
    leases: Sequence[LeaseView]
    idle: int
    durations_s: Sequence[float]
    stopping: str | None
    node_hours: float
    quarantined: Mapping[str, str]
    paused: str | None
    note: str | None = None
    sharing: str | None = None

    @property
    def ends(self) -> list[datetime | None]:
        """When the running attempts should have ended; None for one that is overdue."""
        return [lease.expected_end for lease in self.leases]

    @property
    def num_ended(self) -> int:
        return sum(self.ended.values())

    @property
    def remaining_s(self) -> float | None:
        """Time left at the mean duration so far; None before the first cell has ended."""
        if not self.durations_s:
            return None
        mean_s = statistics.fmean(self.durations_s)
        running = [max(0.0, mean_s - lease.elapsed_s) for lease in self.leases]
        width = max(1, len(self.leases) + self.idle)
        return (sum(running) + self.waiting * mean_s) / width


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedView:
    """An attempt that has ended. ``done`` cells of ``total`` are; None where it is tried again.

    ``curve``: its file, where it left an answer.
    """

    cell: str
    state: str
    reason: str | None
    wall_s: float
    row: Mapping[str, Any]
    done: int | None
    total: int
    curve: bytes | None = None


class Listener(Protocol):
    """Who is told what a driver does; never an error, and never for long."""

    def show(self, view: SweepView) -> None:
        """How things are now, several times a second."""
        ...

    def ended(self, ending: EndedView) -> None: ...


class Display(Listener, Protocol):
    """Where the driver's news goes."""

    def say(self, text: str) -> None: ...


class PlainDisplay:
    """A line when a cell ends, and every half minute one that sums up and says what has changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spoke_s = time.monotonic()
        self._view: SweepView | None = None
        self._named: set[tuple[str, int]] = set()

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, view: SweepView) -> None:
        said = self._view.stopping if self._view is not None else None
        self._view = view
        if view.stopping not in (None, said):
            self.say(f"{view.stopping} {running_sentence(view.ends)}")
            for lease in view.leases[:MAX_LINES]:
                self.say(f"  {lease.cell} on {lease.node}: {end_time(lease.expected_end)}")
        elif time.monotonic() - self._spoke_s > LINE_EVERY_S:
            self._spoke_s = time.monotonic()
            self.say(f"{summary(view)}; running: {at_work(view.leases)}")
            begun = [each.cell for each in view.leases if _key(each) not in self._named]
            self._named = set(map(_key, view.leases))
            if begun and len(view.leases) > MAX_NAMED:
                rest = f" and {len(begun) - MAX_NAMED} more" if len(begun) > MAX_NAMED else ""
                self.say(f"begun since: {', '.join(begun[:MAX_NAMED])}{rest}")
            if view.note is not None:
                self.say(f"waiting: {view.note}")
            if view.sharing is not None:
                self.say(sharing_line(view.sharing))

    def ended(self, ending: EndedView) -> None:
        self.say(ending_line(ending))

    def say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


class LiveDisplay:
    """One line per lease that is redrawn, and above it a line for each cell that has ended."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, view: SweepView) -> None:
        self._live.update(render(view))

    def ended(self, ending: EndedView) -> None:
        style = COLOURS.get(ending.state, "red")
        self._live.console.print(_text(ending_line(ending), style), soft_wrap=True)

    def say(self, text: str) -> None:
        self._live.console.print(_text(text), soft_wrap=True)


def render(view: SweepView) -> RenderableType:
    """The live picture of ``view``."""
    table = Table(box=None, pad_edge=False)
    for column in ("lease", "cell", "phase"):
        table.add_column(column)
    for column in ("step", "ms/step", "left", "end"):
        table.add_column(column, justify="right")
    for lease in view.leases[:MAX_LINES]:
        where, end = f"{lease.name} on {lease.node}", end_time(lease.expected_end)
        table.add_row(*map(_text, (where, lease.cell, *_progress_texts(lease), end)))
    bar = ProgressBar(total=max(1, view.total), completed=view.num_ended, width=60)
    head = Table.grid()
    head.add_row(bar)
    head.add_row(Text(summary(view), style="bold"))
    lines: list[RenderableType] = [head, table]
    if len(view.leases) > MAX_LINES:
        lines.append(Text(f"… and {len(view.leases) - MAX_LINES} leases more"))
    if view.note is not None:
        lines.append(_text(f"waiting: {view.note}", "yellow"))
    if view.sharing is not None:
        lines.append(_text(sharing_line(view.sharing), "yellow"))
    if view.stopping is not None:
        lines.append(_text(f"{view.stopping} {running_sentence(view.ends)}", "yellow"))
    return Group(*lines)


def summary(view: SweepView) -> str:
    """``sweep local: 7/36 cells done (6 succeeded, 1 failed), 2 running, about 4 min left``."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(view.ended.items()))
    done = f"sweep {view.name}: {view.num_ended}/{view.total} cells done"
    left = view.remaining_s
    parts = (
        f"{done} ({states})" if states else done,
        f"{len(view.leases)} running",
        view.settled_before and f"{view.settled_before} kept from before",
        left and f"about {duration(left)} left",
    )
    return ", ".join(part for part in parts if part)


def ending_line(ending: EndedView) -> str:
    """What is said of an attempt that has just ended."""
    count = f"[{ending.done}/{ending.total}] " if ending.done is not None else ""
    line = f"{count}{ending.cell}: {ending.state} in {ending.wall_s:.0f} s"
    if ending.state == "succeeded":
        named = (("pre", "pre_quant_bpb"), ("post", "post_quant_bpb"), ("TTT", "ttt_bpb"))
        row = ending.row
        scores = [f"{name} {row[key]:.4f}" for name, key in named if row.get(key) is not None]
        line = f"{line}, BPB {', '.join(scores)}"
    return f"{line}: {ending.reason}" if ending.reason else line


def describe_outcome(row: Mapping[str, Any], follows: Verdict, *, goes_on: bool) -> str | None:
    """What is said with the state of an attempt: why, and whether the cell is tried again."""
    reason = f"tainted: {row['taint_reason']}" if row["tainted"] else row["reason"]
    match follows.kind:
        case "again":
            return f"{reason}; {'it is tried again' if goes_on else '`make sweep` tries it again'}"
        case "final":
            return f"{reason}; given up: {follows.why}"
        case _:
            return reason


def at_work(leases: Sequence[LeaseView]) -> str:
    """A few leases one by one, many by the phase that they are in."""
    if len(leases) > MAX_NAMED:
        phases = Counter(_progress_texts(lease)[0] for lease in leases)
        return ", ".join(f"{count} in {phase}" for phase, count in phases.most_common())
    each = ", ".join(f"{lease.cell} {progress_sentence(lease)}" for lease in leases)
    return each or "nothing, waiting for a lease"


def progress_sentence(lease: LeaseView) -> str:
    """``(train, step 36, 64 ms/step, 9 s left)``, as far as it is known."""
    phase, step, ms, left = _progress_texts(lease)
    parts = (phase, step and f"step {step}", ms and f"{ms} ms/step", left and f"{left} left")
    return f"({', '.join(filter(None, parts))})"


def _progress_texts(lease: LeaseView) -> tuple[str, str, str, str]:
    """Phase, step, milliseconds a step, time left; empty where it is not known."""
    progress = lease.progress or {}
    step, left, ms = (progress.get(key) for key in ("step", "remaining_steps", "step_ms"))
    return (
        str(progress.get("phase", "starting")),
        "" if step is None else str(step),
        "" if ms is None else f"{ms:.0f}",
        "" if left is None or ms is None else duration(left * ms / 1000),
    )


def running_sentence(ends: Sequence[datetime | None]) -> str:
    """``3 cells are running; the last should end at 14:20:05.``"""
    known = [end for end in ends if end is not None]
    parts = [f"{len(ends) or 'No'} {'cell is' if len(ends) < 2 else 'cells are'} running"]
    if known:
        parts.append(f"the last should end at {end_time(max(known))}")
    if len(known) < len(ends):
        parts.append(f"{len(ends) - len(known)} should have ended by now")
    return f"{'; '.join(parts)}."


def sharing_line(sentence: str) -> str:
    return f"other sweeps are on this cluster: this one {sentence}"


def end_time(end: datetime | None) -> str:
    """By the clock of whoever reads it."""
    return f"{end.astimezone():%H:%M:%S}" if end is not None else "any moment"


def _key(lease: LeaseView) -> tuple[str, int]:
    return lease.cell_id, lease.attempt


def _text(text: str, style: str = "") -> Text:
    """Of names and reasons that others have given: neither markup nor control characters."""
    return Text(printable(text), style=style)


def duration(seconds: float) -> str:
    """
    >>> duration(42), duration(400), duration(8000)
    ('42 s', '6.7 min', '2.2 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
