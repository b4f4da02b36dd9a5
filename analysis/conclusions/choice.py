"""What to use, whatever is resolved: how likely each activation is the best, and what it may cost.

Whoever trains tomorrow has to pick. Of each ranked activation: the probability that it is the best
of those tested, and its regret, the bits per byte by which it is worse than the best; from draws of
the true means (``analysis.models.partial_pooling``). A description of what these cells say, and no
test: nothing is resolved by it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.models.curve_fit import Cells
from analysis.models.interval import LEVEL
from analysis.models.partial_pooling import drawn_means
from analysis.number_format import number, percent
from analysis.stats.ranking import function_labels, ranked_scores
from analysis.stats.slopes import fixed_slopes
from analysis.study import Study

_COLUMNS = ("key", "label", "probability", "regret", "regret_high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The choice in one setting, at the stage ``quantity``.

    ``table`` has one row per ranked activation, least expected regret first: ``probability`` that
    it is the best, ``regret`` expected in bits per byte, ``regret_high`` its quantile at ``level``.
    Empty where the noise is not known, or where fewer than two activations can be ranked.
    """

    setting: str
    quantity: str
    level: float
    table: pd.DataFrame

    @property
    def key(self) -> str | None:
        """The activation to use: that of the least expected regret."""
        return None if self.table.empty else str(self.table["key"].iloc[0])

    def sentence(self) -> str:
        """What to use and what it may cost, in words."""
        if self.table.empty:
            return "Too few seeds to say what to use: one more seed of every activation tells."
        first = self.table.iloc[0]
        return (
            f"Use {first['label']}: its expected loss against the best activation tested is"
            f" {number(first['regret'])} bits per byte, and at most {number(first['regret_high'])}"
            f" with probability {percent(self.level)}; it is the best with probability"
            f" {percent(first['probability'])}."
        )


def choices(study: Study, quantity: str | None = None) -> dict[str, Choice]:
    """The choice in each setting of ``study``, by default at the stage that is tested."""
    quantity, labels = quantity or study.primary, function_labels(study)
    found = {}
    for setting, here in study.settings.items():
        matrix = ranked_scores(here, quantity, study.reference).dropna(how="all", axis=1)
        table = _table(matrix, fixed_slopes(here.cells, study.reference))
        table = table.assign(label=table["key"].map(labels)).reindex(columns=list(_COLUMNS))
        found[setting] = Choice(setting=setting, quantity=quantity, level=LEVEL, table=table)
    return found


def _table(matrix: pd.DataFrame, slopes: dict[str, float]) -> pd.DataFrame:
    drawn_DA = drawn_means(Cells.of(matrix, slopes)) if matrix.shape[1] > 1 else None
    if drawn_DA is None:
        return pd.DataFrame(columns=["key"])
    regret_DA = drawn_DA - drawn_DA.min(axis=1, keepdims=True)
    table = pd.DataFrame(
        {
            "key": list(matrix.columns),
            "probability": (regret_DA == 0).mean(axis=0),
            "regret": regret_DA.mean(axis=0),
            "regret_high": np.quantile(regret_DA, LEVEL, axis=0),
        }
    )
    return table.sort_values(["regret", "key"], ignore_index=True)
