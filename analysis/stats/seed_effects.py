"""What would each cell have scored, had its seed been an average one?

A seed moves all activations together, by far more than they differ. In the additive model score =
activation + seed + noise the seed's effect is estimated by least squares, which a missing cell does
not bias as a mean over the seed's cells would be, and taken off.
"""

import numpy as np
import pandas as pd

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
    seeds, seed = np.unique(known["seed"].to_numpy(dtype=np.int64), return_inverse=True)
    keys, key = np.unique(known["key"].to_numpy(dtype=str), return_inverse=True)
    design = np.concatenate([np.eye(len(seeds))[seed], np.eye(len(keys))[key]], axis=1)
    centred = values.to_numpy() - values.mean()
    effects = np.linalg.lstsq(design, centred, rcond=None)[0][: len(seeds)]
    return (values - (effects - effects.mean())[seed]).reindex(cells.index)
