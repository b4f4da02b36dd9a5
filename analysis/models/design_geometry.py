"""Projections, weights and variances of a design, the same for any scores.

The residual sum of squares of a block model falls into two parts for each activation a: what the
scores of the others leave over when they are fitted alone, and what a adds. Under equal variances
the two are independent χ² with known degrees of freedom, whatever scores are missing; their ratio
is the exact F test of one activation's variance against the others' (Russell & Bradley 1958,
"One-way variances in a two-way classification").

Letters: D data sets, N scores, P columns of the model, A activations (0 is the reference), K
compared activations, F degrees of freedom that an activation adds.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from analysis.models.block_model import Blocked, Codes, Reals, contrast_matrix


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """The linear maps of one design."""

    estimate_KN: Reals  # a difference is estimate · scores
    weight_KA: Reals  # its variance is weight · variances
    residual_NN: Reals  # a projection: scores less what the model fits
    added_AFN: tuple[Reals, ...]  # orthonormal: what one activation adds to the residual space
    added_df_A: Codes
    residual_df: int

    @property
    def has_rest(self) -> bool:
        """Whether some activation can be compared with what the others leave over."""
        return bool(((self.added_df_A > 0) & (self.residual_df > self.added_df_A)).any())

    @property
    def has_interval(self) -> bool:
        """Whether the reference has a variance of its own, and others to be compared with."""
        return self.has_rest and bool(self.added_df_A[0] > 0) and len(self.estimate_KN) > 0


class DesignKey:
    """A design as a key of a cache: equal where its numbers are."""

    def __init__(self, rows: Blocked) -> None:
        self.matrix_NP, self.activation_N = rows.matrix(), rows.activation_N
        self.contrast_KP = contrast_matrix(rows)
        parts = (self.matrix_NP, self.contrast_KP, self.activation_N)
        self._bytes = b"|".join(str(part.shape).encode() + part.tobytes() for part in parts)

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DesignKey) and self._bytes == other._bytes


@lru_cache(maxsize=64)
def geometry_of(key: DesignKey) -> Geometry:
    """The geometry of a design; its differences are those that can be estimated."""
    estimate_KN = key.contrast_KP @ np.linalg.pinv(key.matrix_NP)
    residual_NN = _residual_projection(key.matrix_NP)
    membership_NA = np.eye(key.activation_N.max() + 1)[key.activation_N]
    added = []
    for activation in range(membership_NA.shape[1]):
        others = key.activation_N != activation
        without_NN = np.zeros_like(residual_NN)
        without_NN[np.ix_(others, others)] = _residual_projection(key.matrix_NP[others])
        # A difference of nested projections is a projection: its eigenvalues are 0 and 1.
        values, vectors = np.linalg.eigh(residual_NN - without_NN)
        added.append(np.ascontiguousarray(vectors[:, values > 0.5].T))
    return Geometry(
        estimate_KN=estimate_KN,
        weight_KA=estimate_KN**2 @ membership_NA,
        residual_NN=residual_NN,
        added_AFN=tuple(added),
        added_df_A=np.array([len(basis) for basis in added], dtype=np.int64),
        residual_df=round(float(np.trace(residual_NN))),
    )


def variances(geometry: Geometry, scores_DN: Reals) -> tuple[Reals, Reals, Reals]:
    """Each activation's own variance (DA; NaN without df), that of all others (DA), pooled (D)."""
    total_D = ((scores_DN @ geometry.residual_NN) ** 2).sum(axis=1)
    added_DA = np.stack(
        [((scores_DN @ added.T) ** 2).sum(axis=1) for added in geometry.added_AFN], axis=1
    )
    df_A, df = geometry.added_df_A, geometry.residual_df
    own_DA = added_DA / np.where(df_A > 0, df_A, np.nan)
    rest_DA = np.maximum(total_D[:, None] - added_DA, 0) / np.where(df > df_A, df - df_A, np.nan)
    return own_DA, rest_DA, total_D / max(df, 1)


def noisier(geometry: Geometry, own_DA: Reals, rest_DA: Reals) -> Reals:
    """p of the F test of one variance against that of all others, one-sided; NaN without df."""
    df_A, df = geometry.added_df_A, geometry.residual_df
    testable_A = (df_A > 0) & (df > df_A)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_DA = np.where(own_DA == rest_DA, 1.0, own_DA / rest_DA)
        p_DA = special.fdtrc(np.maximum(df_A, 1), np.maximum(df - df_A, 1), ratio_DA)
    return np.where(testable_A, p_DA, np.nan)


def _residual_projection(matrix_NP: Reals) -> Reals:
    return np.asarray(np.eye(len(matrix_NP)) - matrix_NP @ np.linalg.pinv(matrix_NP))
