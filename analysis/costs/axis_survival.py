"""Rankings across settings: best activation, Kendall's τ and the test of an interaction.

The published learning rates were tuned at slope 0.5, so "the best slope" may mean "the best at that
rate". Settings that differ in one axis only (a recipe value of ``set.…``, or the budget) are put
side by side: the best activation of each, Kendall's τ (1938) between their rankings, and the test
of an interaction. For each two values, what the value changes in a score of one activation and seed
is compared with what it changes in the reference's, as scores are (``analysis.stats.compare``:
within seeds, all at once, by the wider of both intervals); of several pairs of values, after
Bonferroni. Only activations that are ranked under every value are compared.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.conclusions.contrasts import contrasts
from analysis.conclusions.slope_curve import best_set, slope_curves
from analysis.models.block_model import Blocking, blocked, fit_blocks
from analysis.models.interval import LEVEL
from analysis.models.least_squares import indicators, solve
from analysis.number_format import capital, counted, listed, number, p_value, percent
from analysis.rows.names import AXIS_PREFIX
from analysis.rows.scoring import stage_title
from analysis.stats.compare import bounds
from analysis.stats.ranking import ranked_scores
from analysis.study import Study

BUDGET_AXIS = "budget"
AS_IN_RECIPE = "as in the recipe"

_COLUMNS = (
    *("axis", "fixed", "values", "settings", "quantity", "n", "activations", "best", "tau"),
    *("p_value", "interaction", "contradicted", "survives"),
    "sentence",
)


def axis_survival(study: Study, quantity: str) -> pd.DataFrame:
    """One row per axis and group of settings that differ in nothing but that axis.

    ``fixed`` says what they share. ``values``, ``settings`` and ``best`` (labels) are tuples in one
    order. ``n``: seeds under the value that has fewest. ``tau``: the lowest of all pairs of values.
    ``interaction``: whether it is resolved; null without noise to test with. ``contradicted``:
    better than the reference under one value and worse under another, both resolved. ``survives``:
    true where the best is the same and no interaction is resolved, false where the best changes and
    one is; else null, not told.
    """
    compared = contrasts(study, quantity)
    best_slopes = {
        curve.setting: f"{number(curve.best, decimals=2)} ({best_set(curve)})"
        for curve in slope_curves(study, quantity)
        if curve.best is not None
    }
    rows = []
    for axis, fixed, by_value in _groups(study):
        names = [str(here.cells["setting"].iloc[0]) for here in by_value.values()]
        scores = [_ranked(here, quantity) for here in by_value.values()]
        row: dict[str, object] = {"axis": axis, "fixed": fixed, "values": tuple(by_value)}
        row |= {"settings": tuple(names), "quantity": quantity}
        row |= {"title": stage_title(study.cells, quantity)}
        row |= _comparison(scores, study.reference, study.labels)
        here = compared[compared["setting"].isin(names)]
        row["contradicted"] = _contradicted(here, study.labels)
        rows.append(row | {"sentence": _sentence(row, best_slopes)})
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    return table.astype(dict.fromkeys(("interaction", "survives"), "boolean"))


def _groups(study: Study) -> list[tuple[str, str, dict[str, Study]]]:
    """Axis, what is fixed in words, and by value the two or more settings that it alone parts."""
    recipe_axes = [name for name in study.cells.columns if str(name).startswith(AXIS_PREFIX)]
    found: dict[tuple[str, str], dict[str, Study]] = {}
    for axis in [*recipe_axes, BUDGET_AXIS]:
        for here in study.settings.values():
            first = here.cells.iloc[0]
            place = {"recipe": str(first["recipe"]), BUDGET_AXIS: str(first["budget"])}
            words = dict(place)
            for name in recipe_axes:
                place[name] = _value(first[name])
                words[name] = f"{_short(name)} = {place[name]}"
            fixed = ", ".join(word for name, word in words.items() if name != axis)
            found.setdefault((axis, fixed), {})[place[axis]] = here
    return [
        (_short(axis), fixed, dict(sorted(by_value.items(), key=_by_size)))
        for (axis, fixed), by_value in found.items()
        if len(by_value) > 1
    ]


def _ranked(here: Study, quantity: str) -> pd.DataFrame:
    """The ranked scores of one setting, blocks × activations."""
    scores = ranked_scores(here, quantity, here.reference)
    return scores.dropna(how="all").dropna(axis=1, how="all")


def _comparison(
    scores: Sequence[pd.DataFrame], reference: str, labels: Mapping[str, str]
) -> dict[str, object]:
    """What the rankings of the settings, over the activations that all rank, have in common."""
    common = [key for key in scores[0] if all(key in other for other in scores)]
    p, best, tau = None, None, None
    if len(common) > 1:
        effects = pd.concat([_effects(side[common]) for side in scores], axis=1)
        first = reference if reference in common else str(common[0])
        p = interaction_p([side[common] for side in scores], first)
        if not effects.isna().to_numpy().any():
            best = tuple(labels[str(key)] for key in effects.idxmin())
            tau = _lowest_tau(effects)
    same = None if best is None else len(set(best)) == 1
    interaction = None if p is None else p < 1 - LEVEL
    told = same is not None and interaction is not None and same != interaction
    return {
        "n": min(len(set(side.index.get_level_values("seed"))) for side in scores),
        **{"activations": len(common), "best": best, "tau": tau},
        **{"p_value": p, "interaction": interaction, "survives": same if told else None},
    }


def _effects(scores: pd.DataFrame) -> "pd.Series[float]":
    """What each activation adds to its block, less the mean of them; NaN what is not told."""
    matrix = scores.to_numpy(dtype=float)
    width = matrix.shape[1]
    block, key = np.nonzero(~np.isnan(matrix))
    design = np.hstack([np.eye(width)[key], indicators(block.tolist())[0]])
    centred = np.eye(width, design.shape[1])
    centred[:, :width] -= 1 / width
    values, _ = solve(design, matrix[block, key]).estimate(centred)
    return pd.Series(values, index=scores.columns)


def interaction_p(scores: Sequence[pd.DataFrame], reference: str) -> float | None:
    """Activation × setting, from one frame of blocks × activations (alike in columns) per setting.

    None where the noise is not known, or where two settings have no two seeds in common.
    """
    found: list[float] = []
    pairs = list(combinations(scores, 2))
    for one, other in pairs:
        changes = (one - other).rename_axis(index=["seed", "alone_on"][: one.index.nlevels])
        rows = changes.rename_axis(columns="key").stack().dropna().rename("value").reset_index()
        if not (rows["key"] == reference).any():
            return None
        design = blocked(rows, reference, Blocking())
        wider = bounds(design, fit_blocks(design), level=LEVEL)[1]
        found.append(float(wider.p_value_K.min()) if wider.p_value_K.size else math.nan)
    return None if np.isnan(found).any() else min(1.0, len(pairs) * min(found))


def _lowest_tau(effects: pd.DataFrame) -> float | None:
    columns = effects.to_numpy().T
    taus = [float(stats.kendalltau(*pair).statistic) for pair in combinations(columns, 2)]
    return None if np.isnan(taus).any() else min(taus)


def _contradicted(here: pd.DataFrame, labels: Mapping[str, str]) -> tuple[str, ...]:
    """What is resolved as better than the reference under one value and as worse under another."""
    way = np.sign(here["difference"]).where(here["resolved"].fillna(False).astype(bool))
    ways = way.groupby(here["key"], sort=False).nunique()
    return tuple(labels[str(key)] for key in ways.index[ways > 1])


def _sentence(row: Mapping[str, Any], best_slopes: Mapping[str, str]) -> str:
    opening = f"{capital(row['title'])} ({row['fixed']}):"
    axis, values = row["axis"], row["values"]
    if row["best"] is None:
        return f"{opening} {axis} varies, but too little is ranked under each value to compare."
    kind, bests = "activation", row["best"]
    if all(name in best_slopes for name in row["settings"]):
        kind, bests = "slope", [best_slopes[name] for name in row["settings"]]
    pairs = zip(values, bests, strict=True)
    by_value = listed([f"{best} at {axis} = {value}" for value, best in pairs])
    facts = [f"{counted(row['n'], 'seed')} or more", f"{row['activations']} activations"]
    if row["tau"] is not None:
        facts.append(f"Kendall's τ of the rankings {number(row['tau'], decimals=2)}")
    words = [f"{opening} the best {kind} is {by_value} ({', '.join(facts)}).", _interaction(row)]
    if row["contradicted"]:
        contradicted = listed(list(row["contradicted"]))
        words.append(f"Resolved as better under one value and worse under another: {contradicted}.")
    if row["survives"] is not None:
        changes = "is the same under every value" if row["survives"] else "changes with the value"
        words.append(f"Of what was tested, the lowest {changes}.")
    return " ".join(words)


def _interaction(row: Mapping[str, Any]) -> str:
    if row["interaction"] is None:
        return "Whether activation and value interact cannot be tested: the noise is not known."
    resolved = "is resolved" if row["interaction"] else "is not resolved"
    return f"The interaction {resolved} at {percent(LEVEL)} ({p_value(row['p_value'])})."


def _value(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return AS_IN_RECIPE
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(axis: str) -> str:
    return axis.removeprefix(AXIS_PREFIX)


def _by_size(item: tuple[str, object]) -> tuple[str, float, str]:
    """Budgets by unit, then numbers by size, then words."""
    number_of, _, unit = item[0].partition(" ")
    try:
        return unit, float(number_of), item[0]
    except ValueError:
        return unit, 0.0, item[0]
