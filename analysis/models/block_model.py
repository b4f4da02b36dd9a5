"""What does an additive model of activations and blocks say of each activation's distance from the
reference, and what noise does it leave over?

score = activation + block + noise: a randomised-block design, fitted by least squares
(statsmodels). A block is a seed. Where the sweep blocked by node (``pairing = "node"``), each score
is first taken relative to the reference's on the same node under the same seed, so that what a node
adds to a seed cancels too; cells of a node on which the reference did not run under that seed are a
block of their own. What a block adds to all of its scores cancels. Missing scores are allowed:
estimates, variances and correlations are those of the design as it came out. Replicates are
averaged first and then weigh as one score.

A seed on a node is not simply a block with an error of its own for every score: the reference that
ran once more on another node shares what belongs to its seed, and would pass for a second draw.
With half of the cells moved at random and no noise but the seeds', 10 % of null sweeps then had a
false result; relative to the reference it is 5 %, and less where repetitions differ.

Where seeds are the blocks, a node can be a further factor (``Design(node_factor=True)``); then a
difference can be estimated only where the nodes are connected by activations and seeds that they
share.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.regression.linear_model import OLS

Pairing = Literal["seed", "node"]
Reals = NDArray[np.float64]
Codes = NDArray[np.int64]

_ROUNDING = 1e-8  # of a projection that is exactly 0 or 1
_EXACT = 1e-12  # of the scores: what is smaller is their rounding, no difference and no noise


@dataclass(frozen=True, slots=True)
class Design:
    """What is a block, and whether the node is a factor beside it (not the primary analysis).

    The node is a factor only where seeds are the blocks. ``anchor``: the activation (a key) that
    ran on every node, relative to which scores of different nodes are compared; None: the
    reference of the comparison is it.
    """

    pairing: Pairing = "seed"
    node_factor: bool = False
    anchor: str | None = None

    @property
    def blocks(self) -> str:
        return "seed" if self.pairing == "seed" else "seed and node"

    @property
    def has_factor(self) -> bool:
        return self.node_factor and self.pairing == "seed"

    @property
    def by(self) -> list[str]:
        """The columns whose values tell one score of an activation from another."""
        return ["seed", "node"] if self.pairing == "node" or self.node_factor else ["seed"]


@dataclass(frozen=True, slots=True, eq=False)
class Blocked:
    """N scores of one setting in canonical order; activation 0 is the reference."""

    keys: tuple[str, ...]
    activation_N: Codes
    block_N: Codes
    seed_N: Codes
    node_N: Codes | None  # where the node is a factor
    score_N: Reals

    def matrix(self) -> Reals:
        """The columns of the model: one per block, per activation but the reference, per node."""
        columns = [np.eye(self.block_N.max() + 1)[self.block_N]]
        columns.append(np.eye(len(self.keys))[self.activation_N][:, 1:])
        if self.node_N is not None:
            columns.append(np.eye(self.node_N.max() + 1)[self.node_N][:, 1:])
        return np.concatenate(columns, axis=1)

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

    ``activation_K`` are those that have a pair and that the design can tell from node effects.
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


def blocked(scores: pd.DataFrame, reference: str, design: Design) -> Blocked:
    """The rows of ``scores`` (key, seed, node if the design has it, value) as codes.

    The order of rows and of activations does not change the result.
    """
    keys = (reference, *sorted(set(scores["key"]) - {reference}))
    block_by = ["seed"]
    if design.pairing == "node":
        anchor = design.anchor if design.anchor in keys else reference
        scores, block_by = within_nodes(scores, str(anchor)), ["seed", "alone_on"]
    ordered = scores.assign(
        activation=scores["key"].map({key: i for i, key in enumerate(keys)})
    ).sort_values([*block_by, *(["node"] if design.has_factor else []), "activation"])
    node = _codes(ordered, ["node"]) if design.has_factor else None
    return Blocked(
        keys=keys,
        activation_N=ordered["activation"].to_numpy(dtype=np.int64),
        block_N=_codes(ordered, block_by),
        seed_N=_codes(ordered, ["seed"]),
        node_N=None if node is None or node.max(initial=0) == 0 else node,
        score_N=ordered["value"].to_numpy(dtype=np.float64),
    )


def within_nodes(scores: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Scores less the reference's of the same seed and node; ``alone_on``: a node without one."""
    place = ["seed", "node"]
    beside = scores.loc[scores["key"] == reference, [*place, "value"]]
    rows = scores.merge(beside, on=place, how="left", suffixes=("", "_beside"))
    met = rows["value_beside"].notna()
    relative = rows.assign(
        value=rows["value"] - rows["value_beside"].fillna(0.0),
        alone_on=rows["node"].astype(object).mask(met, None),
    )
    by = ["key", "seed", "alone_on"]
    return relative.groupby(by, dropna=False)["value"].mean().reset_index()


