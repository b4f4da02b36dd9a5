"""What pairing by seed bought in a finished sweep, against unpaired seeds of the same number.

Both designs have the sweep's own noise, pooled over the grid, and Dunnett's interval alone:
unpaired seeds keep the spread between seeds, and have more degrees of freedom. Where the F test of
seeds in the block model does not tell them from noise, pairing bought nothing that shows.
"""

from scipy import special

from analysis.models.interval import LEVEL
from analysis.number_format import number, p_value
from analysis.planning.noise import Noise
from analysis.planning.power import Design, smallest_effect
from analysis.planning.power_tables import POWERS, achieved
from analysis.study import Study


def pairing_sentences(study: Study) -> list[str]:
    """One sentence for each setting whose noise is known."""
    sentences, power, by = [], POWERS[0], " and ".join(study.blocking.by)
    for grid in achieved(study):
        if grid.noise is None or not grid.designs():
            continue
        _, pooled, alone = grid.designs()
        paired, unpaired = (
            smallest_effect(design, grid.noise.sd_for(design.kind), power=power)
            for design in (pooled, alone)
        )
        p, factor = seeds_p(pooled, grid.noise), unpaired / paired
        bought = f"nothing that shows: what seeds add is not told from noise ({p_value(p)})"
        if p < 1 - LEVEL:
            times = f"as much as {_times(factor**2)} times the seeds"
            bought = f"a factor of {_times(factor)}, {times} ({p_value(p)})"
        of = f" ({grid.setting})" if len(study.settings) > 1 else ""
        sentences.append(
            f"Pairing by {by}{of} bought {bought}. With power {power:g} and"
            f" equal noise, unpaired seeds would resolve {number(unpaired)} BPB, and paired"
            f" ones resolve {number(paired)} (sd between seeds {number(grid.noise.seed_sd)}, noise"
            f" sd {number(grid.noise.noise_sd)})."
        )
    return sentences


def _times(factor: float) -> str:
    """
    >>> _times(1.4142), _times(3944.2)
    ('1.41', '3,944')
    """
    return f"{factor:,.0f}" if factor >= 100 else f"{factor:.3g}"


def seeds_p(paired: Design, noise: Noise) -> float:
    """p of the F test of seeds in a complete grid, from the two sds.

    The variance between seeds of one activation is (F + A − 1) / A times that of the noise.
    """
    ratio = (noise.seed_sd / noise.noise_sd) ** 2
    statistic = paired.num_activations * ratio - paired.comparisons
    return float(special.fdtrc(paired.n - 1, paired.noise_df, max(statistic, 0.0)))
