"""What a sweep that stops when it knows will cost: simulated sweeps through the rule itself."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.models.block_model import Reals
from analysis.number_format import DASH, counted, number, percent
from analysis.planning.noise import Noise
from analysis.stats.ranking import same_functions
from analysis.text_table import TextTable
from sweep.schedule.sequential_selection import replay
from sweep.schedule.stopping import rule_of
from sweep.spec.sweep_file import SweepSpec

NUM_SWEEPS = 1_000
_SEED = 20_241_129


def stopping_cost(cells: pd.DataFrame, spec: SweepSpec, noise: Noise | None) -> list[TextTable]:
    """A table of cells and node-hours; none for a sweep that does not stop, or of unknown noise.

    ``cells``: the whole grid. The noise is taken as alike for all, and every cell as long as the
    sweep file has it; nothing fails. What a sweep costs depends on what is true, so there are three
    truths, and the grid of all seeds is the worst that can come.
    """
    if spec.until is None or noise is None:
        return []
    names = Counter(same_functions(cells, spec.reference).values())
    num_names_A = np.array(list(names.values()))
    num_seeds, zone = len(spec.seeds[: spec.until.seeds]), spec.until.zone
    rule = rule_of(spec.until)
    lines = []
    for truth, effect_A in _truths(len(names), zone).items():
        rng = np.random.default_rng(_SEED)
        noise_DSA = noise.noise_sd * rng.standard_normal((NUM_SWEEPS, num_seeds, len(names)))
        found = replay(effect_A + noise_DSA, rule)
        cells_D = found.num_seeds_DA @ num_names_A
        costs = _costs(float(cells_D.mean()), float(np.quantile(cells_D, 0.9)), spec)
        lines.append((truth, *costs, percent(float(found.decided_D.mean()))))
    most = float(num_seeds * num_names_A.sum())
    lines.append((f"all of {counted(num_seeds, 'seed')} run", *_costs(most, most, spec), DASH))
    return [
        TextTable(
            f"Stopping when no other is better by {number(zone)} BPB (noise sd"
            f" {number(noise.noise_sd)}, {noise.source}; {NUM_SWEEPS:,} simulated sweeps)",
            ("if", "cells, mean", "in 90 %", "node-hours, mean", "in 90 %", "decided"),
            tuple(lines),
        )
    ]


def _truths(num: int, zone: float) -> Mapping[str, Reals]:
    return {
        f"each is worse than the one before by {number(zone)}": zone * np.arange(num, dtype=float),
        f"all others are worse by {number(zone)}": np.where(np.arange(num) > 0, zone, 0.0),
        "nothing differs": np.zeros(num),
    }


def _costs(mean: float, most: float, spec: SweepSpec) -> tuple[str, ...]:
    hours = [cells * spec.estimate_cell_s / 3600 for cells in (mean, most)]
    return (
        f"{mean:.0f}",
        f"{most:.0f}",
        *(f"{each:.2g}" if each < 10 else f"{each:.0f}" for each in hours),
    )
