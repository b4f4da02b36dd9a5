"""Does the slope change quantization through the weights, and which measures of them go with it?

A cell has one value of a measure: its mean over layers. Each is held against what quantization did
to the cell, in three ways that answer different questions:

over cells   both centred within their seed: what a picture shows. Cells of one activation are no
             independent witnesses of what the activation does, so the interval and p over cells
             are too sure of themselves wherever activations differ, and decide nothing.
between      the effects of the activations, seeds taken out: do activations with more of the one
             have more of the other? n counts activations. This is the question of the study, and
             the one that is tested, with Holm's correction over the measures.
within       what is left after seed and activation: does a cell with more of the one than its seed
             and its activation suggest have more of the other? No slope can be behind that.

All of it is association. Everything that moves smoothly with the slope goes together between
activations, whether or not one drives the other; only an intervention could tell.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from analysis.mechanism.outcomes import Problem, problems
from analysis.models.partial_correlation import (
    Association,
    Reals,
    association,
    group_effects,
    groups,
    holm,
)
from analysis.number_format import capital, counted, listed, number, p_value, percent
from analysis.rows.layers import BETAS, MEASURE, beta_by_layer, layer_means, layer_table
from analysis.rows.read import is_scored, records
from analysis.rows.scoring import check_equal_scoring
from analysis.rows.stages import title_of

__all__ = [
    "BETAS",
    "OUTCOMES",
    "beta_by_layer",
    "layer_means",
    "layer_table",
    "mechanism_sentences",
    "relations",
    "slope_relations",
]

OUTCOMES = ("quant_delta", "quant_delta_sliding", "artifact_bytes", "model_bytes")
SAID = ("quant_delta", "quant_delta_sliding", "artifact_bytes")  # the model's bytes say the same
# The question as it was put, before any result: does the slope act through density? Tested among
# themselves; a hundred other measures are looked at beside them and corrected for their number.
ASKED = (
    ("activation", "mlp", "density"),
    ("tensor", "up_bank", "weight_density"),
    ("tensor", "down_bank", "weight_density"),
)
BYTES = ("artifact_bytes", "model_bytes")
UNCONNECTED = "seeds and activations overlap too little to be taken apart"
NOT_TESTED = "a part of the outcome, and not tested"

_FOOTING = ["setting", "quantity", "outcome", "window", "stride", "budget"]
_THREE = ("between", "within")
_SHARES = ["effect", "share", "effect_given", "share_given", "share_of_measure"]


def relations(
    frame: pd.DataFrame,
    layers: pd.DataFrame,
    outcomes: Iterable[str] = OUTCOMES,
    *,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row per setting, outcome and measure: how the two go together, see the module.

    Over ``n`` cells of ``seeds`` and ``activations``: ``correlation``, ``low``, ``high``,
    ``p_cells`` with ``df``. ``between`` and ``within`` each with ``…_low``, ``…_high``, ``…_p``,
    ``…_df``. ``p`` and ``p_within`` are theirs after Holm's correction over the ``measures`` of the
    outcome; ``survives`` says whether ``p`` < 1 − level, null where there is none. ``p_asked`` is
    corrected over the measures of ``ASKED`` alone, and null for all others. ``in_outcome``:
    the measure is a part of the outcome (bytes of a class, of the artifact's), shown and not
    tested. ``reason`` says why there is no ``between``. Two names of one function count once, and
    the survivors of an activation with a diverged seed count as the cells that they are.
    """
    check_equal_scoring(frame)
    rows: list[dict[str, object]] = []
    for problem in problems(frame, layers, outcomes):
        found = [problem.facts(name) | _three_ways(problem, name, level) for name in problem.names]
        rows += _corrected(found, level)
    numbers = [f"{way}{end}" for way in _THREE for end in ("", "_low", "_high", "_p")]
    numbers += ["correlation", "low", "high", "p_cells", "p", "p_within", "p_asked"]
    columns = [*_FOOTING, *MEASURE, "n", "seeds", "activations", "df", *numbers]
    columns += ["between_df", "within_df", "measures", "in_outcome", "survives", "reason"]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(numbers, float))
    return table.astype({"survives": "boolean", "in_outcome": bool}).assign(level=level)


