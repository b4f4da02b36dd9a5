"""Is the noise alike for all activations?

Each activation's variance is held against that of all others together, in the block model: an exact
F test for any number of seeds and any missing scores (Russell & Bradley 1958;
``analysis.models.design_geometry``). The largest of them is judged by the distribution of the least
p in data sets of equal variances (``analysis.models.unequal_variance.calibration_of``). The check
decides nothing: with three seeds it misses a variance nine times the others' about as often as it
finds it, so the guard is applied whatever it says.
"""

import math

import numpy as np
import pandas as pd

from analysis.models.block_model import Blocked, Blocking, blocked
from analysis.models.design_geometry import DesignKey, geometry_of, noisier, variances
from analysis.models.unequal_variance import adjusted, calibration_of
from analysis.rows.read import labels_of, settings
from analysis.rows.scoring import check_equal_scoring, scoring_of
from analysis.stats.ranking import ranked_rows

UNEQUAL_BELOW = 0.10  # p of the check

_COLUMNS = (
    *("setting", "quantity", "n", "statistic", "p_value", "equal", "largest_key", "largest_label"),
    *("largest_sd", "smallest_key", "smallest_sd", "level", "window", "stride", "budget"),
)


def variance_checks(
    frame: pd.DataFrame, quantity: str, reference: str, *, design: Blocking | None = None
) -> pd.DataFrame:
    """One row per setting. ``n`` counts seeds; ``statistic`` is the largest variance over the
    rest's.

    ``equal`` is false where p < ``UNEQUAL_BELOW``, null where nothing can be held against anything
    (one seed, or fewer than three activations); so are the others then. ``largest_sd`` and
    ``smallest_sd`` are an activation's own noise, each against the others, in units of the
    quantity.
    """
    check_equal_scoring(frame)
    design = design or Blocking()
    labels, rows = labels_of(frame), []
    for setting in settings(frame):
        here = frame[frame["setting"] == setting]
        scores = ranked_rows(here, quantity, reference, design)
        if scores.empty:
            continue
        first = reference if (scores["key"] == reference).any() else min(scores["key"])
        found = _check(blocked(scores, first, design))
        rows.append(
            {"setting": setting, "quantity": quantity, "n": scores["seed"].nunique(), **found}
            | {"largest_label": labels.get(str(found.get("largest_key")))}
            | {"level": 1 - UNEQUAL_BELOW, **scoring_of(here, quantity)}
        )
    table = pd.DataFrame(rows, columns=_COLUMNS)
    numbers = ("statistic", "p_value", "largest_sd", "smallest_sd")
    return table.astype({**dict.fromkeys(numbers, float), "equal": "boolean"})


def _check(rows: Blocked) -> dict[str, object]:
    key = DesignKey(rows)
    geometry = geometry_of(key)
    if not geometry.has_rest:
        return {}
    own_DA, rest_DA, _ = variances(geometry, (rows.score_N - rows.score_N.mean())[None, :])
    p_A = noisier(geometry, own_DA, rest_DA)[0]
    largest, smallest = int(np.nanargmin(p_A)), int(np.nanargmin(own_DA[0]))
    p_value = float(adjusted(p_A[[largest]], calibration_of(key).noisiest)[0])
    rest = float(rest_DA[0, largest])
    return {
        "statistic": float(own_DA[0, largest]) / rest if rest > 0 else None,
        "p_value": p_value,
        "equal": p_value >= UNEQUAL_BELOW,
        "largest_key": rows.keys[largest],
        "largest_sd": math.sqrt(float(own_DA[0, largest])),
        "smallest_key": rows.keys[smallest],
        "smallest_sd": math.sqrt(float(own_DA[0, smallest])),
    }
