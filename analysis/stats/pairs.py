"""Paired differences of each activation by itself: t interval and sign-flip test over seeds.

The same seed gives every activation the same initial weights and the same order of data, so two
activations are compared by their differences within seeds. This is no part of the primary
comparison (``analysis.stats.compare``): own variance, no correction for the number of comparisons,
and a test that assumes no normal noise, only that a difference is as likely below zero as above
(sign flips, Fisher 1935). All pairs share the reference, so their differences are correlated, by ½
where noise is alike.
"""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.models.interval import LEVEL, TInterval
from analysis.stats.per_seed import ESTIMATE, FACTS, estimates, outcome_counts, per_block, scored_in
from analysis.study import Study

FEWEST_FLIPPED = 9  # 2 / 2⁹ = 0.0039: below that no correction for a dozen comparisons leaves 5 %
_MOST_ENUMERATED = 16
_SEED = 20_240_602


def paired_differences(study: Study, quantity: str) -> pd.DataFrame:
    """One row per setting, activation and seed that the reference has too: its score − theirs.

    Below zero is better than the reference. A reference that has not run yet leaves nothing to pair
    with, and no row. Where nodes are blocks, both are of one node.
    """
    by = study.blocking.by
    values = per_block(study.with_reruns, quantity, by)
    of_reference = values[values["key"] == study.reference].drop(columns="key")
    pairs = values[values["key"] != study.reference].merge(
        of_reference, on=["setting", *by], suffixes=("", "_reference")
    )
    pairs = pairs.assign(difference=pairs["value"] - pairs["value_reference"])
    return pairs.groupby(["setting", "key", "seed"])["difference"].mean().reset_index()


def paired_stats(study: Study, quantity: str) -> pd.DataFrame:
    """One row per setting and activation: mean difference from the reference and its t interval.

    Each interval stands for itself and uses its own variance; nothing is corrected for the number
    of comparisons. ``n`` counts pairs. ``sign_flip_p`` is two-sided and null below
    ``FEWEST_FLIPPED`` pairs; ``smallest_p`` is the smallest that n pairs can give.
    """
    interval, reference = TInterval(), study.reference
    pairs = paired_differences(study, quantity)
    by_group = dict(iter(pairs.groupby(["setting", "key"])["difference"]))
    counts = outcome_counts(study.cells)
    bad = {(facts["setting"], facts["key"]) for facts in counts if facts["n_diverged"]}
    rows: list[dict[str, object]] = []
    for facts in counts:
        if facts["key"] == reference:
            continue
        group = (facts["setting"], facts["key"])
        differences = np.asarray(by_group.get(group, ()), dtype=float)
        estimate = interval(differences)
        if study.sweep.standing is not None:  # no interval and no p holds after stopping
            estimate, differences = replace(estimate, half_width=None), differences[:0]
        either = bad & {group, (facts["setting"], reference)}
        rows.append(
            {**facts, "quantity": quantity, "reference": reference, **asdict(estimate)}
            | {"ranked": estimate.n > 0 and not either, "level": LEVEL}
            | {"sign_flip_p": sign_flip_p(differences), "smallest_p": smallest_p(estimate.n)}
            | scored_in(quantity, facts)
        )
    columns = [*FACTS, "quantity", "reference", *ESTIMATE, "ranked", "level"]
    table = estimates(rows, [*columns, "sign_flip_p", "smallest_p"])
    return table.astype({"sign_flip_p": float, "smallest_p": float}).assign(
        low=table["mean"] - table["half_width"], high=table["mean"] + table["half_width"]
    )


def sign_flip_p(differences: NDArray[np.float64]) -> float | None:
    """How often the mean is as far from zero if every sign is a coin's; None below nine.

    All 2ⁿ signs up to n = 16; beyond, 2¹⁶ random ones of a fixed seed, the observed ones counted
    in.

    >>> sign_flip_p(np.arange(1.0, 10.0)) == smallest_p(9) == 2 / 2**9
    True
    """
    n = len(differences)
    if n < FEWEST_FLIPPED:
        return None
    exact = n <= _MOST_ENUMERATED
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        drawn = np.random.default_rng(_SEED).integers(0, 2, (2**_MOST_ENUMERATED, n))
        signs = 1.0 - 2.0 * drawn
    sums = np.abs(signs @ differences)
    # Sums of the same numbers in another order differ by rounding; they count as equal.
    reached = sums >= abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    return float(reached.mean()) if exact else float((reached.sum() + 1) / (len(signs) + 1))


def smallest_p(n: int) -> float | None:
    """The smallest two-sided p of n sign flips: only the observed signs and their opposites."""
    return None if n == 0 else min(1.0, 2.0 / 2.0**n)
