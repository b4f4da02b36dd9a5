"""Correlate what the layers are like with what quantization cost, between activations.

The question was put before any result (parameter-golf PR #1062): does the negative slope change
quantization through a denser hidden layer, or through weights of which more are large? ``MEASURES``
are the measures that tell; a cell has one value of each, its mean over layers.

Seeds are taken out first, and what is correlated are the effects of the activations: cells of one
activation are no independent witnesses of what it does. All of it is association. Everything that
moves smoothly with the slope goes together between activations, whether or not one drives the
other; only an intervention could tell.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.models.interval import LEVEL
from analysis.models.least_squares import Floats, indicators, solve
from analysis.number_format import capital, counted, listed, number, p_value
from analysis.rows.read import is_scored, records, settings
from analysis.rows.scoring import scoring_of, stage_title
from analysis.stats.per_seed import per_block
from analysis.stats.quantization import with_deltas
from analysis.stats.ranking import same_functions
from analysis.study import Study

MEASURES = (
    ("activation", "mlp", "density"),
    ("tensor", "down_bank", "weight_density"),
    ("tensor", "up_bank", "weight_density"),
)
OUTCOMES = ("quant_delta", "quant_delta_sliding", "artifact_bytes")

_MEASURE = ("kind", "name", "measure")
_UNIT = ("setting", "key", "seed", "replicate", "state", "tainted", "slope", "neg_beta")
TOO_FEW = "too few activations"
UNCONNECTED = "seeds and activations overlap too little to be taken apart"
CONSTANT = "it is the same everywhere"
_ROUNDING = 1e-12  # of the values: what least squares leaves of a constant

_NUMBERS = ["correlation", "low", "high", "p_value", "p"]
_COLUMNS = [
    *("setting", "outcome", "budget", "window", "stride", *_MEASURE),
    *("n", "seeds", "activations", *_NUMBERS, "survives", "reason"),
]


def associations(
    study: Study,
    layers: pd.DataFrame,
    outcomes: Iterable[str] = OUTCOMES,
) -> pd.DataFrame:
    """One row per setting, outcome and entry of ``MEASURES`` that the cells have.

    ``correlation`` of the effects of ``activations``, from ``n`` pairs of activation and seed over
    ``seeds``, with Fisher's interval ``low`` to ``high``. ``p_value`` is its own, ``p`` corrected
    over the measures of the outcome (Holm 1979); ``survives`` says whether ``p`` < 1 − ``LEVEL``.
    ``reason`` says why there is none. Two names of one function count once, and the survivors of an
    activation with a diverged seed count as the cells that they are.
    """
    scored = with_deltas(study.cells[is_scored(study.cells)])
    means = layers.groupby([*_MEASURE, "cell_id"])["value"].mean()
    known = [measure for measure in MEASURES if measure in means.index]
    rows: list[dict[str, object]] = []
    for setting in settings(scored):
        cells = scored[scored["setting"] == setting]
        values = {measure: cells["cell_id"].map(means.loc[measure]) for measure in known}
        for outcome in (name for name in outcomes if cells[name].notna().any()):
            facts = {"setting": setting, "outcome": outcome, **scoring_of(cells, outcome)}
            rows += _corrected(
                [
                    facts
                    | dict(zip(_MEASURE, measure, strict=True))
                    | _association(cells.assign(measured=value), outcome)
                    for measure, value in values.items()
                    if value.notna().any()
                ],
            )
    table = pd.DataFrame(rows, columns=_COLUMNS).astype(dict.fromkeys(_NUMBERS, float))
    return table.astype({"survives": "boolean", "window": "Int64", "stride": "Int64"})


def association_sentences(study: Study, layers: pd.DataFrame) -> list[str]:
    """How many cells have measures, and for each outcome what became of the question."""
    scored = study.cells.loc[is_scored(study.cells), "cell_id"]
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
    table = associations(study, layers)
    for (setting, outcome), rows in table.groupby(["setting", "outcome"], sort=False):
        sentences.append(
            f"{capital(stage_title(study.cells, outcome))} ({setting}): {_words(rows)}"
        )
    return sentences


def _words(rows: pd.DataFrame) -> str:
    between = counted(int(rows["activations"].max()), "activation")
    tested = records(rows.dropna(subset=["p"]))
    if not tested:
        reasons = ", ".join(rows["reason"].unique())
        return f"no measure can be held against it ({reasons}, {between})."
    told = [
        f"with {row['measure'].replace('_', ' ')} of {row['name']}"
        f" r = {number(row['correlation'], decimals=2)} ({p_value(row['p'])})"
        for row in tested
    ]
    return (
        f"is it density, as was asked beforehand? Between {between}, {listed(told)}; p by Holm's"
        f" correction over {counted(len(tested), 'measure')}. An association, no proof of a cause."
    )


def _association(cells: pd.DataFrame, outcome: str) -> dict[str, object]:
    """How ``measured`` and the outcome go together in the cells of one setting."""
    units = _units(cells, outcome)
    activations = int(units["function"].nunique())
    facts = {"n": len(units), "seeds": units["seed"].nunique(), "activations": activations}
    if activations < 3:
        return facts | {"reason": TOO_FEW}
    effects = [_effects(units, name) for name in ("measured", outcome)]
    x_A, y_A = effects
    if x_A is None or y_A is None:
        return facts | {"reason": UNCONNECTED}
    if not (x_A.any() and y_A.any()):
        return facts | {"reason": CONSTANT}
    found = stats.pearsonr(x_A, y_A)
    facts |= {"correlation": float(found.statistic), "p_value": float(found.pvalue)}
    if activations > 3:  # of three, the interval is everything
        interval = found.confidence_interval(LEVEL)
        facts |= {"low": float(interval.low), "high": float(interval.high)}
    return facts


def _units(cells: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """One row per function and seed that has both: replicates averaged, a second name left out."""
    known = cells["measured"].notna() & cells[outcome].notna()
    both = cells[[*_UNIT, "measured", outcome]][known]
    by, stands_for = ["setting", "key", "seed"], same_functions(cells, None)
    one, other = (
        per_block(both, name, ["seed"]).rename(columns={"value": name})
        for name in ("measured", outcome)
    )
    units = one[[*by, "measured"]].merge(other[[*by, outcome]], on=by)
    units = units.assign(function=units["key"].map(stands_for))
    units = units.assign(is_other=units["key"] != units["function"])
    return units.sort_values(["function", "seed", "is_other"]).drop_duplicates(["function", "seed"])


def _effects(units: pd.DataFrame, column: str) -> Floats | None:
    """The additive effect of each activation, seeds taken out, centred: in a full grid the means.

    None where some two activations are never compared within seeds, not even through others; zeros
    where nothing but rounding is left.
    """
    values = units[column].to_numpy(dtype=float)
    seeds, functions = (indicators(list(units[name]))[0] for name in ("seed", "function"))
    solution = solve(np.concatenate([seeds, functions], axis=1), values - values.mean())
    if len(solution.rows_RP) < seeds.shape[1] + functions.shape[1] - 1:
        return None
    effects: Floats = solution.coefficients_P[seeds.shape[1] :]
    effects = effects - effects.mean()
    is_rounding = np.abs(effects).max() <= _ROUNDING * np.abs(values).max()
    return np.zeros_like(effects) if is_rounding else effects


def _corrected(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """``rows`` of one outcome with p values that hold for all of them at once."""
    tested = [row for row in rows if "p_value" in row]
    if tested:
        adjusted = multipletests([row["p_value"] for row in tested], method="holm")[1]
        for row, p in zip(tested, adjusted, strict=True):
            row |= {"p": float(p), "survives": bool(p < 1 - LEVEL)}
    return rows
