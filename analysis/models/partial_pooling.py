"""What the scores say of every activation at once: draws of their true means, partially pooled.

A description for whoever has to choose, and no test. The means of the activations get a prior:
along the slope a Gaussian process (Matérn 3/2, so that a kink is no surprise), other activations
independent of it with the same spread. Neighbouring slopes so lend each other strength, and means
shrink towards one another as far as the noise says. Spread and length of the process are not fixed:
they are averaged over a grid, weighted by how well they explain the scores. Variances are those of
``analysis.models.own_variances``, moderated towards the pooled one (Smyth 2004).

N scores, A activations, R = A − 1 differences, H points of the grid, D draws.
"""

from itertools import product

import numpy as np
from scipy import linalg, special
from scipy.stats import qmc

from analysis.models.block_model import Reals
from analysis.models.curve_fit import Cells
from analysis.models.least_squares import solve
from analysis.models.own_variances import noise_geometry, variances

NUM_DRAWS = 4096
PRIOR_DF = 4  # of the pooled variance, for whoever has few degrees of freedom of its own
SPREADS = 2.0 ** np.arange(-3, 8)  # of the prior, in standard errors of a mean
USUAL_SPREAD = 2.0  # half-Cauchy
LENGTHS = (0.05, 0.2, 0.4, 0.8, 1.6)  # of the process, in spans of the tested slopes
_SEED = 19_510_101


def drawn_means(cells: Cells) -> Reals | None:
    """D × A draws of the true means, less their mean over activations.

    None where the noise is not known, or some difference between two activations is not.
    """
    num_activations = cells.slope_A.size
    blocks_NB = np.eye(int(cells.block_N.max()) + 1)[cells.block_N]
    means_NA = np.eye(num_activations)[cells.activation_N]
    design_NP = np.hstack([blocks_NB, means_NA])
    model = solve(design_NP, cells.values_N - cells.values_N.mean())
    if model.sd is None or model.rows_RP.shape[0] < design_NP.shape[1] - 1:
        return None
    # Orthonormal differences: all that the blocks leave to be known of the means.
    differences_RA = linalg.null_space(np.ones((1, num_activations))).T
    estimator_RN = np.hstack([np.zeros((num_activations - 1, blocks_NB.shape[1])), differences_RA])
    estimator_RN = estimator_RN @ np.linalg.pinv(design_NP)
    noise_RR = estimator_RN * _moderated(cells, design_NP)[cells.activation_N] @ estimator_RN.T
    return _drawn(estimator_RN @ cells.values_N, noise_RR, differences_RA, cells, model.df)


def _moderated(cells: Cells, design_NP: Reals) -> Reals:
    """The variance of each activation."""
    geometry = noise_geometry(design_NP, cells.activation_N)
    found = variances(geometry, (cells.values_N - cells.values_N.mean())[None])
    df_A, own_A = geometry.added_df_A, found.unbiased[0]
    return np.asarray((df_A * own_A + PRIOR_DF * found.pooled_D[0]) / (df_A + PRIOR_DF))


def _drawn(found_R: Reals, noise_RR: Reals, differences_RA: Reals, cells: Cells, df: int) -> Reals:
    error = float(np.sqrt(np.trace(noise_RR) / len(noise_RR)))
    grid = list(product(SPREADS, LENGTHS))
    log_weight_H, mean_HR, root_HRR = [], [], []
    for spread, length in grid:
        prior_AA = (spread * error) ** 2 * _correlation(cells, length)
        prior_RR = differences_RA @ prior_AA @ differences_RA.T
        total = linalg.cho_factor(prior_RR + noise_RR, lower=True)
        white_R = linalg.cho_solve(total, found_R)
        log_density = -0.5 * found_R @ white_R - np.log(np.diag(total[0])).sum()
        log_weight_H.append(log_density + np.log(spread / (1 + (spread / USUAL_SPREAD) ** 2)))
        mean_HR.append(prior_RR @ white_R)
        left_RR = prior_RR - prior_RR @ linalg.cho_solve(total, prior_RR)
        sizes, axes = np.linalg.eigh(left_RR)
        root_HRR.append(axes * np.sqrt(np.maximum(sizes, 0.0)))
    uniform_DU = qmc.Sobol(found_R.size + 2, rng=np.random.default_rng(_SEED)).random(NUM_DRAWS)
    uniform_DU = np.clip(uniform_DU, 1e-12, 1 - 1e-12)
    weight_H = special.softmax(log_weight_H)
    which_D = np.minimum(np.searchsorted(np.cumsum(weight_H), uniform_DU[:, 0]), len(grid) - 1)
    # The noise itself is known from ``df`` degrees of freedom only.
    scale_D = np.sqrt(df / special.chdtri(df, uniform_DU[:, 1]))
    normal_DR = special.ndtri(uniform_DU[:, 2:]) * scale_D[:, None]
    drawn_DR = np.array(mean_HR)[which_D]
    drawn_DR += np.einsum("drs,ds->dr", np.array(root_HRR)[which_D], normal_DR)
    return np.asarray(drawn_DR @ differences_RA)


def _correlation(cells: Cells, length: float) -> Reals:
    """A × A: of the prior; 1 between an activation and itself, 0 with one that is off the curve."""
    slope_A = cells.slope_A
    span = np.ptp(cells.tested) if cells.tested.size > 1 else 1.0
    with np.errstate(invalid="ignore"):
        apart_AA = np.sqrt(3) * np.abs(slope_A[:, None] - slope_A[None, :]) / (length * span)
        matern_AA = (1 + apart_AA) * np.exp(-apart_AA)
    return np.where(np.eye(slope_A.size, dtype=bool), 1.0, np.nan_to_num(matern_AA))
