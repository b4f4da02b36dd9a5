"""The predicted power of a screening with a second stage, which the calibration checks."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.planning.power import Design, power_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStages:
    """``screening_seeds`` for all activations, then ``seeds`` fresh ones for ``keep`` leaders.

    ``num_activations`` counts the reference, which is in both stages, and a function once.
    """

    num_activations: int
    screening_seeds: int
    keep: int
    seeds: int
    level: float = 0.95


def two_stage_power(effect: float, design: TwoStages, noise_sd: float) -> float:
    """The probability that one truly better activation is kept, and resolved in the second stage.

    All others equal the reference. The two events are independent, since the seeds are fresh.
    """
    stage = Design("block", design.seeds, design.keep + 1, design.level)
    return probability_kept(effect, design, noise_sd) * power_of(effect, stage, noise_sd)


def probability_kept(effect: float, design: TwoStages, noise_sd: float) -> float:
    """The probability that one activation, better by ``effect`` than all others, is a leader.

    It is where fewer than ``keep`` of the k − 1 others have a lower mean over the screening's
    seeds: given its own mean their number is binomial, and over that mean is integrated. The
    reference is common to all differences and cancels.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    others = design.num_activations - 2
    below = special.ndtr(nodes - effect * math.sqrt(design.screening_seeds) / noise_sd)
    kept = special.bdtr(min(design.keep - 1, others), others, below)
    return min(1.0, float(kept @ weights / math.sqrt(2 * math.pi)))  # a sum of weights, rounded
