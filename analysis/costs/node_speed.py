"""Effects of nodes and of activations on step times, steps and scores, told apart.

A node that is 1 % slower costs about one seed's standard deviation, so time and node are told apart
before an activation is called slow. Times and steps are modelled as logarithms,
log value = activation + node, so effects are ratios; scores as score = seed + activation + node. An
activation is compared with the reference on the same nodes, a node with the mean of all nodes. What
the cells cannot tell apart, such as an activation that ran alone on its node, is null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.models.interval import t_quantile
from analysis.models.least_squares import Floats, FTest, Solution, f_test, indicators, solve
from analysis.number_format import capital, counted, listed, number, p_value, percent
from analysis.rows.read import is_scored
from analysis.rows.scoring import scoring_of
from analysis.rows.stages import title_of
from analysis.stats.per_seed import outcome_counts
from analysis.stats.ranking import same_functions
from analysis.study import Study

TITLES = {
    "step_ms_p50": "median step time",
    "step_ms_p99": "99th percentile of the step time",
    "steps": "steps taken",
}
AS_RATIOS = ("step_ms_p50", "step_ms_p99", "steps", "tokens", "train_s")
NODE_COLUMNS = (
    *("setting", "quantity", "kind", "key", "label", "reference", "n", "scale", "effect", "low"),
    *("high", "resolved", "noise_sd", "noise_df", "nodes", "node_share", "node_p", "n_tainted"),
    *("level", "comparisons", "budget", "window", "stride"),
)


def node_effects(
    study: Study, quantity: str = "step_ms_p50", *, level: float = 0.95
) -> pd.DataFrame:
    """One row per setting and activation (``kind`` activation) or node (``kind`` node).

    ``effect`` is a ratio where ``scale`` is "ratio" (1: alike), else a difference; its interval is
    simultaneous over the ``comparisons`` of its kind. ``n`` counts cells. ``node_share``: of what
    activations (and seeds) leave over, the share that nodes explain; ``node_p`` its F test.
    """
    tables = []
    for here in study.settings.values():
        cells = _cells(here, quantity)
        if not cells.empty:
            tables.append(_effects(here, cells, quantity, level=level))
    found = pd.concat(tables) if tables else pd.DataFrame()
    return found.reindex(columns=list(NODE_COLUMNS)).reset_index(drop=True)


def node_sentences(effects: pd.DataFrame) -> list[str]:
    """One sentence per setting of ``node_effects``."""
    return [_sentence(rows) for _, rows in effects.groupby("setting", sort=False)]


def _cells(study: Study, quantity: str) -> pd.DataFrame:
    """``value``, ``key``, ``node`` and ``seed`` of every scored cell that has all of them."""
    here, kept = study.cells, same_functions(study.cells, study.reference)
    cells = here.loc[is_scored(here), ["key", "node", "seed", quantity]].dropna()
    cells = cells.assign(key=cells["key"].map(kept), value=cells[quantity].astype(float))
    if quantity in AS_RATIOS:
        cells = cells[cells["value"] > 0]
        return cells.assign(value=np.log(cells["value"]))
    counts = outcome_counts(here)  # scores of survivors are not compared; their times are
    diverged = {kept[key] for key in counts.loc[counts["n_diverged"] > 0, "key"]}
    return cells[~cells["key"].isin(diverged)]


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """The additive model of one setting, and what the nodes add to it."""

    solution: Solution
    keys: Sequence[str]
    nodes: Sequence[str]
    node_share: float | None
    node_test: FTest | None

    def contrasts(self, kind: str, reference: str) -> tuple[Sequence[str], Floats]:
        """Names and contrasts of one kind: against the reference, or against the mean node."""
        num_keys, num_nodes = len(self.keys), len(self.nodes)
        names = self.keys if kind == "activation" else self.nodes
        own_QQ = np.eye(len(names))
        if kind == "activation":
            if reference not in names:
                return [], np.zeros((0, self.solution.coefficients_P.size))
            own_QQ = own_QQ - own_QQ[list(names).index(reference)]
        else:
            own_QQ = own_QQ - 1 / num_nodes
        all_QP = np.zeros((len(names), self.solution.coefficients_P.size))
        start = 0 if kind == "activation" else num_keys
        all_QP[:, start : start + len(names)] = own_QQ
        used = [i for i, name in enumerate(names) if kind == "node" or name != reference]
        return [names[i] for i in used], all_QP[used]


def _model(cells: pd.DataFrame, *, seeds: bool) -> _Model:
    keys_NA, keys = indicators(cells["key"].tolist())
    nodes_NM, nodes = indicators(cells["node"].tolist())
    blocks = [indicators(cells["seed"].tolist())[0]] if seeds else []
    values_N = cells["value"].to_numpy(dtype=float)
    full = solve(np.hstack([keys_NA, nodes_NM, *blocks]), values_N)
    without = solve(np.hstack([keys_NA, *blocks]), values_N)
    share = 1 - full.rss / without.rss if without.rss and len(nodes) > 1 else None
    test = f_test(full, without, full)
    return _Model(full, [str(k) for k in keys], [str(n) for n in nodes], share, test)


def _effects(study: Study, cells: pd.DataFrame, quantity: str, *, level: float) -> pd.DataFrame:
    here, reference, as_ratio = study.cells, study.reference, quantity in AS_RATIOS
    model = _model(cells, seeds=not as_ratio)
    labels, rows = study.labels, []
    tainted = here["tainted"].astype("boolean").fillna(False).astype(bool)
    common = {
        "setting": here["setting"].iloc[0],
        "quantity": quantity,
        "reference": reference,
        "scale": "ratio" if as_ratio else "difference",
        "noise_sd": model.solution.sd,
        "noise_df": model.solution.df,
        "nodes": len(model.nodes),
        "node_share": model.node_share,
        "node_p": model.node_test.p_value if model.node_test else None,
        "n_tainted": int(((here["state"] == "succeeded") & tainted).sum()),
        "level": level,
        **scoring_of(here, quantity),
    }
    for kind, column in (("activation", "key"), ("node", "node")):
        names, contrasts_QP = model.contrasts(kind, reference)
        values_Q, half_Q = _with_half_widths(model.solution, contrasts_QP, level=level)
        for name, value, half in zip(names, values_Q, half_Q, strict=True):
            low, middle, high = (
                np.exp([value - half, value, value + half])
                if as_ratio
                else (value - half, value, value + half)
            )
            rows.append(
                {**common, "kind": kind, "key": name, "label": labels.get(name, name)}
                | {"n": int((cells[column] == name).sum()), "comparisons": len(names)}
                | {"effect": float(middle), "low": float(low), "high": float(high)}
                | {"resolved": pd.NA if np.isnan(half) else bool(abs(value) > half)}
            )
    return pd.DataFrame(rows).astype({"resolved": "boolean"} if rows else {})


def _with_half_widths(
    solution: Solution, contrasts_QP: Floats, *, level: float
) -> tuple[Floats, Floats]:
    """Šidák intervals; NaN half widths where the noise is not known."""
    values_Q, errors_Q = solution.estimate(contrasts_QP)
    if solution.sd is None or values_Q.size == 0:
        return values_Q, np.full(values_Q.shape, np.nan)
    return values_Q, t_quantile(level ** (1 / values_Q.size), solution.df) * solution.sd * errors_Q


def _sentence(rows: pd.DataFrame) -> str:
    first: Mapping[str, Any] = rows.iloc[0].to_dict()
    activations, nodes = (rows[rows["kind"] == kind] for kind in ("activation", "node"))
    title = TITLES.get(first["quantity"], title_of(first["quantity"]))
    opening = f"{capital(title)} ({first['setting']})"
    apart = [
        f"{row.label} {_amount(row.effect, first['scale'])}"
        for row in activations[activations["resolved"].fillna(False)].itertuples()
    ]
    untold = activations.loc[activations["effect"].isna(), "label"]
    if activations.empty:
        words = [f"{opening}: there is nothing to compare with the reference."]
    elif apart:
        words = [f"{opening}: against the reference, on the same nodes, {listed(apart)}."]
    else:
        words = [f"{opening}: no activation is resolved from the reference on the same nodes."]
    if len(untold):
        words.append(f"Not told apart from their nodes: {listed(list(untold))}.")
    if first["nodes"] == 1:
        return " ".join([*words, "All cells ran on one node.", *_left_out(first)])
    if nodes["effect"].isna().any():
        words.append(
            f"What the {counted(int(first['nodes']), 'node')} differ by is not told apart from the"
            " activations that ran on them."
        )
        return " ".join([*words, *_left_out(first)])
    extremes = [_amount(nodes["effect"].min(), first["scale"])]
    extremes.append(_amount(nodes["effect"].max(), first["scale"]))
    tested = "not tested" if pd.isna(first["node_p"]) else p_value(first["node_p"])
    words.append(
        f"{counted(int(first['nodes']), 'node')} differ from their mean by {' to '.join(extremes)}"
        f" ({tested})."
    )
    if not pd.isna(first["node_share"]):
        words.append(
            f"Nodes explain {percent(first['node_share'])} of what activations leave over."
        )
    return " ".join([*words, *_left_out(first)])


def _left_out(first: Mapping[str, Any]) -> list[str]:
    tainted = counted(int(first["n_tainted"]), "tainted cell is", "tainted cells are")
    return [f"{tainted} excluded."] if first["n_tainted"] else []


def _amount(effect: float, scale: str) -> str:
    """
    >>> _amount(1.004, "ratio"), _amount(-0.001, "difference")
    ('+0.40 %', '−0.0010')
    """
    if scale == "ratio":
        return f"{number(100 * (effect - 1), signed=True, decimals=2)} %"
    return number(effect, signed=True)
