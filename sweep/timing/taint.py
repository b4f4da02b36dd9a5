"""Taint: was the timing of an attempt disturbed? Judged by what does not know its activation.

Readings of throttling and of foreign processes, and the probe: a fixed piece of work that the node
does before and after every cell. The attempt's own steps are never looked at, for a slow activation
would be run until it was fast.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from sweep.spec.sweep_file import Timing

# What the probe's time depends on, none of it chosen by a cell. Without NVML no GPUs are named.
COMPARABLE = ("node", "device_name", "gpu_uuids", "world_size", "torch")
PROBES = {"probe_before_ms": "the probe before the cell", "allreduce_before_ms": "the all-reduce"}
MEASURE = (*COMPARABLE, *PROBES, "tainted")  # all that is looked at in an earlier attempt


def taint(
    row: Mapping[str, Any], history: Sequence[Mapping[str, Any]], thresholds: Timing
) -> str | None:
    """Why the attempt ``row`` is tainted, None if it is not.

    Only timed attempts can be. ``history`` are earlier attempts, at any cell, anywhere: those on
    the same hardware that were not tainted themselves are the node's own measure. What is missing
    in a row taints nothing.
    """
    if row.get("budget_kind") != "seconds":
        return None
    own = [past for past in history if not past.get("tainted") and _is_comparable(past, row)]
    reasons = (
        _too_often(
            row, "throttled_fraction", thresholds.throttled, "heat or hardware slowed a GPU"
        ),
        _too_often(row, "foreign_fraction", thresholds.foreign, "others had a process on a GPU"),
        _slower_after(row, thresholds.probe),
        *(_slower_than_usual(row, name, own, thresholds) for name in PROBES),
    )
    return next((reason for reason in reasons if reason is not None), None)


def _too_often(row: Mapping[str, Any], name: str, limit: float, what: str) -> str | None:
    fraction = row.get(name)
    if fraction is None or fraction <= limit:
        return None
    return f"{what} in {fraction:.1%} of the readings in training (limit {limit:.1%})"


def _slower_after(row: Mapping[str, Any], limit: float) -> str | None:
    before, after = row.get("probe_before_ms"), row.get("probe_after_ms")
    if before is None or after is None or not _is_slower(after, before, limit):
        return None
    return _sentence("the probe after the cell", after, "before the cell it took", before, limit)


def _slower_than_usual(
    row: Mapping[str, Any], name: str, own: Sequence[Mapping[str, Any]], thresholds: Timing
) -> str | None:
    """``name`` against the node's median of it, where there are attempts enough for one."""
    now, past = row.get(name), [value for r in own if (value := r.get(name)) is not None]
    if now is None or len(past) < thresholds.history:
        return None
    usual = median(past)
    if not _is_slower(now, usual, thresholds.probe):
        return None
    where = f"the median of {len(past)} earlier attempts on this node is"
    return _sentence(PROBES[name], now, where, usual, thresholds.probe)


def _is_slower(now_ms: float, usual_ms: float, limit: float) -> bool:
    return now_ms > usual_ms * (1 + limit)


def _sentence(what: str, now_ms: float, where: str, usual_ms: float, limit: float) -> str:
    return f"{what} took {now_ms:.4g} ms; {where} {usual_ms:.4g} ms (limit +{limit:.1%})"


def _is_comparable(past: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether their probes ought to agree."""
    known = row.get("node") is not None
    return known and all(past.get(name) == row.get(name) for name in COMPARABLE)
