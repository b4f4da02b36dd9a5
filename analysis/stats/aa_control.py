"""The A/A control: do the two names of one function give the same scores?

ReLU² and LeakyReLU² with slope 0 are one function, and both stay in the grid. At fixed steps on one
kind of CPU they must agree in every bit; elsewhere their difference shows what two runs of the same
thing differ by.
"""

from typing import Any

import numpy as np
import pandas as pd

from analysis.number_format import counted
from analysis.rows.stages import STAGES
from analysis.stats.ranking import same_functions
from analysis.study import Study
from sweep.store.schema import TERMINAL_STATES

_SAME = ["device_name", "dtype", "world_size", "trainer_hash", "torch"]
_FACTS = ["state", "budget_kind", "device", "script_sha256", *_SAME, *STAGES]


def aa_controls(study: Study) -> list[dict[str, Any]]:
    """One dictionary per setting and pair of names for one function: do they agree, and must they?

    ``n_identical`` of ``n`` pairs of cells of one seed and replicate agree in every bit of every
    score, or both diverged. ``must_agree``: fixed steps on one kind of CPU leave no room for noise.
    """
    functions = same_functions(study.cells, study.reference)
    twins = {key: kept for key, kept in functions.items() if key != kept}
    rows = []
    for setting, of_setting in study.settings.items():
        here = of_setting.cells[["key", "seed", "replicate", *_FACTS]]
        here = here[here["state"].isin(TERMINAL_STATES)]
        for key, twin in twins.items():
            one, other = (
                here[here["key"] == name].set_index(["seed", "replicate"]).sort_index()
                for name in (key, twin)
            )
            both = one.index.intersection(other.index)
            rows.append(
                {"setting": setting, "key": key, "twin": twin, "n": len(both)}
                | _agreement(one.loc[both], other.loc[both])
            )
    return rows


def aa_sentences(study: Study) -> list[str]:
    """What the A/A control says, in words; nothing where the sweep has no such pair."""
    labels, sentences = study.labels, []
    for row in aa_controls(study):
        pair = f"A/A control ({row['setting']}): {labels[row['twin']]} and {labels[row['key']]}"
        n, same = row["n"], row["n_identical"]
        if n == 0:
            sentences.append(f"{pair} are the same function; no seed has both yet.")
        elif same == n:
            sentences.append(f"{pair} agree bit for bit in {counted(n, 'pair')} of {n}.")
        else:
            reading = (
                "they must agree at fixed steps on one CPU, so no number here can be trusted"
                if row["must_agree"]
                else "this is replicate noise"
            )
            sentences.append(
                f"{pair} agree bit for bit in {same} of {counted(n, 'pair')} and"
                f" {_apart(row['largest_gap'])}: {reading}."
            )
    return sentences


def _apart(gap: float | None) -> str:
    """How far two cells are apart; where no score tells, one has what the other has not."""
    if not gap:
        return "else one of the two has no score where the other has one"
    return f"differ by up to {gap:.2g} bits per byte"


def _agreement(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    stages = list(STAGES)
    left, right = one[stages].astype(float), other[stages].astype(float)
    same = ((left == right) | (left.isna() & right.isna())).all(axis=1) & (
        one["state"] == other["state"]
    )
    gaps = (left - right).abs().to_numpy()
    machines = pd.concat([one, other])[_SAME].drop_duplicates()
    return {
        "n_identical": int(same.sum()),
        "largest_gap": None if np.isnan(gaps).all() else float(np.nanmax(gaps)),
        "must_agree": bool(
            len(machines) == 1
            and one["script_sha256"].isna().all()  # a script's own way of a slope may be another
            and (one["budget_kind"] == "steps").all()
            and (one["device"] == "cpu").all()
        ),
    }
