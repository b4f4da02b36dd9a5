"""Tables of power for the grids of a sweep: smallest effect, seeds that an effect needs, a curve.

Of each design; ``analysis.planning.power`` says what power means here. A planned grid has the
noise that it is planned with, a finished one its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from analysis.conclusions.contrasts import mean_level
from analysis.models.interval import LEVEL
from analysis.planning.noise import Noise, noise_of
from analysis.planning.power import (
    KINDS,
    Design,
    power_of,
    seeds_needed,
    smallest_effect,
)
from analysis.rows.names import with_names
from analysis.stats.compare import compare
from analysis.stats.ranking import same_functions
from analysis.study import Study
from sweep.driver.attempt_row import identity_columns
from sweep.spec.grid import expand
from sweep.spec.sweep_file import SweepSpec
from sweep.store.schema import SCHEMA
from trainer.script.load import load_any_recipe

POWERS = (0.8, 0.9)
EFFECTS_BPB = (0.0005, 0.001, 0.002, 0.003)  # what the field argues about

_SCORING = ("setting", "quantity", "budget", "window", "stride")
_DESIGN = ("design", "n", "comparisons", "noise_df", "level")


def grid_cells(spec: SweepSpec) -> pd.DataFrame:
    """One row per cell that ``spec`` asks for, as ``load_cells`` names it; reads no data.

    It has what is known of a cell before it runs (recipe, activation, seed, budget, window, stride,
    key, label, setting, further axes); every other column is null, ``cell_id`` too, since it
    depends on the data.
    """
    cells = expand(
        spec, lambda overrides: load_any_recipe(spec.recipe, overrides), lambda recipe: None
    )
    rows = [identity_columns(spec.name, cell) for cell in cells]
    return with_names(pd.DataFrame(rows, columns=SCHEMA.names).assign(cell_id=None))


def planned(study: Study, noise: Mapping[str, Noise | None]) -> list["Grid"]:
    """The grid of each setting (one row per cell) when all of its cells have succeeded.

    ``noise``: of each setting, None or absent where it is unknown.
    """
    kept = same_functions(study.cells, study.reference)
    return [
        Grid(
            **_facts(here),
            n=here.cells["seed"].nunique(),
            num_activations=len({kept[key] for key in here.cells["key"]}),
            noise=noise.get(setting),
            level=mean_level(here),
        )
        for setting, here in study.settings.items()
    ]


def achieved(study: Study) -> list["Grid"]:
    """The grid of each setting as far as it has been answered, with its own noise.

    It is taken for complete with ``n``, the pairs of the comparison that has the fewest. A setting
    in which nothing can be compared yet is absent.
    """
    grids = []
    compared = compare(study, study.primary).dropna(subset=["noise_sd"])
    for setting, rows in compared.groupby("setting", sort=False):
        here = study.settings[str(setting)]
        grids.append(
            Grid(
                **_facts(here),
                n=int(rows["n"].min()),
                num_activations=int(rows["comparisons"].iloc[0]) + 1,
                noise=noise_of(here, "its own"),
                level=mean_level(here),
            )
        )
    return grids


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One setting of a sweep, planned or finished: its budget, its windows and its size.

    ``num_activations`` counts the reference, and two names of one function once. ``window`` and
    ``stride`` are None where they are unknown, and so is ``noise``. ``level``: of the comparison of
    means, which alone is planned here; a slope on a smooth curve is resolved more easily.
    """

    setting: str
    budget: str
    quantity: str
    n: int
    num_activations: int
    noise: Noise | None
    record_nats: float
    level: float = LEVEL
    window: int | None = None
    stride: int | None = None

    @property
    def record_effect(self) -> float | None:
        """The record rule's margin in BPB; None where it has none, or the text is not known."""
        if self.noise is None or not self.record_nats:
            return None
        return self.noise.bpb_of(self.record_nats)

    @property
    def scoring(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in _SCORING}

    def designs(self) -> list[Design]:
        """Every design with the seeds of this grid; none where there is nothing to compare."""
        if self.num_activations < 2 or self.n < 2:
            return []
        return [Design(kind, self.n, self.num_activations, self.level) for kind in KINDS]


