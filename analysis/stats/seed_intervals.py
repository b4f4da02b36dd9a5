"""Intervals of means that are not narrow by luck: the wider of their own and the pooled one.

Three seeds that happen to agree give an activation a t interval near zero. Its own t interval
covers 95 % whatever the noise of the others is, and so does what is never narrower. So no interval
is narrower than that of the spread over seeds that all activations share (Σ of squares over Σ of
degrees of freedom), and an activation that is noisier than the others keeps its own.

Such an interval holds the spread of seeds, which moves all activations together: it says how well a
mean is known and compares no two of them. ``analysis.stats.compare`` does.
"""

from collections.abc import Iterable

import pandas as pd

from analysis.models.interval import no_narrower
from analysis.stats.per_seed import seed_stats
from analysis.stats.ranking import same_functions

_GROUP = ["setting", "quantity"]


def seed_intervals(frame: pd.DataFrame, quantities: Iterable[str]) -> pd.DataFrame:
    """The rows of ``seed_stats`` with the wider ``half_width``; ``own_half_width`` is its own.

    What is pooled is ranked, and a function counts once. One seed has no interval.
    """
    stats = seed_stats(frame, quantities)
    kept = same_functions(frame, None)
    pooled = stats[stats["ranked"] & (stats["key"].map(kept) == stats["key"])]
    parts = pooled[_GROUP].assign(df=pooled["n"] - 1, squares=(pooled["n"] - 1) * pooled["sd"] ** 2)
    total = stats[_GROUP].merge(parts.groupby(_GROUP).sum().reset_index(), on=_GROUP, how="left")
    own, n = (stats[name].to_numpy(dtype=float) for name in ("half_width", "n"))
    df, squares = (total[name].to_numpy(dtype=float) for name in ("df", "squares"))
    half_width = no_narrower(own, n, df, squares)
    return stats.assign(
        half_width=half_width,
        own_half_width=own,
        low=stats["mean"] - half_width,
        high=stats["mean"] + half_width,
    )
