"""What does each activation score over seeds, how sure is that, and how far is it from another?

The same seed gives every activation the same initial weights and the same order of data, so the
seed is a block: two activations are compared by their differences within seeds. Replicates of one
seed are averaged first, so n counts seeds. An activation of which a seed diverged has a mean over
its survivors only, which says how well it does where it does well: it is shown and not ranked.
"""

from collections.abc import Iterable
from dataclasses import asdict

import numpy as np
import pandas as pd

from analysis.interval import TInterval
from analysis.load import is_scored, records
from analysis.stages import STAGES, is_legal, windows_of
from sweep.schema import FAILED_STATES
from trainer.strict import ConfigError

_GROUP = ["setting", "key"]
_FOOTING = ["window", "stride", "val_bytes"]
_FACTS = [
    *_GROUP,
    *("recipe", "budget", "label", "n_diverged", "n_failed", "window", "stride"),
]
_ESTIMATE = ["n", "mean", "sd", "half_width"]


def seed_stats(
    frame: pd.DataFrame, quantities: Iterable[str] = tuple(STAGES), *, level: float = 0.95
) -> pd.DataFrame:
    """One row per setting, activation and quantity: n, mean, sd, t interval and what went wrong.

    ``window`` and ``stride`` are null for what is no score. ``ranked`` is false where a seed
    diverged, nothing was scored or the score is not legal. A quantity without cells has no row.
    """
    check_one_footing(frame)
    interval = TInterval(level)
    counts = outcome_counts(frame)
    rows: list[dict[str, object]] = []
    for quantity in quantities:
        values = per_seed(frame, quantity)
        if values.empty:
            continue
        by_group = dict(iter(values.groupby(_GROUP)["value"]))
        legal = is_legal(frame, quantity)
        for facts in records(counts):
            estimate = interval(by_group.get((facts["setting"], facts["key"]), ()))
            ranked = legal and estimate.n > 0 and facts["n_diverged"] == 0
            rows.append(
                {**facts, "quantity": quantity, **asdict(estimate), "ranked": ranked}
                | _scored_in(quantity, window=facts["window"], stride=facts["stride"])
            )
    table = _estimates(rows, [*_FACTS, "quantity", *_ESTIMATE, "ranked"])
    return table.assign(
        low=table["mean"] - table["half_width"],
        high=table["mean"] + table["half_width"],
        level=level,
    )


def paired_differences(frame: pd.DataFrame, quantity: str, reference: str) -> pd.DataFrame:
    """One row per setting, activation and seed that the reference has too: its score − theirs.

    ``reference`` is a key; below zero is better than the reference.
    """
    values = per_seed(frame, quantity)
    _check_reference(frame, reference)
    of_reference = values[values["key"] == reference].drop(columns="key")
    pairs = values[values["key"] != reference].merge(
        of_reference, on=["setting", "seed"], suffixes=("", "_reference")
    )
    return pairs.assign(difference=pairs["value"] - pairs["value_reference"])[
        [*_GROUP, "seed", "difference"]
    ]


def paired_stats(
    frame: pd.DataFrame, quantity: str, reference: str, *, level: float = 0.95
) -> pd.DataFrame:
    """One row per setting and activation: mean difference from the reference and its t interval.

    Each interval stands for itself and uses its own variance; ``analysis.verdict`` corrects for the
    number of comparisons. ``n`` counts pairs.
    """
    check_one_footing(frame)
    interval = TInterval(level)
    pairs = paired_differences(frame, quantity, reference)
    by_group = dict(iter(pairs.groupby(_GROUP)["difference"]))
    counts = outcome_counts(frame)
    bad = set(map(tuple, counts.loc[counts["n_diverged"] > 0, _GROUP].to_numpy().tolist()))
    rows: list[dict[str, object]] = []
    for facts in records(counts[counts["key"] != reference]):
        group = (facts["setting"], facts["key"])
        estimate = interval(by_group.get(group, ()))
        either = bad & {group, (facts["setting"], reference)}
        rows.append(
            {**facts, "quantity": quantity, "reference": reference, **asdict(estimate)}
            | {"ranked": estimate.n > 0 and not either, "level": level}
        )
    return _estimates(rows, [*_FACTS, "quantity", "reference", *_ESTIMATE, "ranked", "level"])


def per_seed(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """One ``value`` per setting, activation and seed: the mean over what replicates succeeded."""
    if quantity not in frame:
        known = ", ".join(name for name in STAGES if name in frame)
        raise ConfigError(f"quantity {quantity!r} is no column of the cells. Scores: {known}.")
    scored = frame.loc[is_scored(frame), [*_GROUP, "seed", "replicate", quantity]]
    known_values = scored.dropna(subset=[quantity]).rename(columns={quantity: "value"})
    ordered = known_values.sort_values([*_GROUP, "seed", "replicate"])
    means = ordered.groupby([*_GROUP, "seed"])["value"].mean()
    return means.astype(float).reset_index()


def outcome_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per setting and activation: names, footing, and how many cells ended how."""
    names = ["recipe", "budget", "label", "state", "window", "stride"]
    ordered = frame[[*_GROUP, "seed", "replicate", *names]]
    ordered = ordered.sort_values([*_GROUP, "seed", "replicate"]).assign(
        n_diverged=ordered["state"] == "diverged",
        n_failed=ordered["state"].isin(FAILED_STATES),
    )
    counts = ordered.groupby(_GROUP, as_index=False).agg(
        recipe=("recipe", "first"),
        budget=("budget", "first"),
        label=("label", "first"),
        n_diverged=("n_diverged", "sum"),
        n_failed=("n_failed", "sum"),
    )
    footing = ordered.groupby("setting", as_index=False)[["window", "stride"]].max()
    return counts.merge(footing, on="setting")


def check_one_footing(frame: pd.DataFrame) -> None:
    """Nothing, if all scores of a setting share text and windows; else a ConfigError."""
    scored = frame.loc[is_scored(frame), ["setting", *_FOOTING]]
    for setting, rows in scored.groupby("setting"):
        for column in _FOOTING:
            given = sorted(rows[column].dropna().unique())
            if len(given) > 1:
                raise ConfigError(
                    f"setting {setting}: the cells were scored with {column} ="
                    f" {' and '.join(map(str, given))}, so their scores have no common mean;"
                    " keep sweeps of different scoring in different folders."
                )


def _estimates(rows: list[dict[str, object]], columns: list[str]) -> pd.DataFrame:
    """A frame with ``columns`` even where there is no row; an absent estimate is null."""
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"mean": float, "sd": float, "half_width": float, "ranked": bool})


def _scored_in(quantity: str, *, window: object, stride: object) -> dict[str, object]:
    """Contiguous windows are windows whose stride is their length."""
    windows = windows_of(quantity)
    if windows is None:
        return {"window": pd.NA, "stride": pd.NA}
    return {"window": window, "stride": stride if windows == "sliding" else window}


def _check_reference(frame: pd.DataFrame, reference: str) -> None:
    known = sorted(np.unique(frame["key"].to_numpy(dtype=str)))
    if reference not in known:
        raise ConfigError(
            f"reference {reference!r} has no row in this sweep. Activations with rows:"
            f" {', '.join(known)}."
        )
