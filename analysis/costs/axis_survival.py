"""Rankings across settings: best activation, Kendall's τ and the test of an interaction.

The published learning rates were tuned at slope 0.5, so "the best slope" may mean "the best at that
rate". Settings that differ in one axis only (a recipe value of ``set.…``, or the budget) are put
side by side: the best activation of each, Kendall's τ (1938) between their rankings, and the test
of an interaction. That is the F test of
score = block + activation × value against score = block + activation, a block being a seed within
one value. Its noise is pooled over the values, so it is approximate where they are unlike in noise,
such as budgets of unlike length. Only activations that are ranked under every value are compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.models.least_squares import FTest, f_test, indicators, solve
from analysis.number_format import capital, counted, listed, number, p_value, percent
from analysis.rows.names import AXIS_PREFIX
from analysis.rows.scoring import Scoring, scoring_of
from analysis.rows.stages import title_of
from analysis.stats.compare import compare
from analysis.stats.ranking import ranked_scores
from analysis.stats.slope_curve import best_set, slope_curves
from analysis.study import Study

BUDGET_AXIS = "budget"
AS_IN_RECIPE = "as in the recipe"

AXIS_COLUMNS = (
    *("axis", "fixed", "values", "settings", "quantity", "reference", "n", "activations"),
    *("best", "same_best", "tau", "statistic", "df", "noise_df", "p_value", "interaction"),
    *("contradicted", "survives", "sentence"),
    *("level", "budget", "window", "stride"),
)


def axis_survival(study: Study, quantity: str, *, level: float = 0.95) -> pd.DataFrame:
    """One row per axis and group of settings that differ in nothing but that axis.

    ``values``, ``settings`` and ``best`` (labels) are tuples in one order. ``n``: seeds under the
    value that has fewest. ``tau``: the lowest of all pairs of values. ``interaction``: resolved at
    ``level``; null without noise to test with. ``contradicted``: better than the reference under
    one value and worse under another, both resolved. ``survives``: true where the best is the same
    and no interaction is resolved, false where the best changes and one is; else null, not told.
    """
    compared = compare(study, quantity, level=level)
    best_slopes = {
        curve.setting: f"{number(curve.best, decimals=2)} ({best_set(curve)})"
        for curve in slope_curves(study, quantity)
        if curve.best is not None
    }
    rows = []
    for group in _groups(study):
        arms = [_Arm.of(here, quantity) for here in group.settings.values()]
        row = _row(group, arms, compared, study.labels, level=level)
        row |= {"quantity": quantity, "reference": study.reference}
        rows.append(row | {"sentence": _sentence(row, best_slopes)})
    table = pd.DataFrame(rows, columns=list(AXIS_COLUMNS))
    return table.astype(dict.fromkeys(("same_best", "interaction", "survives"), "boolean"))


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Settings that differ in ``axis`` only; ``fixed`` says in words what they share."""

    axis: str
    fixed: str
    settings: Mapping[str, Study]  # by value, in words


