"""Effects of nodes and of activations on the time of a step, told apart.

A node that is 1 % slower costs about one seed's standard deviation, so time and node are told apart
before an activation is called slow. log median step time = activation + node, so effects are
ratios. An activation is compared with the reference on the same nodes, a node with the mean of all
nodes. What the cells cannot tell apart, such as an activation that ran alone on its node, is null.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.models.interval import LEVEL, t_quantile
from analysis.models.least_squares import f_test, indicators, solve
from analysis.number_format import counted, listed, number, p_value, percent
from analysis.rows.read import is_scored
from analysis.stats.ranking import same_functions
from analysis.study import Study

QUANTITY = "step_ms_p50"
NODE_COLUMNS = (
    *("setting", "kind", "key", "label", "n", "effect", "low", "high", "resolved", "noise_sd"),
    *("noise_df", "nodes", "node_share", "node_p", "n_tainted", "comparisons"),
)


def node_effects(study: Study) -> pd.DataFrame:
    """One row per setting and activation (``kind`` activation) or node (``kind`` node).

    ``effect`` is a ratio (1: alike); its interval is simultaneous over the ``comparisons`` of its
    kind. ``n`` counts cells. ``node_share``: of what activations leave over, the share that nodes
    explain; ``node_p`` its F test.
    """
    tables = []
    for here in study.settings.values():
        cells = _cells(here)
        if not cells.empty:
            tables.append(_effects(here, cells))
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


def _effects(study: Study, cells: pd.DataFrame) -> pd.DataFrame:
    """The additive model of one setting, log time = activation + node."""
    here, labels, rows = study.cells, study.labels, []
    keys_NA, keys = indicators(cells["key"].tolist())
    nodes_NM, nodes = indicators(cells["node"].tolist())
    values_N = cells["value"].to_numpy(dtype=float)
    full = solve(np.hstack([keys_NA, nodes_NM]), values_N)
    without = solve(keys_NA, values_N)
    test = f_test(full, without, full)
    tainted = here["tainted"].astype("boolean").fillna(False).astype(bool)
    common = {
        "setting": here["setting"].iloc[0],
        "noise_sd": full.sd,
        "noise_df": full.df,
        "nodes": len(nodes),
        "node_share": 1 - full.rss / without.rss if without.rss and len(nodes) > 1 else None,
        "node_p": test.p_value if test else None,
        "n_tainted": int(((here["state"] == "succeeded") & tainted).sum()),
    }
    width = len(keys) + len(nodes)
    of_keys, of_nodes = np.eye(len(keys), width), np.eye(len(nodes), width, len(keys))
    own = dict(zip(map(str, keys), of_keys, strict=True))
    base = own.pop(study.reference, None)
    against = {} if base is None else {key: row - base for key, row in own.items()}
    of_mean = dict(zip(map(str, nodes), of_nodes - of_nodes.mean(axis=0), strict=True))
    for kind, column, contrasts in (("activation", "key", against), ("node", "node", of_mean)):
        contrasts_QP = np.reshape(list(contrasts.values()), (-1, width))
        values_Q, errors_Q = full.estimate(contrasts_QP)
        half_Q = np.full(values_Q.shape, np.nan)
        if full.sd is not None and contrasts:  # Šidák intervals
            half_Q = t_quantile(LEVEL ** (1 / len(contrasts)), full.df) * full.sd * errors_Q
        for name, value, half in zip(contrasts, values_Q, half_Q, strict=True):
            low, middle, high = np.exp([value - half, value, value + half])
            rows.append(
                {**common, "kind": kind, "key": name, "label": labels.get(name, name)}
                | {"n": int((cells[column] == name).sum()), "comparisons": len(contrasts)}
                | {"effect": float(middle), "low": float(low), "high": float(high)}
                | {"resolved": pd.NA if np.isnan(half) else bool(abs(value) > half)}
            )
    return pd.DataFrame(rows).astype({"resolved": "boolean"} if rows else {})


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
