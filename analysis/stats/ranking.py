"""Which scores may be compared: none of a diverged activation, none illegal, each function once.

Two activations with the same fixed β are the same function: one activation in the ranking, in the
pooled noise and in the number of comparisons. Their difference is an A/A control
(``analysis.stats.aa_control``).
"""

from dataclasses import replace

import pandas as pd

from analysis.models.block_model import Blocking, within_nodes
from analysis.rows.stages import is_legal
from analysis.stats.per_seed import per_block
from analysis.study import Study, answered_once
from trainer.config.config_errors import ConfigError


@answered_once
def ranked_rows(study: Study, quantity: str, reference: str | None) -> pd.DataFrame:
    """Of one setting: key, seed (and node, where that is in a block) and value, one row per score.

    An activation of which a seed diverged has no row, and neither has its other name. ConfigError
    for a score that is not legal.
    """
    frame, by = study.with_reruns, study.blocking.by
    if not is_legal(frame, quantity):
        raise ConfigError(
            f"{quantity} was fitted on the targets that it scores: it is no legal score and is not "
            f"ranked. Rank another stage, or run the recipe with slot.mode = causal."
        )
    kept = same_functions(frame, reference)
    diverged = {kept[key] for key in frame.loc[frame["state"] == "diverged", "key"].unique()}
    values = per_block(frame, quantity, by)
    names = values["key"].map(kept).astype(str)
    named = values.assign(key=names, other=values["key"] != names)
    first = named.sort_values(["key", *by, "other"])
    once = first.drop_duplicates(["key", *by])
    return once.loc[~once["key"].isin(diverged), ["key", *by, "value"]].reset_index(drop=True)


def blocking_of(study: Study, reference: str | None) -> Blocking:
    """The blocking of ``study``, its anchor under the name that stands for its function here."""
    anchor = study.blocking.anchor
    if anchor is None:
        return study.blocking
    kept = same_functions(study.cells, reference)
    return replace(study.blocking, anchor=kept.get(anchor, anchor))


def ranked_scores(study: Study, quantity: str, reference: str | None) -> pd.DataFrame:
    """``ranked_rows`` as a matrix, blocks (seed first) × activations; null where one is missing.

    Where nodes are blocks, what a node adds to a seed is taken off as
    ``analysis.models.block_model`` does, and the mean of the anchor under the seed is put back.
    """
    blocking = blocking_of(study, reference)
    rows, index = ranked_rows(study, quantity, reference), ["seed"]
    if blocking.pairing == "node":
        anchor = str(blocking.anchor)
        of_anchor = rows[rows["key"] == anchor].groupby("seed")["value"].mean()
        rows, index = within_nodes(rows, anchor), ["seed", "alone_on"]
        back = rows["seed"].map(of_anchor).where(rows["alone_on"].isna(), 0.0)
        alone_on = rows["alone_on"].astype(object).where(rows["alone_on"].notna(), "")
        rows = rows.assign(value=rows["value"] + back, alone_on=alone_on)
    return rows.pivot(index=index, columns="key", values="value").rename_axis(columns=None)


def same_functions(frame: pd.DataFrame, reference: str | None) -> dict[str, str]:
    """Each key with the key that stands for its function: the reference, else one without slope."""
    facts: dict[str, tuple[bool, float]] = {}
    columns = frame["key"], frame["slope"].notna(), frame["neg_beta"]
    for key, is_sloped, beta in zip(*(column.tolist() for column in columns), strict=True):
        facts.setdefault(key, (is_sloped, beta))
    first: dict[float, str] = {}
    stands_for: dict[str, str] = {}
    for key in sorted(facts, key=lambda key: (key != reference, facts[key][0], key)):
        beta = facts[key][1]
        stands_for[key] = key if pd.isna(beta) else first.setdefault(float(beta), key)
    return stands_for


def function_labels(study: Study) -> dict[str, str]:
    """The labels, with one name for what is one function: ReLU² (= LeakyReLU² 0.0)."""
    labels = study.labels
    joint = dict(labels)
    for key, name in same_functions(study.cells, study.reference).items():
        if key != name:
            joint[name] = f"{labels[name]} (= {labels[key]})"
    return joint
