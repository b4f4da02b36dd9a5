"""Learned activations against every fixed slope: differences with simultaneous intervals."""

from functools import partial

import pandas as pd

from analysis.number_format import capital, counted, listed, percent, plus_minus
from analysis.rows.scoring import scoring_of, stage_title
from analysis.stats.compare import compare
from analysis.study import Study
from trainer.activations import ACTIVATIONS

BEST_FIXED_COLUMNS = (
    *("setting", "key", "label", "other", "other_label", "quantity", "n", "difference"),
    *("low", "high", "half_width", "level", "comparisons", "resolved", "unjudged"),
    *("beats_all", "beaten_by_any", "budget", "window", "stride"),
)


def best_fixed(study: Study, quantity: str) -> pd.DataFrame:
    """One row per setting, learned activation and fixed slope: learned − fixed, simultaneous.

    Each learned activation is the reference of Dunnett comparisons with every fixed slope, so
    picking the best fixed slope afterwards costs nothing. ``beats_all``: resolved as better than
    every one; ``beaten_by_any``: resolved as worse than one; both null where the noise is unknown.
    """
    learned = [name for name, entry in ACTIVATIONS.items() if entry.learns_beta]
    is_learned = study.cells["activation"].isin(learned)
    tables = []
    for key in sorted(set(study.cells.loc[is_learned, "key"])):
        here = study.derive(partial(_fixed_and, key=key))
        compared = compare(here, quantity, reference=key)
        tables.append(_against_fixed(here, compared, quantity))
    found = pd.concat(tables) if tables else pd.DataFrame()
    return found.reindex(columns=list(BEST_FIXED_COLUMNS)).reset_index(drop=True)


def best_fixed_sentences(study: Study, quantity: str) -> list[str]:
    """One sentence per setting and learned activation; nothing where none can be compared."""
    table, title = best_fixed(study, quantity), capital(stage_title(study.cells, quantity))
    return [
        f"{title} ({setting}): {_against(rows)}"
        for (setting, _), rows in table.groupby(["setting", "key"], sort=False)
    ]


def _fixed_and(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    return rows[rows["neg_beta"].notna() | (rows["key"] == key)]


def _against_fixed(study: Study, rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    labels = study.labels
    turned = rows.assign(
        key=rows["reference"],
        other=rows["key"],
        label=rows["reference"].map(labels),
        other_label=rows["key"].map(labels),
        difference=-rows["difference"],
        low=-rows["difference"] - rows["half_width"],
        high=-rows["difference"] + rows["half_width"],
    )
    known = turned["resolved"].notna()
    better = turned["resolved"].fillna(False) & (turned["difference"] < 0)
    worse = turned["resolved"].fillna(False) & (turned["difference"] > 0)
    scoring = {name: scoring_of(here.cells, quantity) for name, here in study.settings.items()}
    return turned.assign(
        beats_all=better.groupby(turned["setting"]).transform("all").where(known),
        beaten_by_any=worse.groupby(turned["setting"]).transform("any").where(known),
        **{
            name: [scoring[setting][name] for setting in turned["setting"]]
            for name in ("budget", "window", "stride")
        },
    )


def _against(rows: pd.DataFrame) -> str:
    """What the comparisons of one learned activation in one setting say."""
    first = rows.iloc[0]
    nearest = rows.loc[rows["difference"].idxmax()]
    gap = plus_minus(nearest["difference"], nearest["half_width"], signed=True)
    worse = rows.loc[rows["resolved"].fillna(False) & (rows["difference"] > 0), "other_label"]
    better = rows.loc[rows["resolved"].fillna(False) & (rows["difference"] < 0), "other_label"]
    words = (
        f"from the best fixed slope, {nearest['other_label']}, {first['label']} differs by {gap}"
        f" ({counted(int(nearest['n']), 'paired seed')}; simultaneous {percent(first['level'])}"
        f" intervals over {counted(int(first['comparisons']), 'comparison')})"
    )
    if pd.isna(first["beats_all"]):
        return f"{words}: {first['unjudged']}, so nothing is resolved."
    if first["beats_all"]:
        return f"{words}: it is resolved as better than every fixed slope."
    parts = [
        f"{verb} than {listed(list(names))}"
        for verb, names in (("worse", worse), ("better", better))
        if len(names)
    ]
    return f"{words}: " + (
        f"it is resolved as {listed(parts)}." if parts else "it is resolved from no fixed slope."
    )
