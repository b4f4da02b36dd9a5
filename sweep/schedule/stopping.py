"""Stop a sweep when it knows: which cells run now, which may come later, and which nobody needs.

Pure. The grid is laid out as seeds × functions, :mod:`sweep.schedule.sequential_selection` replays
what has ended, and a plan is held back to the next seed of the activations in play. Nothing is
kept: a sweep that was interrupted, or has got more seeds or activations since, is replayed as a
whole.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np

from sweep.schedule.plan import Plan
from sweep.schedule.quarantine import void_attempts
from sweep.schedule.retry import verdict
from sweep.schedule.sequential_selection import Selection, StoppingRule, select
from sweep.spec.grid import Cell
from sweep.spec.sweep_file import Retries, SweepSpec, Until
from sweep.store.history import (
    EndedAttempt,
    History,
    latest_generation,
    select_attempt,
    with_void,
)

End = Literal["decided", "seeds", "node_hours"]
_WHY = {
    "seeds": "No seed is left: list more of them in `seeds` (and raise until.seeds) to go on.",
    "node_hours": "The next seed would exceed until.node_hours; a higher one goes on.",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The grid as seeds × functions: ids of cells, of which two names of one function have two."""

    functions: tuple[str, ...]
    ids: tuple[tuple[tuple[str, ...], ...], ...]

    @classmethod
    def of(cls, cells: Sequence[Cell], sweep: SweepSpec) -> "Layout":
        """In the order of the sweep file, seeds to the ceiling only."""
        until = _until(sweep)
        at: dict[tuple[int, str], list[str]] = defaultdict(list)
        names = function_names(cells, sweep.reference)
        # Of two names the one that stands for both comes first: its score is the one that counts.
        for cell in sorted(
            cells, key=lambda c: names[c.spec.activation.label] != c.spec.activation.label
        ):
            at[cell.spec.seed, names[cell.spec.activation.label]].append(cell.id)
        functions = tuple(dict.fromkeys(names[a.label] for a in sweep.expanded_activations()))
        return cls(
            functions,
            tuple(
                tuple(tuple(at[seed, f]) for f in functions) for seed in sweep.seeds[: until.seeds]
            ),
        )


@dataclass(frozen=True, slots=True)
class Ceiling:
    """No seed is begun that would take all attempts past ``node_hours``.

    ``estimate_cell_s``: what a cell is taken to last until one has succeeded.
    """

    node_hours: float
    estimate_cell_s: float

    def is_exceeded(self, history: History, num_cells: int) -> bool:
        """Whether ``num_cells`` more are too many. An attempt has a lease, which is a node."""
        ended = [attempt for attempts in history.values() for attempt in attempts]
        walls_s = [attempt.wall_s for attempt in ended if attempt.state == "succeeded"]
        cell_s = fmean(walls_s) if walls_s else self.estimate_cell_s
        used_s = sum(attempt.wall_s for attempt in ended)
        return num_cells > 0 and used_s + num_cells * cell_s > 3600 * self.node_hours


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a sweep stands, and how it has ended, if so.

    ``diverged``: functions that are excluded for it. ``next_ids``: the cells of the next seed, and
    at first of all seeds before which nothing is dropped. ``later_ids``: what may be needed after
    that, if nothing more is dropped.
    """

    layout: Layout
    rule: StoppingRule
    selection: Selection
    diverged: tuple[str, ...]
    end: End | None = None
    next_ids: frozenset[str] = frozenset()
    later_ids: frozenset[str] = frozenset()


def function_names(cells: Sequence[Cell], reference: str) -> dict[str, str]:
    """Each activation's label with the one that stands for its function, as the report has it."""
    known: dict[Any, set[tuple[bool, bool, str]]] = defaultdict(set)
    keys = {}
    for cell in cells:
        label = cell.spec.activation.label
        keys[label] = label if cell.neg_beta is None else cell.neg_beta
        known[keys[label]].add((label != reference, cell.slope is not None, label))
    return {label: min(known[key])[2] for label, key in keys.items()}


def standing_of(
    layout: Layout,
    rule: StoppingRule,
    ceiling: Ceiling | None,
    history: History,
    waiting: Collection[str],
) -> Standing:
    """Replay what has ended; ``waiting``: ids of the cells that may still get an answer."""
    shape = len(layout.ids), len(layout.functions)
    scores_SA, waiting_SA = np.full(shape, np.nan), np.zeros(shape, bool)
    diverged = set()
    for s, row in enumerate(layout.ids):
        for a, ids in enumerate(row):
            waiting_SA[s, a] = any(cell_id in waiting for cell_id in ids)
            chosen = [select_attempt(history[cell_id]) for cell_id in ids if history.get(cell_id)]
            is_diverged = any(ended.state == "diverged" for ended in chosen)
            if is_diverged and not waiting_SA[s, a]:  # it may have to be confirmed
                diverged.add(a)
            found = [e.score for e in chosen if e.settles and e.score is not None]
            scores_SA[s, a] = next(filter(np.isfinite, found), np.nan)
    selection = select(scores_SA, rule, waiting_SA=waiting_SA, excluded=diverged)
    known = Standing(layout, rule, selection, tuple(layout.functions[a] for a in sorted(diverged)))
    if selection.is_decided:
        return replace(known, end="decided")
    if selection.num_seeds == len(layout.ids):
        return replace(known, end="seeds")
    first_later = max(selection.num_seeds + 1, rule.min_seeds)
    next_ids = _in_play(known, slice(selection.num_seeds, first_later))
    if ceiling is not None and ceiling.is_exceeded(history, len(next_ids & set(waiting))):
        return replace(known, end="node_hours")
    later_ids = _in_play(known, slice(first_later, None))
    return replace(known, next_ids=next_ids, later_ids=later_ids)