def fit_blocks(rows: Blocked) -> BlockFit:
    """Least squares: the differences that ``rows`` has pairs for, and the noise left over."""
    matrix_NP = rows.matrix()
    contrast_KP = contrast_matrix(rows, matrix_NP.shape[1])
    estimable_K = is_estimable(contrast_KP, matrix_NP)
    kept_P = _independent(matrix_NP)
    contrast_KP, matrix_NP = contrast_KP[estimable_K][:, kept_P], matrix_NP[:, kept_P]
    centred = rows.score_N - rows.score_N.mean()  # digits are kept for the differences
    result = OLS(centred, matrix_NP, hasconst=True).fit(method="pinv")
    df = round(float(result.df_resid))
    least = _EXACT * float(np.abs(rows.score_N).max())
    noise_sd = math.sqrt(float(result.ssr) / df) if df > 0 else None
    estimate_K = contrast_KP @ result.params
    return BlockFit(
        activation_K=rows.compared()[estimable_K],
        estimate_K=np.where(np.abs(estimate_K) > least, estimate_K, 0.0),
        covariance_KK=contrast_KP @ result.normalized_cov_params @ contrast_KP.T,
        noise_sd=0.0 if noise_sd is not None and noise_sd <= least else noise_sd,
        noise_df=df,
    )


def contrast_matrix(rows: Blocked, num_columns: int) -> Reals:
    """One line per compared activation: which column of the model is its difference."""
    first = int(rows.block_N.max()) + 1
    contrast_KP = np.zeros((len(rows.compared()), num_columns))
    for line, activation in enumerate(rows.compared()):
        contrast_KP[line, first + activation - 1] = 1.0
    return contrast_KP


def is_estimable(contrast_KP: Reals, matrix_NP: Reals) -> NDArray[np.bool_]:
    """Whether every solution of least squares agrees about a contrast."""
    reach_PP = np.linalg.pinv(matrix_NP) @ matrix_NP
    found: NDArray[np.bool_] = (
        np.abs(contrast_KP @ reach_PP - contrast_KP).max(axis=1, initial=0.0) < _ROUNDING
    )
    return found


def _independent(matrix_NP: Reals) -> NDArray[np.bool_]:
    """Which columns are no combination of earlier ones; without the others nothing is lost.

    An estimable contrast has one value in all solutions, also in the one where they are zero.
    """
    if np.linalg.matrix_rank(matrix_NP) == matrix_NP.shape[1]:
        return np.ones(matrix_NP.shape[1], dtype=bool)
    basis = np.empty((len(matrix_NP), 0))
    kept = []
    for column in matrix_NP.T:
        rest = column - basis @ (basis.T @ column)
        size = float(np.linalg.norm(rest))
        kept.append(size > _ROUNDING)
        if kept[-1]:
            basis = np.column_stack([basis, rest / size])
    return np.array(kept)


def _codes(frame: pd.DataFrame, columns: list[str]) -> Codes:
    codes = frame.groupby(columns, sort=True, dropna=False).ngroup()
    return np.asarray(codes, dtype=np.int64)
