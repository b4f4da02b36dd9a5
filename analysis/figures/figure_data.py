"""What figures are drawn from, for one setting: cells, curves, layers, comparisons, power, points.

Each is computed when it is first asked for. What a sweep did not leave, or what so few seeds cannot
tell, is a ConfigError with the reason.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import pandas as pd

from analysis.conclusions.contrasts import contrasts
from analysis.conclusions.slope_curve import SlopeCurve, slope_curves
from analysis.planning.power_tables import achieved, power_curve, power_table
from analysis.published.points import published_points
from analysis.rows.read import Sweep
from analysis.rows.stages import PANELS
from analysis.stats.pairs import paired_stats
from analysis.study import Study
from trainer.config.config_errors import ConfigError

T = TypeVar("T")

POWER = 0.8
_POINTS = 201  # of the power curve: the block design rises in a small part of it
_MOST_SEEDS = 12  # as far as the curve over seeds goes, or twice the grid's


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Which differences this grid, and larger ones like it, can resolve with power ``POWER``.

    ``over_seeds``, ``here``: rows of ``power_table``; ``curve``: rows of ``power_curve``;
    ``record_effect``: the record rule's margin, ``record_nats`` per token, in bits per byte, where
    that is known.
    """

    over_seeds: pd.DataFrame
    here: pd.DataFrame
    curve: pd.DataFrame
    record_effect: float | None
    record_nats: float


class FigureData:
    """A study of one setting, and what figures take of it.

    ``known`` are values that are there already, by the name of the property. ``on_page``: figures
    that have been drawn, as a page shows them: caption and SVG, by name.
    """

    def __init__(self, study: Study, **known: object) -> None:
        self.study = study
        self.on_page: dict[str, tuple[str, bytes]] = {}
        vars(self).update(known)

    @property
    def cells(self) -> pd.DataFrame:
        return self.study.cells

    @property
    def sweep(self) -> Sweep:
        return self.study.sweep

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The learning curves of the cells."""
        return _some(self.study.curves(), "no curve file")

    @cached_property
    def layers(self) -> pd.DataFrame:
        """The measures of the cells' layers."""
        return _some(self.study.layers(), "no layer file")

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """The differences from the reference at the stage that is tested, compared all at once."""
        return _some(contrasts(self.study), "nothing is compared with the reference yet")

    @cached_property
    def paired(self) -> pd.DataFrame:
        """The same differences, each by its own pairs alone."""
        return _some(paired_stats(self.study, self.study.primary), "no pair with the reference")

    @cached_property
    def slope_curve(self) -> SlopeCurve:
        """The smooth fit over the slope at the stage that is tested."""
        found = slope_curves(self.study, self.study.primary)
        if not found:
            raise ConfigError("fewer than three slopes")
        curve: SlopeCurve = found[0]
        if curve.line is None or not len(curve.line):
            raise ConfigError(str(curve.reason))
        return curve

    @cached_property
    def resolution(self) -> Resolution:
        """Which differences the grid can resolve, by its own noise."""
        grids = achieved(self.study)
        if not grids or grids[0].noise is None or not grids[0].designs():
            raise ConfigError("too few seeds to know the noise")
        grid = grids[0]
        more = [replace(grid, n=n) for n in range(2, max(_MOST_SEEDS, 2 * grid.n) + 1)]
        return Resolution(
            over_seeds=power_table(more, powers=(POWER,)),
            here=power_table([grid], powers=(POWER,)),
            curve=power_curve([grid], points=_POINTS),
            record_effect=grid.record_effect,
            record_nats=grid.record_nats,
        )

    @cached_property
    def published(self) -> Mapping[str, pd.DataFrame]:
        """Published points of the same recipe, by stage."""
        first = self.cells.iloc[0]
        recipe, kind = str(first["recipe"]), str(first["budget_kind"])
        if pd.notna(first["script_sha256"]):
            raise ConfigError("nothing published is set beside a script")
        if json.loads(first["set_json"] or "{}"):
            raise ConfigError(f"nothing is published for recipe {recipe} with values changed")
        points = {stage: published_points(recipe, stage, kind=kind) for stage in PANELS}
        known = {stage: found for stage, found in points.items() if not found.empty}
        if not known:
            raise ConfigError(f"nothing is published for recipe {recipe}")
        return known


def optional(value: Callable[[], T]) -> T | None:
    """What ``value`` gives; None where it is a ConfigError."""
    try:
        return value()
    except ConfigError:
        return None


def _some(rows: pd.DataFrame, reason: str) -> pd.DataFrame:
    if rows.empty:
        raise ConfigError(reason)
    return rows
