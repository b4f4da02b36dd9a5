"""Is a screening with a second stage worth its cells, against one stage with as many?"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import special

from analysis.planning.designs import block, power_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStages:
    """``screening_seeds`` for all activations, then ``seeds`` fresh ones for ``keep`` leaders.

    ``num_activations`` counts the reference, which is in both stages, and a function once.
    """

    num_activations: int
    screening_seeds: int
    keep: int
    seeds: int
    level: float = 0.95

    @property
    def cells(self) -> int:
        return self.screening_seeds * self.num_activations + self.seeds * (self.keep + 1)


def two_stage_power(effect: float, design: TwoStages, noise_sd: float) -> float:
    """The probability that one truly better activation is kept, and resolved in the second stage.

    All others equal the reference. The two events are independent, since the seeds are fresh.
    """
    stage = block(design.seeds, num_activations=design.keep + 1, level=design.level)
    return probability_kept(effect, design, noise_sd) * power_of(effect, stage, noise_sd)


def probability_kept(effect: float, design: TwoStages, noise_sd: float) -> float:
    """The probability that one activation, better by ``effect`` than all others, is a leader.

    It is where fewer than ``keep`` of the k − 1 others have a lower mean over the screening's
    seeds: given its own mean their number is binomial, and over that mean is integrated. The
    reference is common to all differences and cancels.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    others = design.num_activations - 2
    below = special.ndtr(nodes - effect * math.sqrt(design.screening_seeds) / noise_sd)
    kept = special.bdtr(min(design.keep - 1, others), others, below)
    return min(1.0, float(kept @ weights / math.sqrt(2 * math.pi)))  # a sum of weights, rounded


def designs_within(
    num_cells: int, effect: float, *, noise_sd: float, num_activations: int, level: float = 0.95
) -> pd.DataFrame:
    """One row per design that ``num_cells`` pay for: one stage, then every two-stage one.

    Columns: screening_seeds and keep (null for the one stage), seeds (as many as the cells allow),
    cells, power.
    """
    single = num_cells // num_activations
    rows: list[dict[str, object]] = []
    if single >= 2:
        one = block(single, num_activations=num_activations, level=level)
        rows.append(
            {"screening_seeds": None, "keep": None, "seeds": single}
            | {"cells": single * num_activations, "power": power_of(effect, one, noise_sd)}
        )
    for screening in range(1, single):
        for keep in range(1, num_activations - 1):
            seeds = (num_cells - screening * num_activations) // (keep + 1)
            if seeds < 2:
                continue
            design = TwoStages(
                num_activations=num_activations,
                screening_seeds=screening,
                keep=keep,
                seeds=seeds,
                level=level,
            )
            power = two_stage_power(effect, design, noise_sd)
            rows.append({**asdict(design), "cells": design.cells, "power": power})
    columns = ["screening_seeds", "keep", "seeds", "cells", "power"]
    return pd.DataFrame(rows, columns=columns).astype({"screening_seeds": "Int64", "keep": "Int64"})
