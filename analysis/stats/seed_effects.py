"""Scores less the effects of their seeds, for pictures.

A seed moves all activations together, by far more than they differ. In the additive model score =
activation + seed + noise the seed's effect is estimated by least squares, which a missing cell does
not bias as a mean over the seed's cells would be, and taken off.
"""

import numpy as np
import pandas as pd

from analysis.models.least_squares import indicators, solve
from analysis.rows.read import is_scored


def without_seed(cells: pd.DataFrame, quantity: str) -> "pd.Series[float]":
    """``quantity`` of each scored cell of one setting less its seed's effect; the effects sum to 0.

    Indexed like ``cells``, null where there is no score. A picture of differences, and no data for
    a test: what is left over has lost a degree of freedom per seed.
    """
    known = cells.loc[is_scored(cells) & cells[quantity].notna(), ["key", "seed", quantity]]
    values = known[quantity].astype(float)
    if values.empty:
        return values.reindex(cells.index)
    seeds_NS, seeds = indicators(known["seed"].tolist())
    design = np.hstack([seeds_NS, indicators(known["key"].tolist())[0]])
    model = solve(design, values.to_numpy() - values.mean())
    effects_S = model.coefficients_P[: len(seeds)]
    return (values - seeds_NS @ (effects_S - effects_S.mean())).reindex(cells.index)
