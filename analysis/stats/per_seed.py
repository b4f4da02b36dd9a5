"""Mean, standard deviation and t interval over seeds, of each activation and quantity.

The same seed gives every activation the same initial weights and the same order of data, so the
seed is a block: two activations are compared by their differences within seeds. Replicates of one
seed are averaged first, so n counts seeds. An activation of which a seed diverged has a mean over
its survivors only, which says how well it does where it does well: it is shown and not ranked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from analysis.models.interval import LEVEL, TInterval
from analysis.rows.read import is_scored, records
from analysis.rows.scoring import footing
from analysis.rows.stages import STAGES, is_legal
from sweep.store.schema import FAILED_STATES
from trainer.config.config_errors import ConfigError

_GROUP = ["setting", "key"]
_NAMES = [*_GROUP, "recipe", "budget", "label"]
FACTS = [*_NAMES, "n_diverged", "n_failed", "window", "stride"]
_WINDOWS = ["window", "stride", "footing_json"]
ESTIMATE = ["n", "mean", "sd", "half_width"]


def seed_stats(frame: pd.DataFrame, quantities: Iterable[str] = tuple(STAGES)) -> pd.DataFrame:
    """One row per setting, activation and quantity: n, mean, sd, t interval and what went wrong.

    ``window`` and ``stride`` are null for what is no score. ``ranked`` is false where a seed
    diverged, nothing was scored or the score is not legal. A quantity without cells has no row.
    """
    interval = TInterval()
    counts = outcome_counts(frame)
    rows: list[dict[str, object]] = []
    for quantity in quantities:
        values = per_block(frame, quantity, ["seed"])
        if values.empty:
            continue
        by_group = dict(iter(values.groupby(_GROUP)["value"]))
        legal = is_legal(frame, quantity)
        for facts in counts:
            estimate = interval(by_group.get((facts["setting"], facts["key"]), ()))
            ranked = legal and estimate.n > 0 and facts["n_diverged"] == 0
            rows.append(
                {**facts, "quantity": quantity, **asdict(estimate), "ranked": ranked}
                | scored_in(quantity, facts)
            )
    table = estimates(rows, [*FACTS, "quantity", *ESTIMATE, "ranked"])
    return table.assign(
        low=table["mean"] - table["half_width"],
        high=table["mean"] + table["half_width"],
        level=LEVEL,
    )


def per_block(frame: pd.DataFrame, quantity: str, by: list[str]) -> pd.DataFrame:
    """One ``value`` per setting, activation and values of ``by`` (seed; seed and node).

    It is the mean over what replicates succeeded; a score that is absent or not finite is left out.
    """
    if quantity not in frame:
        known = ", ".join(name for name in STAGES if name in frame)
        raise ConfigError(f"quantity {quantity!r} is no column of the cells. Scores: {known}.")
    columns = list(dict.fromkeys([*_GROUP, *by, "seed", "replicate", quantity]))
    scored = frame[columns][is_scored(frame)].rename(columns={quantity: "value"})
    finite = np.isfinite(scored["value"].to_numpy(dtype=float, na_value=np.nan))
    ordered = scored[finite].sort_values([*_GROUP, *by, "replicate", "value"])
    means = ordered.groupby([*_GROUP, *by], dropna=False, as_index=False)["value"].mean()
    return means.astype({"value": float})


def outcome_counts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each setting and activation: names, windows, and how many cells ended how."""
    columns = [*_NAMES, "seed", "replicate", "state", *_WINDOWS]
    counts: dict[tuple[str, str], dict[str, Any]] = {}
    windows: dict[str, dict[str, Any]] = {}
    for row in records(frame[columns].sort_values([*_GROUP, "seed", "replicate"])):
        first = {name: row[name] for name in _NAMES} | {"n_diverged": 0, "n_failed": 0}
        of_key = counts.setdefault((row["setting"], row["key"]), first)
        of_key["n_diverged"] += row["state"] == "diverged"
        of_key["n_failed"] += row["state"] in FAILED_STATES
        of_setting = windows.setdefault(row["setting"], {})
        for name in _WINDOWS:
            if pd.isna(of_setting.get(name)):
                of_setting[name] = row[name]
    return [of_key | windows[setting] for (setting, _), of_key in counts.items()]


def scored_in(quantity: str, facts: Mapping[str, Any]) -> dict[str, object]:
    """Window and stride of ``quantity`` by a row of ``outcome_counts``; null where not known."""
    window, stride = footing(quantity, facts) or (pd.NA, pd.NA)
    return {"window": window, "stride": stride}


def estimates(rows: list[dict[str, object]], columns: list[str]) -> pd.DataFrame:
    """A frame with ``columns`` even where there is no row; an absent estimate is null."""
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"mean": float, "sd": float, "half_width": float, "ranked": bool})
