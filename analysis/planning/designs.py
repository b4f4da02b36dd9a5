"""Which difference can a design resolve, and how many seeds does a given difference need?

Power here is *per comparison, at the family-wise level*: the probability that one activation that
truly differs from the reference by ``effect`` is resolved by an interval that is simultaneous over
all k comparisons of the grid. S seeds, A activations, k = A − 1. Three designs:

*block*     The primary analysis (``analysis.stats.compare``): a seed gives every activation the
            same weights and data, and the wider of two intervals counts: Dunnett's, of the noise
            pooled with (S − 1)(A − 1) degrees of freedom, and one that does not take the noise as
            alike.
*pooled*    Dunnett's interval alone: the statistic follows a noncentral t with noncentrality
            effect / (sd · √(2 / S)) (Dunnett 1955; Cohen 1988, chapter 2). What the second interval
            costs is the difference to this.
*unpaired*  Every activation has seeds of its own, so the spread between seeds stays in, each pair
            is compared by Student's t with 2 (S − 1) degrees of freedom, and the k tests share
            their level by Šidák (1967).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from scipy import optimize, special

from analysis.models.interval import t_quantile
from analysis.planning.critical_values import Nodes, critical_value, guarded_reach, pooled_reach

Kind = Literal["block", "pooled", "unpaired"]

MOST_SEEDS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How activations are compared with the reference: ``n`` seeds, ``comparisons`` of them.

    ``noise_df``: degrees of freedom that the noise is estimated with.
    """

    kind: Kind
    n: int
    comparisons: int
    noise_df: int
    level: float = 0.95

    @property
    def reach(self) -> Nodes:
        """How many true standard errors the bound is away, and how probable each distance is."""
        if self.kind == "unpaired":
            each = t_quantile(self.level ** (1 / self.comparisons), self.noise_df)
            return pooled_reach(each, self.noise_df)
        if self.kind == "pooled" or self.comparisons == 1:  # two activations need no second one
            dunnett = critical_value(self.comparisons, self.noise_df, self.level)
            return pooled_reach(dunnett, self.noise_df)
        return guarded_reach(self.n, self.comparisons, self.level)


def block(n: int, *, num_activations: int, level: float = 0.95) -> Design:
    """The block design of a full grid; ``num_activations`` counts the reference, a function once.

    >>> block(3, num_activations=11)
    Design(kind='block', n=3, comparisons=10, noise_df=20, level=0.95)
    """
    comparisons = num_activations - 1
    df = (n - 1) * comparisons
    return Design(kind="block", n=n, comparisons=comparisons, noise_df=df, level=level)


def pooled(n: int, *, num_activations: int, level: float = 0.95) -> Design:
    """The same, judged by Dunnett's interval alone."""
    return replace(block(n, num_activations=num_activations, level=level), kind="pooled")


def unpaired(n: int, *, num_activations: int, level: float = 0.95) -> Design:
    """Every activation under ``n`` seeds of its own."""
    comparisons = num_activations - 1
    return Design(kind="unpaired", n=n, comparisons=comparisons, noise_df=2 * (n - 1), level=level)


DESIGNS: dict[Kind, Callable[..., Design]] = {
    "block": block,
    "pooled": pooled,
    "unpaired": unpaired,
}


def power_of(effect: float, design: Design, noise_sd: float) -> float:
    """The probability that a true difference of ``effect`` is resolved; both in the same unit.

    At effect 0 it is what one comparison spends of 1 − level.
    """
    centre = effect / (noise_sd * math.sqrt(2 / design.n))
    reach, weights = design.reach
    resolved = special.ndtr(centre - reach) + special.ndtr(-centre - reach)
    return float(resolved @ weights)


def smallest_effect(design: Design, noise_sd: float, *, power: float = 0.8) -> float:
    """The difference that is resolved with probability ``power``, in the unit of ``noise_sd``."""
    unit = math.sqrt(2 / design.n)  # one standard error, at noise of 1
    most = unit
    while power_of(most, design, 1.0) < power:
        most *= 2
    root = optimize.brentq(lambda effect: power_of(effect, design, 1.0) - power, 0.0, most)
    return float(root) * noise_sd


def seeds_needed(
    effect: float, design_of: Callable[[int], Design], noise_sd: float, *, power: float = 0.8
) -> int | None:
    """The fewest seeds that resolve ``effect`` with probability ``power``; at least 2.

    None where even 100,000 do not. ``design_of(n)``: the design with n seeds, e.g.
    ``partial(block, num_activations=11)``.
    """

    def suffices(n: int) -> bool:
        return power_of(effect, design_of(n), noise_sd) >= power

    most = 2
    while not suffices(most):
        most *= 2
        if most > MOST_SEEDS:
            return None
    fewest = most // 2
    while most - fewest > 1:  # fewest does not suffice, most does
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if suffices(middle) else (middle, most)
    return most
