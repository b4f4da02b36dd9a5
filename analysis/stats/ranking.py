"""Which scores may be compared? None of a diverged activation, none illegal, each function once.

Two activations with the same fixed β are the same function: one activation in the ranking, in the
pooled noise and in the number of comparisons. Their difference is an A/A control
(``analysis.stats.aa_control``).
"""

from dataclasses import replace

import pandas as pd

from analysis.models.block_model import Blocking, within_nodes
from analysis.rows.read import Sweep, is_scored
from analysis.rows.stages import is_legal
from analysis.stats.per_seed import per_block
from trainer.config.config_errors import ConfigError


def ranked_rows(
    frame: pd.DataFrame, quantity: str, reference: str, design: Blocking | None = None
) -> pd.DataFrame:
    """Of one setting: key, seed (and node, if the design has it) and value, one row per score.

    An activation of which a seed diverged has no row, and neither has its other name. ConfigError
    for a score that is not legal.
    """
    if not is_legal(frame, quantity):
        raise ConfigError(
            f"{quantity} was fitted on the targets that it scores: it is no legal score and is not "
            f"ranked. Rank another stage, or run the recipe with slot.mode = causal."
        )
    by = (design or Blocking()).by
    kept = same_functions(frame, reference)
    diverged = {kept[key] for key in frame.loc[frame["state"] == "diverged", "key"].unique()}
    values = per_block(frame, quantity, by)
    named = values.assign(own=values["key"], key=values["key"].map(kept).astype(str))
    first = named.assign(other=named["own"] != named["key"]).sort_values(["key", *by, "other"])
    once = first.drop_duplicates(["key", *by])
    return once.loc[~once["key"].isin(diverged), ["key", *by, "value"]].reset_index(drop=True)


def design_of(sweep: Sweep) -> Blocking:
    """The design that ``sweep`` was blocked by; its reference is what ran on every node."""
    return Blocking(sweep.pairing, anchor=sweep.reference if sweep.pairing == "node" else None)


def anchored(design: Blocking, frame: pd.DataFrame, reference: str) -> Blocking:
    """``design`` with its anchor under the name that stands for its function here."""
    kept = same_functions(frame, reference)
    return replace(design, anchor=kept.get(design.anchor or "", design.anchor))


def with_companions(
    frame: pd.DataFrame, replicates: pd.DataFrame | None, sweep: Sweep
) -> pd.DataFrame:
    """The rows to be compared: ``frame``, and the reference's companions if nodes were blocks.

    ``replicates`` are what ``load_replicates`` gives. Where seeds are the blocks a repetition of a
    reference would add nothing but a second draw, so ``frame`` is returned as it is. They are of
    the settings of ``frame``, and told apart from its cells by ``without_companions``.
    """
    if sweep.pairing == "seed" or replicates is None:
        return frame
    wanted = (replicates["key"] == sweep.reference) & replicates["setting"].isin(frame["setting"])
    companions = replicates[wanted & is_scored(replicates)]
    if companions.empty:
        return frame
    both = [frame.assign(is_companion=False), companions.assign(is_companion=True)]
    return pd.concat(both, ignore_index=True)


def without_companions(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells alone: what is averaged and counted by itself, since companions only compare."""
    return frame[~frame["is_companion"].astype(bool)] if "is_companion" in frame else frame


def ranked_scores(
    frame: pd.DataFrame, quantity: str, reference: str, design: Blocking | None = None
) -> pd.DataFrame:
    """``ranked_rows`` as a matrix, blocks (seed first) × activations; null where one is missing.

    Where nodes are blocks, what a node adds to a seed is taken off as
    ``analysis.models.block_model`` does, and the mean of the anchor under the seed is put back.
    """
    design = anchored(design or Blocking(), frame, reference)
    rows, index = ranked_rows(frame, quantity, reference, design), ["seed"]
    if design.pairing == "node":
        anchor = design.anchor or reference
        of_anchor = rows[rows["key"] == anchor].groupby("seed")["value"].mean()
        rows, index = within_nodes(rows, anchor), ["seed", "alone_on"]
        back = rows["seed"].map(of_anchor).where(rows["alone_on"].isna(), 0.0)
        alone_on = rows["alone_on"].astype(object).where(rows["alone_on"].notna(), "")
        rows = rows.assign(value=rows["value"] + back, alone_on=alone_on)
    return rows.pivot(index=index, columns="key", values="value").rename_axis(columns=None)


def same_functions(frame: pd.DataFrame, reference: str) -> dict[str, str]:
    """Each key with the key that stands for its function: the reference, else one without slope."""
    rows = frame[["key", "slope", "neg_beta"]].drop_duplicates("key")
    rows = rows.assign(other=rows["key"] != reference, sloped=rows["slope"].notna())
    rows = rows.sort_values(["other", "sloped", "key"])
    first: dict[float, str] = {}
    stands_for: dict[str, str] = {}
    for key, beta in zip(rows["key"], rows["neg_beta"], strict=True):
        stands_for[key] = key if pd.isna(beta) else first.setdefault(float(beta), key)
    return stands_for
