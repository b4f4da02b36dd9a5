"""What a grid can resolve, in sentences and tables: what ``make plan`` prints below a plan.

Settings that differ in nothing that matters here share a sentence.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.models.interval import LEVEL
from analysis.number_format import DASH, counted, number, percent
from analysis.planning.noise import planning_noise
from analysis.planning.power import smallest_effect
from analysis.planning.power_tables import (
    POWERS,
    Grid,
    achieved,
    grid_cells,
    planned,
    seeds_table,
)
from analysis.planning.stopping_cost import stopping_cost
from analysis.rows.read import CELLS_FILE, parts_of, records
from analysis.stats.ranking import same_functions
from analysis.study import Study, read_study
from analysis.text_table import Summary, TextTable
from sweep.spec import sweep_file
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError


def power_summary(place: str | Path, sweep: str, *, zone: float | None = None) -> Summary:
    """What the grid of ``sweep`` (name or path of its file) can resolve, and what it has resolved.

    ``place``: where its results are or will be. ConfigError where there is neither a sweep file nor
    a result. ``zone``: of [until], whatever the file has there.
    """
    results, name = parts_of(str(place))
    finished, doubts = _finished(place)
    try:
        spec = sweep_file.load_sweep(sweep, zone=zone)
    except ConfigError:
        if not finished:
            raise
        return Summary(name, _sections(finished), tuple(_sentences(finished, "so far")))
    cells = grid_cells(spec)
    noise = planning_noise(cells, results, name)
    grids = planned(Study.of(cells, spec.reference, record_rule=spec.record_rule), noise)
    done = [grid for grid in grids if any(_is_done(grid, other) for other in finished)]
    sentences = [
        *_sentences([grid for grid in grids if grid not in done], "as planned"),
        *_sentences(done, "as planned and as finished"),
        *_sentences(
            [grid for grid in finished if not any(_is_done(o, grid) for o in done)], "so far"
        ),
        *doubts,
        *_one_function(cells, spec.reference),
    ]
    stopping = stopping_cost(cells, spec, grids[0].noise)
    return Summary(name, (*_sections(grids), *stopping), (*sentences, DEFINITION))


def _one_function(cells: pd.DataFrame, reference: str) -> list[str]:
    labels = dict(zip(cells["key"], cells["label"], strict=True))
    return [
        f"{labels[kept]} and {labels[other]} are one function and count as one activation."
        for other, kept in same_functions(cells, reference).items()
        if other != kept
    ]


def _is_done(plan: Grid, run: Grid) -> bool:
    """Whether everything planned has run, so that one sentence says both."""
    sds = [None if grid.noise is None else grid.noise.noise_sd for grid in (plan, run)]
    return sds[0] == sds[1] and all(
        getattr(plan, name) == getattr(run, name) for name in ("setting", "n", "num_activations")
    )


DEFINITION = (
    "Power is the share of sweeps in which one true difference from the reference is resolved, by"
    f" {percent(LEVEL)} intervals that hold for all comparisons at once."
)


def _finished(place: str | Path) -> tuple[list[Grid], list[str]]:
    """What has run, and why that cannot be used where there is something that cannot."""
    if not open_files(place).exists(CELLS_FILE):
        return [], []
    try:
        return achieved(read_study(place)), []
    except ConfigError as error:  # a plan stands without it
        return [], [f"What has run so far cannot be used: {error}"]


def _sentences(grids: Sequence[Grid], when: str) -> list[str]:
    sentences, often = [], percent(POWERS[0])
    for alike in _alike(grids):
        grid, settings = alike[0], _titled(alike)
        size = f"{counted(grid.n, 'seed')} × {counted(grid.num_activations, 'activation')}"
        opening = f"{settings}, {when}: {size}"
        if not grid.designs():
            sentences.append(f"{opening} resolve nothing: it takes two seeds and two activations.")
            continue
        of_block, of_pooled, of_unpaired = grid.designs()
        if grid.noise is None:
            sentences.append(
                f"{opening}. The size of the noise is unknown: nothing is published for this"
                " recipe, and no sweep of it with this budget has two seeds in these results. A"
                f" true difference of {smallest_effect(of_block, 1.0, power=POWERS[0]):.1f} times"
                f" the noise sd is resolved in {often} of sweeps."
            )
            continue
        least = [
            number(smallest_effect(of_block, grid.noise.noise_sd, power=power)) for power in POWERS
        ]
        alike_noise = smallest_effect(of_pooled, grid.noise.noise_sd, power=POWERS[0])
        alone = smallest_effect(of_unpaired, grid.noise.seed_sd, power=POWERS[0])
        sentences.append(
            f"{opening} resolve a true difference of {least[0]} BPB from the reference in {often}"
            f" of sweeps, and one of {least[1]} BPB in {percent(POWERS[1])} (noise sd"
            f" {number(grid.noise.noise_sd)}, {grid.noise.source}; {of_block.noise_df} df,"
            f" {counted(of_block.comparisons, 'comparison')}). If all activations were known to be"
            f" equally noisy, it would be {number(alike_noise)} BPB in {often}; and if each had"
            f" seeds of its own besides, {number(alone)} (seed sd {number(grid.noise.seed_sd)})."
        )
    return sentences


def _sections(grids: Sequence[Grid]) -> tuple[TextTable, ...]:
    """Seeds by difference, one table for settings that are alike."""
    sections = []
    for alike in _alike(grids):
        table = seeds_table(alike[:1])
        if table.empty:
            continue
        found = {(row["effect"], row["design"], row["power"]): row for row in records(table)}
        effects = table[["effect", "nats"]].drop_duplicates()
        kinds = [(kind, power) for kind in ("block", "unpaired") for power in POWERS]
        lines = [
            (
                f"{number(effect)} BPB" if pd.isna(nats) else f"{nats:g} nats/token",
                *(_seeds(found[effect, kind, power]["n"]) for kind, power in kinds),
            )
            for effect, nats in effects.itertuples(index=False)
        ]
        headings = tuple(
            f"{'unpaired, ' * (kind == 'unpaired')}power {power:g}" for kind, power in kinds
        )
        title = f"{_titled(alike)}: seeds that a difference needs"
        sections.append(TextTable(title, ("difference", *headings), tuple(lines)))
    return tuple(sections)


def _seeds(n: object) -> str:
    return DASH if pd.isna(n) else str(n)


def _alike(grids: Sequence[Grid]) -> list[list[Grid]]:
    """Grids in groups that differ in their setting only."""
    groups: dict[Grid, list[Grid]] = {}
    for grid in grids:
        groups.setdefault(replace(grid, setting="", budget=""), []).append(grid)
    return list(groups.values())


def _titled(alike: Sequence[Grid]) -> str:
    first = alike[0].setting
    return first if len(alike) == 1 else f"{first} and {counted(len(alike) - 1, 'setting')} like it"