def slope_relations(
    frame: pd.DataFrame, layers: pd.DataFrame, outcomes: Iterable[str] = OUTCOMES
) -> pd.DataFrame:
    """One row per setting, outcome and measure: what the slope says of the outcome, beyond it.

    Over the ``n`` cells of a fixed slope (``slopes`` of them), seeds as blocks, linear in the
    slope. ``effect``, in units of the outcome per unit of slope, and ``share``, the partial R² of
    the slope; ``effect_given`` and ``share_given``, both with the measure held fixed;
    ``share_of_measure``, the partial R² of the measure with the slope held fixed. A share that
    falls is what a measure on the way from slope to outcome would show, and so would any other
    that moves with the slope: an association. No p: cells of one slope are no independent
    witnesses of it.
    """
    check_equal_scoring(frame)
    rows = [
        problem.facts(name) | _with_slope(problem, name)
        for problem in problems(frame, layers, outcomes)
        for name in problem.names
    ]
    columns = [*_FOOTING, *MEASURE, "n", "slopes", *_SHARES]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(_SHARES, float))


def mechanism_sentences(
    frame: pd.DataFrame,
    layers: pd.DataFrame,
    outcomes: Iterable[str] = SAID,
    *,
    level: float = 0.95,
) -> list[str]:
    """How many cells have measures, and for each outcome the strongest association that survives
    the correction, or that none does.
    """
    scored = frame.loc[is_scored(frame), "cell_id"]
    measured = int(scored.isin(layers["cell_id"]).sum())
    if measured == 0:
        return [
            "No scored cell has measures of its layers, so nothing is said of how a slope acts on"
            " quantization."
        ]
    sentences = []
    if measured < len(scored):
        sentences.append(
            f"Measures of layers are there for {measured} of {counted(len(scored), 'scored cell')};"
            " what follows is over those."
        )
    table = relations(frame, layers, outcomes, level=level)
    for (setting, outcome), rows in table.groupby(["setting", "outcome"], sort=False):
        opening = f"{capital(title_of(outcome))} ({setting})"
        sentences += [f"{opening}: {words}" for words in (*_asked(rows), _words(rows, level))]
    return sentences


def _asked(rows: pd.DataFrame) -> list[str]:
    """What became of the question that was put beforehand."""
    found = records(rows.dropna(subset=["p_asked"]))
    told = [
        f"with {measure_words(row['name'], row['measure'])}"
        f" r = {number(row['between'], decimals=2)} ({p_value(row['p_asked'])})"
        for row in found
    ]
    between = f"Between {counted(int(rows['activations'].max()), 'activation')}"
    return [f"is it density, as was asked beforehand? {between}, {listed(told)}."] if told else []


def measure_words(name: str, measure: str) -> str:
    """
    >>> measure_words("up_bank", "quant_mse"), measure_words("mlp", "dead_channels")
    ('quant mse of up_bank', 'dead channels of mlp')
    """
    return f"{measure.replace('_', ' ')} of {name}"


def _words(rows: pd.DataFrame, level: float) -> str:
    tested = rows.dropna(subset=["p"])
    if tested.empty:
        told = rows.loc[~rows["in_outcome"], ["reason", "activations"]]
        why = told["reason"].mode()
        most = counted(int(rows["activations"].max()), "activation")
        return f"no measure can be held against it ({', '.join([*why, most])})."
    best = records(tested.sort_values("between_p", kind="stable").head(1))[0]
    over = f"Holm's correction over {counted(len(tested), 'measure')}"
    between = f"between {counted(int(best['activations']), 'activation')}"
    if not tested["survives"].any():
        return (
            f"no measure of the weights is associated with it {between}"
            f" (smallest {p_value(float(tested['p'].min()))}, {over})."
        )
    others = int(tested["survives"].sum()) - 1
    more = f"; {counted(others, 'other measure')} too" if others else ""
    interval = (
        f"{percent(level)} interval {number(best['between_low'], decimals=2)} to"
        f" {number(best['between_high'], decimals=2)}, "
        if not pd.isna(best["between_low"])
        else ""
    )
    return (
        f"it goes most closely with {measure_words(best['name'], best['measure'])}:"
        f" r = {number(best['between'], decimals=2)} {between} ({interval}{p_value(best['p'])},"
        f" {over}){more}. An association, no proof of a cause."
    )


