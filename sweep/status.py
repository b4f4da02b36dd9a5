"""Tell from a sweep's results alone where it stands: cells, what runs, time and node-hours left."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import Any

from sweep.schedule.stopping import Standing, standing_told
from sweep.store.drivers import Driver
from sweep.store.progress import DriverProgress, RunningAttempt
from sweep.store.schema import TERMINAL_STATES
from sweep.store.store import Store
from sweep.store.table import Row

NOT_NEEDED = "not needed"
ANSWERED = (*TERMINAL_STATES, NOT_NEEDED)
OPEN = ("waiting", "running", "lost", "interrupted")
CELL_COLUMNS = ["cell_id", "state", "reason", "num_attempts"]
ATTEMPT_COLUMNS = ["node", "state", "failure", "started_at", "ended_at", "budget_kind"]
ATTEMPT_COLUMNS += ["budget_value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStatus:
    """What became of a cell: the state of its row, or waiting, running, or not needed.

    ``values`` are what a condition can name; ``running`` is its driver's word of an attempt.
    """

    cell: str
    cell_id: str
    state: str
    reason: str | None
    num_attempts: int
    values: Mapping[str, Any] | None
    running: RunningAttempt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStatus:
    """Where a sweep stands at the time ``at``.

    ``drivers`` are alive, ``progress`` is what each said last, by its id. ``failures`` counts the
    attempts without an answer by (class of failure, node). ``node_hours`` are spent,
    ``node_hours_left`` about what open cells will take: None before the first success.
    """

    name: str
    at: datetime
    cells: tuple[CellStatus, ...]
    drivers: tuple[Driver, ...]
    progress: Mapping[str, DriverProgress]
    failures: Mapping[tuple[str, str | None], int]
    node_hours: float
    node_hours_left: float | None
    standing: Standing | None
    warnings: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many cells are in which state."""
        return dict(sorted(Counter(cell.state for cell in self.cells).items()))

    @property
    def ends_at(self) -> datetime | None:
        """When the drivers expect to have done all they were asked for; None: not known yet."""
        return max((said.ends_at for said in self.progress.values() if said.ends_at), default=None)

    @property
    def quarantined(self) -> dict[str, str]:
        """Why nodes get no cells, by name."""
        return {n: why for said in self.progress.values() for n, why in said.quarantined.items()}


def read_status(store: Store) -> SweepStatus:
    """Where the sweep of ``store`` stands now."""
    description = store.read_sweep()
    # In this order: what ends meanwhile is seen to run and has a row, never neither.
    open_now, left_open = store.running_and_orphaned()
    running = {attempt.cell_id: note.get("node") for attempt, note in open_now}
    orphaned = {attempt.cell_id for attempt, _ in left_open}
    progress, stored, now = store.progress(), store.read(), datetime.now(UTC)
    until = description.get("until")
    standing = standing_told(until, stored.history()) if until is not None else None
    said = {each.cell_id: each for driver in progress.values() for each in driver.running}
    attempts = stored.table.select(ATTEMPT_COLUMNS).to_pylist()
    cell_rows = stored.cells_table().select(CELL_COLUMNS).to_pylist()
    rows = {row["cell_id"]: row for row in cell_rows}
    needed = None if standing is None else standing.next_ids | standing.later_ids

    def status_of(cell: Mapping[str, Any]) -> CellStatus:
        cell_id, word = cell["cell_id"], None
        row = rows.get(cell_id)
        state, reason = (row["state"], row["reason"]) if row else ("waiting", None)
        if state in TERMINAL_STATES:
            pass
        elif cell_id in running:
            state, reason, word = "running", f"on {running[cell_id]}", said.get(cell_id)
        elif cell_id in orphaned:
            state, reason = "lost", "its driver is gone; `make sweep` runs it again"
        elif row is None and needed is not None and cell_id not in needed:
            state = NOT_NEEDED
        return CellStatus(
            cell=cell["cell"],
            cell_id=cell_id,
            state=state,
            reason=reason,
            num_attempts=row["num_attempts"] if row else 0,
            values=cell.get("values"),
            running=word,
        )

    cells = tuple(map(status_of, description["cells"]))
    spent, left = _node_hours(cells, attempts, progress.values())
    return SweepStatus(
        name=description["name"],
        at=now,
        cells=cells,
        drivers=tuple(store.drivers()),
        progress=progress,
        failures=Counter((row["failure"], row["node"]) for row in attempts if row["failure"]),
        node_hours=spent,
        node_hours_left=left,
        standing=standing,
        warnings=(*stored.unreadable, *store.strange),
    )


def _node_hours(
    cells: Sequence[CellStatus], rows: Sequence[Row], progress: Iterable[DriverProgress]
) -> tuple[float, float | None]:
    """Hours in which a node had an attempt of this sweep, and about how many more there will be.

    An open cell takes as long as successes of its budget did, beside as many others on its node
    as there were so far. What a dead driver left open ended nobody knows when: it is left out.
    """
    spans: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
    walls_s: dict[object, list[float]] = defaultdict(list)
    for row in rows:
        if row["node"] is not None and row["failure"] != "driver":
            spans[row["node"]].append((row["started_at"], row["ended_at"]))
        if row["state"] == "succeeded":
            wall_s = (row["ended_at"] - row["started_at"]).total_seconds()
            walls_s[row["budget_kind"], row["budget_value"]].append(wall_s)
    for said in progress:
        for each in said.running:
            spans[each.node].append((said.at - timedelta(seconds=each.elapsed_s), said.at))
    node_s = sum(map(_covered_s, spans.values()))
    lease_s = sum((end - begin).total_seconds() for node in spans.values() for begin, end in node)
    every_s = [wall_s for each in walls_s.values() for wall_s in each]
    if not every_s or not lease_s:
        return node_s / 3600, None
    left_s = 0.0
    for cell in (cell for cell in cells if cell.state in OPEN):
        values = cell.values or {}
        alike_s = walls_s.get((values.get("budget_kind"), values.get("budget_value")), every_s)
        left_s += max(0.0, fmean(alike_s) - (cell.running.elapsed_s if cell.running else 0.0))
    return node_s / 3600, left_s * node_s / lease_s / 3600


def _covered_s(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Seconds that lie in at least one span."""
    total, last = timedelta(0), datetime.min.replace(tzinfo=UTC)
    for begin, end in sorted(spans):
        total += max(timedelta(0), end - max(begin, last))
        last = max(last, end)
    return total.total_seconds()
