"""The check of equal noise: an F test of each activation's variance against all others'.

Each activation's variance is compared with that of all others together, in the block model: an
exact F test for any number of seeds and any missing scores (Russell & Bradley 1958;
``analysis.models.own_variances``). The largest of them is compared with the distribution of
the least p in data sets of equal variances (``null_distribution``). The check
decides nothing: with three seeds it misses a variance nine times the others' about as often as it
finds it, so the second interval is applied whatever it says.
"""

import math

import numpy as np
import pandas as pd

from analysis.models.block_model import Blocked, blocked
from analysis.models.own_variances import noisier, variances
from analysis.models.unequal_variance import (
    DesignKey,
    adjusted,
    geometry_of,
    null_distribution,
)
from analysis.rows.scoring import scoring_of
from analysis.stats.ranking import ranked_rows
from analysis.study import Study

UNEQUAL_BELOW = 0.10  # p of the check

_COLUMNS = (
    *("setting", "quantity", "n", "statistic", "p_value", "equal", "largest_key", "largest_label"),
    *("largest_sd", "smallest_key", "smallest_sd", "level", "window", "stride", "budget"),
)


def variance_checks(study: Study, quantity: str) -> pd.DataFrame:
    """One row per setting. ``n`` counts seeds; ``statistic`` is the largest variance over the
    rest's.

    ``equal`` is false where p < ``UNEQUAL_BELOW``, null where nothing can be compared
    (one seed, or fewer than three activations); so are the others then. ``largest_sd`` and
    ``smallest_sd`` are an activation's own noise, each against the others, in units of the
    quantity.
    """
    labels, rows = study.labels, []
    for setting, here in study.settings.items():
        scores = ranked_rows(here, quantity, study.reference)
        if scores.empty:
            continue
        first = study.reference if study.reference in set(scores["key"]) else min(scores["key"])
        found = _check(blocked(scores, first, study.blocking))
        rows.append(
            {"setting": setting, "quantity": quantity, "n": scores["seed"].nunique(), **found}
            | {"largest_label": labels.get(str(found.get("largest_key")))}
            | {"level": 1 - UNEQUAL_BELOW, **scoring_of(here.cells, quantity)}
        )
    table = pd.DataFrame(rows, columns=_COLUMNS)
    numbers = ("statistic", "p_value", "largest_sd", "smallest_sd")
    return table.astype({**dict.fromkeys(numbers, float), "equal": "boolean"})


def _check(rows: Blocked) -> dict[str, object]:
    key = DesignKey(rows)
    geometry = geometry_of(key).noise
    if not geometry.has_rest:
        return {}
    found = variances(geometry, (rows.score_N - rows.score_N.mean())[None, :])
    p_A, own_A = noisier(geometry, found)[0], found.own_DA[0]
    largest, smallest = int(np.nanargmin(p_A)), int(np.nanargmin(own_A))
    p_value = float(adjusted(p_A[[largest]], null_distribution(key).noisiest)[0])
    rest = float(found.rest_DA[0, largest])
    return {
        "statistic": float(own_A[largest]) / rest if rest > 0 else None,
        "p_value": p_value,
        "equal": p_value >= UNEQUAL_BELOW,
        "largest_key": rows.keys[largest],
        "largest_sd": math.sqrt(float(own_A[largest])),
        "smallest_key": rows.keys[smallest],
        "smallest_sd": math.sqrt(float(own_A[smallest])),
    }
