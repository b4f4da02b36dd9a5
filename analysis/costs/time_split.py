"""Differences at equal time, split into what is made per step and what by taking more steps.

total     = score(activation) − score(reference), under one budget of seconds
per_step  = the same with both at the reference's number of steps
from_steps = total − per_step, so the two parts always add up

The per-step part is measured where the sweep has a budget of steps near the reference's count
(``fixed steps``): it is the difference there, interpolated in log steps between two such budgets.
Else the part of the steps is estimated as ∂score / ∂log steps · log(steps ratio); the sources, and
how far each can be trusted, are in ``analysis.costs.step_effect``. Half widths of independent
estimates are added in quadrature; all are simultaneous over the comparisons of the setting. Tainted
cells are no part of it and are counted. What nodes do to time and scores:
``analysis.costs.node_speed``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.costs.step_effect import IN_SETTING, StepEffect, along_curve, in_setting
from analysis.models.interval import LEVEL
from analysis.rows.read import records
from analysis.rows.scoring import scoring_of
from analysis.stats.compare import compare
from analysis.stats.ranking import ranked_rows
from analysis.study import Study

FIXED_STEPS = "fixed steps"
NEAR = 2.0  # a budget of steps says something of a run up to so many times longer or shorter

SPLIT_COLUMNS = (
    *("setting", "key", "label", "quantity", "reference", "n", "total", "per_step", "from_steps"),
    *("total_half_width", "per_step_half_width", "from_steps_half_width", "method", "detail"),
    *("steps", "reference_steps", "steps_ratio", "n_tainted", "level", "comparisons"),
    *("unjudged", "budget", "window", "stride"),
)
_PARTS = ("total", "per_step", "from_steps")
_HALF_WIDTHS = tuple(f"{part}_half_width" for part in _PARTS)
_NUMBERS = (*_PARTS, "steps", "reference_steps", "steps_ratio", *_HALF_WIDTHS)


def time_splits(study: Study, curves: pd.DataFrame | None, quantity: str) -> pd.DataFrame:
    """One row per setting with a budget of seconds and activation compared with ``reference``.

    ``method`` is ``fixed steps`` or a source of ``analysis.costs.step_effect``; null, as the parts
    are, where nothing tells the two apart, and ``detail`` says so. ``steps_ratio`` is the
    activation's steps over the reference's, geometric mean over paired seeds. No part has a half
    width where the difference is ``unjudged``. ``curves`` is what ``load_curves`` gives, None or
    empty where there is none.
    """
    compared = compare(study, quantity)
    reference, labels, rows = study.reference, study.labels, []
    for setting, here in study.settings.items():
        if here.cells["budget_kind"].iloc[0] != "seconds":
            continue
        gaps = records(compared[compared["setting"] == setting])
        if not gaps:
            continue
        arms = _fixed_step_arms(study.cells, here.cells, compared)
        simultaneous = LEVEL ** (1 / len(gaps))
        sources = (
            in_setting(here, quantity, level=simultaneous),
            along_curve(here.cells, curves, level=simultaneous),
        )
        taken = _steps(here)
        for gap in gaps:
            steps = _steps_of(taken, gap["key"], reference)
            split = _split(gap, steps, arms, sources)
            if isinstance(gap["unjudged"], str):
                split |= dict.fromkeys(_HALF_WIDTHS)
            rows.append(
                {**gap, "label": labels[gap["key"]], "total": gap["difference"]}
                | {"total_half_width": gap["half_width"], **split, **steps}
                | {"n_tainted": _tainted(here.cells, (gap["key"], reference))}
                | scoring_of(here.cells, quantity)
            )
    table = pd.DataFrame(rows, columns=list(SPLIT_COLUMNS))
    return table.astype(dict.fromkeys(_NUMBERS, float))


Arms = dict[str, list[tuple[float, Mapping[str, Any]]]]


def _fixed_step_arms(frame: pd.DataFrame, here: pd.DataFrame, compared: pd.DataFrame) -> Arms:
    """By key: the budgets of steps of the same recipe and axes, with the difference there."""
    like = frame[frame["set_json"] == here["set_json"].iloc[0]]
    like = like[(like["recipe"] == here["recipe"].iloc[0]) & (like["budget_kind"] == "steps")]
    sizes = dict(zip(like["setting"], like["budget_value"].astype(float), strict=True))
    arms: Arms = {}
    for row in records(compared[compared["setting"].isin(sizes)]):
        arms.setdefault(row["key"], []).append((sizes[row["setting"]], row))
    return {key: sorted(rows, key=lambda arm: arm[0]) for key, rows in arms.items()}


def _split(
    gap: Mapping[str, Any],
    steps: Mapping[str, float],
    arms: Arms,
    sources: Sequence[Mapping[str, StepEffect]],
) -> dict[str, object]:
    """The two parts, their half widths, and where they come from; ``sources``: the better first."""
    total, total_half = float(gap["difference"]), float(gap["half_width"])
    if math.isnan(steps["steps_ratio"]):
        return {"method": None, "detail": "the steps are not known"}
    measured = _at_equal_steps(arms.get(gap["key"], []), steps["reference_steps"])
    if measured is not None:
        per_step, half, detail = measured
        return {
            **{"method": FIXED_STEPS, "detail": detail},
            **{"per_step": per_step, "per_step_half_width": half},
            "from_steps": total - per_step,
            "from_steps_half_width": math.hypot(total_half, half),
        }
    log_ratio = math.log(steps["steps_ratio"])
    for effect in (source[gap["key"]] for source in sources if gap["key"] in source):
        from_steps, half = log_ratio * effect.per_log_step, abs(log_ratio) * effect.half_width
        # γ within one setting may be too vague to use: its precision decides, never its value.
        if effect.method != IN_SETTING or half < total_half:
            return {
                **{"method": effect.method, "detail": effect.detail},
                **{"from_steps": from_steps, "from_steps_half_width": half},
                "per_step": total - from_steps,
                "per_step_half_width": math.hypot(total_half, half),
            }
    detail = "no budget of steps, no spread of steps over nodes, no learning curve"
    return {"method": None, "detail": detail}


def _at_equal_steps(
    arms: list[tuple[float, Mapping[str, Any]]], steps: float
) -> tuple[float, float, str] | None:
    """The difference at ``steps``, linear in log steps between the two nearest budgets.

    Beyond the last budget it is that of the last one; None where none is within ``NEAR``.
    """
    if not arms or min(abs(math.log(size / steps)) for size, _ in arms) > math.log(NEAR):
        return None
    sizes = [size for size, _ in arms]
    weights = [float(np.interp(math.log(steps), np.log(sizes), unit)) for unit in np.eye(len(arms))]
    used = [(w, size, row) for w, (size, row) in zip(weights, arms, strict=True) if w > 0]
    half = math.hypot(*(w * float(row["half_width"]) for w, _, row in used))
    budgets = " and ".join(f"{size:g}" for _, size, _ in used)
    detail = f"at {budgets} steps, {used[0][2]['n']} paired seeds"
    return sum(w * float(row["difference"]) for w, _, row in used), half, detail


def _steps(here: Study) -> pd.DataFrame:
    """The steps of ranked activations: what is compared in a row, activations × columns."""
    rows = ranked_rows(here, "steps", here.reference)
    return rows.pivot(index=here.blocking.by, columns="key", values="value")


def _steps_of(taken: pd.DataFrame, key: str, reference: str) -> dict[str, float]:
    """Geometric means over paired seeds of the steps that both took, and their ratio."""
    paired = taken.reindex(columns=[key, reference]).dropna().to_numpy(dtype=float)
    if not len(paired):
        return dict.fromkeys(("steps", "reference_steps", "steps_ratio"), math.nan)
    own, of_reference = (float(value) for value in np.exp(np.log(paired).mean(axis=0)))
    return {"steps": own, "reference_steps": of_reference, "steps_ratio": own / of_reference}


def _tainted(here: pd.DataFrame, keys: tuple[str, ...]) -> int:
    """Cells whose only successes are tainted, of these activations."""
    tainted = here["tainted"].astype("boolean").fillna(False).astype(bool)
    return int((here["key"].isin(keys) & tainted & (here["state"] == "succeeded")).sum())
