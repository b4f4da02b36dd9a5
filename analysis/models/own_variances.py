"""The variance of each activation by itself, against that of all others, in any block design.

The residual sum of squares of a block model falls into two parts for each activation a: what the
scores of the others leave over when they are fitted alone, and what a adds. Under equal variances
the two are independent χ² with known degrees of freedom, whatever scores are missing; their ratio
is the exact F test of one activation's variance against the others' (Russell & Bradley 1958,
"One-way variances in a two-way classification").

Letters: D data sets, N scores, P columns of the model, A activations, F degrees of freedom that an
activation adds.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.models.block_model import Codes, Reals


@dataclass(frozen=True, slots=True, eq=False)
class NoiseGeometry:
    """The linear maps from the scores of one design to its variances."""

    residual_NN: Reals  # a projection: scores less what the model fits
    added_AFN: tuple[Reals, ...]  # orthonormal: what one activation adds to the residual space
    added_df_A: Codes
    residual_df: int

    @property
    def has_rest(self) -> bool:
        """Whether some activation can be compared with what the others leave over."""
        return bool(((self.added_df_A > 0) & (self.residual_df > self.added_df_A)).any())


def noise_geometry(matrix_NP: Reals, activation_N: Codes) -> NoiseGeometry:
    """Of the model ``matrix_NP``, which has a mean for each activation."""
    residual_NN = _residual_projection(matrix_NP)
    added = []
    for activation in range(int(activation_N.max()) + 1):
        others = activation_N != activation
        without_NN = np.zeros_like(residual_NN)
        without_NN[np.ix_(others, others)] = _residual_projection(matrix_NP[others])
        # A difference of nested projections is a projection: its eigenvalues are 0 and 1.
        values, vectors = np.linalg.eigh(residual_NN - without_NN)
        added.append(np.ascontiguousarray(vectors[:, values > 0.5].T))
    return NoiseGeometry(
        residual_NN=residual_NN,
        added_AFN=tuple(added),
        added_df_A=np.array([len(basis) for basis in added], dtype=np.int64),
        residual_df=round(float(np.trace(residual_NN))),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Variances:
    """Of D data sets: each activation's own (NaN without df), that of all others, and pooled."""

    own_DA: Reals
    rest_DA: Reals
    pooled_D: Reals

    @property
    def unbiased(self) -> Reals:
        """Each activation's own variance and what the others hide of it; pooled where it has none.

        The mean of the others, against which an activation is held, hides a little of a variance
        that is larger than theirs.
        """
        larger_DA = np.nan_to_num(np.maximum(self.own_DA - self.rest_DA, 0))
        hidden_DA = larger_DA / (self.own_DA.shape[1] - 1)
        return np.where(np.isnan(self.own_DA), self.pooled_D[:, None], self.own_DA + hidden_DA)


def variances(geometry: NoiseGeometry, scores_DN: Reals) -> Variances:
    """The variances of ``scores_DN``."""
    total_D = ((scores_DN @ geometry.residual_NN) ** 2).sum(axis=1)
    added_DA = np.stack(
        [((scores_DN @ added.T) ** 2).sum(axis=1) for added in geometry.added_AFN], axis=1
    )
    df_A, df = geometry.added_df_A, geometry.residual_df
    return Variances(
        own_DA=added_DA / np.where(df_A > 0, df_A, np.nan),
        rest_DA=np.maximum(total_D[:, None] - added_DA, 0) / np.where(df > df_A, df - df_A, np.nan),
        pooled_D=total_D / max(df, 1),
    )


def noisier(geometry: NoiseGeometry, found: Variances) -> Reals:
    """p of the F test of one variance against that of all others, one-sided; NaN without df."""
    df_A, df = geometry.added_df_A, geometry.residual_df
    testable_A = (df_A > 0) & (df > df_A)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_DA = np.where(found.own_DA == found.rest_DA, 1.0, found.own_DA / found.rest_DA)
        p_DA = special.fdtrc(np.maximum(df_A, 1), np.maximum(df - df_A, 1), ratio_DA)
    return np.where(testable_A, p_DA, np.nan)


def _residual_projection(matrix_NP: Reals) -> Reals:
    return np.asarray(np.eye(len(matrix_NP)) - matrix_NP @ np.linalg.pinv(matrix_NP))