def _groups(study: Study) -> list[_Group]:
    """Every axis, with the settings that it alone tells apart; two or more to a group."""
    recipe_axes = [name for name in study.cells.columns if str(name).startswith(AXIS_PREFIX)]
    described = []
    for here in study.settings.values():
        first = here.cells.iloc[0]
        place = {"recipe": str(first["recipe"]), BUDGET_AXIS: str(first["budget"])}
        place |= {axis: _value(first[axis]) for axis in recipe_axes}
        described.append((place, here))
    found: dict[tuple[str, str], dict[str, Study]] = {}
    for axis in [*recipe_axes, BUDGET_AXIS]:
        for place, here in described:
            fixed = [
                value if name in ("recipe", BUDGET_AXIS) else f"{_short(name)} = {value}"
                for name, value in place.items()
                if name != axis
            ]
            found.setdefault((axis, ", ".join(fixed)), {})[place[axis]] = here
    return [
        _Group(_short(axis), fixed, dict(sorted(by_value.items(), key=_by_size)))
        for (axis, fixed), by_value in found.items()
        if len(by_value) > 1
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Arm:
    """The ranked scores under one value of the axis, blocks × activations."""

    setting: str
    scores: pd.DataFrame
    scoring: Scoring

    @classmethod
    def of(cls, here: Study, quantity: str) -> "_Arm":
        scores = ranked_scores(here, quantity, here.reference)
        known = scores.dropna(how="all").dropna(axis=1, how="all")
        return cls(str(here.cells["setting"].iloc[0]), known, scoring_of(here.cells, quantity))

    @property
    def num_seeds(self) -> int:
        return len(set(self.scores.index.get_level_values("seed")))

    def effects(self, keys: Sequence[str]) -> "pd.Series[float]":
        """What each activation adds to its block, less the mean of them; NaN what is not told."""
        matrix = self.scores[list(keys)].to_numpy(dtype=float)
        block, key = np.nonzero(~np.isnan(matrix))
        design = np.hstack([np.eye(len(keys))[key], indicators(block.tolist())[0]])
        centred = np.eye(len(keys), design.shape[1])
        centred[:, : len(keys)] -= 1 / len(keys)
        values, _ = solve(design, matrix[block, key]).estimate(centred)
        return pd.Series(values, index=list(keys))


def _row(
    group: _Group,
    arms: Sequence[_Arm],
    compared: pd.DataFrame,
    labels: Mapping[str, str],
    *,
    level: float,
) -> dict[str, object]:
    common = [key for key in arms[0].scores if all(key in arm.scores for arm in arms)]
    test, best, tau = None, None, None
    if len(common) > 1:
        effects = pd.DataFrame({arm.setting: arm.effects(common) for arm in arms})
        test = interaction_test([arm.scores[common] for arm in arms])
        if not effects.isna().to_numpy().any():
            best = tuple(labels[str(key)] for key in effects.idxmin())
            tau = _lowest_tau(effects)
    same = None if best is None else len(set(best)) == 1
    interaction = None if test is None else test.p_value < 1 - level
    told = same is not None and interaction is not None and same != interaction
    scoring = arms[0].scoring
    return {
        **{"axis": group.axis, "fixed": group.fixed, "values": tuple(group.settings)},
        **{"settings": tuple(arm.setting for arm in arms), "activations": len(common)},
        **{"n": min(arm.num_seeds for arm in arms), "level": level},
        **{"best": best, "same_best": same, "tau": tau},
        **{"statistic": test and test.statistic, "p_value": test and test.p_value},
        **{"df": test and test.df, "noise_df": test and test.noise_df},
        **{"interaction": interaction, "survives": same if told else None},
        "contradicted": _contradicted(compared, arms, labels),
        **scoring,
        "budget": None if group.axis == BUDGET_AXIS else scoring["budget"],
    }


def interaction_test(scores: Sequence[pd.DataFrame]) -> FTest | None:
    """Activation × setting, from one frame of blocks × activations (alike in columns) per setting.

    None where the noise is unknown (one seed) or nothing can interact.
    """
    cells: list[tuple[float, object, object, int]] = []
    for side, matrix in enumerate(scores):
        values = matrix.to_numpy(dtype=float)
        cells += [
            (values[block, key], (side, block), matrix.columns[key], side)
            for block, key in zip(*np.nonzero(~np.isnan(values)), strict=True)
        ]
    if not cells:
        return None
    values_N = np.array([value for value, *_ in cells])
    blocks_NB = indicators([block for _, block, *_ in cells])[0]
    keys_NA = indicators([key for _, _, key, _ in cells])[0]
    own_NA = indicators([(key, side) for _, _, key, side in cells])[0]
    full = solve(np.hstack([blocks_NB, own_NA]), values_N)
    return f_test(full, solve(np.hstack([blocks_NB, keys_NA]), values_N), full)


def _lowest_tau(effects: pd.DataFrame) -> float | None:
    taus = [
        float(stats.kendalltau(effects[one], effects[other]).statistic)
        for one, other in combinations(effects, 2)
    ]
    return None if np.isnan(taus).any() else min(taus)


def _contradicted(
    compared: pd.DataFrame, arms: Sequence[_Arm], labels: Mapping[str, str]
) -> tuple[str, ...]:
    """What is resolved as better than the reference under one value and as worse under another."""
    here = pd.concat([compared[compared["setting"] == arm.setting] for arm in arms])
    way = np.sign(here["difference"]).where(here["resolved"].fillna(False).astype(bool))
    ways = way.groupby(here["key"], sort=False).nunique()
    return tuple(labels[str(key)] for key in ways.index[ways > 1])


def _sentence(row: Mapping[str, Any], best_slopes: Mapping[str, str]) -> str:
    opening = f"{capital(title_of(row['quantity']))} ({row['fixed']}):"
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
    return f"The interaction {resolved} at {percent(row['level'])} ({p_value(row['p_value'])})."


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