def _in_play(standing: Standing, seeds: slice) -> frozenset[str]:
    """Under ``seeds`` the cells of what is in play."""
    in_play = (*standing.selection.in_play, *standing.selection.unscored)
    return frozenset(i for row in standing.layout.ids[seeds] for a in in_play for i in row[a])


@dataclass(frozen=True, slots=True)
class Progress:
    """A plan that is held back to what is needed now, and why."""

    plan: Plan
    standing: Standing


def progress(plan: Plan, cells: Sequence[Cell], history: History, sweep: SweepSpec) -> Progress:
    """Hold ``plan`` back, which is of all ``cells`` of ``sweep``."""
    until, waiting = _until(sweep), {task.cell.id for task in plan.todo}
    standing = standing_of(
        Layout.of(cells, sweep), rule_of(until), ceiling_of(sweep), history, waiting
    )
    return Progress(_held_back(plan, standing.next_ids, standing.later_ids), standing)


def _held_back(plan: Plan, now: Collection[str], later: Collection[str]) -> Plan:
    return replace(
        plan,
        todo=tuple(task for task in plan.todo if task.cell.id in now),
        later=tuple(task for task in plan.todo if task.cell.id in later),
        unneeded=tuple(
            task.cell for task in plan.todo if task.cell.id not in now and task.cell.id not in later
        ),
    )


def sentences(standing: Standing, labels: Mapping[str, str] | None = None) -> Iterator[str]:
    """What is known so far, who was dropped and why, and how it ended; ``labels``: for people."""
    selection, zone = standing.selection, f"{standing.rule.zone:g} BPB"
    names = [(labels or {}).get(name, name) for name in standing.layout.functions]
    in_play, seeds = [names[a] for a in selection.in_play], _seeds(selection.num_seeds)
    other = "other that has a score" if selection.unscored else "other"
    if selection.is_decided and len(in_play) == 1:
        yield f"After {seeds}: {in_play[0]} is selected. No {other} is better by {zone}."
    elif selection.is_decided and in_play:
        yield (
            f"After {seeds}: {', '.join(in_play)} are left, the lowest first. None of them is "
            f"better than another by {zone}, nor is any {other}."
        )
    elif not selection.num_seeds:
        yield f"Nothing is decided: no seed has all of its {len(names)} activations yet."
    else:
        best = f", the lowest first: {', '.join(in_play)}" if selection.dropped else ""
        yield (
            f"After {seeds} nothing is decided yet; {len(in_play)} of {len(names)} activations "
            f"are in play{best}."
        )
    for gone in selection.dropped:
        yield (
            f"{names[gone.activation]}: dropped after {_seeds(gone.num_seeds)}, "
            f"{gone.difference:.4f} behind {names[gone.rival]} over {gone.num_shared} of them."
        )
    for name in standing.diverged:
        yield f"{(labels or {}).get(name, name)}: out of the question, since a seed of it diverged."
    for a in selection.unscored if selection.num_seeds else ():
        yield f"{names[a]}: without a score under {seeds}."
    if standing.end in _WHY:
        yield _WHY[standing.end]


def told(cells: Sequence[Cell], sweep: SweepSpec) -> dict[str, Any]:
    """What ``sweep.json`` keeps, for :func:`standing_told`."""
    layout, ceiling = Layout.of(cells, sweep), ceiling_of(sweep)
    return {
        "rule": asdict(rule_of(_until(sweep))),
        "ceiling": asdict(ceiling) if ceiling is not None else None,
        "retries": sweep.retries.model_dump(),
        "functions": layout.functions,
        "ids": layout.ids,
    }


def standing_told(until: Mapping[str, Any], history: History) -> Standing:
    """Where a sweep stands of which only results are at hand."""
    ids = tuple(tuple(tuple(cell) for cell in row) for row in until["ids"])
    layout, retries = Layout(tuple(until["functions"]), ids), Retries(**until["retries"])
    history = with_void(history, void_attempts(history, retries))
    waiting = {
        cell_id
        for row in ids
        for cell in row
        for cell_id in cell
        if _may_be_answered(history.get(cell_id, ()), retries)
    }
    ceiling = Ceiling(**until["ceiling"]) if until.get("ceiling") else None
    return standing_of(layout, StoppingRule(**until["rule"]), ceiling, history, waiting)


def _may_be_answered(attempts: Sequence[EndedAttempt], retries: Retries) -> bool:
    latest = latest_generation(attempts)
    own = [ended for ended in attempts if ended.generation == latest]
    return verdict(own, retries, None).kind == "again"


def _until(sweep: SweepSpec) -> Until:
    if sweep.until is None:
        raise ValueError(f"sweep {sweep.name} has no [until]")
    return sweep.until


def rule_of(until: Until) -> StoppingRule:
    """What [until] says, without its ceilings."""
    return StoppingRule(zone=until.zone, confidence=until.confidence, min_seeds=until.min_seeds)


def ceiling_of(sweep: SweepSpec) -> Ceiling | None:
    """What [until] says of node-hours."""
    node_hours = _until(sweep).node_hours
    return Ceiling(node_hours, sweep.estimate_cell_s) if node_hours is not None else None


def _seeds(number: int) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"