def _three_ways(problem: Problem, name: str, level: float) -> dict[str, object]:
    cells = problem.whole(name)
    x, y = (cells[column].to_numpy(dtype=np.float64) for column in (name, problem.outcome))
    seeds, functions = list(cells["seed"]), list(cells["function"])
    over = association(x, y, groups(seeds), level=level)
    ways = {
        "between": _between(x, y, seeds, functions, level),
        "within": association(x, y, groups(seeds, functions), level=level),
    }
    facts: dict[str, object] = {
        **{"n": len(cells), "seeds": len(set(seeds)), "activations": len(set(functions))},
        **{"df": over.df, "correlation": over.correlation, "low": over.low, "high": over.high},
        **{"p_cells": over.p_value, "reason": ways["between"].reason},
        "in_outcome": problem.names[name][0] == "class" and problem.outcome in BYTES,
    }
    for way, found in ways.items():
        facts |= {way: found.correlation, f"{way}_low": found.low, f"{way}_high": found.high}
        facts |= {f"{way}_p": found.p_value, f"{way}_df": found.df}
    return facts


def _between(
    x: Reals, y: Reals, seeds: Sequence[object], functions: Sequence[object], level: float
) -> Association:
    effects = [group_effects(v, seeds, functions) for v in (x, y)] if seeds else [None]
    x_A, y_A = effects[0], effects[-1]
    if x_A is None or y_A is None:
        return Association(n=0, df=0, reason=UNCONNECTED)
    return association(x_A, y_A, np.ones((x_A.size, 1)), level=level)


def _corrected(rows: list[dict[str, object]], level: float) -> list[dict[str, object]]:
    """``rows`` of one outcome with p values that hold for all of them at once."""
    tested = [not row["in_outcome"] for row in rows]
    asked = [tuple(row[name] for name in MEASURE) in ASKED for row in rows]

    def adjusted(name: str, wanted: Sequence[bool]) -> list[float | None]:
        pairs = zip(rows, wanted, strict=True)
        return holm([_real(row[name]) if is_wanted else None for row, is_wanted in pairs])

    between, within = adjusted("between_p", tested), adjusted("within_p", tested)
    of_asked = adjusted("between_p", asked)
    measures = sum(p is not None for p in between)
    return [
        row
        | {"p": p, "p_within": p_within, "p_asked": p_asked, "measures": measures}
        | {"survives": None if p is None else p < 1 - level}
        | ({} if test else {"reason": NOT_TESTED})
        for row, test, p, p_within, p_asked in zip(
            rows, tested, between, within, of_asked, strict=True
        )
    ]


def _with_slope(problem: Problem, name: str) -> dict[str, object]:
    whole = problem.whole(name)
    cells = whole[whole["neg_beta"].notna()]
    slope = np.sqrt(cells["neg_beta"].to_numpy(dtype=np.float64))
    measure, outcome = (
        cells[column].to_numpy(dtype=np.float64) for column in (name, problem.outcome)
    )
    facts: dict[str, object] = {"n": len(cells), "slopes": len(set(slope))}
    if cells.empty:
        return facts
    seeds = groups(list(cells["seed"]))
    alone = association(slope, outcome, seeds)
    given = association(slope, outcome, np.column_stack([seeds, _of_unit_size(measure)]))
    beside = association(measure, outcome, np.column_stack([seeds, slope]))
    return facts | {
        **{"effect": alone.slope, "share": _square(alone.correlation)},
        **{"effect_given": given.slope, "share_given": _square(given.correlation)},
        "share_of_measure": _square(beside.correlation),
    }


def _of_unit_size(v: Reals) -> Reals:
    """Bytes by the million and squares of 1e-9 as columns that least squares can tell from zero."""
    centred: Reals = v - v.mean()
    size = np.abs(centred).max()
    return centred / size if size > 0 else centred


def _square(r: float | None) -> float | None:
    return None if r is None else r * r


def _real(value: object) -> float | None:
    return value if isinstance(value, float) else None