def power_table(grids: Iterable[Grid], *, powers: Sequence[float] = POWERS) -> pd.DataFrame:
    """One row per grid, design and power: the smallest ``effect`` (BPB) that is resolved.

    A grid has no row where its noise is unknown or where it can resolve nothing.
    """
    rows = [
        {**grid.scoring, **_of_design(design), "noise_sd": sd, "power": power}
        | {"effect": smallest_effect(design, sd, power=power), "source": grid.noise.source}
        for grid in grids
        if grid.noise is not None
        for design in grid.designs()
        for sd in [grid.noise.sd_for(design.kind)]
        for power in powers
    ]
    columns = [*_SCORING, *_DESIGN, "noise_sd", "effect", "power", "source"]
    return pd.DataFrame(rows, columns=columns)


def seeds_table(grids: Iterable[Grid], *, powers: Sequence[float] = POWERS) -> pd.DataFrame:
    """One row per grid, design, power and effect: how many seeds (``n``) and cells it needs.

    ``nats``: the effect in nats per token, where it is the record rule's; null otherwise. ``n`` and
    ``cells`` are null where no number of seeds suffices.
    """
    rows: list[dict[str, object]] = []
    for grid in grids:
        if grid.noise is None or grid.num_activations < 2:
            continue
        effects: list[tuple[float, float | None]] = [(effect, None) for effect in EFFECTS_BPB]
        if grid.record_effect is not None:
            effects.append((grid.record_effect, grid.record_nats))
        for kind in KINDS:
            design = Design(kind, grid.n, grid.num_activations, grid.level)
            sd = grid.noise.sd_for(kind)
            for power, (effect, nats) in product(powers, effects):
                n = seeds_needed(effect, design, sd, power=power)
                rows.append(
                    {**grid.scoring, "design": kind, "comparisons": design.comparisons}
                    | {"noise_sd": sd, "effect": effect, "nats": nats, "power": power, "n": n}
                    | {"cells": None if n is None else n * grid.num_activations}
                    | {"level": design.level, "source": grid.noise.source}
                )
    columns = [*_SCORING, "design", "comparisons", "noise_sd", "effect", "nats", "power"]
    table = pd.DataFrame(rows, columns=[*columns, "n", "cells", "level", "source"])
    return table.astype({"n": "Int64", "cells": "Int64", "nats": float})


def power_curve(grids: Iterable[Grid], *, points: int = 61) -> pd.DataFrame:
    """``power`` over ``effect`` (BPB) for every design of each grid, from 0 to where all are sure.

    ``points`` effects a curve, evenly spaced.
    """
    rows: list[dict[str, object]] = []
    for grid in grids:
        if grid.noise is None or not grid.designs():
            continue
        sds = {design: grid.noise.sd_for(design.kind) for design in grid.designs()}
        most = max(smallest_effect(design, sd, power=0.99) for design, sd in sds.items())
        for design, sd in sds.items():
            for effect in (most * i / (points - 1) for i in range(points)):
                rows.append(
                    {**grid.scoring, **_of_design(design), "noise_sd": sd, "effect": effect}
                    | {"power": power_of(effect, design, sd), "source": grid.noise.source}
                )
    columns = [*_SCORING, *_DESIGN, "noise_sd", "effect", "power", "source"]
    return pd.DataFrame(rows, columns=columns)


def _of_design(design: Design) -> dict[str, object]:
    return {"design": design.kind} | {name: getattr(design, name) for name in _DESIGN[1:]}


def _facts(here: Study) -> dict[str, Any]:
    """Budget and windows of a setting's grid."""
    rows = here.cells
    window, stride = (
        None if rows[name].isna().all() else int(rows[name].max()) for name in ("window", "stride")
    )
    return {
        "setting": str(rows["setting"].iloc[0]),
        "budget": str(rows["budget"].iloc[0]),
        "quantity": here.primary,
        "record_nats": here.sweep.record_rule.nats,
        "window": window,
        "stride": stride,
    }
