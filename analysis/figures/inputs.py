"""What is there to draw a setting from, beside its cells?

Each figure says what it needs (``figures.FIGURES``); what a sweep did not leave, or what so few
seeds cannot tell, is None, and ``why`` has the reason in words.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.planning.power import Grid, achieved, power_curve, power_table
from analysis.published.points import published_points
from analysis.rows.read import Sweep, load_curves, load_layers, load_replicates
from analysis.rows.stages import PANELS, PRIMARY
from analysis.stats.compare import contrasts
from analysis.stats.pairs import paired_stats
from analysis.stats.ranking import design_of, with_companions
from analysis.stats.slope_curve import SlopeCurve, slope_curves
from trainer.config.config_errors import ConfigError

POWER = 0.8
_POINTS = 201  # of the power curve: the block design rises in a small part of it
_MOST_SEEDS = 12  # as far as the curve over seeds goes, or twice the grid's


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What this grid, and larger ones like it, can resolve at ``POWER``.

    ``over_seeds``, ``here``: rows of ``power.power_table``; ``curve``: rows of ``power_curve``;
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


def given(
    cells: pd.DataFrame, sweep: Sweep, names: Iterable[str], *, place: str | Path | None = None
) -> Given:
    """``names`` of the fields of ``Given`` for the cells of one setting.

    What lies in files is read from ``place``; without a place it is absent. Among that are the
    companions of a sweep that blocked by node: what is compared is compared with them.
    """
    found, compared = Given(), cells
    if place is not None and sweep.pairing == "node":
        compared = with_companions(cells, load_replicates(place), sweep)
    for name in dict.fromkeys(names):
        try:
            value = _SOURCES[name](compared if name in _COMPARED else cells, sweep, place)
        except ConfigError as error:
            value = str(error)
        known: dict[str, Any] = (
            {"why": {**found.why, name: value}} if isinstance(value, str) else {name: value}
        )
        found = replace(found, **known)
    return found


def _curves(cells: pd.DataFrame, sweep: Sweep, place: str | Path | None) -> pd.DataFrame | str:
    if place is None:
        return "no place to read curve files from"
    curves = load_curves(place, cells)
    return "no curve file" if curves.empty else curves


def _layers(cells: pd.DataFrame, sweep: Sweep, place: str | Path | None) -> pd.DataFrame | str:
    if place is None:
        return "no place to read layer files from"
    layers = load_layers(place, cells)
    return "no layer file" if layers.empty else layers


def _contrasts(cells: pd.DataFrame, sweep: Sweep, place: object) -> pd.DataFrame | str:
    rows = contrasts(cells, PRIMARY, sweep.reference, design=design_of(sweep))
    return "nothing is compared with the reference yet" if rows.empty else rows


def _paired(cells: pd.DataFrame, sweep: Sweep, place: object) -> pd.DataFrame | str:
    rows = paired_stats(cells, PRIMARY, sweep.reference, design=design_of(sweep))
    return "no pair with the reference" if rows.empty else rows


def _slope_curve(cells: pd.DataFrame, sweep: Sweep, place: object) -> SlopeCurve | str:
    found = slope_curves(cells, PRIMARY, design=design_of(sweep))
    if not found:
        return "fewer than three slopes"
    curve: SlopeCurve = found[0]
    return curve if curve.line is not None and len(curve.line) else str(curve.reason)


def _power(cells: pd.DataFrame, sweep: Sweep, place: object) -> Power | str:
    grids: list[Grid] = achieved(cells, sweep.reference, blocks=design_of(sweep))
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


def _published(
    cells: pd.DataFrame, sweep: Sweep, place: object
) -> Mapping[str, pd.DataFrame] | str:
    first = cells.iloc[0]
    recipe, kind = str(first["recipe"]), str(first["budget_kind"])
    if json.loads(first["set_json"] or "{}"):
        return f"nothing is published for recipe {recipe} with values changed"
    points = {stage: published_points(recipe, stage, kind=kind) for stage in PANELS}
    known = {stage: found for stage, found in points.items() if not found.empty}
    return known or f"nothing is published for recipe {recipe}"


_COMPARED = ("contrasts", "paired", "slope_curve", "power")
_SOURCES: dict[str, Callable[[pd.DataFrame, Sweep, str | Path | None], Any]] = {
    "curves": _curves,
    "layers": _layers,
    "contrasts": _contrasts,
    "paired": _paired,
    "slope_curve": _slope_curve,
    "power": _power,
    "published": _published,
}
