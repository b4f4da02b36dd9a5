"""What differs from the reference: each activation alone, and fixed slopes along their curve too.

Eleven slopes are no eleven treatments: where they lie on a smooth curve, each is known by its
neighbours too, and a difference along the curve (``analysis.conclusions.slope_curve``) is known
better than that of two means. A learned β has no neighbours, and a slope may stand alone; these are
found by the comparison of means (``analysis.stats.compare``). Which of the two will find a
difference is not known beforehand, so where a setting has ``FEWEST_SLOPES`` fixed slopes or more,
the reference among them, each of the two spends half of the error: both hold at once with 95 %, and
an activation is resolved if either says so. Elsewhere means alone are compared.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.conclusions.slope_curve import (
    CONTRAST_LEVEL,
    SlopeCurve,
    reference_slope,
    slope_curve,
)
from analysis.models.interval import LEVEL
from analysis.stats.compare import compare, nats_per_bpb
from analysis.stats.slopes import fixed_slopes
from analysis.study import Study, answered_once

FEWEST_SLOPES = 5  # from which on the curve is a cubic, stiffer than the slopes themselves


@answered_once
def contrasts(study: Study, quantity: str | None = None) -> pd.DataFrame:
    """The rows of ``compare`` as they are judged, by default at the stage that is tested.

    ``along_curve``: difference, interval and p are those along the curve. A slope on it has the one
    that resolves it, else the narrower of both; ``mean_difference`` is always that of the means.
    ``level`` and ``p_value`` hold for both families.
    """
    quantity = quantity or study.primary
    tables = []
    for here in study.settings.values():
        level = mean_level(here)
        rows = compare(here, quantity, level=level)
        rows = rows.assign(along_curve=False, level=LEVEL, mean_difference=rows["difference"])
        if level > LEVEL and not rows.empty:
            rows = _with_curve(rows, slope_curve(here, quantity), here)
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def mean_level(here: Study) -> float:
    """At which level means are compared in one setting: that of the grid, not of its results."""
    slopes = set(fixed_slopes(here.cells).values())
    shared = len(slopes) >= FEWEST_SLOPES and reference_slope(here) in slopes
    return CONTRAST_LEVEL if shared else LEVEL


def _with_curve(rows: pd.DataFrame, curve: SlopeCurve, here: Study) -> pd.DataFrame:
    along: dict[str, Mapping[str, Any]] = curve.contrasts.set_index("key").to_dict("index")
    factor = nats_per_bpb(here.cells)
    found = []
    for row in rows.assign(p_value=(2 * rows["p_value"]).clip(upper=1)).to_dict("records"):
        slope = along.get(row["key"])
        if slope is not None and _tells_more(slope, row):
            row |= {name: slope[name] for name in ("difference", "low", "high", "half_width")}
            row |= {"p_value": min(1.0, 2 * slope["p_value"]), "resolved": slope["resolved"]}
            row |= {"along_curve": True, "widened": False}
            row |= {"pooled_half_width": None, "pooled_p": None}
            if factor is not None:
                row |= {"nats": factor * row["difference"]}
                row |= {f"nats_{end}": factor * row[end] for end in ("low", "high")}
        found.append(row)
    return pd.DataFrame(found, columns=rows.columns).astype(rows.dtypes.to_dict())


def _tells_more(slope: Mapping[str, Any], mean: Mapping[str, Any]) -> bool:
    """Whether the interval along the curve is the one to show; both hold at once."""
    if slope["resolved"] != mean["resolved"]:
        return bool(slope["resolved"])
    return bool(slope["half_width"] < mean["half_width"])
