"""The randomised-block model: differences of activations from the reference, and the noise.

score = activation + block + noise: a randomised-block design, fitted by least
squares. A block is a seed. Where the sweep blocked by node (``pairing = "node"``), each score
is first taken relative to the reference's on the same node under the same seed, so that what a node
adds to a seed cancels too; cells of a node on which the reference did not run under that seed are a
block of their own. What a block adds to all of its scores cancels. Missing scores are allowed:
estimates, variances and correlations are those of the design as it came out. Replicates are
averaged first and then weigh as one score.

A seed on a node is not simply a block with an error of its own for every score: the reference that
ran once more on another node shares what belongs to its seed, and would pass for a second draw.
With half of the cells moved at random and no noise but the seeds', 10 % of null sweeps then had a
false result; relative to the reference it is 5 %, and less where repetitions differ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.models.least_squares import solve

Pairing = Literal["seed", "node"]
Reals = NDArray[np.float64]
Codes = NDArray[np.int64]

_EXACT = 1e-12  # of the scores: what is smaller is their rounding, no difference and no noise


@dataclass(frozen=True, slots=True)
class Blocking:
    """What is a block: a seed, or a seed on a node.

    ``anchor``: the activation (a key) that ran on every node, relative to which scores of different
    nodes are compared; None: the reference of the comparison is it.
    """

    pairing: Pairing = "seed"
    anchor: str | None = None

    @property
    def blocks(self) -> str:
        return "seeds" if self.pairing == "seed" else "seeds and nodes"

    @property
    def by(self) -> list[str]:
        """The columns whose values tell one score of an activation from another."""
        return ["seed", "node"] if self.pairing == "node" else ["seed"]


@dataclass(frozen=True, slots=True, eq=False)
class Blocked:
    """N scores of one setting in canonical order; activation 0 is the reference."""

    keys: tuple[str, ...]
    activation_N: Codes
    block_N: Codes
    seed_N: Codes
    score_N: Reals

    def matrix(self) -> Reals:
        """The columns of the model: one per block, then one per activation but the reference."""
        blocks = np.eye(self.block_N.max() + 1)[self.block_N]
        activations = np.eye(len(self.keys))[self.activation_N][:, 1:]
        return np.concatenate([blocks, activations], axis=1)

    def compared(self) -> Codes:
        """The activations of which some block has the reference too."""
        shared = np.isin(self.block_N, self.block_N[self.activation_N == 0])
        return np.setdiff1d(self.activation_N[shared], [0]).astype(np.int64)

    def num_pairs(self, activation: int) -> int:
        """In how many seeds a block has both ``activation`` and the reference."""
        shared = np.isin(self.block_N, self.block_N[self.activation_N == 0])
        return len(np.unique(self.seed_N[shared & (self.activation_N == activation)]))


@dataclass(frozen=True, slots=True, eq=False)
class BlockFit:
    """K differences from the reference, their covariance in units of the noise, and the noise.

    ``activation_K`` are those that have a pair.
    ``noise_sd`` is None where the model leaves no degree of freedom for it.
    """

    activation_K: Codes
    estimate_K: Reals
    covariance_KK: Reals
    noise_sd: float | None
    noise_df: int

    @property
    def errors(self) -> Reals:
        """K standard errors; NaN where the noise is not known."""
        unit_K: Reals = np.sqrt(np.diag(self.covariance_KK))
        return unit_K * (math.nan if self.noise_sd is None else self.noise_sd)

    @property
    def correlations(self) -> Reals:
        """K × K, of the differences; they do not depend on the noise."""
        unit_K = np.sqrt(np.diag(self.covariance_KK))
        correlation: Reals = self.covariance_KK / np.outer(unit_K, unit_K)
        return correlation


def blocked(scores: pd.DataFrame, reference: str, blocking: Blocking) -> Blocked:
    """The rows of ``scores`` (key, seed, node if that is in a block, value) as codes.

    The order of rows and of activations does not change the result.
    """
    keys = (reference, *sorted(set(scores["key"]) - {reference}))
    nodes: list[Any] = [None] * len(scores)
    if blocking.pairing == "node":
        anchor = blocking.anchor if blocking.anchor in keys else reference
        scores = within_nodes(scores, str(anchor))
        nodes = scores["alone_on"].tolist()
    seeds = scores["seed"].tolist()
    blocks = [
        (seed, True, "") if pd.isna(node) else (seed, False, node)
        for seed, node in zip(seeds, nodes, strict=True)
    ]
    activation_N = np.array([keys.index(key) for key in scores["key"]], dtype=np.int64)
    block_N = _codes(blocks)
    order_N = np.lexsort((activation_N, block_N))
    return Blocked(
        keys=keys,
        activation_N=activation_N[order_N],
        block_N=block_N[order_N],
        seed_N=_codes(seeds)[order_N],
        score_N=scores["value"].to_numpy(dtype=np.float64)[order_N],
    )


def within_nodes(scores: pd.DataFrame, anchor: str) -> pd.DataFrame:
    """Scores less the anchor's of the same seed and node; ``alone_on``: a node without one."""
    by = ["seed", "node"]
    of_anchor = scores.loc[scores["key"] == anchor, [*by, "value"]]
    rows = scores.merge(of_anchor, on=by, how="left", suffixes=("", "_anchor"))
    met = rows["value_anchor"].notna()
    relative = rows.assign(
        value=rows["value"] - rows["value_anchor"].fillna(0.0),
        alone_on=rows["node"].astype(object).mask(met, None),
    )
    by = ["key", "seed", "alone_on"]
    return relative.groupby(by, dropna=False)["value"].mean().reset_index()


def fit_blocks(rows: Blocked) -> BlockFit:
    """Least squares: the differences that ``rows`` has pairs for, and the noise left over."""
    contrast_KP = contrast_matrix(rows)
    centred_N = rows.score_N - rows.score_N.mean()  # digits are kept for the differences
    model = solve(rows.matrix(), centred_N)
    estimate_K = contrast_KP @ model.coefficients_P
    least = _EXACT * float(np.abs(rows.score_N).max())
    return BlockFit(
        activation_K=rows.compared(),
        estimate_K=np.where(np.abs(estimate_K) > least, estimate_K, 0.0),
        covariance_KK=contrast_KP @ model.inverse_PP @ contrast_KP.T,
        noise_sd=0.0 if model.sd is not None and model.sd <= least else model.sd,
        noise_df=model.df,
    )


def contrast_matrix(rows: Blocked) -> Reals:
    """One line per compared activation: which column of the model is its difference.

    A block holds both, so every solution of least squares agrees about it.
    """
    compared, num_blocks = rows.compared(), int(rows.block_N.max()) + 1
    columns = num_blocks + len(rows.keys) - 1
    return np.asarray(np.eye(columns)[num_blocks + compared - 1])


def _codes(values: Sequence[Any]) -> Codes:
    """The place of each of ``values`` among those that differ, in their order."""
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    return np.array([places[value] for value in values], dtype=np.int64)
