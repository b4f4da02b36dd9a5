"""Effects of nodes and of activations on the time of a step, told apart.

A node that is 1 % slower costs about one seed's standard deviation, so time and node are told apart
before an activation is called slow. log median step time = activation + node, so effects are
ratios. An activation is compared with the reference on the same nodes, a node with the mean of all
nodes. What the cells cannot tell apart, such as an activation that ran alone on its node, is null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.models.interval import t_quantile
from analysis.models.least_squares import Floats, FTest, Solution, f_test, indicators, solve
from analysis.number_format import counted, listed, number, p_value, percent
from analysis.rows.read import is_scored
from analysis.rows.scoring import scoring_of
from analysis.stats.ranking import same_functions
from analysis.study import Study

QUANTITY = "step_ms_p50"
NODE_COLUMNS = (
    *("setting", "quantity", "kind", "key", "label", "reference", "n", "effect", "low", "high"),
    *("resolved", "noise_sd", "noise_df", "nodes", "node_share", "node_p", "n_tainted"),
    *("level", "comparisons", "budget", "window", "stride"),
)


def node_effects(study: Study, *, level: float = 0.95) -> pd.DataFrame:
    """One row per setting and activation (``kind`` activation) or node (``kind`` node).

    ``effect`` is a ratio (1: alike); its interval is simultaneous over the ``comparisons`` of its
    kind. ``n`` counts cells. ``node_share``: of what activations leave over, the share that nodes
    explain; ``node_p`` its F test.
    """
    tables = []
    for here in study.settings.values():
        cells = _cells(here)
        if not cells.empty:
            tables.append(_effects(here, cells, level=level))
    found = pd.concat(tables) if tables else pd.DataFrame()
    return found.reindex(columns=list(NODE_COLUMNS)).reset_index(drop=True)


def node_sentences(effects: pd.DataFrame) -> list[str]:
    """One sentence per setting of ``node_effects``."""
    return [_sentence(rows) for _, rows in effects.groupby("setting", sort=False)]


def _cells(study: Study) -> pd.DataFrame:
    """Log step time (``value``), ``key`` and ``node`` of every scored cell that has all of them."""
    kept = same_functions(study.cells, study.reference)
    cells = study.cells.loc[is_scored(study.cells), ["key", "node", QUANTITY]].dropna()
    cells = cells[cells[QUANTITY] > 0]
    log_ms = np.log(cells[QUANTITY].astype(float))
    return cells.assign(key=cells["key"].map(kept), value=log_ms)


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


def _model(cells: pd.DataFrame) -> _Model:
    keys_NA, keys = indicators(cells["key"].tolist())
    nodes_NM, nodes = indicators(cells["node"].tolist())
    values_N = cells["value"].to_numpy(dtype=float)
    full = solve(np.hstack([keys_NA, nodes_NM]), values_N)
    without = solve(keys_NA, values_N)
    share = 1 - full.rss / without.rss if without.rss and len(nodes) > 1 else None
    test = f_test(full, without, full)
    return _Model(full, [str(k) for k in keys], [str(n) for n in nodes], share, test)


def _effects(study: Study, cells: pd.DataFrame, *, level: float) -> pd.DataFrame:
    here, reference, model = study.cells, study.reference, _model(cells)
    labels, rows = study.labels, []
    tainted = here["tainted"].astype("boolean").fillna(False).astype(bool)
    common = {
        "setting": here["setting"].iloc[0],
        "quantity": QUANTITY,
        "reference": reference,
        "noise_sd": model.solution.sd,
        "noise_df": model.solution.df,
        "nodes": len(model.nodes),
        "node_share": model.node_share,
        "node_p": model.node_test.p_value if model.node_test else None,
        "n_tainted": int(((here["state"] == "succeeded") & tainted).sum()),
        "level": level,
        **scoring_of(here, QUANTITY),
    }
    for kind, column in (("activation", "key"), ("node", "node")):
        names, contrasts_QP = model.contrasts(kind, reference)
        values_Q, half_Q = _with_half_widths(model.solution, contrasts_QP, level=level)
        for name, value, half in zip(names, values_Q, half_Q, strict=True):
            low, middle, high = np.exp([value - half, value, value + half])
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
    opening = f"Median step time ({first['setting']})"
    apart = [
        f"{row.label} {_amount(row.effect)}"
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
    extremes = [_amount(nodes["effect"].min())]
    extremes.append(_amount(nodes["effect"].max()))
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


def _amount(ratio: float) -> str:
    """
    >>> _amount(1.004)
    '+0.40 %'
    """
    return f"{number(100 * (ratio - 1), signed=True, decimals=2)} %"
