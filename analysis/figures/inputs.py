"""What is there to draw a setting from, beside its cells?

Each figure says what it needs (``figures.FIGURES``); what a sweep did not leave, or what so few
seeds cannot tell, is None, and ``why`` has the reason in words.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from analysis.planning.power_tables import Grid, achieved, power_curve, power_table
from analysis.published.points import published_points
from analysis.rows.stages import PANELS, PRIMARY
from analysis.stats.compare import compare
from analysis.stats.pairs import paired_stats
from analysis.stats.slope_curve import SlopeCurve, slope_curves
from analysis.study import Study
from trainer.config.config_errors import ConfigError

POWER = 0.8
_POINTS = 201  # of the power curve: the block design rises in a small part of it
_MOST_SEEDS = 12  # as far as the curve over seeds goes, or twice the grid's


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What this grid, and larger ones like it, can resolve at ``POWER``.

    ``over_seeds``, ``here``: rows of ``power_table``; ``curve``: rows of ``power_curve``;
    ``field_effect``: 0.005 nats per token in bits per byte, where that is known.
    """

    over_seeds: pd.DataFrame
    here: pd.DataFrame
    curve: pd.DataFrame
    field_effect: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one setting has, as the functions of ``analysis`` return it; None: there is none.

    ``contrasts`` and ``paired``: of ``stages.PRIMARY`` against the sweep's reference.
    ``published``: points by stage, of the same recipe. ``why``: a reason for what is None.
    """

    curves: pd.DataFrame | None = None
    layers: pd.DataFrame | None = None
    contrasts: pd.DataFrame | None = None
    paired: pd.DataFrame | None = None
    slope_curve: SlopeCurve | None = None
    power: Power | None = None
    published: Mapping[str, pd.DataFrame] | None = None
    why: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, names: Iterable[str]) -> str | None:
        """Why one of ``names`` is absent; None where all are there."""
        for name in names:
            if getattr(self, name) is None:
                return self.why.get(name, f"no {name.replace('_', ' ')}")
        return None


def given(study: Study, names: Iterable[str]) -> Given:
    """``names`` of the fields of ``Given`` for one setting; without a place, no files are read."""
    found = Given()
    for name in dict.fromkeys(names):
        try:
            value = _SOURCES[name](study)
        except ConfigError as error:
            value = str(error)
        known: dict[str, Any] = (
            {"why": {**found.why, name: value}} if isinstance(value, str) else {name: value}
        )
        found = replace(found, **known)
    return found


def _curves(study: Study) -> pd.DataFrame | str:
    curves = study.curves()
    return "no curve file" if curves.empty else curves


def _layers(study: Study) -> pd.DataFrame | str:
    layers = study.layers()
    return "no layer file" if layers.empty else layers


def _contrasts(study: Study) -> pd.DataFrame | str:
    rows = compare(study, PRIMARY)
    return "nothing is compared with the reference yet" if rows.empty else rows


def _paired(study: Study) -> pd.DataFrame | str:
    rows = paired_stats(study, PRIMARY)
    return "no pair with the reference" if rows.empty else rows


def _slope_curve(study: Study) -> SlopeCurve | str:
    found = slope_curves(study, PRIMARY)
    if not found:
        return "fewer than three slopes"
    curve: SlopeCurve = found[0]
    return curve if curve.line is not None and len(curve.line) else str(curve.reason)


def _power(study: Study) -> Power | str:
    grids: list[Grid] = achieved(study)
    if not grids or grids[0].noise is None or not grids[0].designs():
        return "too few seeds to know the noise"
    grid = grids[0]
    more = [replace(grid, n=n) for n in range(2, max(_MOST_SEEDS, 2 * grid.n) + 1)]
    return Power(
        over_seeds=power_table(more, powers=(POWER,)),
        here=power_table([grid], powers=(POWER,)),
        curve=power_curve([grid], points=_POINTS),
        field_effect=grid.noise.field_bpb if grid.noise else None,
    )


def _published(study: Study) -> Mapping[str, pd.DataFrame] | str:
    first = study.cells.iloc[0]
    recipe, kind = str(first["recipe"]), str(first["budget_kind"])
    if json.loads(first["set_json"] or "{}"):
        return f"nothing is published for recipe {recipe} with values changed"
    points = {stage: published_points(recipe, stage, kind=kind) for stage in PANELS}
    known = {stage: found for stage, found in points.items() if not found.empty}
    return known or f"nothing is published for recipe {recipe}"


_SOURCES: dict[str, Callable[[Study], Any]] = {
    "curves": _curves,
    "layers": _layers,
    "contrasts": _contrasts,
    "paired": _paired,
    "slope_curve": _slope_curve,
    "power": _power,
    "published": _published,
}
