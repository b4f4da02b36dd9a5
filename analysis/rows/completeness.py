"""Compare the cells that a sweep asks for with those that have a score, and say what is missing.

A partial sweep is shown and says what it lacks. A cell is *scored* (an untainted success),
*tainted* (a success in disturbed time), *diverged*, *failed* (of whatever class) or *not run*.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from analysis.number_format import counted, listed
from analysis.rows.names import labels_of
from analysis.rows.read import Sweep, is_scored, settings
from analysis.rows.stages import STAGES, title_of

STATUSES = ("scored", "tainted", "diverged", "failed", "not run")
_POINT = ["setting", "key", "seed", "replicate"]
_NAMED = 4  # more names than these are counted: a list of thirty tells nobody anything


def cell_status(frame: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """One row per cell that is asked for or was attempted: setting, key, label, seed, replicate,
    status.

    Where ``sweep.json`` does not list the cells, every activation is taken to be asked for under
    every seed that has a row in the setting.
    """
    status = np.select(
        [is_scored(frame), frame["state"] == "succeeded", frame["state"] == "diverged"],
        ["scored", "tainted", "diverged"],
        default="failed",
    )
    found = frame[_POINT].assign(status=status)
    grid = _assumed_grid(frame, sweep) if sweep.grid is None else sweep.grid[_POINT]
    # The grid first, in its order; what was attempted and is no longer asked for comes after.
    both = pd.concat([grid, found[_POINT]]).drop_duplicates()
    merged = both.merge(found, on=_POINT, how="left")
    labels = ({} if sweep.grid is None else labels_of(sweep.grid)) | labels_of(frame)
    return merged.assign(
        status=merged["status"].fillna("not run"),
        label=[labels.get(key, key) for key in merged["key"]],
    )[["setting", "key", "label", "seed", "replicate", "status"]]


def completeness_sentences(frame: pd.DataFrame, sweep: Sweep) -> list[str]:
    """What is missing, in few words; nothing where every cell has every score."""
    status = cell_status(frame, sweep)
    sentences = _opening(status, sweep)
    several = status["setting"].nunique() > 1
    for setting, cells in status.groupby("setting", sort=False):
        prefix = f"{setting}: " if several else ""
        sentences += [prefix + sentence for sentence in _of_setting(cells, sweep.reference)]
    return sentences + _without_stage(frame)


def _opening(status: pd.DataFrame, sweep: Sweep) -> list[str]:
    total = max(len(status), sweep.num_cells or 0)
    counts = {name: int((status["status"] == name).sum()) for name in STATUSES}
    counts["not run"] += total - len(status)
    parts = [f"{counts[name]} {name}" for name in ("tainted", "diverged", "failed") if counts[name]]
    parts += [f"{counts['not run']} not run yet"] if counts["not run"] else []
    missing = total - counts["scored"]
    if not missing:
        return []
    return [f"Without a score: {counted(missing, 'cell')} of {total} ({', '.join(parts)})."]


def _of_setting(cells: pd.DataFrame, reference: str) -> list[str]:
    """Which activations and which seeds lack a score, from whole rows to single cells."""
    scored = cells["status"] == "scored"
    if scored.all():
        return []
    if not scored.any():
        return [f"none of its {counted(len(cells), 'cell')} has a score."]
    has_any = scored.groupby(cells["key"], sort=False).any()
    bare = list(has_any.index[~has_any])
    labels = dict(zip(cells["key"], cells["label"], strict=True))
    sentences = []
    if bare:
        sentences.append(f"No seed of {_named([labels[key] for key in bare])} has a score.")
    if reference in bare or reference not in labels:
        name = labels.get(reference, reference)
        sentences.append(f"The reference, {name}, has none, so nothing can be compared with it.")
    rest = cells[~cells["key"].isin(bare)]
    sentences += _unpaired(rest, reference)
    for seed, here in rest.groupby("seed"):
        lacking = here.loc[here["status"] != "scored", "label"].drop_duplicates()
        count = int((here["status"] == "scored").sum())
        if count == 0:
            sentences.append(f"Seed {seed} has none of its {counted(len(here), 'cell')}.")
        elif len(lacking):
            sentences.append(
                f"Seed {seed} has {count} of {counted(len(here), 'cell')}; without a score:"
                f" {_named(list(lacking))}."
            )
    return sentences


def _unpaired(cells: pd.DataFrame, reference: str) -> list[str]:
    """Where others have a score and the reference has none."""
    scored = cells[cells["status"] == "scored"]
    of_reference = scored.loc[scored["key"] == reference, "seed"]
    seeds = sorted(set(scored["seed"]) - set(of_reference))
    if of_reference.empty or not seeds:
        return []
    which = f"seed{'s' if len(seeds) > 1 else ''} {_named([str(seed) for seed in seeds])}"
    return [f"The reference has no score under {which}, so nothing is paired with it there."]


def _without_stage(frame: pd.DataFrame) -> list[str]:
    """Successes without a score that others of their setting have: they are in no mean of it."""
    columns = ["recipe", "budget_kind", "budget_value", "setting", "cell", *STAGES]
    scored = frame[columns][is_scored(frame)]
    sentences = []
    for setting in settings(scored):
        cells = scored[scored["setting"] == setting]
        for stage in STAGES:
            lacking = cells.loc[cells[stage].isna(), "cell"]
            if 0 < len(lacking) < len(cells):
                sentences.append(
                    f"No score of {title_of(stage)} in {counted(len(lacking), 'cell')} that"
                    f" succeeded ({_named(sorted(lacking))}), though others of {setting} have one."
                )
    return sentences


def _assumed_grid(frame: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    rows = []
    for setting in settings(frame):
        here = frame[frame["setting"] == setting]
        seeds, replicates = sorted(here["seed"].unique()), sorted(here["replicate"].unique())
        rows += list(product([setting], sweep.keys, seeds, replicates))
    return pd.DataFrame(rows, columns=_POINT).astype({"seed": "Int64", "replicate": "Int64"})


def _named(names: Sequence[str]) -> str:
    """
    >>> _named(["a", "b"]), _named(list("abcdefg"))
    ('a and b', 'a, b, c, d and 3 more')
    """
    if len(names) <= _NAMED + 1:
        return listed(list(names))
    return listed([*names[:_NAMED], f"{len(names) - _NAMED} more"])
